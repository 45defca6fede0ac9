"""The training runs that are compared with PyTorch, recorded (torch_steps.npz) and live.

A run is a case (net, rule, rates), its initial weights and its batches. Masks, weights and batches
come from the plain generator of make_masks.py: nothing of cdrop is used on PyTorch's side
(make_torch_steps.py). cdrop's side stands in implementations.py.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import make_masks
import numpy as np

Array = np.ndarray[Any, Any]
STEPS = 20
RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adagrad": 0.05}  # the others: 0.01
HYPER = {
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.95},
    "rmsprop": {"rho": 0.95},
    "adam": {"beta1": 0.8, "beta2": 0.99},
    "adamw": {"weight_decay": 0.05},
}


@dataclass(frozen=True)
class Case:
    """One net, loss and update rule; the fields are named as in `cdrop.Network` and its fit."""

    name: str
    sizes: tuple[int, ...] = (12, 9, 7, 4)
    dropout: tuple[float, ...] = (0.5, 0.5)
    input_dropout: float = 0.0
    activation: str = "relu"
    loss: str = "softmax_cross_entropy"
    scaling: str = "train"
    initializer: str = "he"
    seed: int = 0
    optimizer: str = "rmsprop"
    learning_rate: float = 0.01
    l2: float = 1e-3
    hyper: dict[str, float] = field(default_factory=dict)
    weighted: bool = False


@dataclass
class Batches:
    """What the steps of a case train on: arrays with one more dimension in front, the step."""

    x: Array
    y: Array
    sample_weight: Array | None


@dataclass
class Run:
    """What an implementation gives: losses, all parameters in one vector after steps 1 and last.

    ``outputs`` are the trained net's linear outputs (predictions) for the first batch.
    """

    losses: Array
    first: Array
    last: Array
    outputs: Array


def small_cases() -> list[Case]:
    """Pair each activation with each loss; the other choices take turns."""
    activations = ["relu", "leaky_relu", "tanh", "sigmoid", "identity"]
    losses = ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"]
    optimizers = ["rmsprop", "adam", "sgd", "adamw", "momentum", "adagrad", "nesterov"]
    dropouts = [(0.5, 0.5), (0.2, 0.5), (0.1, 0.0), (0.25, 0.75)]
    cases = []
    for i, (activation, loss) in enumerate(itertools.product(activations, losses)):
        optimizer = optimizers[i % 7]
        case = Case(
            name=f"{activation}-{loss}-{optimizer}",
            dropout=dropouts[i % 4],
            input_dropout=(0.0, 0.2)[(i + 1) // 2 % 2],
            activation=activation,
            loss=loss,
            scaling=("train", "test")[i // 2 % 2],
            initializer=("he", "glorot")[i // 4 % 2],
            seed=i,
            optimizer=optimizer,
            learning_rate=RATES.get(optimizer, 0.01),
            l2=0.0 if optimizer == "adamw" or i % 6 == 5 else 0.02,
            hyper=HYPER.get(optimizer, {}) if i >= 7 else {},
            weighted=i % 2 == 1,
        )
        cases.append(case)
    return [*cases, Case("article"), Case("no-dropout", dropout=(0.0, 0.0), seed=3)]


SMALL = {case.name: case for case in small_cases()}
ARTICLE = Case("784-256-256-10", sizes=(784, 256, 256, 10), learning_rate=1e-3)


def initial_weights(case: Case) -> tuple[list[Array], list[Array]]:
    """Return weights and biases in float64, from the initializer's definition."""
    weights = []
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(case.sizes)):
        sd = math.sqrt(2 / (fan_in if case.initializer == "he" else fan_in + fan_out))
        key = {"seed": case.seed, "step": 0, "purpose": 1, "layer": layer}
        rows = [make_masks.random_normal(fan_out, block=i, **key) for i in range(fan_in)]
        weights.append(np.array(rows) * sd)
    return weights, [np.zeros(n) for n in case.sizes[1:]]


def kept_units(case: Case, rows: int, step: int) -> list[Array]:
    """Return the masks of one step as 0.0 and 1.0, for the input of each layer."""
    masks = []
    rates = [case.input_dropout, *case.dropout]
    for layer, (width, rate) in enumerate(zip(case.sizes[:-1], rates, strict=True)):
        words = make_masks.mask_words(rows, width, 1 - rate, seed=case.seed, step=step, layer=layer)
        octets = np.array(words, "<u8").view(np.uint8).reshape(rows, -1)
        masks.append(np.unpackbits(octets, axis=1, count=width, bitorder="little").astype(float))
    return masks


def drawn_keeps(case: Case) -> list[float]:
    """Return the keep probabilities as drawn, for the input of each layer."""
    return [round((1 - rate) * 2**32) / 2**32 for rate in (case.input_dropout, *case.dropout)]


def batches(case: Case, rows: int = 6, steps: int = STEPS) -> Batches:
    """Draw the data of a small case: other rows at each step."""
    shape, n_in, n_out = (steps, rows), case.sizes[0], case.sizes[-1]
    x = make_masks.random_normal(steps * rows * n_in, seed=case.seed, purpose=3)
    uniform = unit_uniform(case, steps * rows * n_out, layer=1).reshape(*shape, n_out)
    labels = uniform.argmax(axis=-1)
    return Batches(
        x=np.array(x).reshape(*shape, n_in),
        y=labels if case.loss == "softmax_cross_entropy" else uniform,
        sample_weight=unit_uniform(case, steps * rows, 2).reshape(shape) if case.weighted else None,
    )


def unit_uniform(case: Case, n: int, layer: int) -> Array:
    words = make_masks.random_words(n, seed=case.seed, purpose=3, layer=layer)
    return np.array([word >> 11 for word in words]) * 2.0**-53


def flatten(params: tuple[list[Array], list[Array]]) -> Array:
    """Join weights and biases, layer by layer."""
    return np.concatenate([a.ravel() for pair in zip(*params, strict=True) for a in pair])
