"""Contestants in turn, many short rounds: what disturbs a shared machine then disturbs all of them equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Result", "alternate", "burst"]

# Seconds of one look whether the process is idle, and the longest wait for it.
LOOK, LONGEST = 0.01, 2.0
# Seconds below which waking the threads would be much of a run.
SHORT = 0.3


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

    def fastest_peer(self) -> str | None:
        """Return the fastest of the others, or None where cdrop is alone."""
        return min((who for who in self.seconds if who != "cdrop"), key=self.median, default=None)


def settle() -> None:
    """Wait until no thread of the process spins: those of a BLAS do for a while, on the CPU that the next one needs."""
    for _ in range(round(LONGEST / LOOK)):
        before = time.process_time()
        time.sleep(LOOK)
        if time.process_time() - before < LOOK / 10:
            return


def burst(call: Callable[[], object], least: float = 0.02) -> Callable[[], float]:
    """Return a contestant that makes `call` as often as fills `least` seconds, and gives the time of one."""

    def calls(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - begin) / count

    calls(1)
    count = max(1, round(least / max(calls(1), 1e-7)))
    return lambda: calls(count)


def awake(run: Callable[[], float]) -> float:
    """Time one contestant: what is short runs twice, once until its threads are awake and have a CPU each."""
    begin = time.perf_counter()
    seconds = run()
    return seconds if time.perf_counter() - begin > SHORT else run()


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
            settle()
            seconds = awake(run)
            if turn >= 0:
                result.seconds[who].append(seconds)
    return result
