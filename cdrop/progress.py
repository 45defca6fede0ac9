"""Progress of experiments: a bar on a terminal, else now and then a line on standard error."""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cdrop import report
from cdrop.callbacks import Callback, ProgressBar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdrop.experiments import Settings, Trial

__all__ = ["TrainingWork", "comparison_progress"]

MOST_LINES = 20  # of a comparison
EVERY = 60.0  # seconds between two lines of long trainings


def comparison_progress(
    settings: Settings, kept: int, jobs: int
) -> tuple[dict[str, Any], Callable[[], None]]:
    """Return what `compare` needs to show progress, and what ends the showing.

    Parameters
    ----------
    settings : Settings
    kept : int
        Trainings that are done already.
    jobs : int
        Trainings at a time, or -1: the bar counts iterations if it is one, else trainings.
    """
    trainings = settings.repeats * len(settings.configurations())
    unit = settings.iterations if jobs == 1 else 1
    counted = "it" if jobs == 1 else "training"
    bar = ProgressBar(total=trainings * unit, initial=kept * unit, unit=counted)
    if not bar.visible:
        return {"on_trial": _pair_lines(settings)}, bar.close
    if jobs == 1:
        return {"callbacks": [bar]}, bar.close
    return {"on_trial": lambda trial: bar.advance()}, bar.close


def _pair_lines(settings: Settings) -> Callable[[Trial], None]:
    """Return what prints a line about a repeat whose two arms are done, of all repeats some."""
    pairs: dict[int, dict[str, Trial]] = {}
    step = math.ceil(settings.repeats / MOST_LINES)

    def tell(trial: Trial) -> None:
        pair = pairs.setdefault(trial.repeat, {})
        pair[trial.configuration] = trial
        if not {"without", "with"} <= pair.keys():
            return
        del pairs[trial.repeat]
        if (trial.repeat + 1) % step == 0:
            _print(report.run_line(pair["without"], pair["with"], settings.repeats))

    return tell


class TrainingWork(Callback):
    """Shows how much of some long trainings of different size is done, and the time that is left.

    Parameters
    ----------
    left : sequence of float
        Work of each training that is to come, in order, in any unit.
    done : float
        Work of those that were finished before.
    """

    def __init__(self, left: Sequence[float], done: float) -> None:
        self._left, self._done, self._new = list(left), done, 0.0
        self._total = done + sum(left)
        self._begun = self._told = time.monotonic()
        self._bar: Any = None
        self._of_step = 0.0
        if ProgressBar().visible:
            from tqdm import tqdm

            shape = "{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
            self._bar = tqdm(total=self._total, initial=done, bar_format=shape, leave=False)

    def on_fit_begin(self, net: Any, total: int) -> None:
        """Hear that the next training begins; what a checkpoint has of it is done."""
        before = net.history.iterations
        self._of_step = self._left.pop(0) / (before + total)
        self._done += self._of_step * before
        if self._bar is not None:
            self._bar.initial = self._done
            self._bar.n = self._done + self._new

    def on_iteration(self, net: Any, iteration: int, loss: float) -> None:
        """Move on by one iteration."""
        self._new += self._of_step
        if self._bar is not None:
            self._bar.update(self._of_step)

    def on_epoch_end(self, net: Any, epoch: Any) -> None:
        """Print a line when the last one was long ago, where there is no bar."""
        now = time.monotonic()
        if self._bar is None and now - self._told >= EVERY:
            self._told = now
            _print(f"  {self.share:.0%} done, about {clock(self.seconds_left)} left")

    @property
    def share(self) -> float:
        """Of the whole, what is done."""
        return min(1.0, (self._done + self._new) / self._total)

    @property
    def seconds_left(self) -> float:
        """At the pace so far."""
        left = max(0.0, self._total - self._done - self._new)
        return (time.monotonic() - self._begun) * left / self._new if self._new else math.inf

    def tell(self, line: str) -> None:
        """Print a line above the bar, if there is one."""
        if self._bar is None:
            _print(line)
        else:
            self._bar.write(line, file=sys.stderr)

    def state_dict(self) -> None:
        """As `Callback.state_dict`: nothing is remembered."""

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def clock(seconds: float) -> str:
    """Return a time in hours and minutes, or minutes and seconds.

    Examples
    --------
    >>> clock(59.6), clock(7384)
    ('1:00 min', '2:03 h')
    """
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _print(line: str) -> None:
    with suppress(OSError):  # a reader that has left must not cost the training
        print(line, file=sys.stderr, flush=True)
