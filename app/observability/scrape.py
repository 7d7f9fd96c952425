"""The answer to a scrape: this process's series or those of all that serve together, the engine's, and the aliases."""

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType] (it lacks annotations)
)

from app.observability.aliases import aliases
from app.observability.distribution import Distribution
from app.observability.metrics import BY_NAME, PROCESSES_FOLDER, Kind, Metrics, Series
from app.observability.settings import Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Scrape:
    """Collects everything when Prometheus asks. Used on a thread: with several processes it reads files."""

    def __init__(self, metrics: Metrics, *, boards: Iterable[Board] = ()) -> None:
        self._metrics = metrics
        self._boards = tuple(boards)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Generator[Metric]:
        """See prometheus_client's Collector."""
        self._metrics.sample()
        counted = [*self._counted(), *self._read()]
        yield from counted
        for board in self._boards:
            yield from aliases(board, counted)

    def _counted(self) -> Iterable[Metric]:
        if not self._metrics.is_one_of_many:
            return self._metrics.registry.collect()
        folder = Path(os.environ[PROCESSES_FOLDER])
        forget_dead(folder)
        return cast("Iterable[Metric]", MultiProcessCollector(None, str(folder)).collect())

    def _read(self) -> Generator[Metric]:
        for name, read in self._metrics.reads.items():
            series, found = BY_NAME[name], read()
            family = family_of(series)
            for labels, value in {(): found}.items() if isinstance(found, float | int) else found.items():
                add(family, labels, value)
            yield family


def family_of(series: Series) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    """An empty family of samples."""
    kinds = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}
    return kinds[series.kind](series.name, series.help, labels=series.labels)


def add(
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily, labels: tuple[str, ...],
    value: float | Distribution,
) -> None:  # fmt: skip
    """Append one sample, or a histogram's, whose buckets Prometheus wants summed up from the lowest."""
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Distribution), f"{family.name} is a histogram. This is a bug."
        below, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(float, value.bounds), float("inf")), value.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
        family.add_metric(labels, buckets, value.total)
    else:
        assert not isinstance(value, Distribution), f"{family.name} is a number. This is a bug."
        family.add_metric(labels, value)


def forget_dead(folder: Path) -> None:
    """Drop the gauges of processes that are gone; what they have counted stays, so that no counter goes back."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not is_alive(pid):
            mark_process_dead(pid, str(folder))


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
