"""tollgate prices: whole pico-units in, the same decimal numbers out."""

import json
from pathlib import Path

import pytest

from tests.cli.shell import tollgate

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


def test_a_price_holds_from_its_date(tmp_path: Path) -> None:
    for amount, start in (("1", "2026-01-01"), ("2", "2026-06-01T00:00:00+02:00")):
        words = ("--meter", "input_token", "--per-million", amount, "--from", start)
        assert tollgate(tmp_path, "prices", "set", *MODEL, *words).returncode == 0
    for moment, pico in (("2025-12-31", None), ("2026-05-31T21:59:59", 10**6), ("2026-05-31T22:00", 2 * 10**6)):
        found = json.loads(tollgate(tmp_path, "prices", "show", *MODEL, "--at", moment, "--json").stdout)
        assert found.get("input_token") == pico


def test_free_is_said_and_never_meant_by_silence(tmp_path: Path) -> None:
    assert tollgate(tmp_path, "prices", "set", *MODEL).returncode == 2
    assert "refused" in tollgate(tmp_path, "prices", "show", *MODEL).stdout
    assert tollgate(tmp_path, "prices", "set", *MODEL, "--free").returncode == 0
    assert json.loads(tollgate(tmp_path, "prices", "show", *MODEL, "--json").stdout) == {
        "character": 0, "input_token": 0, "output_token": 0, "request": 0,
    }  # fmt: skip
