"""Rates that change from step to step: of dropout, learning, L2, weight decay and momentum.

A rate is a function of progress: the share of the run that is done before a step, at least 0 and below 1. No function
of the C library that rounds differently elsewhere is used, so that a seed gives the same weights everywhere.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cdrop._checks import by_name, drop_rate, drop_rates, finite_number, whole_number

__all__ = [
    "Constant",
    "CosLog4",
    "Cosine",
    "Curriculum",
    "Early",
    "FlatCos",
    "Function",
    "Late",
    "Linear",
    "Piecewise",
    "Rate",
    "from_text",
    "get_rate",
]

_TRIED = 200  # places at which a rate is evaluated before the training begins
_LN2 = 0.6931471805599453
# In two parts, of which the first has so few digits that its products with small integers are exact.
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10


def _steps(name: str, value: Any) -> int | None:
    return None if value is None else whole_number(name, value, 1, 2**53)


def _share(name: str, value: Any) -> float:
    if not 0 < finite_number(name, value) <= 1:
        raise ValueError(
            f"{name} is {value!r}; expected a share of the training above 0, at most 1"
        )
    return float(value)


def _gamma(name: str, value: Any) -> float:
    if not 0 < finite_number(name, value) <= 700:
        raise ValueError(f"{name} is {value!r}; expected a number above 0, at most 700")
    return float(value)


def _points(name: str, value: Any) -> tuple[tuple[float, float], ...]:
    expected = "pairs (progress, rate), progress ascending from 0 to 1"
    try:
        pairs = tuple((float(progress), float(rate)) for progress, rate in value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; expected {expected}") from None
    good = all(0 <= progress <= 1 and math.isfinite(rate) for progress, rate in pairs)
    if not pairs or not good or any(b[0] <= a[0] for a, b in pairwise(pairs)):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return pairs


def _function(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} is {value!r}; expected a callable")
    return value


def _checked(check: Callable[[str, Any], Any], **default: Any) -> Any:
    """Declare a setting with its own check; those without one are numbers of at least 0."""
    return dataclasses.field(metadata={"check": check}, **default)


@dataclass(frozen=True, repr=False)
class Rate(ABC):
    """What all rates share; a custom class defines `at`.

    Parameters
    ----------
    steps : int, optional
        Keyword only. The rate changes over this many steps of the network's life, counted over all calls of
        `cdrop.Network.fit` and `cdrop.Network.train_step`, and stays at its end after them. Default: over the steps of
        each fit.

    Raises
    ------
    TypeError, ValueError
        If a setting is not as its class says.
    """

    _: KW_ONLY
    steps: int | None = _checked(_steps, default=None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check = field.metadata.get("check", finite_number)
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))

    def __repr__(self) -> str:
        """Return the call that makes it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        steps = fields.pop("steps")
        shown = [f"{name}={value!r}" for name, value in fields.items()]
        shown += [] if steps is None else [f"steps={steps}"]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def name(self) -> str:
        """The rate's name, as `get_rate` takes it."""
        return type(self).__name__.lower()

    @abstractmethod
    def at(self, progress: float) -> float:
        """Return the rate of a step.

        Parameters
        ----------
        progress : float
            Steps done divided by all steps: 0 in the first step; 1 after the last, if `steps` is set.
        """

    def of_step(self, number: int, done: int, total: int | None) -> float:
        """Return the rate of a step.

        Parameters
        ----------
        number : int
            Steps of the network's life before this one.
        done, total : int
            Steps of this fit before this one, and in all; None outside of a fit, where `steps` must be set.
        """
        if self.steps is not None:
            return self.at(min(number / self.steps, 1.0))
        if total is None:
            raise ValueError(
                f"{self!r} changes over the steps of a fit; expected {type(self).__name__}(..., steps=...) outside of "
                "one"
            )
        return self.at(done / total)


@dataclass(frozen=True, repr=False)
class Constant(Rate):
    """The same rate in every step, as a number.

    Parameters
    ----------
    value : float
        At least 0.
    """

    value: float

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.value


@dataclass(frozen=True, repr=False)
class Linear(Rate):
    """From `first` to `last` along a line.

    Parameters
    ----------
    first, last : float
        At least 0.
    """

    first: float
    last: float

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.first + (self.last - self.first) * progress


@dataclass(frozen=True, repr=False)
class Cosine(Rate):
    """From `first` to `last` along half a cosine.

    Parameters
    ----------
    first : float
    last : float, default 0.0
        At least 0.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5, without restarts.
    """

    first: float
    last: float = 0.0

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.last + (self.first - self.last) * _half_cosine(progress)


@dataclass(frozen=True, repr=False)
class FlatCos(Rate):
    """`value` for the first half of the training, then down to 0 along half a cosine.

    Parameters
    ----------
    value : float
        At least 0.

    References
    ----------
    Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular data",
    NeurIPS 2024, section 3: RealMLP's schedule of dropout and weight decay.
    """

    value: float

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.value * (1.0 if progress < 0.5 else _half_cosine(2 * progress - 1))


@dataclass(frozen=True, repr=False)
class CosLog4(Rate):
    """Four cycles between 0 and `value`, each twice as long as the one before.

    ``value * (1 - cos(2 pi log2(1 + 15 progress))) / 2``

    Parameters
    ----------
    value : float
        At least 0.

    References
    ----------
    Holzmüller, Grinsztajn and Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular data",
    NeurIPS 2024, section 3: RealMLP's learning rate.
    """

    value: float

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        cycle = _log2(1 + 15 * progress) % 1.0
        return self.value * (1 - _half_cosine(min(2 * cycle, 2 - 2 * cycle)))


@dataclass(frozen=True, repr=False)
class Early(Rate):
    """`value` up to a share of the training, 0 from then on.

    Parameters
    ----------
    value : float
        At least 0.
    until : float
        Share of the training, above 0, at most 1.

    References
    ----------
    Liu, Xu, Jin, Shen and Darrell, "Dropout reduces underfitting", ICML 2023: early dropout.
    """

    value: float
    until: float = _checked(_share)

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.value if progress < self.until else 0.0


@dataclass(frozen=True, repr=False)
class Late(Rate):
    """0 up to a share of the training, `value` from then on.

    Parameters
    ----------
    value : float
        At least 0.
    start : float
        Share of the training, above 0, at most 1.

    References
    ----------
    Liu, Xu, Jin, Shen and Darrell, "Dropout reduces underfitting", ICML 2023: late dropout.
    """

    value: float
    start: float = _checked(_share)

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return 0.0 if progress < self.start else self.value


@dataclass(frozen=True, repr=False)
class Curriculum(Rate):
    """From 0 towards `value`, fast at first: ``value * (1 - exp(-gamma * progress))``.

    Parameters
    ----------
    value : float
        At least 0.
    gamma : float, default 10.0
        Above 0, at most 700.

    References
    ----------
    Morerio, Cavazza, Volpi, Vidal and Murino, "Curriculum dropout", ICCV 2017, equation 3.
    """

    value: float
    gamma: float = _checked(_gamma, default=10.0)

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.value * (1 - _exp_of_minus(self.gamma * progress))


@dataclass(frozen=True, repr=False)
class Piecewise(Rate):
    """Lines between points.

    Parameters
    ----------
    points : sequence of (float, float)
        Progress and rate, progress from 0 to 1 and ascending. Before the first point and after the last the rate is
        theirs.

    Examples
    --------
    >>> rate = Piecewise([(0.0, 0.1), (0.5, 0.1), (1.0, 0.0)])
    >>> [rate.at(0.25), rate.at(0.75)]
    [0.1, 0.05]
    """

    points: Sequence[tuple[float, float]] = _checked(_points)

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        before = self.points[0]
        for after in self.points:
            if progress < after[0]:
                if before is after:
                    break
                part = (progress - before[0]) / (after[0] - before[0])
                return before[1] + (after[1] - before[1]) * part
            before = after
        return before[1]


@dataclass(frozen=True, repr=False)
class Function(Rate):
    """A custom function.

    Parameters
    ----------
    function : callable
        Takes the progress, returns the rate. A network with one cannot be saved or pickled, because a file holds no
        code.
    """

    function: Callable[[float], float] = _checked(_function)  # noqa: RUF009 - declares a field

    def at(self, progress: float) -> float:
        """As `Rate.at`."""
        return self.function(progress)


_RATES: dict[str, type[Rate]] = {
    kind.__name__.lower(): kind
    for kind in (
        Constant,
        Linear,
        Cosine,
        FlatCos,
        CosLog4,
        Early,
        Late,
        Curriculum,
        Piecewise,
        Function,
    )
}


def get_rate(rate: str | Rate, **settings: Any) -> Rate:
    """Return a rate from its name, or the one given.

    Parameters
    ----------
    rate : str or Rate
        ``"constant"``, ``"linear"``, ``"cosine"``, ``"flatcos"``, ``"coslog4"``, ``"early"``, ``"late"``,
        ``"curriculum"``, ``"piecewise"`` or ``"function"``.
    **settings
        The rate's own settings, such as ``value=0.5``; only with a name.

    Raises
    ------
    TypeError, ValueError
        If there is no such rate or setting.

    Examples
    --------
    >>> get_rate("early", value=0.5, until=0.3)
    Early(value=0.5, until=0.3)
    """
    made: Rate = by_name("rate", rate, Rate, _RATES, settings)
    return made


def from_text(schedule: str, value: float) -> float | Rate:
    """Return a rate whose largest value is given, from its name and setting, as commands take them.

    Parameters
    ----------
    schedule : str
        ``"constant"``, ``"linear"`` or ``"cosine"`` (down to 0), ``"flatcos"``, ``"coslog4"``, ``"early:SHARE"``,
        ``"late:SHARE"``, ``"curriculum"`` or ``"curriculum:GAMMA"``.
    value : float

    Raises
    ------
    TypeError, ValueError
        If there is no such rate, or its setting is out of range.

    Examples
    --------
    >>> from_text("early:0.3", 0.5)
    Early(value=0.5, until=0.3)
    """
    name, colon, setting = schedule.partition(":") if isinstance(schedule, str) else ("", "", "")
    if name in _WITHOUT_SETTING and not colon:
        return _WITHOUT_SETTING[name](value)
    if name in _WITH_SETTING:
        try:
            number = float(setting)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            finite_number("value", value)
            try:
                return _WITH_SETTING[name](value, number)
            except ValueError as error:
                raise ValueError(f"schedule is {schedule!r}: {error}") from None
    expected = [*_WITHOUT_SETTING, *(f"{kind}:NUMBER" for kind in _WITH_SETTING)]
    raise ValueError(f"schedule is {schedule!r}; expected one of {', '.join(expected)}")


_WITHOUT_SETTING: dict[str, Callable[[float], float | Rate]] = {
    "constant": lambda value: Constant(value).value,
    "linear": lambda value: Linear(value, 0.0),
    "cosine": Cosine,
    "flatcos": FlatCos,
    "coslog4": CosLog4,
    "curriculum": Curriculum,
}
_WITH_SETTING: dict[str, Callable[[float, float], Rate]] = {
    "early": Early,
    "late": Late,
    "curriculum": Curriculum,
}

# ---- For the modules that use rates ---------------------------------------------------------------------------------

_Check = Callable[[str, Any], float]


class Moment(NamedTuple):
    """A step: of the network's life, and of its fit, as `Rate.of_step` takes them."""

    number: int
    done: int = 0
    total: int | None = None


def number_or_rate(name: str, value: Any, check: _Check) -> float | Rate:
    """Return a checked number, or a rate whose values `check` accepts all along the training."""
    if not isinstance(value, Rate):
        return check(name, value)
    for i in range(_TRIED + 1):
        progress = i / _TRIED
        check(f"{name}, {value!r} at progress {progress:g},", value.at(progress))
    return value


def now(name: str, value: float | Rate, moment: Moment, check: _Check) -> float:
    """Return a number as it is, or the checked value of a rate."""
    if not isinstance(value, Rate):
        return value
    return check(f"{name}, {value!r} in step {moment.number + 1},", value.of_step(*moment))


def dropping(name: str, value: Any) -> float | Rate:
    """Return a checked rate of dropping, constant or not."""
    return number_or_rate(name, value, drop_rate)


def dropping_by_layer(name: str, value: Any, hidden: int) -> tuple[float | Rate, ...]:
    """Return a rate of dropping for each hidden layer, given one for all or a sequence."""
    if isinstance(value, Rate):
        return (dropping(name, value),) * hidden
    sequence = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(sequence, (list, tuple)) or not any(isinstance(r, Rate) for r in sequence):
        return drop_rates(name, value, hidden)
    numbers = [0.0 if isinstance(rate, Rate) else rate for rate in sequence]
    drop_rates(name, numbers, hidden)  # checks the length and the numbers
    return tuple(dropping(f"{name}[{i}]", rate) for i, rate in enumerate(sequence))


def encoded(value: Any) -> Any:
    """Return a rate as JSON holds it, {"rate": name, setting: value, ...}; other values as they are."""
    if not isinstance(value, Rate):
        return value
    check_ours("rate", value)
    settings = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if settings["steps"] is None:
        del settings["steps"]
    return {"rate": value.name, **settings}


def decoded(value: Any) -> Any:
    """Undo `encoded`, also of what JSON made of tuples."""
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    if "rate" not in settings or settings["rate"] == "function":
        raise ValueError(
            f"a rate is {value!r}; expected one of {', '.join(_RATES)} with its settings"
        )
    return get_rate(settings.pop("rate"), **settings)


def check_ours(name: str, rate: Rate) -> None:
    """Raise if a file could not be read again: reading finds classes by name, and a file holds no code."""
    if type(rate).__module__ != __name__ or isinstance(rate, Function):
        raise TypeError(
            f"{name} is {rate!r}; expected a rate of cdrop.rates that is not a Function, because a file holds no code"
        )


# ---- Arithmetic ------------------------------------------------------------------------------------------------------


def _half_cosine(share: float) -> float:
    """Return (1 + cos(pi share)) / 2, from 1 down to 0, which is cos(pi share / 2)**2."""
    a = math.pi / 2 * share
    term, total = 1.0, 1.0
    for k in range(1, 13):  # the next term is below 2**-52
        term *= -a * a / ((2 * k - 1) * (2 * k))
        total += term
    return total * total


def logit(rate: float) -> float:
    """Return log(rate / (1 - rate)), rate above 0 and below 1."""
    return _LN2 * (_log2(rate) - _log2(1 - rate))


def sigmoid(x: float) -> float:
    """Return the inverse of `logit`, |x| up to 700."""
    small = _exp_of_minus(abs(x))
    return (small if x < 0 else 1.0) / (1 + small)


def _exp_of_minus(x: float) -> float:
    """Return exp(-x), x from 0 to 700: a power of 2 times the series of what is left."""
    power = round(x / _LN2)
    rest = (power * _LN2_HIGH - x) + power * _LN2_LOW
    term, total = 1.0, 1.0
    for k in range(1, 18):
        term *= rest / k
        total += term
    return math.ldexp(total, -power)


def _log2(x: float) -> float:
    """Return the binary logarithm of a number above 0, by the series of atanh."""
    mantissa, exponent = math.frexp(x)  # at least 0.5 and below 1
    z = (2 * mantissa - 1) / (2 * mantissa + 1)  # of 1 to 2: at most 1 / 3
    power, total = z, 0.0
    for k in range(1, 37, 2):
        total += power / k
        power *= z * z
    return exponent - 1 + 2 * total / _LN2
