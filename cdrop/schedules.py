"""Learning rates that change from epoch to epoch.

A schedule is settings alone. What it remembers is a tuple of numbers, the rate of the next epoch first, which
`cdrop.Network` keeps with its state: a resumed fit continues bit for bit. It counts the epochs of the network's
life, so that many short fits are one long one. No function of the C library that rounds differently elsewhere is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from cdrop import _kernels
from cdrop._checks import by_name, choice, finite_number, whole_number
from cdrop.optimizers import take_plain

__all__ = [
    "Constant",
    "Cosine",
    "Epoch",
    "InverseScaling",
    "Plateau",
    "Schedule",
    "Step",
    "get_schedule",
]

State = tuple[float, ...]
_MOST_POWER = 1000  # Decimal overflows from 50,000 on, for as many rows as can be
_MONITORS = ("loss", "validation_loss", "validation_score")


class Epoch(NamedTuple):
    """What happened in an epoch.

    Attributes
    ----------
    number : int
        Of the epoch in the network's life, from 1.
    rows : int
        That it trained on.
    loss : float
        Mean over the rows of the minibatches' losses, each before its update, with their L2 terms.
    learning_rate : float
        Of this epoch.
    validation_loss, validation_score : float
        Of the validation rows after the epoch, as `Network.evaluate` gives them; NaN where there are none.
    """

    number: int
    rows: int
    loss: float
    learning_rate: float
    validation_loss: float = math.nan
    validation_score: float = math.nan


@dataclass(frozen=True)
class Schedule:
    """What all schedules share.

    Parameters
    ----------
    learning_rate : float, default 1e-3
        Of the first epoch, above 0.

    Raises
    ------
    TypeError, ValueError
        If a setting is not as its class says.
    """

    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        take_plain(self)
        finite_number("learning_rate", self.learning_rate, positive=True)

    @property
    def name(self) -> str:
        """The schedule's name, as `get_schedule` takes it."""
        return type(self).__name__.lower()

    def begin(self) -> State:
        """Return what there is to remember before the first epoch."""
        return (self.learning_rate,)

    def after(self, state: State, epoch: Epoch) -> State:
        """Return what there is to remember after an epoch.

        Parameters
        ----------
        state : tuple of float
            What `begin` or the last call returned.
        epoch : Epoch

        Returns
        -------
        tuple of float
            The rate of the next epoch comes first.
        """
        return state

    def _check(self, state: State) -> None:
        """Raise ValueError unless `begin` and `after` can have returned this state: a file may hold any floats.

        A rate of 0 is valid, because schedules may come down to it.
        """
        ranges = (_is_rate, *self._remembered())
        if len(state) != len(ranges) or not all(
            fits(number) for fits, number in zip(ranges, state, strict=True)
        ):
            raise ValueError(
                f"the state's schedule has the state {list(state)}; expected one of {self}"
            )

    def _remembered(self) -> tuple[Callable[[float], bool], ...]:
        """Return what numbers a state may have after the rate: one test for each."""
        return (_is_count,) * (len(self.begin()) - 1)


def _is_rate(number: float) -> bool:
    return 0 <= number < math.inf


def _is_count(number: float) -> bool:
    return number >= 0 and number.is_integer()


class Constant(Schedule):
    """The same rate always."""


@dataclass(frozen=True)
class Step(Schedule):
    """``learning_rate * factor**k`` after ``k * every`` epochs.

    Parameters
    ----------
    learning_rate : float, default 1e-3
    every : int, default 10
        At least 1.
    factor : float, default 0.1
        Above 0, at most 1.

    Examples
    --------
    >>> schedule = Step(0.5, every=2, factor=0.5)
    >>> state, rates = schedule.begin(), []
    >>> for number in range(1, 6):
    ...     rates.append(state[0])
    ...     state = schedule.after(state, Epoch(number, 100, 1.0, state[0]))
    >>> rates
    [0.5, 0.5, 0.25, 0.25, 0.125]
    """

    every: int = 10
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("every", self.every, 1, 2**53)
        _check_factor(self.factor)

    def begin(self) -> State:
        """As `Schedule.begin`."""
        return self.learning_rate, 0.0

    def after(self, state: State, epoch: Epoch) -> State:
        """As `Schedule.after`."""
        done = state[1] + 1
        return self.learning_rate * _kernels.power(self.factor, int(done) // self.every), done


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `learning_rate` down to almost `final` along half a cosine.

    Epoch e, from 0, has the rate ``final + (learning_rate - final) * (1 + cos(pi * e / epochs)) / 2``; later ones have
    that of the last.

    Parameters
    ----------
    learning_rate : float, default 1e-3
    epochs : int, default 100
        How long the way down is, at least 1.
    final : float, default 0.0
        0 to `learning_rate`.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5, without restarts.
    """

    epochs: int = 100
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("epochs", self.epochs, 1, 2**53)
        if finite_number("final", self.final) > self.learning_rate:
            raise ValueError(f"final is {self.final!r}; expected at most {self.learning_rate!r}")

    def begin(self) -> State:
        """As `Schedule.begin`."""
        return self.learning_rate, 0.0

    def after(self, state: State, epoch: Epoch) -> State:
        """As `Schedule.after`."""
        done = state[1] + 1
        # (1 + cos(2 a)) / 2 is cos(a)**2.
        share = _cosine(math.pi / 2 * min(done, self.epochs - 1) / self.epochs) ** 2
        return self.final + (self.learning_rate - self.final) * share, done


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """``learning_rate / (t + 1)**power`` after epochs of t rows in all.

    Parameters
    ----------
    learning_rate : float, default 1e-3
    power : float, default 0.5
        0 to 1000.
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if finite_number("power", self.power) > _MOST_POWER:
            raise ValueError(f"power is {self.power!r}; expected at most {_MOST_POWER}")

    def begin(self) -> State:
        """As `Schedule.begin`."""
        return self.learning_rate, 0.0

    def after(self, state: State, epoch: Epoch) -> State:
        """As `Schedule.after`."""
        rows = state[1] + epoch.rows
        # Decimal's power is rounded in one way everywhere.
        return self.learning_rate / float(Decimal(rows + 1) ** Decimal(self.power)), rows


@dataclass(frozen=True)
class Plateau(Schedule):
    """The rate times `factor` whenever more than `patience` epochs in a row have brought no better value.

    Parameters
    ----------
    learning_rate : float, default 1e-3
    patience : int, default 10
        At least 1.
    factor : float, default 0.2
        Above 0, at most 1.
    tol : float, default 1e-4
        By how much a value must better the best so far, at least 0.
    smallest : float, default 1e-6
        A rate at or below it stays.
    monitor : {"loss", "validation_loss", "validation_score"}, default "loss"
        What is watched; a score is better when higher. The last two need validation rows.
    """

    patience: int = 10
    factor: float = 0.2
    tol: float = 1e-4
    smallest: float = 1e-6
    monitor: str = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("patience", self.patience, 1, 2**53)
        _check_factor(self.factor)
        finite_number("tol", self.tol)
        finite_number("smallest", self.smallest)
        choice("monitor", self.monitor, _MONITORS)

    def begin(self) -> State:
        """As `Schedule.begin`."""
        return self.learning_rate, math.inf, 0.0

    def after(self, state: State, epoch: Epoch) -> State:
        """As `Schedule.after`."""
        rate, best, waited = state
        value: float = getattr(epoch, self.monitor)
        if self.monitor == "validation_score":
            value = -value
        waited = 0.0 if value <= best - self.tol else waited + 1  # NaN is no progress
        if waited > self.patience:
            rate, waited = rate * self.factor if rate > self.smallest else rate, 0.0
        return rate, min(best, value), waited

    def _remembered(self) -> tuple[Callable[[float], bool], ...]:
        return lambda best: not math.isnan(best), _is_count


_SCHEDULES: dict[str, type[Schedule]] = {
    kind.__name__.lower(): kind for kind in (Constant, Step, Cosine, InverseScaling, Plateau)
}


def get_schedule(schedule: str | Schedule, **settings: Any) -> Schedule:
    """Return a schedule from its name, or the one given.

    Parameters
    ----------
    schedule : str or Schedule
        ``"constant"``, ``"step"``, ``"cosine"``, ``"inversescaling"`` or ``"plateau"``.
    **settings
        The schedule's own settings, such as ``every=5``; only with a name.

    Raises
    ------
    TypeError, ValueError
        If there is no such schedule or setting.

    Examples
    --------
    >>> get_schedule("step", learning_rate=0.01, every=5)
    Step(learning_rate=0.01, every=5, factor=0.1)
    """
    made: Schedule = by_name("schedule", schedule, Schedule, _SCHEDULES, settings)
    return made


def _check_factor(factor: float) -> None:
    if finite_number("factor", factor, positive=True) > 1:
        raise ValueError(f"factor is {factor!r}; expected a number above 0, at most 1")


def _cosine(a: float) -> float:
    """Cosine of 0 to pi / 2 by its series: the C library's differs from platform to platform."""
    term, total = 1.0, 1.0
    for k in range(1, 13):  # the next term is below 2**-52
        term *= -a * a / ((2 * k - 1) * (2 * k))
        total += term
    return total
