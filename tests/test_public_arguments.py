"""Bad arguments beyond kernels and networks, and whether the tables know each argument that there is."""

import importlib
import inspect
import math
import os
import re
import warnings
from collections import defaultdict
from functools import partial

import numpy as np
import pandas
import pytest
from comparisons import FakeTrainer, small_dataset
from conftest import digest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from test_arguments import (
    HUGE,
    INF,
    KERNELS,
    LAYOUTS,
    MAKING,
    METHODS,
    NAN,
    NO_DELTA,
    NO_FLAG,
    NO_KEY,
    NO_LEVEL,
    NO_NAME,
    NO_NUMBER,
    NO_PATH,
    NO_RATE,
    NO_ROW_WEIGHTS,
    NO_SAMPLES,
    NO_SEED,
    NO_SMOOTHING,
    NO_WHOLE,
    NO_X,
    RAGGED,
    Call,
    bad_cases,
    check_anything,
    check_reported,
    same_results,
    trained,
)

from cdrop import (
    DropoutMLPClassifier,
    DropoutMLPRegressor,
    Network,
    callbacks,
    convert,
    datasets,
    initializers,
    optimizers,
    rates,
    schedules,
    storage,
)
from cdrop.cli import build_parser, main
from cdrop.experiments import (
    Ledger,
    Preset,
    Settings,
    arms_for,
    compare,
    does_dropout_help,
    open_ledger,
    paired_experiment,
)

pytestmark = pytest.mark.usefixtures("another_folder")

COUNT = [value for value in NO_WHOLE if value is not None] + [0, -1, HUGE]
FRACTION = [*NO_NUMBER, NAN, INF, -0.1, HUGE]
POSITIVE = [*FRACTION, 0, 0.0]
BELOW_1 = [*FRACTION, 1.0]
NO_SHARE = [*POSITIVE, 1, 1.0]
NO_JOBS = [*[value for value in NO_WHOLE if value is not None], 0, HUGE]
NO_TASK = [3, b"y", "ranking", ["regression"], ""]
NO_COLUMN = [1.5, True, b"y", ["y"]]
NO_PATH_OR_NONE = [value for value in NO_PATH if value is not None]
NO_MODEL = [None, 3, "model", object(), Network, DropoutMLPClassifier]
SMALL = small_dataset()
X, y = np.eye(6), np.arange(6) % 2


def each(names, values):
    return {name: values for name in names}  # noqa: C420 - the lists are not changed


# ---- Estimators --------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).standard_normal((12, 3))
CLASSES, TARGETS = np.arange(12) % 3, ROWS[:, :2]
DATA = {
    DropoutMLPClassifier: {"X": ROWS, "y": CLASSES},
    DropoutMLPRegressor: {"X": ROWS, "y": TARGETS},
}
CLASSES_OF = {DropoutMLPClassifier: {"classes": range(3)}, DropoutMLPRegressor: {}}
PARAMETERS = {
    "hidden_layer_sizes": [
        None,
        "4",
        0,
        -1,
        1.5,
        [4, 0],
        [4, 2.0],
        [[4, 4]],
        RAGGED,
        2**32,
        HUGE,
        {"a"},
    ],
    "activation": [*NO_NAME, "sigmoid"],
    "dropout": [
        *[rate for rate in NO_RATE if not isinstance(rate, list)],
        *[[0.5, 0.5], [], [1.0], ["0.5"], [NAN], [[0.5]], RAGGED],
    ],
    "input_dropout": [*NO_RATE, np.ones(2), {}],
    "dropout_kind": [*NO_NAME, ["shared"] * 2, [], ["Shared"], [1], [None]],
    "input_dropout_kind": [*NO_NAME, ["shared"], "concrete"],
    "members": [*NO_WHOLE, 0, -1, HUGE],
    "solver": [*NO_NAME, "lbfgs"],
    "alpha": FRACTION,
    "max_norm": [value for value in POSITIVE if value is not None],
    "mask_samples": [*NO_WHOLE, 0, -1, 1025, HUGE],
    "batch_size": [*NO_WHOLE, 0, -1, "Auto", HUGE],
    "learning_rate": [*NO_NAME, 0.1, schedules.Step, "inverse"],
    "learning_rate_init": POSITIVE,
    "power_t": [*FRACTION, 1001],
    "max_iter": [*NO_WHOLE, 0, -1, HUGE],
    "shuffle": NO_FLAG,
    "random_state": ["0", -1, 1.5, [1], {}, NAN, 2**32, HUGE, object()],
    "tol": FRACTION,
    "verbose": [None, -1, 1.5, "yes", [], np.ones(2)],
    "warm_start": NO_FLAG,
    "momentum": BELOW_1,
    "nesterovs_momentum": NO_FLAG,
    "early_stopping": NO_FLAG,
    "validation_fraction": BELOW_1,
    "beta_1": BELOW_1,
    "beta_2": BELOW_1,
    "epsilon": POSITIVE,
    "n_iter_no_change": [*NO_WHOLE, 0, -1, -INF],
    "n_jobs": [1.5, "3", [1], 1j, 0, 257, HUGE, {}],
    "interrupt": [*NO_NAME, "stop"],
    "scoring": [3, True, 0.5, NAN, b"loss", "", "Loss", "log_loss", [], ["loss"], {}, object(), np],
}
WITH = {  # what else a parameter needs to have a meaning
    **each(("momentum", "nesterovs_momentum"), {"solver": "sgd"}),
    "power_t": {"learning_rate": "invscaling"},
    "validation_fraction": {"early_stopping": True},
}


def quick(kind, **parameters):
    given = {
        "hidden_layer_sizes": (4,),
        "validation_fraction": 0.5,
        "dropout": 0.5,
        "max_iter": 1,
        "random_state": 0,
        "n_jobs": 1,
    }
    return kind(**{**given, **parameters})


def on_estimator(kind, method, parameters=(), **arguments):
    """Call a method of a fitted estimator; on an error it must be as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of convergence, batches cut, shapes of y
        model = quick(kind).fit(**DATA[kind]).set_params(**dict(parameters))
        before, known = digest(model.network_), {**vars(model), "network_": None}
        try:
            getattr(model, method)(**arguments)
        except (TypeError, ValueError):
            assert digest(model.network_) == before
            after = {**vars(model), "network_": None}
            assert after.keys() == known.keys()
            for name in known:  # NaN as an object is equal to nothing, but it is the same object
                if after[name] is not known[name]:
                    np.testing.assert_equal(after[name], known[name])
            raise


def with_parameter(kind, name, **parameters):
    extra = WITH.get(name, {})
    on_estimator(kind, "fit", {**extra, **parameters}, **DATA[kind])


def parameter_calls(kind):
    """One call for each parameter: `fit` is what checks it."""
    bad = dict(PARAMETERS)
    if kind is DropoutMLPClassifier:
        bad["class_weight"] = ["Balanced", 3, [1, 2], {0: -1.0}, {0: "1"}, {0: NAN}, object()]
        bad |= {"soft_labels": NO_FLAG, "label_smoothing": NO_SMOOTHING}
        bad["consistency"] = FRACTION
    else:
        bad["loss"] = [*NO_NAME, "softmax_cross_entropy", "pinball"]
        bad |= {"huber_delta": NO_DELTA, "sort_quantiles": NO_FLAG}
        bad["quantile"] = [*NO_LEVEL, [0.5, 0.5], (0.1, 0.9, 0.1), [1.0], RAGGED]
    good = quick(kind).get_params()
    return {
        f"{kind.__name__}-{name}": Call(
            partial(with_parameter, kind, name), {name: good[name]}, {name: values}
        )
        for name, values in bad.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", DATA)
def test_estimators_take_arrays_of_any_layout(kind, layout, tmp_path):
    def fitted(x, y, weights):
        model = quick(kind)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            model.fit(x, y, weights, X_val=x, y_val=y, sample_weight_val=weights)
        model.partial_fit(x, y, weights)
        uncertainty = vars(model.predict_uncertainty(x, 3))
        return digest(model.network_), model.predict(x), model.score(x, y, weights), uncertainty

    same_results(fitted, [*DATA[kind].values(), np.arange(12.0)], layout, tmp_path)


@pytest.mark.parametrize("kind", DATA)
def test_estimators_refuse_no_rows(kind):
    model = quick(kind).partial_fit(**DATA[kind], **CLASSES_OF[kind])
    none = {name: array[:0] for name, array in DATA[kind].items()}
    for method in (model.fit, model.partial_fit, model.score):
        with pytest.raises(ValueError, match="0 sample"):
            method(**none)
    for method in (model.predict, model.predict_uncertainty):
        with pytest.raises(ValueError, match="0 sample"):
            method(none["X"])


NO_X12 = [
    *["a", None, 1.0, np.ones(12), np.ones((12, 3, 1)), np.ones((11, 3)), np.ones((0, 3)), RAGGED],
    *[np.full((12, 3), bad) for bad in (1j, "a", None, NAN, INF)],
    np.ones((12, 3), "M8[s]"),
]
OTHER_X12 = [*NO_X12[:5], *NO_X12[6:], np.ones((12, 4))]  # there any number of rows is right
# What scikit-learn says of data, whose checks want these words and no name.
SAYS = (
    "X|y|mc_samples|seed|samples|Expected 2D array|Found array with|Found input variables|could not convert|sequence|"
    "Complex data not supported|float\\(\\) argument|Input should have|Unknown label type"
)
NO_WEIGHTS = [value for value in NO_ROW_WEIGHTS if not isinstance(value, float)]
NO_CALLBACKS = [
    *[None, 3, 1.5, True, NAN, "ab", b"ab", {}, {"a": 1}, object(), callbacks.LossPrinter()],
    *[[3], [None], ["ab"], [callbacks.LossPrinter], [object()], np.ones(2), range(2)],
    [callbacks.Validation(np.ones((2, 3)), ["a"])],
    [callbacks.Validation(np.ones((2, 9)), [0, 1])],
]
NO_Y = ["a", 1, None, [0, 1], np.zeros((2, 3, 4)), np.full(12, NAN), np.full(12, None), RAGGED]


def method_calls(kind):
    """Calls of an estimator's methods."""
    good = DATA[kind]
    x, name = {"X": ROWS}, kind.__name__
    samples = {"mc_samples": NO_SAMPLES, "seed": NO_SEED, "samples": NO_FLAG}
    validated = {**good, "X_val": ROWS, "y_val": good["y"]}
    y = [*NO_Y, np.zeros((12, 3))[:, :0]]
    if kind is DropoutMLPClassifier:
        y += [np.linspace(0, 1, 12), np.full((12, 2), [0, 5])]
    else:
        y += [np.full(12, "a"), np.full(12, INF)]
    call = partial(partial, on_estimator, kind)
    calls = {
        "fit": Call(call("fit"), good, {"X": NO_X12, "y": y}, SAYS),
        "fit-weighted": Call(
            call("fit"),
            validated,
            {
                "sample_weight": NO_WEIGHTS,
                "X_val": [value for value in NO_X12 if value is not None],
                "y_val": y,
                "sample_weight_val": NO_WEIGHTS,
            },
        ),
        "fit-kept": Call(
            call("fit"),
            {**good, "checkpoint": f"{name}.cdrop", "checkpoint_every": 1},
            {
                "checkpoint": [3, 1.5, b"run", True, [], {}, object()],
                "checkpoint_every": [*[v for v in NO_WHOLE if v is not None], 0, -1, HUGE],
            },
        ),
        "partial_fit": Call(call("partial_fit"), good, {"X": NO_X12, "y": y}, SAYS),
        "partial_fit-weighted": Call(call("partial_fit"), good, {"sample_weight": NO_WEIGHTS}),
        **{
            f"{method}-watched": Call(
                call(method), {**good, "callbacks": ()}, {"callbacks": NO_CALLBACKS}
            )
            for method in ("fit", "partial_fit")
        },
        "predict": Call(call("predict"), x, {"X": OTHER_X12}, SAYS),
        "predict_uncertainty": Call(
            call("predict_uncertainty"), {**x, "mc_samples": 2}, {"X": OTHER_X12, **samples}, SAYS
        ),
        "save": Call(call("save"), {"path": os.devnull}, {"path": NO_PATH}, "PathLike"),
        "score": Call(call("score"), good, {"X": OTHER_X12, "y": NO_Y}, SAYS),
        "score-weighted": Call(call("score"), good, {"sample_weight": NO_WEIGHTS}),
    }
    if kind is DropoutMLPClassifier:
        calls["partial_fit-classes"] = Call(
            call("partial_fit"), good, {"classes": [[0, 1], [0, 1, 2, 3], "abc", 3, [], RAGGED, {}]}
        )
        calls["predict_proba"] = Call(
            call("predict_proba"),
            {**x, "mc_samples": 2},
            {"X": OTHER_X12, "mc_samples": NO_SAMPLES},
            SAYS,
        )
        calls["predict_log_proba"] = Call(call("predict_log_proba"), x, {"X": OTHER_X12}, SAYS)
    else:
        calls["predict-std"] = Call(call("predict"), x, {"return_std": NO_FLAG})
    return {f"{name}.{method}": made for method, made in calls.items()}


ESTIMATORS = {
    name: call
    for kind in DATA
    for name, call in {**parameter_calls(kind), **method_calls(kind)}.items()
}

# ---- The rest of what is public ----------------------------------------------------------------

RATE = {"learning_rate": POSITIVE}
FACTOR = [*POSITIVE, 1.1]
OPTIMIZER = {"epsilon": POSITIVE}
MOMENTUM = {
    **each(("momentum", "start"), BELOW_1),
    "ramp": [*NO_WHOLE, -1, HUGE],
    "dampened": NO_FLAG,
}
ADAM = {"beta1": BELOW_1, "beta2": BELOW_1, **OPTIMIZER}
SETTINGS = {
    **each(("repeats", "iterations", "hidden", "print_every"), COUNT),
    "seed": [*NO_KEY, 2**64 - 1],
    "margin": FRACTION,
    "sweep": [None, 3, 0.5, "0.5", (1.0,), (-0.1,), (NAN,), ("0.5",), (0.1, None), {0.5}],
}


def made(kind, bad):
    return Call(kind, {}, bad)


def compared(data=SMALL, settings=None, *, network=None, **rest):
    """Compare few iterations."""
    names = inspect.signature(Settings).parameters
    own = {name: rest.pop(name) for name in list(rest) if name in names}
    settings = Settings(**{"repeats": 1, "iterations": 1, **own}) if settings is None else settings
    return compare(data, settings, network=network, **rest)


def tried(arms=None, X=X, y=y, test_data=(X, y), **rest):
    """The same for an experiment of any arms on a given test set."""
    some = {"plain": {"iterations": 1}, "other": {"iterations": 1, "dropout": 0.5, "hidden": 2}}
    return paired_experiment(arms or some, X, y, test_data=test_data, **{"repeats": 1, **rest})


def split(**rest):
    """The same with a split in each repeat."""
    return tried(X=np.eye(30), y=np.arange(30) % 2, test_data=None, **rest)


def helped(data=None, **rest):
    """Whether dropout helps on a small table."""
    table = datasets.Table(
        "t", "made here", np.eye(30), np.arange(30) % 2, "classification", ("a", "b")
    )
    arms = {"no dropout": {"iterations": 1}, "dropout": {"iterations": 1, "dropout": 0.5}}
    return does_dropout_help(
        table if data is None else data, **{"arms": arms, "repeats": 1, **rest}
    )


def subnetworks(method, **arguments):
    return getattr(trained().subnetworks(3), method)(**arguments)


def commanded(**options):
    """Run the command line with one option; a refusal is printed on standard error, and the exit code is 2."""
    (option, value), *_ = options.items()
    with pytest.raises(SystemExit) as caught:
        main(["compare", f"--{option.replace('_', '-')}={value}"])
    raise ValueError(caught.value.code)


STEPS = {"steps": [value for value in COUNT if value is not None]}
VALUE = {"value": FRACTION}
RESULT = tried()
OTHERS = {
    "SGD": made(optimizers.SGD, {}),
    "Momentum": made(optimizers.Momentum, MOMENTUM),
    "Nesterov": made(optimizers.Nesterov, MOMENTUM),
    "Adagrad": made(optimizers.Adagrad, OPTIMIZER),
    "RMSprop": made(optimizers.RMSprop, {"rho": BELOW_1, **OPTIMIZER}),
    "Adam": made(optimizers.Adam, ADAM),
    "AdamW": made(optimizers.AdamW, {**ADAM, "weight_decay": BELOW_1}),
    "Schedule": made(schedules.Schedule, RATE),
    "Constant": made(schedules.Constant, RATE),
    "Step": made(schedules.Step, {**RATE, "every": COUNT, "factor": FACTOR}),
    "Cosine": made(schedules.Cosine, {**RATE, "epochs": COUNT, "final": [*FRACTION, 1.0]}),
    "InverseScaling": made(schedules.InverseScaling, {**RATE, "power": [*FRACTION, 1001]}),
    "Plateau": made(
        schedules.Plateau,
        {
            **RATE,
            "patience": COUNT,
            "factor": FACTOR,
            "tol": FRACTION,
            "smallest": FRACTION,
            "monitor": [*NO_NAME, "score"],
        },
    ),
    "get_schedule": Call(
        schedules.get_schedule,
        {"schedule": "step"},
        {"schedule": [*NO_NAME, schedules.Step], "every": COUNT, "nonsense": [1]},
    ),
    "rates.Rate": Call(rates.Constant, {"value": 0.1}, STEPS),
    "rates.Constant": Call(rates.Constant, {"value": 0.1}, {**VALUE, **STEPS}),
    "rates.Linear": Call(
        rates.Linear, {"first": 0.5, "last": 0.1}, {**each(("first", "last"), FRACTION), **STEPS}
    ),
    "rates.Cosine": Call(
        rates.Cosine, {"first": 0.5}, {**each(("first", "last"), FRACTION), **STEPS}
    ),
    "rates.FlatCos": Call(rates.FlatCos, {"value": 0.1}, {**VALUE, **STEPS}),
    "rates.CosLog4": Call(rates.CosLog4, {"value": 0.1}, {**VALUE, **STEPS}),
    "rates.Early": Call(
        rates.Early, {"value": 0.1, "until": 0.5}, {**VALUE, "until": [*POSITIVE, 1.1], **STEPS}
    ),
    "rates.Late": Call(
        rates.Late, {"value": 0.1, "start": 0.5}, {**VALUE, "start": [*POSITIVE, 1.1], **STEPS}
    ),
    "rates.Curriculum": Call(
        rates.Curriculum, {"value": 0.1}, {**VALUE, "gamma": [*POSITIVE, 701], **STEPS}
    ),
    "rates.Piecewise": Call(
        rates.Piecewise,
        {"points": [(0, 1)]},
        {
            "points": [
                *NO_NUMBER,
                0.5,
                [],
                [0.5],
                [(0.5,)],
                [(-1, 1)],
                [(0, NAN)],
                [(1, 0), (0, 1)],
            ],
            **STEPS,
        },
    ),
    "rates.Function": Call(
        rates.Function, {"function": math.sqrt}, {"function": [None, 0.1, "sqrt", []], **STEPS}
    ),
    "rates.from_text": Call(
        rates.from_text,
        {"schedule": "early:0.5", "value": 0.1},
        {"schedule": [*NO_NAME, "early", "early:0"], "value": FRACTION},
    ),
    "rates.get_rate": Call(
        rates.get_rate,
        {"rate": "constant", "value": 0.1},
        {"rate": [*NO_NAME, rates.Early], "value": FRACTION, "nonsense": [1]},
    ),
    "LossPrinter": made(callbacks.LossPrinter, {"every": COUNT}),
    "Validation": Call(callbacks.Validation, {"X": [[0.0]], "y": [0]}, {"every": COUNT}),
    "ProgressBar": made(
        callbacks.ProgressBar,
        {
            "total": [v for v in COUNT if v is not None],
            "initial": [*NO_WHOLE, -1, HUGE],
            "unit": [None, 3, b"it", ["it"]],
        },
    ),
    "ProgressBar.advance": Call(
        callbacks.ProgressBar().advance, {}, {"amount": [*NO_WHOLE, -1, HUGE]}
    ),
    "initial_weight": Call(
        initializers.initial_weight,
        {"fan_in": 2, "fan_out": 3, "initializer": "he", "seed": 0, "layer": 0},
        {
            "fan_in": COUNT,
            "fan_out": COUNT,
            "initializer": NO_NAME,
            "seed": NO_KEY,
            "layer": [*NO_WHOLE, -1, 2**32],
        },
    ),
    "storage.save": Call(
        storage.save,
        {"model": Network([2, 2]), "path": os.devnull},
        {"model": NO_MODEL},
    ),
    "storage.save-path": Call(
        partial(storage.save, Network([2, 2])), {"path": os.devnull}, {"path": NO_PATH}, "PathLike"
    ),
    "Network.fit-checkpoint": Call(
        Network([5, 3]).fit,
        {"X": np.ones((2, 5)), "y": [0, 2], "iterations": 0, "checkpoint": "absent/run"},
        {"checkpoint_every": [*[value for value in NO_WHOLE if value is not None], 0, -1, HUGE]},
    ),
    "Network.save": Call(Network([2, 2]).save, {"path": os.devnull}, {"path": NO_PATH}, "PathLike"),
    "storage.load": Call(storage.load, {"path": os.devnull}, {"path": NO_PATH}, "PathLike"),
    "storage.load-expected": Call(
        storage.load,
        {"path": os.devnull},
        {"expected": [3, "Network", int, Network([2, 2]), [], {}]},
    ),
    "storage.load-as_network": Call(storage.load, {"path": os.devnull}, {"as_network": NO_FLAG}),
    "to_onnx": Call(
        convert.to_onnx, {"model": Network([2, 2])}, {"model": NO_MODEL, "X": [1, "a", [[1.0]], {}]}
    ),
    "to_onnx-path": Call(
        partial(convert.to_onnx, Network([2, 2])),
        {"path": None},
        {"path": [value for value in NO_PATH if value is not None]},
        "PathLike",
    ),
    "from_sklearn": Call(
        convert.from_sklearn,
        {"model": MLPRegressor(hidden_layer_sizes=(2,), tol=9.0).fit(ROWS, TARGETS)},
        {"model": [*NO_MODEL, MLPRegressor(), Network([2, 2])]},
        "model|This MLPRegressor instance",
    ),
    **{
        f"Subnetworks.{method}": Call(
            partial(subnetworks, method), {"X": np.ones((2, 5))}, {"X": NO_X}
        )
        for method in ("predict", "predict_proba", "predict_uncertainty")
    },
    "Subnetworks.predict_uncertainty-samples": Call(
        partial(subnetworks, "predict_uncertainty"), {"X": np.ones((2, 5))}, {"samples": NO_FLAG}
    ),
    "Subnetworks.extract": Call(
        partial(subnetworks, "extract"), {"index": 2}, {"index": [*NO_WHOLE, -1, 3, HUGE]}
    ),
    "make_digits": Call(
        datasets.make_digits, {"n": 1}, {"n": [*NO_WHOLE, -1, 2**70], "seed": NO_KEY}
    ),
    "drawn_digits": Call(
        datasets.drawn_digits, {}, {"seed": NO_KEY, "validation": [*NO_WHOLE, -1, 60_000]}
    ),
    "read_idx": Call(datasets.read_idx, {"path": ""}, {"path": [*NO_PATH, None]}, "PathLike|path"),
    "load_folder": Call(
        datasets.load_folder,
        {"folder": "absent"},
        {"validation": [*NO_WHOLE, -1], "name": [3, b"a", [], NAN, "MNIST"]},
    ),
    "load_folder-folder": Call(
        datasets.load_folder, {"folder": "absent"}, {"folder": [*NO_PATH, None]}, "PathLike|path"
    ),
    "load_mnist": Call(
        datasets.load_mnist,
        {"folder": "absent"},
        {
            "validation": [*NO_WHOLE, -1],
            "download": NO_FLAG,
            "progress": NO_FLAG,
            "timeout": ["1", None, True, 1j, [1.0], 0, -1, NAN, INF, 86_401],
            "mirrors": [3, None, [3], ["http://a", None], {"http://a"}, b"http://a", object()],
        },
    ),
    "load_mnist-folder": Call(
        datasets.load_mnist,
        {"folder": "absent"},
        {"folder": [value for value in NO_PATH if value is not None]},
        "PathLike|path",
    ),
    "load_npz": Call(
        datasets.load_npz,
        {"path": "absent.npz"},
        {"task": NO_TASK, "test": NO_PATH_OR_NONE},
        "task|PathLike|path",
    ),
    "load_npz-path": Call(
        datasets.load_npz, {"path": "absent.npz"}, {"path": [*NO_PATH, None]}, "PathLike|path"
    ),
    "load_csv": Call(datasets.load_csv, {"path": "absent.csv", "label": "y"}, {"label": NO_COLUMN}),
    "load_csv-path": Call(
        partial(datasets.load_csv, label="y"),
        {"path": "absent.csv"},
        {"path": [*NO_PATH, None]},
        "PathLike|path",
    ),
    "load": Call(
        datasets.load,
        {"source": "absent.csv", "label": "y"},
        {
            "label": NO_COLUMN,
            "task": NO_TASK,
            **each(("drop", "categories", "missing"), [3, b"y", ["y", 3], 1.5, None]),
            **each(("group", "time", "sep", "encoding"), [3, b"y", ["y"], 1.5, True]),
            "decimal": [3, b".", ["."], ";", ""],
            "header": NO_FLAG,
            "validation": [*[value for value in NO_WHOLE if value is not None], -1, HUGE],
            "seed": NO_KEY,
            "progress": NO_FLAG,
        },
    ),
    "load-test": Call(
        datasets.load, {"source": "absent.csv"}, {"test": NO_PATH_OR_NONE}, "PathLike|path"
    ),
    "from_frame": Call(
        datasets.from_frame,
        {"frame": pandas.DataFrame({"y": [0, 1], "x": [1.5, 2]}), "label": "y"},
        {"frame": [3, None, [1], {}, np.eye(2)], "label": NO_COLUMN},
    ),
    "encode_labels": Call(
        datasets.encode_labels,
        {"y": [0, 1]},
        {"y": [3, None, [], [1, None], [1, NAN], np.eye(2), [1j, 2]], "task": NO_TASK},
    ),
    "split_rows": Call(
        partial(datasets.split_rows, np.array([0, 1] * 5)),
        {"seed": 0, "testing": 2, "validation": 2, "stratify": True},
        {
            "seed": NO_KEY,
            "testing": [*NO_WHOLE, -1, 10],
            "validation": [*NO_WHOLE, -1, 8],
            "stratify": NO_FLAG,
        },
    ),
    "load-source": Call(
        datasets.load, {"source": "absent"}, {"source": [*NO_PATH, None]}, "PathLike|path"
    ),
    "Dataset.subset": Call(
        SMALL.subset,
        {"train_size": 10},
        {"train_size": [*NO_WHOLE, 0, -1, 301, HUGE], "seed": NO_KEY},
    ),
    "Dataset.to_features": Call(
        SMALL.to_features, {}, {"dtype": ["float16", "i4", int, complex, "nonsense", 3, [], object]}
    ),
    "Settings": made(
        Settings, {**SETTINGS, "schedule": [*NO_NAME, "early", "early:0"], "kind": NO_NAME}
    ),
    "compare": Call(
        compared,
        {"network": FakeTrainer()},
        {
            "data": [None, 3, "mnist", SMALL.to_features(), object()],
            "settings": [3, "small", {}, object(), Settings],
            "splits": NO_FLAG,
        },
    ),
    "paired_experiment": Call(
        tried,
        {},
        {
            "arms": [
                *(3, [3], {"a": {}, 3: {}}, {"a": {}, "b": 3}, {"a": {}, "b": []}, {"a": [None]}),
                *({"a": {}, "b": {name: 1}} for name in ("width", "seed", "units", "callbacks")),
                *({"a": {}, "b": {"hidden": bad}} for bad in (0, -1, 1.5, "2", (2, 0), None)),
                *({"a": {"epochs": 2, "patience": bad}} for bad in (0, -1, 1.5, "2", True)),
            ],
            "test_data": [
                *(3, [], (X,), (X, y, y), (X, y[1:]), (X[:0], y[:0]), (X[0], y[0]), {1: 2}),
                *((X, y + 1), (X[:, 1:], y), (X, np.full(6, "a")), (X, None)),
            ],
            **each(("repeats", "curve_every"), [value for value in COUNT if value is not None]),
            "seed": [*NO_KEY, 2**64],
            "task": [value for value in NO_NAME if value is not None],
            "metric": [3, "", "nonsense", "rmse", b"accuracy", [], {}, object()],
            "margin": FRACTION,
            **each(("until_decided", "stratify"), NO_FLAG),
            **each(("validation_size",), NO_SHARE),
            "n_jobs": NO_JOBS,
            "threads": COUNT,
            "time_limit": [value for value in POSITIVE if value is not None],
            **each(("on_begin", "on_trial", "network"), [3, "print", [], {}]),
            "ledger": [3, "kept", {}, object(), Ledger],
            "preset": [3, "article", {}, object(), Preset],
            "transformer": [3, "scale", [], {}, object()],
            "cv": [3, "kfold", [3], [([0, 1], [2])], object()],
        },
    ),
    "paired_experiment-splits": Call(
        split,
        {},
        {
            "test_size": [*NO_NUMBER, *(0, -1, 0.0, 1.0, 1.5, -0.1, NAN, INF, 29, 30, HUGE)],
            "train_size": [*[v for v in NO_WHOLE if v is not None], 0, -1, 1, 25, HUGE],
            "groups": [3, "a", [1, 2], np.ones(30), np.ones((30, 1)), RAGGED],
            "times": [3, "a", [1, 2], np.full(30, NAN), np.full(30, "a"), np.ones((30, 1)), RAGGED],
            "cv": [3, "kfold", [], [3], [([0], [2])], [([0, 1], [1])], [([0, 1], [30])]],
        },
    ),
    "paired_experiment-data": Call(
        partial(tried, test_data=None),
        {"X": np.eye(8), "y": np.arange(8) % 2},
        {
            "X": ["a", None, 1.0, np.ones(8), np.ones((8, 3, 1)), np.ones((0, 3)), RAGGED],
            "y": [
                *("a", 1, None, [0, 1], np.zeros((2, 3, 4)), np.full(8, NAN), np.full(8, None)),
                *(RAGGED, np.ones(8), np.full(8, 1j), np.full(8, INF)),
            ],
        },
        "X|y",
    ),
    "paired_experiment-callbacks": Call(
        tried, {"callbacks": ()}, {"callbacks": [None, 3, "ab", [3], [None]]}
    ),
    "paired_experiment-about": Call(
        tried, {"about": {}}, {"about": [3, "MNIST", [1], object()]}, "about|mapping"
    ),
    "does_dropout_help": Call(
        helped,
        {},
        {
            "data": [3, "titanic.csv", SMALL.to_features(), object()],
            "test_size": [*NO_NUMBER, *(0, -1, 1.0, -0.1, NAN, INF, 29, HUGE)],
            "arms": [3, [3], {}, {"a": 3}, {"a": []}],
        },
    ),
    "arms_for": Call(
        arms_for,
        {"rows": 100},
        {
            "rows": COUNT,
            **each(("rates", "l2", "hidden"), [3, "ab", None, (), [], {0.1}, ("a",), (None,)]),
            **each(("epochs", "patience"), COUNT),
            "learning_rate": POSITIVE,
            "kind": NO_NAME,
        },
    ),
    "Arm.curve": Call(
        RESULT.arms["plain"].curve, {"name": "loss"}, {"name": [*NO_NAME, "seconds"]}
    ),
    "Arm.curves": Call(
        RESULT.arms["plain"].curves, {"name": "loss"}, {"name": [*NO_NAME, "seconds"]}
    ),
    "ExperimentResult.scores": Call(RESULT.scores, {"arm": "plain"}, {"arm": NO_NAME}),
    "ExperimentResult.contrasts": Call(
        RESULT.contrasts,
        {},
        {
            "baseline": [value for value in NO_NAME if value is not None],
            "sizes": [3, "ab", {0.1}, (0,), (-0.1,), ("0.1",), (NAN,), (None,), (1j,)],
        },
    ),
    "open_ledger": Call(open_ledger, {"directory": "absent/kept"}, {"resume": NO_FLAG}),
    "open_ledger-directory": Call(
        open_ledger,
        {"directory": "absent/kept"},
        {"directory": [*NO_PATH, None]},
        "PathLike|path",
    ),
    "Settings-compared": Call(
        compared,
        {},
        {
            "dropout": [*NO_RATE[:-1], {}],
            "optimizer": NO_NAME,
            "learning_rate": POSITIVE,
            "batch_size": COUNT,
            "l2": FRACTION,
            "threads": [1.5, "3", True, [1], 0, -1, 257, HUGE],
        },
    ),
    "cli": Call(
        commanded,
        {},
        {
            **each(("repeats", "iterations", "hidden", "batch_size"), ["0", "-1", "1.5", "a", ""]),
            "threads": ["0", "257", "a"],
            "margin": ["-0.1", "nan", "inf", "a", ""],
            **each(("splits", "epochs"), ["0", "-1", "1.5", "a", ""]),
            "rates": ["1", "-0.1", "0.1,nan", "inf", "a", "", "0.1,,0.2"],
            **each(("task", "protocol"), ["", "nonsense"]),
            "jobs": ["0", "-1", "1.5", "a"],
            "seed": ["-1", "0.5", "a", ""],
            "dropout": ["1", "-0.1", "nan", "inf", "a", ""],
            "sweep": ["1", "-0.1", "0.1,nan", "inf", "a", "", "0.1,,0.2", "0.1 0.2"],
            "train_size": ["0", "-1", "1.5", "a", ""],
            "test_share": ["0", "1", "-0.1", "nan", "inf", "a", ""],
            **each(("learning_rate", "l2"), ["-0.1", "nan", "inf", "a", ""]),
            "kind": ["", "Shared", "normal"],
            "schedule": ["", "early", "early:0", "early:a", "linear:1", "nonsense"],
            "optimizer": ["SGD", "", "nonsense"],
        },
        "2",
    ),
}
CALLS_HERE = {**ESTIMATORS, **OTHERS}


@pytest.mark.parametrize(("name", "argument"), bad_cases(CALLS_HERE))
def test_bad_arguments_are_reported(name, argument, capsys):
    for value in CALLS_HERE[name].bad[argument]:
        check_reported(CALLS_HERE[name], argument, value)
        if name == "cli":
            assert f"--{argument.replace('_', '-')}: " in capsys.readouterr().err


def test_good_arguments_are_good():
    for name in CALLS_HERE.keys() - {"cli"}:  # tests/test_cli.py
        call = CALLS_HERE[name]
        try:
            call.function(**call.good)
        except (datasets.DataNotFoundError, storage.ModelFileError, OSError) as error:
            assert re.search("absent|found none|is no(t a( regular)?)? file", str(error)), name


WITHOUT_FILES = [name for name in ESTIMATORS if not name.endswith(".save")] + [
    *("Adam", "AdamW", "Nesterov", "RMSprop", "Adagrad", "Constant", "Step", "Cosine", "Plateau"),
    *("InverseScaling", "get_schedule", "LossPrinter", "ProgressBar", "Settings", "from_sklearn"),
    *("Subnetworks.predict", "Subnetworks.extract", "compare", "initial_weight"),
]


@pytest.mark.parametrize("name", WITHOUT_FILES)
@settings(max_examples=8)  # a fit each
@given(data=st.data())
def test_anything_else_is_right_or_reported(name, data):
    check_anything(CALLS_HERE[name], data)


# ---- Whether they are all here -----------------------------------------------------------------

MODULES = (
    *(
        "callbacks",
        "convert",
        "datasets",
        "estimators",
        "experiments",
        "initializers",
    ),
    *("kernels", "network", "optimizers", "rates", "schedules"),
    *("storage", "subnetworks", "uncertainty"),
)
MADE_BY_CDROP = {
    *(
        "Arm",
        "ClassificationUncertainty",
        "Claim",
        "Column",
        "Contrast",
        "Evidence",
        "ExperimentResult",
        "Trial",
        "Column",
        "Dataset",
        "Epoch",
        "Evaluation",
    ),
    *("Preset", "Published", "Table", "Transformer"),
    *("Features", "History", "Ledger", "RegressionUncertainty", "Subnetworks"),
}
CALLED_BY_CDROP = {  # Network.load_state_dict is not, and tests/test_arguments.py has states of all kinds
    *("after", "begin", "constants", "on_epoch_end", "on_fit_begin", "on_fit_end", "on_iteration"),
    *("at", "of_step"),
    *("add", "checkpoint", "claim", "among", "finished", "load_state_dict", "state_dict"),
}
ANYTHING_GOES = {
    **each(("EpochPrinter.file", "LossPrinter.file", "ProgressBar.file"), "as for print"),
    **each(("Validation.X", "Validation.y"), "the network's score says what is wrong"),
    "simd_paths.built": "a switch",
    **each(
        ("ClassificationUncertainty.quantile.q", "RegressionUncertainty.quantile.q"),
        "tests/test_samples.py",
    ),
    "from_frame.name": "any heading",
    **each(
        ("ExperimentResult.plot.file", "ExperimentResult.plot.format"), "tests/test_plotting.py"
    ),
    **each(
        ("ExperimentResult.write_report.file", "ExperimentResult.write_report.command"),
        "tests/test_report.py",
    ),
    **{
        f"{kind}.{argument}": "the experiment has checked the rows"
        for kind, more in (
            ("ImageScaler", ["dtype"]),
            ("Standardizer", ["dtype", "names", "get_feature_names_out.input_features"]),
            ("TableEncoder", ["kinds", "get_feature_names_out.input_features"]),
            ("Transformer", []),
        )
        for argument in ("fit.X", "fit.y", "transform.X", *more)
    },
    "split_rows.y": "the caller has checked the targets",
    "Arm.scores.metric": "NaN where there is none",
    "Arm.to_dict.names": "the result's metrics",
    "ExperimentResult.label.arm": "a name without a longer one is its own",
}


def public_callables():
    """Yield each public function, class and method by the name that the tables have for it."""
    for name in MODULES:
        module = importlib.import_module(f"cdrop.{name}")
        for what in module.__all__:
            value = getattr(module, what)
            if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
                continue
            if what not in MADE_BY_CDROP:
                yield f"{name}.{what}" if name in ("rates", "storage") else what, value
            for base in inspect.getmro(value) if inspect.isclass(value) else ():
                if base.__module__.startswith("cdrop"):
                    yield from (
                        (f"{what}.{m}", f) for m, f in vars(base).items() if is_method(m, f)
                    )


def is_method(name, value):
    return inspect.isfunction(value) and not name.startswith("_") and name not in CALLED_BY_CDROP


def known_arguments():
    known = defaultdict(set)
    for name, call in {**KERNELS, **MAKING, **CALLS_HERE}.items():
        known[name.partition("-")[0]] |= set(call.bad)
    for name, call in METHODS.items():
        known[f"Network.{name.partition('-')[0]}"] |= set(call.bad)
    return known


def test_the_tables_have_bad_values_for_each_public_argument():
    known, lacking = known_arguments(), []
    for name, value in public_callables():
        for argument in inspect.signature(value).parameters.values():
            free = argument.name == "self" or argument.kind == argument.VAR_KEYWORD
            if not free and argument.name not in known[name]:
                lacking.append(f"{name}.{argument.name}")
    assert sorted(set(lacking)) == sorted(ANYTHING_GOES)


def test_the_tables_have_bad_values_for_each_option():
    parser = build_parser()
    commands = next(action.choices for action in parser._actions if action.dest == "command")
    options = {action.dest for command in commands.values() for action in command._actions}
    elsewhere = {
        "help",
        "size",
        "data",
        "label",
        "json",
        "plot",
        "report",
        "rounds",
        "checkpoint",
        "resume",
    }  # tests/test_cli.py
    elsewhere |= {
        "drop",
        "categories",
        "test",
        "group",
        "time",
        "sep",
        "decimal",
        "encoding",
        "missing",
    }
    elsewhere |= {"header", "metric", "until_decided"}  # tests/test_tables.py and tests/test_cli.py
    elsewhere |= {"rows", "search", "time_limit"}  # tests/test_paper.py
    assert options - elsewhere == set(CALLS_HERE["cli"].bad)
