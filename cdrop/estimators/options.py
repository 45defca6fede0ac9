"""An estimator's parameters, checked, in the terms of `cdrop.Network`."""

from __future__ import annotations

import math
import re
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from cdrop import schedules
from cdrop._checks import (
    as_array,
    choice,
    choice_by_layer,
    finite_number,
    norm_limit,
    truth_value,
    whole_number,
)
from cdrop._kernels import INPUT_KINDS, KINDS, MAX_THREADS
from cdrop._threads import available_cpus
from cdrop._training import MOST_SAMPLES
from cdrop.estimators.scoring import Scoring, checked_scoring
from cdrop.network import INTERRUPTS
from cdrop.optimizers import Optimizer, get_optimizer
from cdrop.rates import Rate, dropping, dropping_by_layer, number_or_rate
from cdrop.schedules import Schedule

__all__ = [
    "SMALLEST_RATE",
    "Options",
    "checked_options",
    "design",
    "diverged",
    "network_changed",
    "refused",
    "schedule",
    "seed",
    "threads",
]

_ACTIVATIONS = {
    "relu": "relu",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "identity": "identity",
    "leaky_relu": "leaky_relu",
}
_SOLVERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
_LEARNING_RATES = ("constant", "invscaling", "adaptive", "step", "cosine", "plateau")
# What parts of cdrop call by another name than the estimators.
_NAMES = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "learning_rate": "learning_rate_init",
    "power": "power_t",
    "weight_decay": "alpha",
}
_OF_FIT = {  # arguments of `Network.fit`; its learning rate stays, whose name and settings are shown
    "epochs": "max_iter",
    "l2": "alpha",
    "optimizer": "solver",
    "rows": "choice of training rows (early_stopping, validation_fraction, sample_weight)",
    "validation": "X_val, y_val or sample_weight_val",
}
SMALLEST_RATE = 1e-6  # where an adaptive learning rate stops falling, and training ends


@dataclass(frozen=True)
class Options:
    """What concerns the training; `batch_size` None is "auto"."""

    optimizer: Optimizer
    l2: float | Rate
    max_norm: float | None
    mask_samples: int
    consistency: float
    batch_size: int | None
    max_iter: int
    shuffle: bool
    tol: float
    verbose: bool
    early_stopping: bool
    validation_fraction: float
    patience: float
    interrupt: str
    scoring: Scoring


def checked_options(estimator: Any) -> Options:
    """Check the parameters that concern the training; nothing of the estimator changes."""
    solver = choice("solver", estimator.solver, _SOLVERS)
    alpha = number_or_rate("alpha", estimator.alpha, finite_number)
    size = estimator.batch_size
    fraction = finite_number("validation_fraction", estimator.validation_fraction)
    if not fraction < 1:
        raise ValueError(
            f"validation_fraction is {fraction!r}; expected a number of at least 0 and below 1"
        )
    patience = estimator.n_iter_no_change
    if not (isinstance(patience, float) and patience == math.inf):
        patience = whole_number("n_iter_no_change", patience, 1, 2**53)
    return Options(
        optimizer=_optimizer(estimator, solver, alpha),
        l2=0.0 if solver == "adamw" else alpha,
        max_norm=None if estimator.max_norm is None else norm_limit("max_norm", estimator.max_norm),
        mask_samples=whole_number("mask_samples", estimator.mask_samples, 1, MOST_SAMPLES + 1),
        consistency=finite_number("consistency", estimator.consistency),
        batch_size=None
        if isinstance(size, str) and size == "auto"
        else whole_number("batch_size", size, 1, 2**48),
        max_iter=whole_number("max_iter", estimator.max_iter, 1, 2**53),
        shuffle=truth_value("shuffle", estimator.shuffle),
        tol=finite_number("tol", estimator.tol),
        verbose=_verbose(estimator.verbose),
        early_stopping=truth_value("early_stopping", estimator.early_stopping),
        validation_fraction=fraction,
        patience=patience,
        interrupt=choice("interrupt", estimator.interrupt, INTERRUPTS),
        scoring=checked_scoring(estimator.scoring),
    )


def _optimizer(estimator: Any, solver: str, alpha: float | Rate) -> Optimizer:
    """Return the update rule; "sgd" has the momentum that MLPClassifier gives it."""
    momentum = number_or_rate("momentum", estimator.momentum, finite_number)
    nesterov = truth_value("nesterovs_momentum", estimator.nesterovs_momentum)
    if solver == "sgd" and momentum:
        solver = "nesterov" if nesterov else "momentum"
    settings: dict[str, dict[str, Any]] = {
        "sgd": {},
        "momentum": {"momentum": momentum},
        "nesterov": {"momentum": momentum},
        "adagrad": {"epsilon": estimator.epsilon},
        "rmsprop": {"epsilon": estimator.epsilon},
        "adam": {
            "beta1": estimator.beta_1,
            "beta2": estimator.beta_2,
            "epsilon": estimator.epsilon,
        },
    }
    settings["adamw"] = {**settings["adam"], "weight_decay": alpha}
    with _named_as_here():
        return get_optimizer(solver, **settings[solver])


def _verbose(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return whole_number("verbose", value, 0, 2**31) > 0


@contextmanager
def _named_as_here() -> Iterator[None]:
    """Let an error call a parameter as the estimators do."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, _, rest = str(error).partition(" ")
        raise type(error)(f"{_NAMES.get(name, name)} {rest}") from None


def diverged(error: FloatingPointError, estimator: Any) -> str:
    """Return why a fit of the network has diverged, with the estimator's parameter for the rate."""
    if isinstance(estimator.learning_rate, (Schedule, Rate)):
        return str(error)
    return str(error).replace(" learning_rate (it is ", " learning_rate_init (it is ")


def refused(error: Exception) -> str:
    """Return why the network refuses a fit, with the estimator's names in what a checkpoint differs in."""
    checkpoint, of, what = str(error).rpartition(", which is of a fit ")
    what = re.sub(r"(?<=with another )\w+", lambda name: _OF_FIT.get(name[0], name[0]), what)
    what = re.sub(r"(?<=')\w+(?=': )", lambda name: _NAMES.get(name[0], name[0]), what)
    if "with network in another state" in what:
        what = re.sub(r"units (\([\d, ]+\)), and here (\([\d, ]+\))", _hidden, what)
        what = re.sub(r"(?<=[(; ])seed (?=\d)", "random_state ", what)
        what = what.replace("'sigmoid'", "'logistic'")
    return f"{checkpoint}{of}{what}" if of else str(error)


def _hidden(units: re.Match[str]) -> str:
    """Return the hidden widths of two networks, of which a text has all widths."""
    was, now = (literal_eval(text)[1:-1] for text in units.groups())
    return f"hidden_layer_sizes {was}, and here {now}"


def network_changed(name: str, fitted: Any, now: Any) -> str:
    """Return that the parameters describe another network than the one that is to be trained further."""
    if name == "units":
        name = "n_outputs_" if fitted[1:-1] == now[1:-1] else "hidden_layer_sizes"
        part = -1 if name == "n_outputs_" else slice(1, -1)
        fitted, now = fitted[part], now[part]
    elif name == "activation":
        theirs = {value: key for key, value in _ACTIVATIONS.items()}
        fitted, now = theirs[fitted], theirs[now]
    return (
        f"the network was made with {name} {fitted}; it would now be {now}, which takes a new fit "
        "(fit with warm_start=False)"
    )


def schedule(estimator: Any, options: Options, validated: bool, by_loss: bool) -> Schedule | Rate:
    """Return the learning rate's schedule, or a rate that changes from step to step.

    `validated` says whether there are validation rows, `by_loss` whether early stopping goes by their loss.
    """
    if isinstance(estimator.learning_rate, (Schedule, Rate)):
        return estimator.learning_rate
    kind = choice("learning_rate", estimator.learning_rate, _LEARNING_RATES)
    with _named_as_here():
        return _named_schedule(kind, estimator, options, validated, by_loss)


def _named_schedule(
    kind: str, estimator: Any, options: Options, validated: bool, by_loss: bool
) -> Schedule:
    rate, epochs = estimator.learning_rate_init, options.max_iter
    if kind == "constant":
        return schedules.Constant(rate)
    if kind == "invscaling":
        return schedules.InverseScaling(rate, power=estimator.power_t)
    if kind == "step":
        return schedules.Step(rate, every=max(1, epochs // 3))
    if kind == "cosine":
        return schedules.Cosine(rate, epochs=epochs)
    patience = min(options.patience, 2**52)
    if kind == "plateau":
        monitor = "validation_loss" if validated else "loss"
        patience = max(1, patience // 2)
    else:  # adaptive: in step with the stopping rule
        scored = "validation_loss" if by_loss else "validation_score"
        monitor = scored if options.early_stopping else "loss"
    return schedules.Plateau(
        rate, int(patience), tol=options.tol, smallest=SMALLEST_RATE, monitor=monitor
    )


def design(
    estimator: Any, features: int, outputs: int, loss: dict[str, Any], dtype: str
) -> dict[str, Any]:
    """Return what a network for such data is made with, but for its seed; `loss` has its name and settings."""
    name, hidden = "hidden_layer_sizes", estimator.hidden_layer_sizes
    widths = [hidden] if as_array(name, hidden).ndim == 0 else list(hidden)
    widths = [whole_number(f"{name}[{i}]", width, 1, 2**32) for i, width in enumerate(widths)]
    activation = choice("activation", estimator.activation, tuple(_ACTIVATIONS))
    rates = estimator.dropout
    rates = rates if as_array("dropout", rates).ndim == 0 else tuple(rates)
    return {
        "units": (features, *widths, outputs),
        "dropout": dropping_by_layer("dropout", rates, len(widths)),
        "input_dropout": dropping("input_dropout", estimator.input_dropout),
        "dropout_kind": choice_by_layer("dropout_kind", estimator.dropout_kind, KINDS, len(widths)),
        "input_dropout_kind": choice(
            "input_dropout_kind", estimator.input_dropout_kind, INPUT_KINDS
        ),
        "members": whole_number("members", estimator.members, 1, 2**16 + 1),
        "activation": _ACTIVATIONS[activation],
        **loss,
        "initializer": "glorot",  # of the spread that MLPClassifier's has
        "dtype": dtype,
    }


def seed(random_state: Any) -> int:
    """Return the network's seed: an integer as it is; anything else draws one."""
    try:
        draw = check_random_state(random_state)
    except ValueError as error:
        raise ValueError(f"random_state is {random_state!r}: {error}") from None
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(draw.randint(2**63 - 1, dtype=np.int64))


def threads(n_jobs: int | None) -> int | None:
    """Return a number of threads from scikit-learn's count: -1 is all CPUs, -2 all but one."""
    if n_jobs is None:
        return None
    number = whole_number("n_jobs", n_jobs, -(2**31), MAX_THREADS + 1)
    if number == 0:
        raise ValueError(
            "n_jobs is 0; expected a number of threads, -1 for one on each CPU, or None"
        )
    return number if number > 0 else max(1, available_cpus() + 1 + number)
