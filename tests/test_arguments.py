"""Bad arguments are a TypeError or ValueError that names them and changes nothing; odd arrays work."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import LOSSES, OPTIMIZERS, digest, problem, whole_state
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import cdrop
from cdrop import Network, kernels, make_network, optimizers, reference
from cdrop.callbacks import Callback, Validation

pytestmark = pytest.mark.usefixtures("another_folder")

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
RAGGED = [[1.0, 2.0], [3.0]]
X, W = np.arange(6.0).reshape(2, 3) - 2, np.arange(12.0).reshape(3, 4) - 5
MASK = kernels.bernoulli_mask(2, 3, 0.5)

# Values that are wrong for every argument of a kind; those in the tables below are added to them.
NO_WHOLE = [1.5, "3", b"3", None, True, np.True_, [1], 1j, NAN, np.array([1, 2]), {}]
NO_NUMBER = ["0.5", b"1", None, True, np.True_, [0.5], 1j, np.complex128(1), np.ones(2), {}]
NO_REAL = ["a", None, 1j, object(), [["a", "b"]], np.zeros((2, 3), "M8[s]"), {}]
NO_NAME = [None, 3, "", "RELU", "nonsense", b"relu", ["relu"], True]
NO_KERNEL_MATRIX = [
    *NO_REAL,
    RAGGED,
    3.0,
    np.ones(3),
    np.ones((2, 3, 1)),
    np.ones((2, 3), int),
    np.ones((2, 3), bool),
    np.ones((2, 3), "f2"),
    np.ones((2, 3), np.longdouble),
    np.ones((2, 3), complex),
    np.ones((2, 3), object),
]
OTHER_SHAPES = [np.ones((0, 0)), np.ones((4, 5)), np.ones((2, 4))]
NO_MASK = [
    *["a", [[1]], 3, np.zeros((2, 1), np.int64), np.zeros((2, 1), bool), np.zeros((2, 3), bool)],
    *(np.zeros(shape, np.uint64) for shape in [(2,), (1, 1), (2, 2), (2, 0), (2, 1, 1)]),
]
NO_ROW_WEIGHTS = [
    *["a", 1.0, [1.0], [1.0, 2.0, 3.0], [[1.0, 1.0]], [1.0, -1.0], [0.0, 0.0], [1.0, NAN]],
    *[[1.0, INF], [1e308, 1e308], [5e-324, 0.0], [1j, 1.0], ["1", "2"], [None, 1.0], RAGGED],
]
NO_SMOOTHING = [*NO_NUMBER, NAN, INF, -INF, -0.1, 1.0, 1, 1.5, HUGE]
NO_DELTA = [*NO_NUMBER, NAN, INF, -INF, -0.5, 0, 0.0, HUGE]
NO_LEVEL = [
    *[value for value in NO_NUMBER if not isinstance(value, list)],
    *[
        NAN,
        INF,
        -INF,
        -0.5,
        0,
        1,
        1.0,
        1.5,
        HUGE,
        [],
        "",
        "median",
        [0.5, None, 0.5],
        [0.5, "0.5", 0.5],
    ],
    *[
        [0.5, NAN, 0.5],
        [[0.5]] * 3,
        [0.5] * 4,
        [0.0, 0.5, 0.9],
        {0.1, 0.5, 0.9},
        np.ones((3, 1)) / 2,
    ],
]
NO_KEY = [*NO_WHOLE, -1, 2**64, HUGE]
BAD_KEY = {"seed": NO_KEY, "step": NO_KEY, "layer": [*NO_WHOLE, -1, 2**32]}
BAD_STREAM = {
    **BAD_KEY,
    "n": [*NO_WHOLE, -1, 2**48],
    "purpose": [*NO_WHOLE, -1, 2**32],
    "block": [*NO_WHOLE, -1, 2**61],
}
BAD_THREADS = {"threads": [1.5, "3", True, [1], 1j, 0, -1, 257, HUGE]}
BAD_LAYER = {
    "x": NO_KERNEL_MATRIX,
    "weight": [*NO_KERNEL_MATRIX, *OTHER_SHAPES, W.T, W[:2], W.astype("float32")],
    "mask": NO_MASK,
    "scale": [*NO_NUMBER, NAN, INF, -INF, HUGE],
    "activation": NO_NAME,
    **BAD_THREADS,
}
NO_MAX_NORM = [*NO_NUMBER, NAN, INF, -0.1, 0, 0.0, 1e-160, HUGE]
NO_FLAG = [None, 0, 1, "yes", b"", [], NAN, np.ones(2)]
NO_SETTING = ["0.5", None, True, [0.5], 1j, NAN, INF, -0.1]


@dataclass
class Call:
    """A function, good arguments for it, and for each argument values that are bad."""

    function: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, list[Any]]
    named: str = ""  # what an error names, if not the argument


def updated(weight, gradient, state, **rest):
    """Call `update`; on an error return whether it changed anything."""
    before = copy.deepcopy((weight, gradient, state))
    try:
        kernels.update(weight, gradient, state, **rest)
    except (TypeError, ValueError):
        np.testing.assert_equal((weight, gradient, state), before)
        raise


def read_only(array):
    array.flags.writeable = False
    return array


VECTORS = [np.ones(4), np.ones((3, 1)), np.ones(3, "f4"), np.ones(3, "f2"), np.ones(3, int)]
NOT_IN_PLACE = [*VECTORS, [1.0, 1.0, 1.0], 1.0, None, np.ones(6)[::2], np.ones(3, ">f8")]
SHARED = np.ones(6)
NO_DTYPE = [None, "nonsense", "float16", "i4", int, complex, 3, object, ["float32"]]
UPDATE = {"weight": np.ones(3), "gradient": np.ones(3), "state": [], "learning_rate": 0.1}

KERNELS = {
    "bernoulli_mask": Call(
        kernels.bernoulli_mask,
        {"rows": 2, "width": 3, "keep": 0.5},
        {
            "rows": [*NO_WHOLE, -1, 2**48],
            "width": [*NO_WHOLE, -1, 2**48],
            "keep": [*NO_NUMBER, -1e-9, 1 + 1e-9, NAN, INF, -INF, HUGE],
            **BAD_KEY,
            "first_row": [*NO_WHOLE, -64, 1, 63, 2**62],
            "purpose": [*NO_WHOLE, -1, 2**32],
        },
    ),
    "dropout_noise": Call(
        kernels.dropout_noise,
        {"rows": 2, "width": 3, "keep": 0.5},
        {
            "rows": [*NO_WHOLE, -1, 2**48],
            "width": [*NO_WHOLE, -1, 2**48],
            "keep": [*NO_NUMBER, 0.0, 1e-11, -1e-9, 1 + 1e-9, NAN, INF, -INF, HUGE],
            "kind": [*NO_NAME, "bernoulli", "shared", "Gaussian"],
            "dtype": NO_DTYPE,
            **BAD_KEY,
            "first_row": [*NO_WHOLE, -64, 1, 63, 2**62],
            "purpose": [*NO_WHOLE, -1, 2**32],
        },
    ),
    "drawn_keep": Call(
        kernels.drawn_keep, {"keep": 0.5}, {"keep": [*NO_NUMBER, -1e-9, 1.1, NAN, INF, HUGE]}
    ),
    "random_words": Call(kernels.random_words, {"n": 3}, BAD_STREAM),
    "random_normal": Call(kernels.random_normal, {"n": 3}, BAD_STREAM),
    "pack_mask": Call(
        kernels.pack_mask,
        {"mask": [[True, False]]},
        {"mask": [[True], True, None, [[0.5]], [[NAN]], [["a"]], RAGGED, np.ones((1, 1, 1), bool)]},
    ),
    "unpack_mask": Call(
        kernels.unpack_mask,
        {"mask": MASK, "width": 3},
        {
            "mask": ["a", 3, [[1]], RAGGED, MASK[0], MASK.astype(int), np.zeros((2, 2), np.uint64)],
            "width": [1.5, "3", None, [3], 1j, NAN, -3, 2**48],
        },
    ),
    "masked_gemm": Call(
        kernels.masked_gemm,
        {"x": X, "weight": W},
        {
            **BAD_LAYER,
            "bias": ["a", 1.0, np.ones(3), np.ones((1, 4)), np.ones(4, int), np.ones(4, "f4")],
        },
    ),
    "masked_gradients": Call(
        kernels.masked_gradients,
        {"dout": X @ W, "x": X, "weight": W},
        {**BAD_LAYER, "dout": NO_KERNEL_MATRIX},
    ),
    "softmax_cross_entropy": Call(
        kernels.softmax_cross_entropy,
        {"logits": X, "labels": [0, 2]},
        {
            "logits": NO_KERNEL_MATRIX,
            "labels": [
                *["a", 1, [0], [0, 1, 2], [[0, 1]], [0, 3], [-1, 0], [0.0, 1.0], [True, False]],
                *[[0, 2**63], [0, None], [0, HUGE], ["0", "1"], [NAN, 0], RAGGED, None],
            ],
            "sample_weight": NO_ROW_WEIGHTS,
            "label_smoothing": NO_SMOOTHING,
        },
    ),
    "softmax_cross_entropy-soft": Call(
        kernels.softmax_cross_entropy,
        {"logits": X, "labels": np.full((2, 3), 1 / 3)},
        {
            "labels": [
                *[X, X.T, np.full((2, 3), 0.5), np.full((2, 3), 1 / 3, "f4"), np.eye(3)[:2, :2]],
                *[np.eye(3), np.eye(2, 3, dtype=int), np.eye(2, 3) * NAN, np.eye(2, 3) * 2 - 1 / 3],
            ],
        },
    ),
    "sigmoid_cross_entropy": Call(
        kernels.sigmoid_cross_entropy,
        {"logits": X, "targets": np.full((2, 3), 0.5)},
        {
            "logits": NO_KERNEL_MATRIX,
            "targets": [
                *NO_KERNEL_MATRIX,
                *OTHER_SHAPES,
                X,
                X * NAN,
                0.5 + 0.6 * np.eye(3)[:2],
                X.T,
            ],
            "sample_weight": NO_ROW_WEIGHTS,
            "label_smoothing": NO_SMOOTHING,
        },
    ),
    **{
        name: Call(
            getattr(kernels, name),
            {"outputs": X, "targets": abs(X)},
            {
                "outputs": NO_KERNEL_MATRIX,
                "targets": [
                    *NO_KERNEL_MATRIX,
                    *OTHER_SHAPES,
                    X.T,
                    X.astype("f4"),
                    *own.pop("targets", ()),
                ],
                "sample_weight": NO_ROW_WEIGHTS,
                **own,
            },
        )
        for name, own in (
            ("squared_error", {}),
            ("absolute_error", {}),
            ("huber", {"delta": NO_DELTA}),
            ("poisson", {"targets": [-abs(X)]}),
            ("quantile", {"quantiles": [*NO_LEVEL, [0.5, 0.5], [0.5, 0.5, 1.0]]}),
        )
    },
    "update": Call(
        updated,
        UPDATE,
        {
            "weight": [*NOT_IN_PLACE[3:], read_only(np.ones(3))],
            "gradient": [*VECTORS, "a", None, 1.0, [1j] * 3, RAGGED],
            "state": [None, 3, "a", [np.zeros(3)], np.zeros(3), {}],
            "optimizer": [None, 3, "", "SGD", "nonsense", optimizers.SGD, ["sgd"], True],
            "learning_rate": [*NO_NUMBER, NAN, INF, -0.1, HUGE],
            "l2": [*NO_NUMBER, NAN, INF, -0.1, HUGE],
            "step": [*NO_WHOLE, 0, -1, 2**64],
            "momentum": [0.9],
            "nonsense": [0.9],
        },
    ),
    "update-momentum": Call(
        updated,
        {**UPDATE, "state": [np.zeros(3)], "optimizer": "momentum"},
        {
            "state": [
                *[[], [np.zeros(3)] * 2, [read_only(np.zeros(3))]],
                *([value] for value in NOT_IN_PLACE),
            ],
            **{name: [*NO_SETTING, 1.0] for name in ("momentum", "start")},
            "ramp": [*NO_WHOLE, -1, HUGE],
            "dampened": NO_FLAG,
            "rho": [0.5],
        },
    ),
    "update-shared-memory": Call(
        updated,
        {**UPDATE, "weight": SHARED[:3], "state": [np.zeros(3), np.ones(3)], "optimizer": "adam"},
        {
            "state": [[np.zeros(3), SHARED[2:5]], [SHARED[:3], np.zeros(3)], [np.zeros(3)] * 2],
            "gradient": [SHARED[1:4]],
        },
    ),
    "update-adamw": Call(
        updated,
        {**UPDATE, "state": [np.zeros(3), np.zeros(3)], "optimizer": "adamw"},
        {
            "l2": [0.1],
            "beta1": [*NO_SETTING, 0.0, 1.0],
            "beta2": [*NO_SETTING, 0.0, 1.0],
            "epsilon": [*NO_SETTING, 0.0],
            "weight_decay": [*NO_SETTING, 1.0],
        },
    ),
    "limit_norms": Call(
        kernels.limit_norms,
        {"weight": np.ones((2, 3)), "max_norm": 1.0},
        {
            "weight": [*NO_KERNEL_MATRIX, [[1.0]], np.ones((3, 2)).T, read_only(np.ones((2, 3)))],
            "max_norm": NO_MAX_NORM,
        },
    ),
    "get_optimizer": Call(
        optimizers.get_optimizer,
        {"optimizer": "rmsprop"},
        {
            "optimizer": [None, 3, "", "SGD", "nonsense", optimizers.SGD, ["sgd"], True],
            "rho": [*NO_SETTING, 1.0],
            "epsilon": [*NO_SETTING, 0.0],
            "momentum": [0.5],
        },
    ),
    "set_num_threads": Call(
        cdrop.set_num_threads, {"threads": 1}, {"threads": [*NO_WHOLE, 0, 257]}
    ),
}

NO_RATE = [*NO_NUMBER[:-2], -0.1, 1.0, 1.5, NAN, INF, HUGE, 1 - 2.0**-34]
NO_WIDTH = [1.5, "3", None, True, [3], NAN, 0, -1, 2**32, HUGE]
SETTINGS = {
    "input_dropout": [*NO_RATE, np.ones(2), {}],
    "dropout": [
        *[rate for rate in NO_RATE if not isinstance(rate, list)],
        *[[], [0.5], [0.1, 0.2, 0.3], [0.1, 1.0], [0.1, "0.1"], [0.1, NAN], [[0.1, 0.1]]],
        *[{0.1, 0.2}, {0.1: 1, 0.2: 2}, np.full((2, 1), 0.1)],
    ],
    "activation": NO_NAME,
    "loss": NO_NAME,
    "label_smoothing": NO_SMOOTHING,
    "huber_delta": [*NO_DELTA, 2.0],
    "quantiles": [*NO_LEVEL, 0.9, [0.1, 0.5, 0.9]],
    "initializer": NO_NAME,
    "scaling": NO_NAME,
    "seed": NO_KEY,
    "dropout_kind": [*NO_NAME, ["shared"], ["shared"] * 3, ["shared", "Shared"], ["shared", 1]],
    "input_dropout_kind": [*NO_NAME, ["shared"], "concrete"],
    "members": NO_WIDTH,
    "dtype": NO_DTYPE,
    **BAD_THREADS,
}
MAKING = {
    "Network": Call(
        Network,
        {"units": [5, 4, 4, 3]},
        {
            "units": [
                *[None, 3, 2.0, "34", b"34", [], [3], {5, 4, 3}, {5: 1, 4: 2}, True, object()],
                *([5, width, 4, 3] for width in NO_WIDTH),
                *[np.array(5), np.ones((2, 2), int), np.array([5.0, 4.0]), iter([5, 4])],
            ],
            **SETTINGS,
        },
    ),
    "Network-huber": Call(
        Network,
        {"units": [5, 4, 4, 3], "loss": "huber"},
        {"huber_delta": NO_DELTA, "label_smoothing": [0.1], "quantiles": [0.9]},
    ),
    "Network-quantile": Call(
        Network,
        {"units": [5, 4, 4, 3], "loss": "quantile"},
        {"quantiles": NO_LEVEL, "label_smoothing": [0.1], "huber_delta": [2.0]},
    ),
    "make_network": Call(
        make_network,
        {"D": 5, "C": 3, "H": 4},
        {
            **SETTINGS,
            "units": [[5, 3]],
            "nonsense": [1],
            "D": NO_WIDTH,
            "C": NO_WIDTH,
            "H": NO_WIDTH,
        },
    ),
}

NO_X = [
    *["a", None, 1.0, [1.0] * 5, np.ones((2, 4)), np.ones((2, 5, 1)), np.ones((5, 2)), RAGGED],
    *[np.full((2, 5), 1j), np.full((2, 5), "1"), np.full((2, 5), None), np.ones((2, 5), "M8[s]")],
    *(np.where(np.eye(2, 5) > 0, value, 1.0) for value in (NAN, INF, -INF, 1e300)),
]
NO_ROWS = [np.ones((0, 5)), np.ones((3, 5))]
NO_LABELS = [
    *["a", 1, [0], [0, 1, 2], [[0, 1]], [0, 3], [-1, 0], [0.0, 1.0], [True, False], [NAN, 0.0]],
    *[["0", "1"], [None, 0], [0, 2**63], [0, HUGE], None, {}, np.zeros((2, 0), int), RAGGED],
]
NO_TARGETS = [
    *["a", 1.0, None, [0.0, 1.0], np.ones((2, 4)), np.ones((3, 2)), np.ones((2, 3, 1)), RAGGED],
    *[np.full((2, 3), 1j), np.full((2, 3), "1"), np.full((2, 3), None), np.full((2, 3), NAN)],
    *[np.full((2, 3), INF), np.full((2, 3), 1e300)],
]
RULE = {
    "optimizer": [None, 3, "", "SGD", "nonsense", optimizers.SGD, ["sgd"], True],
    "learning_rate": [*NO_NUMBER, NAN, INF, -0.1, 0, 0.0, HUGE],
    "l2": [*NO_NUMBER, NAN, INF, -1e-9, HUGE],
    "max_norm": [value for value in NO_MAX_NORM if value is not None],
    "share_l2": NO_FLAG,
    "mask_samples": [*NO_WHOLE, 0, -1, 1025, HUGE],
    "consistency": [*NO_NUMBER, NAN, INF, -1e-9, HUGE, 0.5],  # the last one without mask_samples=2
}
NO_SEED = [value for value in NO_KEY if value is not None]
NO_SAMPLES = [*[value for value in NO_WHOLE if value is not None], 0, -1, 2**32, HUGE]


class Deaf(Callback):
    """Takes no loss."""

    def on_iteration(self, net, iteration):
        pass


FIT = {
    "batch_size": [*NO_WHOLE, 0, -1, 2**48],
    "iterations": [*[v for v in NO_WHOLE if v is not None], -1, 2**62],
    "epochs": [*[v for v in NO_WHOLE if v is not None], -1, 2**62],
    "rows": ["a", 3, [], [[0]], [2], [-1], [0.0], [True], [None], [HUGE], {}, RAGGED],
    "shuffle": NO_FLAG,
    "validation": [
        *["a", 3, [], [np.ones((2, 5))], (None, None), (np.ones((2, 4)), [0, 2]), ("a", "b")],
        *[(np.ones((2, 5)), [0, 2], [1.0]), (np.full((2, 5), NAN), [0, 2]), (1, 2, 3, 4)],
    ],
    "callbacks": [
        *[None, 3, "ab", [3], [None], Callback(), Callback, [Callback], iter([])],
        # what would fail in the middle of the fit
        *[[Deaf()], [Validation(np.ones((2, 4)), [0, 2], every=2)], [Validation(None, [0, 2])]],
    ],
    "checkpoint": [3, 1.5, b"run", True, [], {}, object()],
    "checkpoint_every": [10],  # without checkpoint
    "interrupt": NO_NAME,
}


def trained(loss="softmax_cross_entropy"):
    net = Network([5, 4, 3], dropout=0.5, loss=loss, threads=1)
    net.fit(*problem(net.units, loss, rows=9), batch_size=4, iterations=3, optimizer="adam")
    return net


def on_network(method, loss, **arguments):
    """Call a method of a trained network; on an error the network must be as before."""
    net = trained(loss)
    before = whole_state(net)
    try:
        getattr(net, method)(**arguments)
    except (TypeError, ValueError):
        assert whole_state(net) == before
        raise


def loading(**parts):
    """Load a state with some parts exchanged; on an error the network must be as before."""
    net, other = Network([5, 4, 3], dropout=0.5), trained()
    before, state = whole_state(net), {**other.state_dict(), **parts}
    state = {name: value for name, value in state.items() if value is not LACKING}
    try:
        net.load_state_dict(state)
    except (TypeError, ValueError):
        assert whole_state(net) == before
        raise


NO_LAYERS = ["a", None, 3, [], [None, None], ["a", "b"], [1j, 1j], [RAGGED, RAGGED]]
NO_PATH = [3.5, None, [], {}, object()]
LACKING = object()
STATE = trained().state_dict()
ARRAYS, NAMED = STATE["arrays"], STATE["settings"]
METHODS = {
    f"{method}-{loss}": Call(
        partial(on_network, method, loss),
        {
            "X": np.ones((2, 5)),
            "y": [0, 2] if loss == LOSSES[0] else np.arange(6).reshape(2, 3) / 6,
        },
        {
            "X": [*NO_X, NO_ROWS[0]],
            "y": {
                LOSSES[0]: NO_LABELS,
                LOSSES[1]: [*NO_TARGETS, np.full((2, 3), 1.1), np.full((2, 3), -0.1)],
                LOSSES[2]: NO_TARGETS,
            }[loss],
            "sample_weight": NO_ROW_WEIGHTS,
            **({} if method in ("score", "evaluate") else RULE),
            **(FIT if method == "fit" else {}),
        },
    )
    for method in ("fit", "train_step", "score", "evaluate")
    for loss in LOSSES
} | {
    "fit-both": Call(
        partial(on_network, "fit", LOSSES[0]),
        {"X": np.ones((2, 5)), "y": [0, 2], "epochs": 1},
        {"iterations": [0, 1]},
    ),
    "fit-adamw": Call(
        partial(on_network, "fit", LOSSES[0], iterations=1),
        {"X": np.ones((2, 5)), "y": [0, 2], "optimizer": "adamw"},
        {"l2": [0.1]},
    ),
    "predict": Call(partial(on_network, "predict", LOSSES[0]), {"X": np.ones((2, 5))}, {"X": NO_X}),
    "predict_proba": Call(
        partial(on_network, "predict_proba", LOSSES[1]), {"X": np.ones((2, 5))}, {"X": NO_X}
    ),
    "predict_proba-samples": Call(
        partial(on_network, "predict_proba", LOSSES[0]),
        {"X": np.ones((2, 5)), "mc_samples": 2},
        {"X": NO_X, "mc_samples": NO_SAMPLES, "seed": NO_SEED},
    ),
    "predict_uncertainty": Call(
        partial(on_network, "predict_uncertainty", LOSSES[2]),
        {"X": np.ones((2, 5)), "mc_samples": 2},
        {"X": NO_X, "mc_samples": [*NO_SAMPLES, None], "seed": NO_SEED, "samples": NO_FLAG},
    ),
    "subnetworks": Call(
        partial(on_network, "subnetworks", LOSSES[0]),
        {"count": 2},
        {"count": [*NO_SAMPLES, None], "seed": NO_SEED},
    ),
    "set_weights": Call(
        partial(on_network, "set_weights", LOSSES[0]),
        {"coefs": [np.ones((5, 4)), np.ones((4, 3))], "intercepts": [np.ones(4), np.ones(3)]},
        {
            "coefs": [*NO_LAYERS, [np.ones((4, 5)), np.ones((3, 4))], [np.ones((5, 4))] * 2],
            "intercepts": [*NO_LAYERS, [np.ones(3), np.ones(4)], [np.ones((4, 1)), np.ones(3)]],
        },
    ),
    "load_state_dict": Call(
        loading,
        {"updates": 3},
        {
            "settings": [LACKING, None, [], {}, {**NAMED, "units": [5, 3]}],
            "arrays": [LACKING, None, [], {}]
            + [{**ARRAYS, "bias.1": bad} for bad in (None, [], "a", np.ones(2, "f4"), np.ones(3))],
            "optimizer": [LACKING, "adam", [], {}, {"name": "nonsense"}, {"name": "optimizer"}],
            "updates": [LACKING, *NO_WHOLE, -1],
            "epoch": [LACKING, *NO_WHOLE, -1],
            "losses": [LACKING, None, 3, "ab", ["a"], [None], [[1.0]], {}, [1j]],
        },
        named="the state|optimizer",
    ),
}
CALLS = {**KERNELS, **MAKING, **METHODS}


def bad_cases(calls):
    """Return calls and arguments: one test checks all bad values, because thousands of tests take longer."""
    return [(name, argument) for name, call in calls.items() for argument in call.bad]


def names(error, argument):
    return re.search(rf"(?<!\w)(?:{argument})(?!\w)", str(error))


@pytest.mark.parametrize(("name", "argument"), bad_cases(CALLS))
def test_bad_arguments_are_reported(name, argument):
    for value in CALLS[name].bad[argument]:
        check_reported(CALLS[name], argument, value)


TWINS = {
    name: call
    for name, call in KERNELS.items()
    # Shared memory is a mistake for the kernels alone: the twins copy.
    if hasattr(reference, name.split("-")[0]) and name != "update-shared-memory"
}


def raised(function, arguments):
    try:
        function(**copy.deepcopy(arguments))
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return None


@pytest.mark.parametrize("name", TWINS)
def test_a_kernel_and_its_twin_report_a_mistake_identically(name):
    """The twin may accept more: it has no threads."""
    call, function, compared = TWINS[name], name.split("-")[0], 0
    for argument, values in call.bad.items():
        for value in values:
            arguments = {**call.good, argument: value}
            twins = raised(getattr(reference, function), arguments)
            if twins and argument not in ("threads", "first_row"):
                assert raised(getattr(kernels, function), arguments) == twins
                compared += 1
    assert compared


def check_reported(call, argument, value):
    __tracebackhide__ = True
    try:
        call.function(**{**copy_of(call.good), argument: value})
    except (TypeError, ValueError) as error:
        assert names(error, call.named or argument), f"{argument}={value!r}: {error}"
    else:
        pytest.fail(f"{argument}={value!r} was accepted")


def copy_of(good):
    """Copies of good arguments; views that share memory on purpose stay views."""
    return {
        name: value if isinstance(value, np.ndarray) and value.base is SHARED else copy.copy(value)
        for name, value in good.items()
    }


def test_there_are_many_and_good_arguments_are_good():
    assert sum(len(CALLS[name].bad[argument]) for name, argument in bad_cases(CALLS)) > 1000
    for name, call in CALLS.items():
        if name != "update-shared-memory":
            call.function(**copy.deepcopy(call.good))


def test_states_of_other_networks_are_refused():
    state = trained().state_dict()
    for settings in (
        {"units": [5, 3, 3]},
        {"units": [5, 4, 3], "dropout": 0.5, "seed": 1},
        {"units": [5, 4, 3], "dropout": 0.5, "dtype": "float64"},
        {"units": [5, 4, 3], "dropout": 0.5, "activation": "tanh"},
    ):
        net = Network(**settings)
        before = digest(net)
        with pytest.raises(ValueError, match="the state's"):
            net.load_state_dict(state)
        assert digest(net) == before
    for bad in (None, 3, "state", [], {}):
        with pytest.raises((TypeError, ValueError), match="the state"):
            net.load_state_dict(bad)


# ---- Anything at all -----------------------------------------------------------------------

numbers = st.integers(-3, 300) | st.floats() | st.complex_numbers() | st.booleans()
words = st.sampled_from(["relu", "adam", "float32", "train", "he", "", "3", *LOSSES])
shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
other_kinds = st.sampled_from(["f4", "f8", "f2", "?", ">f8", "c8", "U1", "M8[s]"])
real_arrays = (  # integers are small: as widths they would take what memory there is
    npst.arrays("i8", shapes, elements=st.integers(-3, 300))
    | npst.arrays("u8", shapes, elements=st.integers(0, 300))
    | npst.arrays("O", shapes, elements=st.none() | numbers | words)
    | npst.arrays(other_kinds, shapes)
)
plain = st.none() | numbers | words | st.binary(max_size=2) | real_arrays
anything = plain | st.lists(plain, max_size=4) | st.dictionaries(words, plain, max_size=2)


@pytest.mark.parametrize("name", CALLS)
@given(data=st.data())
def test_anything_else_is_right_or_reported(name, data):
    check_anything(CALLS[name], data)


def check_anything(call, data):
    argument = data.draw(st.sampled_from(list(call.bad)))
    value = data.draw(anything)
    try:
        call.function(**{**copy_of(call.good), argument: value})
    except FloatingPointError as error:
        assert "not finite" in str(error)
    except (TypeError, ValueError) as error:
        known = [call.named or argument, *call.good, *call.bad]  # two may contradict each other
        assert any(names(error, name) for name in known), (argument, value, error)


# ---- Arrays of any layout ------------------------------------------------------------------


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    raw[:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw.view(array.dtype).reshape(array.shape)


def memory_mapped(array, directory):
    mapped = np.memmap(directory / f"{id(array)}", array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    mapped.flush()
    return np.memmap(mapped.filename, array.dtype, "r", shape=array.shape)


LAYOUTS = {
    "read-only": lambda a, _: read_only(a.copy()),
    "memory-mapped": memory_mapped,
    "fortran": lambda a, _: np.asfortranarray(a),
    "negative-strides": lambda a, _: a[::-1].copy()[::-1],
    "negative-columns": lambda a, _: a[..., ::-1].copy()[..., ::-1],
    "every-second": lambda a, _: np.repeat(a, 2, axis=-1)[..., ::2],
    "misaligned": lambda a, _: misaligned(a),
    "big-endian": lambda a, _: a.astype(a.dtype.newbyteorder(">")),
    "broadcast": lambda a, _: np.broadcast_to(a[None], (1, *a.shape))[0],
    "subclass": lambda a, _: a.view(type("Mine", (np.ndarray,), {})),
}


def same_results(function, arrays, layout, directory):
    expected = function(*arrays)
    odd = [LAYOUTS[layout](a, directory) for a in arrays]
    copies = copy.deepcopy(odd)
    np.testing.assert_equal(function(*odd), expected)
    for a, b in zip(odd, copies, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.dtype == b.dtype


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_take_arrays_of_any_layout(layout, dtype, tmp_path):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((9, 70)).astype(dtype), rng.standard_normal((70, 5))
    weight, bias = weight.astype(dtype), rng.standard_normal(5).astype(dtype)
    dout, labels = rng.random((9, 5)).astype(dtype), rng.integers(0, 5, 9)
    row_weights = rng.random(9)
    same_results(kernels.masked_gemm, [x, weight, bias], layout, tmp_path)
    same_results(kernels.masked_gradients, [dout, x, weight], layout, tmp_path)
    same_results(kernels.softmax_cross_entropy, [dout, labels, row_weights], layout, tmp_path)
    same_results(kernels.sigmoid_cross_entropy, [dout, dout, row_weights], layout, tmp_path)
    same_results(kernels.squared_error, [dout, dout], layout, tmp_path)
    if layout != "big-endian":  # masks are words, not numbers
        mask = kernels.bernoulli_mask(9, 70, 0.5)

        def masked(mask):
            return kernels.masked_gradients(dout, x, weight, mask=mask, activation="relu")

        same_results(masked, [mask], layout, tmp_path)
        same_results(lambda m: kernels.masked_gemm(x, weight, mask=m), [mask], layout, tmp_path)
        same_results(lambda m: kernels.unpack_mask(m, 70), [mask], layout, tmp_path)
    same_results(kernels.pack_mask, [x > 0], layout, tmp_path)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_networks_take_arrays_of_any_layout(layout, loss, tmp_path):
    units = [70, 9, 5]
    x, y = problem(units, loss, rows=20)

    def fitted(x, y, weights, rows):
        net = Network(units, dropout=0.5, loss=loss)
        held_out = x, y, weights
        net.fit(x, y, weights, rows=rows, batch_size=8, epochs=2, validation=held_out)
        net.train_step(x, y, weights)
        results = [vars(net.predict_uncertainty(x, 3)), net.subnetworks(3).predict(x)]
        return digest(net), net.predict(x), net.score(x, y, weights), net.evaluate(x, y), results

    def given(*layers):
        net = Network(units, loss=loss)
        net.set_weights(layers[:2], layers[2:])
        return digest(net)

    same_results(fitted, [x, y, np.arange(20.0), np.arange(18)], layout, tmp_path)
    net = Network(units, seed=1)
    same_results(given, [*net.coefs_, *net.intercepts_], layout, tmp_path)


@pytest.mark.parametrize("kind", ["i1", "u2", "i8", "?", "f2", "f4", "f8", np.longdouble, list])
def test_networks_take_numbers_of_any_real_dtype(kind):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (20, 5)), rng.integers(0, 3, 20)
    nets = [Network([5, 9, 3]) for _ in range(2)]
    nets[0].fit(x.astype("float32"), y, iterations=3)
    nets[1].fit(x.tolist() if kind is list else x.astype(kind), y.tolist(), iterations=3)
    assert digest(nets[0]) == digest(nets[1])


def test_no_rows(dtype):
    empty = np.ones((0, 5), dtype)
    assert kernels.masked_gemm(empty, np.ones((5, 3), dtype)).shape == (0, 3)
    dinput, dweight, dbias = kernels.masked_gradients(
        np.ones((0, 3), dtype), empty, np.ones((5, 3), dtype)
    )
    assert dinput.shape == (0, 5)
    assert not dweight.any()
    assert not dbias.any()
    assert kernels.bernoulli_mask(0, 5, 0.5).shape == (0, 1)
    for loss in LOSSES:
        net = Network([5, 3], loss=loss, dtype=dtype)
        assert net.predict(empty).shape == ((0,) if loss == LOSSES[0] else (0, 3))
        targets = np.zeros(0, int) if loss == LOSSES[0] else np.ones((0, 3), dtype)
        with pytest.raises(ValueError, match="at least one row"):
            getattr(kernels, loss)(np.ones((0, 3), dtype), targets)
        for method in (net.fit, net.train_step, net.score, net.evaluate):
            with pytest.raises(ValueError, match="X has 0 rows"):
                method(empty, targets)


def test_memory_that_is_not_to_be_had_is_reported():
    with pytest.raises(MemoryError):
        kernels.bernoulli_mask(2**47, 64, 0.5)
    with pytest.raises(MemoryError):
        Network([2**20, 2**31])


class Poor:
    """An engine that cannot have the memory of a step."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def reserve(self, rows, threads, samples):
        raise MemoryError


@pytest.mark.parametrize("method", ["fit", "train_step"])
def test_training_that_lacks_memory_changes_nothing(method):
    x, y = problem([6, 3])
    poor, rich = (Network([6, 5, 3], dropout=0.5) for _ in range(2))
    for net in (poor, rich):
        net.fit(x, y, batch_size=10, epochs=1)
    engine, poor._engine = poor._engine, Poor(poor._engine)
    with pytest.raises(MemoryError):
        getattr(poor, method)(x, y, optimizer="adam")
    poor._engine = engine
    assert digest(poor) == digest(rich)
    for net in (poor, rich):
        net.fit(x, y, batch_size=10, epochs=1)
    assert digest(poor) == digest(rich)


def test_every_rule_is_known_by_the_table():
    assert set(OPTIMIZERS) == set(reference.OPTIMIZERS) == set(optimizers._RULES)
    assert set(kernels.__all__) - {"simd", "simd_parameters", "simd_paths"} <= set(CALLS)
