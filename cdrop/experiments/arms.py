"""The arms of an experiment: configurations of `Network`, scikit-learn estimators, and lists to choose from."""

from __future__ import annotations

import dataclasses
import inspect
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from cdrop._checks import whole_number
from cdrop.callbacks import Callback
from cdrop.experiments.data import Part, Problem, text
from cdrop.experiments.metrics import Metric, Prediction, baseline, metrics_of, score_all
from cdrop.experiments.trials import Trial
from cdrop.network import Network

__all__ = [
    "Candidate",
    "Configuration",
    "Estimator",
    "NetworkFactory",
    "Options",
    "parse_arms",
    "run",
]

NetworkFactory = Callable[..., Any]

# What an experiment decides itself, or what is not part of a run's result.
_NOT_OF_NETWORK = {"self", "units", "seed", "threads"}
_OF_FIT = (
    "optimizer",
    "learning_rate",
    "l2",
    "share_l2",
    "max_norm",
    "mask_samples",
    "consistency",
    "batch_size",
    "iterations",
    "epochs",
    "shuffle",
)
_OF_NETWORK = tuple(
    name for name in inspect.signature(Network.__init__).parameters if name not in _NOT_OF_NETWORK
)
_LOSSES = {
    "classification": "softmax_cross_entropy",
    "multilabel": "sigmoid_cross_entropy",
    "regression": "squared_error",
}


@dataclass(frozen=True)
class Options:
    """What all runs of an experiment share in addition to the data.

    Attributes
    ----------
    metric : Metric
        By which the experiment judges, and candidates are chosen.
    curve_every : int or None
        Add a point to the learning curves after each iteration that is a multiple of this.
    threads : int or None
        Threads of each run of a network.
    network : callable or None
        Called as `cdrop.Network`, which it is by default.
    callbacks : sequence of Callback
        Passed to every ``Network.fit``.
    checkpoint : mapping or None
        Arguments of ``Network.fit`` for checkpoints; an arm without a choice uses them.
    """

    metric: Metric
    curve_every: int | None = None
    threads: int | None = None
    network: NetworkFactory | None = None
    callbacks: Sequence[Callback] = ()
    checkpoint: Mapping[str, Any] | None = None


class Fitted(NamedTuple):
    """A trained candidate: its predictions by the name of the rows, and the points of its learning curves."""

    predict: Callable[[str], Prediction]
    rows: Callable[[str], Any]
    curves: list[list[float]]


class Candidate(Protocol):
    """What can be trained in an arm."""

    @property
    def selects(self) -> bool:
        """Whether it needs validation rows by itself."""

    def describe(self) -> dict[str, Any]:
        """Return its settings in values that JSON can carry."""

    def train(
        self, problem: Problem, part: Part, selects: bool, seed: int, options: Options
    ) -> Fitted:
        """Train it; with `selects` on the training rows alone."""


# ---- Networks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Configuration:
    """How a network is made and trained.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    network : dict
        Arguments of `Network`, except for the units, the seed and the threads.
    fit : dict
        Arguments of `Network.fit` that say how to train.
    patience : int or None
        Stop after this number of epochs without a better validation loss, and keep the best weights.
    """

    hidden: tuple[int, ...]
    network: dict[str, Any]
    fit: dict[str, Any]
    patience: int | None = None

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Configuration:
        """Sort the settings of an arm.

        Parameters
        ----------
        name : str
            What an error calls them.
        settings : mapping
            ``hidden`` (widths of the hidden layers, or one width), ``patience`` (early stopping; needs ``epochs``), and
            any argument of `Network` and `Network.fit` that says what to train and how.

        Raises
        ------
        TypeError, ValueError
            If a name is none of these, a width is not an integer above 0, or `patience` lacks epochs.

        Examples
        --------
        >>> Configuration.from_settings("plain", {"hidden": 256, "l2": 1e-3, "dropout": 0.5})
        Configuration(hidden=(256,), network={'dropout': 0.5}, fit={'l2': 0.001}, patience=None)
        """
        known = ("hidden", "patience", *_OF_NETWORK, *_OF_FIT)
        for setting in settings:
            if setting not in known:
                raise ValueError(f"{name} has {setting!r}; expected some of {', '.join(known)}")
        hidden = settings.get("hidden", ())
        widths = list(hidden) if isinstance(hidden, (tuple, list)) else [hidden]
        patience = settings.get("patience")
        if patience is not None:
            patience = whole_number(f"{name} patience", patience, 1, 2**53)
            if settings.get("epochs") is None:
                raise ValueError(
                    f"{name} has patience {patience} without epochs; expected epochs, the most it may take"
                )
        return cls(
            tuple(whole_number(f"{name} hidden", n, 1, 2**32) for n in widths),
            {key: settings[key] for key in _OF_NETWORK if key in settings},
            {key: settings[key] for key in _OF_FIT if key in settings},
            patience,
        )

    @property
    def selects(self) -> bool:
        """Whether it stops early."""
        return self.patience is not None

    def describe(self) -> dict[str, Any]:
        """Return the settings in values that JSON can carry."""
        patience = {} if self.patience is None else {"patience": self.patience}
        return {
            "hidden": list(self.hidden),
            **{key: _plain(value) for key, value in (self.network | self.fit | patience).items()},
        }

    def fit_network(
        self, problem: Problem, rows: dict[str, Any], part: Part, seed: int, options: Options
    ) -> tuple[Any, Notes]:
        """Make and train the network of one run."""
        fitted = "train" if "train" in rows else "fit"
        for matrix in rows.values():
            problem.shared.share(matrix)
        net = self._make(problem, rows[fitted], options.network or Network, seed, options.threads)
        scaled = part.scaled_targets(fitted)
        notes = Notes(rows["test"], scaled("test"), options.curve_every)
        extra: dict[str, Any] = dict(options.checkpoint or {})
        if isinstance(net, Network):
            extra["interrupt"] = "raise"
        watch = []
        if self.patience is not None:
            watch = [_EarlyStopping(self.patience)]
            extra["validation"] = (rows["validation"], scaled("validation"))
        callbacks = [notes, *watch, *options.callbacks]
        history = net.fit(rows[fitted], scaled(fitted), **self.fit, callbacks=callbacks, **extra)
        if history.interrupted:  # one that knows no `interrupt`
            raise KeyboardInterrupt
        for stopper in watch:
            stopper.restore(net)
        notes.finish(net, stops=bool(watch))
        return net, notes

    def train(
        self, problem: Problem, part: Part, selects: bool, seed: int, options: Options
    ) -> Fitted:
        """Train the network."""
        rows = part.selection if selects else part.whole
        fitted_rows = "train" if selects else "fit"
        net, notes = self.fit_network(problem, rows, part, seed, options)
        curves = [list(column) for column in zip(*notes.points, strict=True)]

        def predict(which: str) -> Prediction:
            if problem.task == "regression":
                return Prediction(part.unscaled(_answers(net, rows[which], "labels"), fitted_rows))
            p = _answers(net, rows[which], "probabilities")
            return Prediction(p.argmax(axis=1) if problem.y.ndim == 1 else p > 0.5, p)

        return Fitted(predict, rows.__getitem__, curves)

    def _make(
        self, problem: Problem, X: Any, make: NetworkFactory, seed: int, threads: int | None
    ) -> Any:
        """Make the network of one run."""
        outputs = len(problem.classes) or (1 if problem.y.ndim == 1 else problem.y.shape[1])
        units = [X.shape[1], *self.hidden, outputs]
        network = {"loss": _LOSSES[problem.task], **self.network}
        net = make(units, **network, seed=seed, threads=threads)
        if isinstance(net, Network):
            net._shared = problem.shared
        return net


class _EarlyStopping(Callback):
    """Ends a fit when the validation loss no longer improves; `restore` sets the best weights."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.since = patience, math.inf, 0
        self.weights: Any = None

    def on_epoch_end(self, net: Any, epoch: Any) -> bool:
        """Keep the best weights; a loss that is NaN is not an improvement."""
        self.since += 1
        if epoch.validation_loss < self.best:
            self.best, self.since = epoch.validation_loss, 0
            self.weights = [net.coefs_, net.intercepts_]
        return self.since >= self.patience

    def restore(self, net: Any) -> None:
        """Set the best weights."""
        if self.weights is None:
            raise FloatingPointError("the validation loss was never finite")
        net.set_weights(*self.weights)

    def state_dict(self) -> dict[str, Any]:
        """As `Callback.state_dict`."""
        return {"best": self.best, "since": self.since, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Callback.load_state_dict`."""
        self.best, self.since, self.weights = state["best"], state["since"], state["weights"]


class Notes(Callback):
    """Records points of the learning curves; `finish` adds the last."""

    def __init__(self, X_test: Any, y_test: Any, every: int | None) -> None:
        self.X_test, self.y_test, self.every = X_test, y_test, every
        self.points: list[list[float]] = []
        self.length = 0

    def on_fit_begin(self, net: Any, total: int) -> None:
        """Note how many iterations are left; those of a checkpoint are done."""
        self.length = net.history.iterations + total

    def on_iteration(self, net: Any, iteration: int, loss: float) -> None:
        """Add a point when its turn has come."""
        if self.every is not None and iteration % self.every == 0:
            self._add(net, iteration, loss)

    def finish(self, net: Any, *, stops: bool) -> None:
        """Add the last iteration; with early stopping, the kept weights' losses."""
        loss = net.history.loss
        if len(loss) < self.length and not stops:
            raise ValueError(
                f"a callback ended a run after {len(loss)} of {self.length} iterations; an experiment needs all of "
                "them (the setting patience stops early)"
            )
        if not self.points or self.points[-1][0] != len(loss):
            self._add(net, len(loss), loss[-1])

    def state_dict(self) -> dict[str, Any]:
        """As `Callback.state_dict`."""
        return {"every": self.every, "points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Callback.load_state_dict`."""
        self.points = state["points"]

    def _add(self, net: Any, iteration: int, loss: float) -> None:
        seen = net.evaluate(self.X_test, self.y_test)
        self.points.append([iteration, float(loss), float(seen.loss), float(seen.score)])


def _plain(value: Any) -> Any:
    """Return a setting as JSON can carry it; rules and schedules by their names and constants."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": getattr(value, "name", type(value).__name__), **dataclasses.asdict(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


# ---- Estimators -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Estimator:
    """A scikit-learn estimator or Pipeline; it is cloned for each run, and never fitted itself.

    Attributes
    ----------
    estimator : object
        With ``fit``, ``predict`` and scikit-learn's ``get_params`` and ``set_params``.
    """

    estimator: Any
    selects = False

    @property
    def classifies(self) -> bool:
        """Whether scikit-learn knows it as a classifier."""
        from sklearn.base import is_classifier

        return hasattr(self.estimator, "__sklearn_tags__") and is_classifier(self.estimator)

    def describe(self) -> dict[str, Any]:
        """Return class and parameters in values that JSON can carry."""
        kind = type(self.estimator)
        params = dict(self.estimator.get_params(deep=True))
        if "estimator" in params:  # as ensembles have
            params["base estimator"] = params.pop("estimator")
        return {
            "estimator": f"{kind.__module__}.{kind.__qualname__}",
            **{name: _shown(value) for name, value in sorted(params.items())},
        }

    def train(
        self, problem: Problem, part: Part, selects: bool, seed: int, options: Options
    ) -> Fitted:
        """Train a clone whose every ``random_state`` is the repeat's seed."""
        from sklearn.base import clone

        model = clone(self.estimator)
        states = [name for name in model.get_params(deep=True) if name.endswith("random_state")]
        model.set_params(**dict.fromkeys(states, seed % 2**31))  # LightGBM takes no larger ones
        rows = part.selection_raw if selects else part.raw
        fitted = "train" if selects else "fit"
        y = part.targets(fitted)
        one = (
            problem.task == "multilabel" and y.shape[1] == 1
        )  # of which scikit-learn wants a vector
        with _ended_by_interrupt():
            model.fit(rows[fitted], y[:, 0] if one else y)

        def predict(which: str) -> Prediction:
            values = np.asarray(model.predict(rows[which]))
            if problem.task == "regression" or not hasattr(model, "predict_proba"):
                return Prediction(values)
            p = model.predict_proba(rows[which])
            if problem.task == "multilabel":
                p = _of_labels([p] if one else p, [model.classes_] if one else model.classes_)
                return Prediction(values.reshape(p.shape), p)
            p = np.asarray(p)
            if problem.task == "classification":  # a class may be absent from the training rows
                full = np.zeros((len(p), len(problem.classes)), p.dtype)
                full[:, np.asarray(model.classes_, np.intp)] = p
                p = full
            return Prediction(values, p)

        return Fitted(predict, rows.__getitem__, [])


@contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C, also where `fit` handles it and returns, as that of MLPClassifier does."""
    pressed = False

    def note(signum: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, note)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _answers(net: Any, X: Any, answer: str) -> Any:
    """Predict; a network of cdrop without an error for rows whose outputs are not finite, which metrics show."""
    if isinstance(net, Network):
        return net._shaped(net._in_pieces(X, answer))
    return net.predict(X) if answer == "labels" else net.predict_proba(X)


def _of_labels(p: Any, classes: Any) -> Any:
    """Return the probability of each label: a column of a matrix, or that of class 1 in one of a list."""
    if not isinstance(p, list):
        return np.asarray(p)
    pairs = zip(p, classes, strict=True)  # a label that no training row has lacks class 1
    return np.column_stack([part[:, known == 1].sum(axis=1) for part, known in pairs])


def _shown(value: Any) -> Any:
    """Return a parameter as JSON can carry it."""
    simple = value is None or isinstance(value, (bool, int, float, str))
    return value if simple else text(value)


# ---- Arms -------------------------------------------------------------------------------------------------------


def parse_arms(given: Any) -> dict[str, list[Candidate]]:
    """Return the candidates of each arm.

    Parameters
    ----------
    given : mapping of str
        To settings, to an estimator, or to a list of these.

    Raises
    ------
    TypeError, ValueError
        If it is not as above, or a setting is unknown.
    """
    if not hasattr(given, "items") or not len(given):
        raise ValueError(f"arms is {given!r}; expected a mapping of one or more names to settings")
    arms = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"arms has the name {name!r}; expected a str")
        several = value if isinstance(value, (list, tuple)) else [value]
        if not several:
            raise ValueError(f"arms[{name!r}] is empty; expected at least one candidate")
        where = f"arms[{name!r}]"
        arms[name] = [
            _candidate(f"{where}[{i}]" if value is several else where, one)
            for i, one in enumerate(several)
        ]
    return arms


def _candidate(where: str, value: Any) -> Candidate:
    """Return a configuration or an estimator."""
    if isinstance(value, Mapping):
        return Configuration.from_settings(where, value)
    needed = ("fit", "predict", "get_params", "set_params")
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in needed):
        raise TypeError(
            f"{where} is {value!r}; expected a mapping of settings, a scikit-learn estimator, or a list of these"
        )
    return Estimator(value)


def run(
    problem: Problem,
    arm: str,
    candidates: Sequence[Candidate],
    repeat: int,
    seed: int,
    options: Options,
) -> Trial:
    """Train and test an arm in one repeat.

    Several candidates are trained on the same rows, and the best on the validation rows is tested; test rows choose
    nothing.

    Parameters
    ----------
    problem : Problem
    arm : str
        Its name.
    candidates : sequence of Candidate
    repeat : int
        Which repeat this is of.
    seed : int
        Of split, initial weights, order of minibatches, and masks.
    options : Options

    Returns
    -------
    Trial

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, from which ``fit`` returns: a part of a run is not a result.
    ValueError
        If a callback ended the training, or the arm lacks what the metric needs.
    FloatingPointError
        If training diverged.
    """
    begin = time.perf_counter()
    part = problem.part(repeat, seed)
    if len(candidates) > 1:
        options = dataclasses.replace(options, checkpoint=None)
    selects = len(candidates) > 1 or candidates[0].selects
    if len(candidates) == 1:
        index = 0
        try:
            fitted = candidates[0].train(problem, part, selects, seed, options)
        except ArithmeticError as error:
            raise FloatingPointError(f"arms[{arm!r}] with seed {seed}: {error}") from error
    else:
        index, fitted = _chosen(problem, arm, candidates, part, seed, options)
    prediction, X = fitted.predict("test"), fitted.rows("test")
    y_fit, y_test = part.targets("fit"), part.targets("test")
    score, rows = _measured(options.metric, y_test, X, prediction, arm)
    known = metrics_of(problem.task, len(problem.classes))
    scores = {options.metric.name: score, **score_all(known, y_test, X, prediction)}
    blind = baseline(problem.task, y_fit, len(y_test), len(problem.classes))
    of_blind = score_all([options.metric, *known], y_test, X, blind)
    iterations, loss, test_loss, test_score = fitted.curves or [[], [], [], []]
    seconds = time.perf_counter() - begin
    if rows is not None and rows.dtype != np.bool_:
        rows = rows.astype(np.float32)
    return Trial(
        repeat,
        arm,
        index,
        scores,
        of_blind,
        train=len(y_fit),
        test=len(y_test),
        rows=rows,
        iterations=[int(iteration) for iteration in iterations],
        loss=loss,
        test_loss=test_loss,
        test_score=test_score,
        seconds=seconds,
    )


def _chosen(
    problem: Problem,
    arm: str,
    candidates: Sequence[Candidate],
    part: Part,
    seed: int,
    options: Options,
) -> tuple[int, Fitted]:
    """Return the candidate that is best on the validation rows, the first of equals; one that diverges is none."""
    best: tuple[float, int, Fitted] | None = None
    for i, candidate in enumerate(candidates):
        try:
            fitted = candidate.train(problem, part, True, seed, options)
        except FloatingPointError as error:
            diverged = error
            continue
        merit = _merit(options.metric, part, fitted, arm)
        if best is None or merit > best[0]:
            best = merit, i, fitted
    if best is None:
        raise FloatingPointError(f"every candidate of arms[{arm!r}] diverged: {diverged}")
    return best[1:]


def _merit(metric: Metric, part: Part, fitted: Fitted, arm: str) -> float:
    """Return how good a candidate is on the validation rows: greater is better, and NaN is worst."""
    score, _ = _measured(
        metric,
        part.targets("validation"),
        fitted.rows("validation"),
        fitted.predict("validation"),
        arm,
    )
    signed = score if metric.greater_is_better else -score
    return -math.inf if math.isnan(signed) else signed


def _measured(
    metric: Metric, y: Any, X: Any, prediction: Prediction, arm: str
) -> tuple[float, Any]:
    """Measure by the experiment's metric; say which arm lacks what it needs."""
    if prediction.probability is None and metric.name in ("log_loss", "roc_auc"):
        raise ValueError(
            f"metric is {metric.name!r}, and arms[{arm!r}] has no predict_proba; expected an estimator with it, or "
            "metric='accuracy'"
        )
    return metric.measure(y, X, prediction)
