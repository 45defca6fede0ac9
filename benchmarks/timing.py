"""Contestants in turn, many short rounds: what disturbs a shared machine then disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Result", "alternate", "burst"]

# Seconds between two contestants: the threads of the last one stop spinning meanwhile.
PAUSE = 0.03


@dataclass
class Result:
    """Times of one workload: seconds for each contestant and round, cdrop among them."""

    group: str
    name: str
    per: str  # what one figure is the time of
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, contestant: str = "cdrop") -> float:
        """Return a contestant's median time in seconds."""
        return median(self.seconds[contestant])

    def ratio(self, peer: str) -> float:
        """Return how many times as long as cdrop a peer takes."""
        return self.median(peer) / self.median()


def burst(call: Callable[[], object], least: float = 0.02) -> Callable[[], float]:
    """Return a contestant that makes `call` as often as fills `least` seconds, and gives the time of one."""
    call()
    start = time.perf_counter()
    call()
    count = max(1, round(least / max(time.perf_counter() - start, 1e-7)))

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - begin) / count

    return run


def alternate(
    group: str,
    name: str,
    contestants: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    per: str = "step",
) -> Result:
    """Run every contestant once for warmth, then `rounds` times in turn; each gives seconds."""
    result = Result(group, name, per, {who: [] for who in contestants})
    for turn in range(-1, rounds):
        for who, run in contestants.items():
            time.sleep(PAUSE)
            seconds = run()
            if turn >= 0:
                result.seconds[who].append(seconds)
    return result
