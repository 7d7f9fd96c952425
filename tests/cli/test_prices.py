"""tollgate prices: whole pico-units in, the same decimal numbers out."""

import json
from pathlib import Path

import pytest

from tests.cli.test_keys import tollgate

MODEL = ("--model", "m", "--task", "text-generation")


def test_a_price_is_set_and_listed(tmp_path: Path) -> None:
    done = tollgate(tmp_path, "prices", "set", *MODEL, "--meter", "output_token", "--per-million", "0.25")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(tollgate(tmp_path, "prices", "list", "--json").stdout)
    assert (found["model"], found["meter"], found["pico_per_unit"]) == ("m", "output_token", 250_000)
    assert "0.25" in tollgate(tmp_path, "prices", "list").stdout


@pytest.mark.parametrize("amount", ["-1", "nan", "much", "0.0000001", "1e30"])
def test_what_is_no_price_is_refused(tmp_path: Path, amount: str) -> None:
    done = tollgate(tmp_path, "prices", "set", *MODEL, "--meter", "output_token", f"--per-million={amount}")
    assert done.returncode == 2
    assert "price" in done.stderr or "number" in done.stderr
    assert json.loads(tollgate(tmp_path, "prices", "list", "--json").stdout) == []
