"""Update rules: their settings, checked, and the constants of one step that the kernels take.

Every rule works in place on the weights; L2 (``l2``) is added to the gradient of weights, never of biases.
"""

from __future__ import annotations

import dataclasses
import numbers
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdrop import _kernels
from cdrop._checks import by_name, truth_value, whole_number
from cdrop.rates import Moment, Rate, now, number_or_rate

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "get_optimizer",
]

_LARGEST = sys.float_info.max  # a larger int is no float at all

Constants = tuple[str, float, float, float, float, float, float, float, float]


def _check(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> float:
    expected = f"a number {'above' if open_low else 'of at least'} {low:g} and below {high:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; expected {expected}")
    if not (low < value if open_low else low <= value) or not value < high:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return value


def _check_share(name: str, value: Any) -> float:
    return _check(name, value.item() if isinstance(value, np.generic) else value, 0, 1)


def take_plain(settings: Any) -> None:
    """Turn other numbers in a frozen dataclass (NumPy's, fractions, decimals) into Python's: files hold no others."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item()
        if isinstance(value, (numbers.Number, np.longdouble)) and hasattr(value, "__float__"):
            value = value if isinstance(value, (int, float)) else float(value)
        object.__setattr__(settings, field.name, value)


def _number(name: str, value: float | Rate) -> float:
    if isinstance(value, Rate):
        raise TypeError(f"{name} is {value!r}; expected a number, as in a step")
    return value


@dataclass(frozen=True)
class Optimizer:
    """What all update rules share."""

    def __post_init__(self) -> None:
        take_plain(self)

    @property
    def name(self) -> str:
        """The rule's name, as `cdrop.Network.fit` takes it."""
        return type(self).__name__.lower()

    def _in(self, moment: Moment) -> Optimizer:
        """Return the rule with the values that its rates have in a step; itself if all are numbers."""
        values = {
            field.name: now(field.name, getattr(self, field.name), moment, _check_share)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), Rate)
        }
        return dataclasses.replace(self, **values) if values else self

    def constants(self, learning_rate: float, l2: float, step: int) -> Constants:
        """Return what the kernels need for one step.

        Parameters
        ----------
        learning_rate : float
            Above 0.
        l2 : float
            At least 0.
        step : int
            Updates made with this rule's state so far, plus 1.
        """
        a, b, epsilon = self._coefficients()
        first = 1 - _kernels.power(a, step) if b else 1.0
        second = 1 - _kernels.power(b, step) if b else 1.0
        return self.name, learning_rate, l2, self._decay(), a, b, epsilon, first, second

    def _coefficients(self) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0

    def _decay(self) -> float:
        return 0.0


class SGD(Optimizer):
    """Stochastic gradient descent: ``w -= learning_rate * g``."""


def _added(default: float) -> Any:
    """Declare a setting that older files lack: they mean its default, and new ones are the same where it is not set."""
    return dataclasses.field(default=default, metadata={"added": True})


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Classical momentum: ``v = momentum * v - learning_rate * g; w += v``.

    Parameters
    ----------
    momentum : float or cdrop.rates.Rate, default 0.9
        At least 0 and below 1.
    start : float, default 0.5
        Momentum of the first step of a ramp, at least 0 and below 1; has no meaning without one.
    ramp : int, default 0
        Steps over which momentum goes linearly from `start` to `momentum`: with t updates made before it, a step has
        ``start + (momentum - start) * t / ramp``, and `momentum` from ``t = ramp`` on. 0: no ramp. The steps are those
        since the rule's state began, over all calls of `cdrop.Network.fit`, after a load as well.
    dampened : bool, default False
        Multiply ``learning_rate`` by 1 minus the step's momentum, so that `v` is a moving mean of the gradients (with
        their L2 terms), and a rising momentum does not lengthen the steps.

    References
    ----------
    Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).
    Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", arXiv:1207.0580 (2012),
    appendix A: the ramp, from 0.5 to 0.99 over 500 epochs, and the dampened form.
    Srivastava et al., "Dropout", JMLR 15 (2014), appendix A.2: 0.95 to 0.99 with dropout.

    Examples
    --------
    >>> rule = Momentum(momentum=0.99, start=0.5, ramp=20_000)
    >>> [rule.constants(0.1, 0.0, step)[4] for step in (1, 10_001, 20_001)]
    [0.5, 0.745, 0.99]
    """

    momentum: float | Rate = 0.9
    start: float = _added(0.5)
    ramp: int = _added(0)
    dampened: bool = _added(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        number_or_rate("momentum", self.momentum, _check_share)
        _check("start", self.start, 0, 1)
        whole_number("ramp", self.ramp, 0, 2**62)
        truth_value("dampened", self.dampened)

    def constants(self, learning_rate: float, l2: float, step: int) -> Constants:
        """As `Optimizer.constants`."""
        momentum, made = _number("momentum", self.momentum), step - 1
        if made < self.ramp:
            momentum = self.start + (momentum - self.start) * (made / self.ramp)
        rate = learning_rate * (1 - momentum) if self.dampened else learning_rate
        return self.name, rate, l2, 0.0, momentum, 0.0, 0.0, 1.0, 1.0


class Nesterov(Momentum):
    """Nesterov's momentum: ``v`` as in `Momentum`, then ``w += momentum * v - learning_rate * g``.

    Parameters
    ----------
    momentum, start, ramp, dampened
        As for `Momentum`.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning" (2013).
    """


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad: ``c += g**2; w -= learning_rate * g / (sqrt(c) + epsilon)``.

    Parameters
    ----------
    epsilon : float, default 1e-8
        Above 0.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 12 (2011).
    """

    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("epsilon", self.epsilon, 0, _LARGEST, open_low=True)

    def _coefficients(self) -> tuple[float, float, float]:
        return 0.0, 0.0, self.epsilon


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop, as in Adagrad with ``c = rho * c + (1 - rho) * g**2``.

    Parameters
    ----------
    rho : float, default 0.9
        At least 0 and below 1.
    epsilon : float, default 1e-8
        Above 0.

    References
    ----------
    Tieleman and Hinton, "Lecture 6.5, RMSprop", COURSERA: Neural Networks for Machine Learning (2012).
    """

    rho: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("rho", self.rho, 0, 1)
        _check("epsilon", self.epsilon, 0, _LARGEST, open_low=True)

    def _coefficients(self) -> tuple[float, float, float]:
        return self.rho, 0.0, self.epsilon


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction.

    Parameters
    ----------
    beta1, beta2 : float, default 0.9 and 0.999
        Above 0 and below 1.
    epsilon : float, default 1e-8
        Above 0; added to the square root of the corrected second moment.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("beta1", self.beta1, 0, 1, open_low=True)
        _check("beta2", self.beta2, 0, 1, open_low=True)
        _check("epsilon", self.epsilon, 0, _LARGEST, open_low=True)

    def _coefficients(self) -> tuple[float, float, float]:
        return self.beta1, self.beta2, self.epsilon


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam after ``w *= 1 - learning_rate * weight_decay`` (decoupled; ``l2`` must then be 0).

    Parameters
    ----------
    beta1, beta2, epsilon : float
        As for `Adam`.
    weight_decay : float or cdrop.rates.Rate, default 0.01
        At least 0 and below 1.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.
    """

    weight_decay: float | Rate = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        number_or_rate("weight_decay", self.weight_decay, _check_share)

    def _decay(self) -> float:
        return _number("weight_decay", self.weight_decay)

    def constants(self, learning_rate: float, l2: float, step: int) -> Constants:
        """As `Optimizer.constants`; `l2` must be 0."""
        if l2:
            raise ValueError(
                f"l2 is {l2!r}; expected 0 with adamw, whose weight_decay takes its place"
            )
        return super().constants(learning_rate, l2, step)


_RULES: dict[str, type[Optimizer]] = {
    rule.__name__.lower(): rule for rule in (SGD, Momentum, Nesterov, Adagrad, RMSprop, Adam, AdamW)
}


def get_optimizer(optimizer: str | Optimizer, **settings: float) -> Optimizer:
    """Return an update rule from its name, or the one given.

    Parameters
    ----------
    optimizer : str or Optimizer
        ``"sgd"``, ``"momentum"``, ``"nesterov"``, ``"adagrad"``, ``"rmsprop"``, ``"adam"`` or ``"adamw"``.
    **settings
        The rule's own settings, such as ``rho=0.95``; only with a name.

    Raises
    ------
    TypeError, ValueError
        If there is no such rule or setting.

    Examples
    --------
    >>> get_optimizer("rmsprop", rho=0.95)
    RMSprop(rho=0.95, epsilon=1e-08)
    """
    made: Optimizer = by_name("optimizer", optimizer, Optimizer, _RULES, settings)
    return made
