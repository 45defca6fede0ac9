"""Progress of experiments: a bar on a terminal, otherwise a line on standard error now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cdrop._console import printable, put
from cdrop.callbacks import Callback, ProgressBar
from cdrop.experiments import report

if TYPE_CHECKING:
    from cdrop.experiments import ExperimentResult, Trial

__all__ = ["Progress"]

MOST_LINES = 20  # of an experiment whose repeats are short
EVERY = 60.0  # seconds between two lines where runs are long
SHAPE = "{percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"


class Progress(Callback):
    """Shows how much of an experiment is done, and the time that is left.

    As a callback of the runs, which must then take place one at a time, it also shows what is done of the current one.

    Parameters
    ----------
    left : iterable of sequence of float
        Of each run to come, in order, the work of its fits: one, or one for each candidate. Any unit will do.
    done : float
        Work of the runs that were finished before.
    total : float
        Work of all runs.
    """

    def __init__(self, left: Iterable[Sequence[float]], done: float, total: float) -> None:
        self._left, self._before, self._finished = iter(left), done, 0.0
        self._run: Sequence[float] = next(self._left, [0.0])  # the work of the current one
        self._total = total
        # Of the current run: work done, work of its earlier fits, work of an iteration, and how many fits began.
        self._part = self._base = self._step = 0.0
        self._fits = 0
        self._begun = self._printed = time.monotonic()
        self._result: ExperimentResult | None = None
        self._open: dict[int, list[Trial]] = {}
        self._bar: Any = None

    @property
    def share(self) -> float:
        """Of all work, what is done."""
        return (self._before + self._finished + self._part) / self._total if self._total else 1.0

    @property
    def seconds_left(self) -> float:
        """Estimated from the pace so far; infinite before anything is done."""
        new = self._finished + self._part
        left = self._total - self._before - new
        return (time.monotonic() - self._begun) * left / new if new else math.inf

    @property
    def begun(self) -> bool:
        """Whether the experiment has begun: until then, its arguments may be refused."""
        return self._result is not None

    def on_begin(self, result: ExperimentResult) -> None:
        """Take names and sizes from a result that has no repeats yet, and open the bar below what was printed."""
        self._result = result
        self._begun = self._printed = time.monotonic()
        if ProgressBar().visible:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._before, bar_format=SHAPE, leave=False)

    def on_fit_begin(self, net: Any, total: int) -> None:
        """Find out which part of a run an iteration is; what a checkpoint holds of it is done."""
        before = net.history.iterations
        fits = self._run
        now = min(self._fits, len(fits) - 1)
        self._fits += 1
        self._base, self._step = sum(fits[:now]), fits[now] / (before + total)
        self._move(self._base + before * self._step)

    def on_iteration(self, net: Any, iteration: int, loss: float) -> None:
        """Count one iteration."""
        self._move(self._base + net.history.iterations * self._step)

    def _move(self, part: float) -> None:
        self._part = part
        if self._bar is not None:
            self._bar.update(self._before + self._finished + part - self._bar.n)
        elif self._overdue:
            self.print(f"  {self._progress}")

    def on_trial(self, trial: Trial) -> None:
        """Count a finished run; print a line where there is no bar and one is due."""
        self._finished += sum(self._run)
        self._run = next(self._left, [0.0])
        self._part, self._fits = 0.0, 0
        line = self._line(trial) if self._bar is None and self._result is not None else ""
        if line:
            self.print(f"{line}; {self._progress}")
        self._move(0.0)

    def _line(self, trial: Trial) -> str:
        """Return a line about a finished repeat, of many some, or about a run where these are long."""
        assert self._result is not None
        trials = self._open.setdefault(trial.repeat, [])
        trials.append(trial)
        if len(trials) == len(self._result.arms):
            del self._open[trial.repeat]
            order = list(self._result.arms)
            trials.sort(key=lambda trial: order.index(trial.arm))  # runs end in any order
            if (trial.repeat + 1) % math.ceil(self._result.asked / MOST_LINES) == 0:
                return report.repeat_line(trials, self._result)
        return report.run_line(trial, self._result) if self._overdue else ""

    @property
    def _progress(self) -> str:
        return f"{self.share:.0%} done, about {clock(self.seconds_left)} left"

    @property
    def _overdue(self) -> bool:
        return time.monotonic() - self._printed >= EVERY

    def print(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.write(printable(line, sys.stderr), file=sys.stderr)
            return
        with suppress(OSError):  # a reader that has left must not end the run
            put(printable(line, sys.stderr), sys.stderr)

    def state_dict(self) -> None:
        """Return nothing: a checkpoint need not know of the display."""

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def clock(seconds: float) -> str:
    """Return a duration in hours and minutes, or minutes and seconds.

    Examples
    --------
    >>> clock(59.6), clock(7384), clock(float("inf"))
    ('1:00 min', '2:03 h', '?')
    """
    if math.isinf(seconds):
        return "?"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
