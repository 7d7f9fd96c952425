import json
from pathlib import Path

import pytest

from benchmarks.goals import GOALS
from benchmarks.measure import Sample
from benchmarks.page import SAME, Run, main, merged, read
from benchmarks.report import BEGIN, END, replaced, summary, written
from benchmarks.roofline import Limits
from benchmarks.runner import ENGINES, Results
from benchmarks.runners.runner import split_name
from benchmarks.workloads import MAKERS

LIMITS = Limits(30e9, {"fp32": 1e11, "bf16": 3e11, "int8": 6e11})
DOCS = Path(__file__).parents[2] / "docs"


def sample(seconds: float) -> Sample:
    return Sample(seconds=seconds, requests=32, input_tokens=4096, output_tokens=2048, memory_bytes=2**30)


def measured() -> Results:
    results = Results()
    results.samples["gpt2-32"] = {
        "tollgate-engine-bf16": [sample(4.0), sample(5.0), sample(4.0)],
        "ctranslate2-int8": [sample(8.0), sample(10.0), sample(12.0)],
    }
    results.refusals["gpt2-32"] = {"tollgate-engine-int8": "int8 is not there | yet"}
    return results


def page_of(results: Results) -> str:
    return written(results, LIMITS, machine={"processor": "p"}, command="c", scale="full", size="published")


def test_only_what_stands_between_the_markers_is_rewritten() -> None:
    page = f"# Title\n\nabove\n\n{BEGIN}\nold\n{END}\n\nbelow {END} too\n"
    once = replaced(page, "new")
    assert once == f"# Title\n\nabove\n\n{BEGIN}\n\nnew\n\n{END}\n\nbelow {END} too\n"
    assert replaced(once, "new") == once


def test_a_page_without_its_markers_is_refused() -> None:
    for page in ("nothing", BEGIN, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="needs the two lines"):
            replaced(page, "new")


@pytest.mark.parametrize("name", ["benchmarks.md", "benchmarks-avx2.md", "benchmarks-amx.md"])
def test_the_committed_pages_have_their_markers(name: str) -> None:
    assert "text" in replaced((DOCS / name).read_text(encoding="utf-8"), "text")


def test_ratios_stand_next_to_their_goals_with_the_precision_that_was_hosted() -> None:
    page = page_of(measured())
    line = next(line for line in page.splitlines() if line.startswith("| gpt2-32 | tokens/s | ≥ 2 |"))
    assert line == ("| gpt2-32 | tokens/s | ≥ 2 | 2.00 (2.00–3.00) | tollgate-engine-bf16 / ctranslate2-int8 | yes |")
    assert "meets ≥ 2" in summary(measured())


def test_what_is_not_hosted_says_so_in_its_cell_and_never_breaks_the_table() -> None:
    page = page_of(measured())
    assert "| gpt2-32 | tollgate-engine-int8 | not hosted |  |  | int8 is not there / yet |" in page
    for line in page.splitlines():
        if line.startswith("| gpt2-32"):
            assert line.count("|") == 7


def test_an_empty_run_still_makes_a_page_with_every_goal() -> None:
    page = page_of(Results())
    assert page.count("not in this run") + page.count("no setting switches") == len(GOALS)


def test_every_work_has_engines_and_every_engine_exists() -> None:
    assert set(ENGINES) == set(MAKERS)
    for names in ENGINES.values():
        for name in names:
            split_name(name.replace("-best", "-int8"))


def run_of(work: str, seconds: float, *, processor: str = "p", step_ms: dict[str, float] | None = None) -> Run:
    results = Results(samples={work: {"tollgate-engine-int8": [sample(seconds)]}}, rates={"gpt2-poisson@0.7": 1.0})
    machine = {name: processor for name in SAME} | {"commit": work}
    limits = Limits(30e9 + seconds, LIMITS.operations_per_s)
    return Run(machine=machine, command=f"only {work}", scale="full", size="published", limits=limits,
               step_ms=step_ms or {}, results=results)  # fmt: skip


def test_several_runs_of_a_machine_make_one_page_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    runs = [run_of("gpt2-32", 4.0, step_ms={"attention": 1.0}), run_of("gpt2-queue", 5.0), run_of("gpt2-32", 6.0)]
    for file, run in zip(files, runs, strict=True):
        file.write_text(json.dumps(run.as_json()), encoding="utf-8")
    found = merged([read(file) for file in files])
    assert found.results.of("gpt2-queue", "tollgate-engine-int8") == [sample(5.0)]
    assert found.results.of("gpt2-32", "tollgate-engine-int8") == [sample(6.0)], "the later file counts"
    assert (found.limits.bytes_per_s, found.step_ms) == (30e9 + 6.0, {"attention": 1.0})
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["page", *map(str, files), "--page", str(page)])
    main()
    assert "`only gpt2-32`<br>`only gpt2-queue`<br>`only gpt2-32`" in page.read_text(encoding="utf-8")
    assert set(tmp_path.iterdir()) == {*files, page}, "another page than the default one has no pictures"


def test_runs_of_different_machines_are_not_joined(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different machines"):
        merged([run_of("gpt2-32", 4.0), run_of("gpt2-32", 4.0, processor="q")])
    wrong = tmp_path / "x.json"
    wrong.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is no run"):
        read(wrong)
