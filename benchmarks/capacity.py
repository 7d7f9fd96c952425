"""How many replicas a load needs: a rule of thumb, and a simulation of arrivals that backs it. docs/scaling.md.

    python -m benchmarks.capacity                # the tables of docs/scaling.md
    python -m benchmarks.capacity --step-ms 3.95 --row-ms 1.35 --tokens 100 --slots 32

A replica is what the engine does: each step gives every running row one token and takes `step_ms + row_ms × rows`. Rows
join between steps as long as there are slots. Both times are measured (docs/benchmarks.md, gpt2 over HTTP, int8).
"""

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

LOADS = (1, 100, 10_000)
BUSY = 0.7
"""Share of a replica's capacity that is planned with; the simulation shows what more costs."""
REQUESTS_MAX = 6_000
REPLICAS_MAX = 24
"""Simulated together at most: of a larger fleet, so many replicas with their share of the load."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One replica, as measured, and what it does to its neighbours."""

    step_ms: float = 3.95
    row_ms: float = 1.35
    slots: int = 32
    commits: float = 4.3
    """Transactions in PostgreSQL for a request, as measured: hold, settlement, and reads of their own."""
    redis_calls: float = 2.0
    """Scripts in Redis for a request: take, give back. Each runs about nine commands inside."""
    connections: int = 8

    def requests_per_s(self, tokens: float) -> float:
        """The most that it can serve, all slots in use."""
        step_s = (self.step_ms + self.row_ms * self.slots) / 1000
        return self.slots / (step_s * tokens)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What customers saw in a simulated stretch."""

    first_p50_s: float
    first_p99_s: float
    rate_per_s: float
    rows_mean: float


@dataclass(slots=True)
class Replica:
    """Its line, and how many tokens each running row still wants."""

    line: deque[tuple[float, int]]
    rows: list[int]
    is_stepping: bool = False


def replicas_for(load_per_s: float, machine: Machine, *, tokens: float) -> int:
    """The rule of thumb: the load over what a replica does, with a reserve; two at least, so that one may fail."""
    return max(2, math.ceil(load_per_s / (machine.requests_per_s(tokens) * BUSY)))


def simulate(
    machine: Machine, *, replicas: int, load_per_s: float, tokens: int, requests: int, seed: int = 0
) -> Outcome:
    """Poisson arrivals, lengths geometric around `tokens`, dealt in turn as nginx deals them."""
    chance = random.Random(seed)
    fleet = [Replica(deque(), []) for _ in range(replicas)]
    events: list[tuple[float, int]] = []  # the end of a step, of which replica
    firsts: list[float] = []
    now, dealt, steps_rows, steps = 0.0, 0, 0, 0
    arrival = chance.expovariate(load_per_s)

    def begin_step(index: int) -> None:
        nonlocal steps, steps_rows
        replica = fleet[index]
        while replica.line and len(replica.rows) < machine.slots:
            arrived, wanted = replica.line.popleft()
            replica.rows.append(wanted)
            firsts.append(now - arrived + (machine.step_ms + machine.row_ms * len(replica.rows)) / 1000)
        replica.is_stepping = bool(replica.rows)
        if replica.rows:
            steps, steps_rows = steps + 1, steps_rows + len(replica.rows)
            ends_s = now + (machine.step_ms + machine.row_ms * len(replica.rows)) / 1000
            heapq.heappush(events, (ends_s, index))

    while dealt < requests or events:
        if dealt < requests and (not events or arrival <= events[0][0]):
            now = arrival
            index = dealt % replicas
            fleet[index].line.append((now, 1 + int(chance.expovariate(1 / tokens))))
            dealt += 1
            arrival = now + chance.expovariate(load_per_s)
            if not fleet[index].is_stepping:
                begin_step(index)
        else:
            now, index = heapq.heappop(events)
            fleet[index].rows = [left - 1 for left in fleet[index].rows if left > 1]
            begin_step(index)
    firsts.sort()
    return Outcome(
        first_p50_s=firsts[len(firsts) // 2], first_p99_s=firsts[int(len(firsts) * 0.99)], rate_per_s=requests / now,
        rows_mean=steps_rows / max(1, steps),
    )  # fmt: skip


def sizes(machine: Machine, *, tokens: int, price_per_hour: float) -> list[str]:
    """A row for each load."""
    rows = [
        "| requests/s | replicas | first token, p50 / p99 | PostgreSQL commits/s | its connections | Redis calls/s "
        "| a month | per 1,000 requests |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for load in LOADS:
        count = replicas_for(load, machine, tokens=tokens)
        shown = min(count, REPLICAS_MAX)
        seen = simulate(
            machine, replicas=shown, load_per_s=load * shown / count, tokens=tokens, requests=REQUESTS_MAX
        )  # fmt: skip
        hourly = count * price_per_hour
        rows.append(
            f"| {load:,} | {count:,} | {seen.first_p50_s * 1000:.0f} / {seen.first_p99_s * 1000:.0f} ms "
            f"| {load * machine.commits:,.0f} | {count * machine.connections:,} | {load * machine.redis_calls:,.0f} "
            f"| {hourly * 730:,.0f} | {hourly / (load * 3.6):.3f} |"
        )
    return rows


def shares(machine: Machine, *, tokens: int) -> list[str]:
    """What a fuller replica costs its customers."""
    rows = ["| share of capacity | first token, p50 | p99 | rows in a step |", "| --- | --- | --- | --- |"]
    for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.1):
        load = machine.requests_per_s(tokens) * share * 4
        seen = simulate(machine, replicas=4, load_per_s=load, tokens=tokens, requests=REQUESTS_MAX)
        p50_ms, p99_ms = seen.first_p50_s * 1000, seen.first_p99_s * 1000
        rows.append(f"| {share:.0%} | {p50_ms:.0f} ms | {p99_ms:.0f} ms | {seen.rows_mean:.1f} |")
    return rows


def page(machine: Machine, *, tokens: int, price_per_hour: float) -> str:
    """Both tables."""
    most = machine.requests_per_s(tokens)
    return "\n".join([
        f"A replica ({machine.slots} slots, {machine.step_ms} ms a step and {machine.row_ms} ms a row) serves at most "
        f"{most:.2f} requests/s of {tokens} tokens.", "",
        *sizes(machine, tokens=tokens, price_per_hour=price_per_hour), "", *shares(machine, tokens=tokens), "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    plain = Machine()
    parser.add_argument("--step-ms", type=float, default=plain.step_ms)
    parser.add_argument("--row-ms", type=float, default=plain.row_ms)
    parser.add_argument("--slots", type=int, default=plain.slots)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--price-per-hour", type=float, default=0.10, help="of a machine for one replica")
    chosen = parser.parse_args()
    machine = Machine(step_ms=chosen.step_ms, row_ms=chosen.row_ms, slots=chosen.slots)
    print(page(machine, tokens=chosen.tokens, price_per_hour=chosen.price_per_hour), end="")


if __name__ == "__main__":
    main()
