"""The page of metrics is the list of metrics; names follow Prometheus' habits; labels cannot grow without bound."""

import re
from pathlib import Path

from app.observability.aliases import ALIASES
from app.observability.metrics import BY_NAME, METRICS, Kind
from app.observability.page import renewed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BOUNDED = {"task", "model", "outcome", "finished_reason", "limit", "method", "route", "status"}


def test_the_page_of_metrics_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page), "run `python -m app.observability.page docs/metrics.md`"


def test_names_are_unique_prefixed_and_bear_a_unit() -> None:
    assert len(BY_NAME) == len(METRICS)
    for series in METRICS:
        assert re.fullmatch(r"tollgate_[a-z0-9_]+", series.name)
        assert series.help.endswith(".")
        assert not (series.kind is Kind.COUNTER and series.name.endswith("_total")), "the client adds it"
        assert bool(series.buckets) == (series.kind is Kind.HISTOGRAM), series.name
        assert list(series.buckets) == sorted(set(series.buckets)), series.name


def test_every_label_is_one_that_callers_cannot_make_up() -> None:
    assert {label for series in METRICS for label in series.labels} <= BOUNDED


def test_every_alias_names_a_metric_and_no_alias_is_given_twice() -> None:
    for board, aliases in ALIASES.items():
        assert {alias.of for alias in aliases} <= set(BY_NAME), board
        assert len({alias.name for alias in aliases}) == len(aliases), board
