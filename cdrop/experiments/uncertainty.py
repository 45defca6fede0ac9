"""Uncertainty by MC dropout, last-layer MC dropout, Masksembles and deep ensembles, compared on the same splits.

Each repeat splits the rows with its own seed and trains networks with dropout, whose rate is the best of some on
validation rows. Every method predicts with these networks:

no dropout
    One network, trained without dropout.
plain
    One network, trained with dropout and used without it. The others are compared with it.
MC dropout
    The plain network, averaged over dropout masks (Gal and Ghahramani 2016).
last-layer MC
    The same with masks on the last hidden layer alone.
masksembles
    A network trained with eight fixed masks, averaged over them (Durasov et al. 2021); its rate is chosen likewise.
ensemble
    Networks trained from several seeds, the first of which is the plain one (Lakshminarayanan et al. 2017).

Each is measured as it is and recalibrated: with a temperature (Guo et al. 2017), or for numbers a factor of the
variance, that is fitted on validation rows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import choice, whole_number
from cdrop.experiments import calibration as cal
from cdrop.experiments import statistics
from cdrop.experiments.advice import EPOCHS, HIDDEN, PATIENCE, arms_for
from cdrop.experiments.arms import Configuration, Options
from cdrop.experiments.data import Part, Problem
from cdrop.experiments.metrics import metric_for
from cdrop.experiments.paired import check_called
from cdrop.experiments.problem import make_problem
from cdrop.experiments.statistics import Evidence, Sampling, Scores
from cdrop.network import Network
from cdrop.uncertainty import RegressionUncertainty

__all__ = ["METHODS", "SCALED", "UncertaintyResult", "compare_uncertainty"]

METHODS = ("no dropout", "plain", "MC dropout", "last-layer MC", "masksembles", "ensemble")
MASKS = 8  # of masksembles
SCALED = ", scaled"  # added to the name of a method that is recalibrated
# Whether greater is better; None where the value has no direction.
_METRICS = {
    "nll": False,
    "accuracy": True,
    "brier": False,
    "ece": False,
    "rmse": False,
    "interval score": False,
    "coverage": None,
    "width": None,
    "coverage without noise": None,
    "auroc of errors": True,
    "auroc of foreign rows": True,
    "auroc of foreign rows by disagreement": True,
}
_TENTH = 0.9  # quantile of the absolute errors above which a number counts as wrong


class _Predictive(NamedTuple):
    """Probabilities and disagreement (of one network: entropy), or means and variances of the model."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(eq=False, repr=False)
class UncertaintyResult:
    """Scores of each method in each repeat.

    Attributes
    ----------
    task : {"classification", "regression"}
    repeats, seed : int
    sampling : Sampling
    scores : dict of str to dict of str to ndarray of float64, shape (repeats,)
        By metric and by method; ", scaled" follows the name of a method that is recalibrated. NaN where a metric is
        undefined, such as the AUROC of errors where there were none.
    rates : list of float
        The dropout rate chosen in each repeat.
    scales : dict of str to ndarray of float64, shape (repeats,)
        By method, the temperature or the factor of the variance.
    seconds : float
    """

    task: str
    repeats: int
    seed: int
    sampling: Sampling
    scores: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    scales: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    seconds: float = 0.0

    def __repr__(self) -> str:
        """Return what was compared, on one line: the scores are those of every repeat."""
        methods = len({name for by_method in self.scores.values() for name in by_method})
        return f"<UncertaintyResult: {self.task}, {methods} methods, {self.repeats} repeats>"

    def contrasts(self, metric: str, baseline: str = "plain") -> dict[str, Evidence]:
        """Return the differences to one method.

        A recalibrated method is compared with the recalibrated baseline, and that one with the baseline as it is. Each
        of these three groups is corrected by Holm's method.

        Parameters
        ----------
        metric : str
            A key of `scores`.
        baseline : str, default "plain"
            The name of a method, without ", scaled".

        Returns
        -------
        dict of str to Evidence
            By method. Repeats in which the metric is undefined for one of the two are left out.

        Raises
        ------
        ValueError
            If the metric is unknown or has no direction (coverage and width), or the baseline is unknown.
        """
        choice("metric", metric, tuple(m for m in self.scores if _METRICS[m] is not None))
        others = [m for m in METHODS if m != choice("baseline", baseline, METHODS)]
        found = self._group(metric, baseline, others)
        if baseline + SCALED in self.scores[metric]:
            found |= self._group(metric, baseline + SCALED, [m + SCALED for m in others])
            found |= self._group(metric, baseline, [baseline + SCALED])
        return found

    def _group(self, metric: str, first: str, others: list[str]) -> dict[str, Evidence]:
        greater, known = bool(_METRICS[metric]), self.scores[metric]
        evidence = []
        for name in others:
            both = np.isfinite(known[first]) & np.isfinite(known[name])
            pair = Scores(known[first][both]), Scores(known[name][both])
            evidence.append(statistics.difference(*pair, self.sampling, greater_is_better=greater))
        corrected = statistics.holm([e.p_value for e in evidence])
        return {
            name: replace(e, verdict=statistics.verdict(e, p, None, greater_is_better=greater))
            for name, e, p in zip(others, evidence, corrected, strict=True)
        }

    def mean(self, metric: str, method: str) -> float:
        """Return the mean over the repeats in which a metric is defined; NaN if there is none."""
        values = self.scores[metric][method]
        return statistics.mean(values[np.isfinite(values)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything in values that JSON can carry; NaN becomes None."""
        return {
            "task": self.task,
            "repeats": self.repeats,
            "seed": self.seed,
            "ratio": self.sampling.ratio,
            "rates": self.rates,
            "scales": {name: values.tolist() for name, values in self.scales.items()},
            "seconds": self.seconds,
            "scores": {
                metric: {name: [_or_none(v) for v in values] for name, values in of.items()}
                for metric, of in self.scores.items()
            },
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> UncertaintyResult:
        """Return what `to_dict` was made of."""
        scores = {
            metric: {name: np.array(values, np.float64) for name, values in of.items()}
            for metric, of in plain["scores"].items()
        }
        scales = {name: np.array(values, np.float64) for name, values in plain["scales"].items()}
        return cls(
            plain["task"],
            plain["repeats"],
            plain["seed"],
            Sampling(plain["ratio"]),
            scores,
            plain["rates"],
            scales,
            plain["seconds"],
        )

    def __str__(self) -> str:
        """Return a table of means, a row for each method."""
        names = list(self.scores["nll"])
        wide = max(map(len, names))
        lines = [" " * wide + "".join(f"  {metric}" for metric in self.scores)]
        for name in names:
            cells = (
                f"  {self.mean(metric, name):{len(metric)}.4g}"
                if name in of
                else "  " + " " * len(metric)
                for metric, of in self.scores.items()
            )
            lines.append((f"{name:{wide}}" + "".join(cells)).rstrip())
        return "\n".join(lines)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def compare_uncertainty(
    X: Any,
    y: ArrayLike | None = None,
    *,
    repeats: int = 20,
    seed: int = 0,
    task: str | None = None,
    rates: tuple[float, ...] = (0.1, 0.2, 0.5),
    members: int = 5,
    mc_samples: int = 50,
    hidden: tuple[int, ...] = HIDDEN,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    test_size: float = 0.2,
    validation_size: float = 0.2,
    threads: int | None = None,
    on_repeat: Callable[[int], None] | None = None,
) -> UncertaintyResult:
    """Compare methods that say how sure a prediction is.

    Parameters
    ----------
    X, y, repeats, seed, task, test_size, validation_size, threads
        As in `cdrop.experiments.paired_experiment`; `X` is dense, and `y` has one column.
    rates : tuple of float
        Dropout rates, the best of which on validation rows is used in each repeat.
    members : int, default 5
        Networks of the ensemble, at least 2. Their seeds are derived from that of the repeat.
    mc_samples : int, default 50
        Masks of both kinds of MC dropout.
    hidden, epochs, patience
        As in `cdrop.experiments.arms_for`; at least one hidden layer.
    on_repeat : callable, optional
        Called with the number of each repeat that is done.

    Returns
    -------
    UncertaintyResult
        For classes: "nll", "accuracy", "brier", "ece" (see `cdrop.experiments.calibration`). For numbers, which are
        measured in standard deviations of the training targets: "nll" (normal), "rmse", and "coverage", "width" and
        "interval score" of 90 % intervals; "coverage without noise" is that of the variance of the model alone.

        For both, how well uncertainty ranks: "auroc of errors" (wrong classes; of numbers the tenth with the largest
        errors) and "auroc of foreign rows"; chance is 0.5. The uncertainty of classes is 1 minus the largest
        probability for errors, and the entropy for foreign rows; "by disagreement" it is the mutual information (of
        one network the entropy). That of numbers is the variance.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or as `paired_experiment` raises them.

    Notes
    -----
    Foreign rows are the test rows with the values of each column shuffled independently, drawn before the columns are
    encoded: each value is usual, and their combination is not.

    The variance of a number is that of the model (over masks or members) plus that of the noise, which is the mean
    squared error of the method's own mean on the training rows.

    References
    ----------
    Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016. Lakshminarayanan, Pritzel and Blundell,
    "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017. Hendrycks and Gimpel,
    "A baseline for detecting misclassified and out-of-distribution examples in neural networks", ICLR 2017. Durasov et
    al., "Masksembles for uncertainty estimation", CVPR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.experiments.uncertainty import compare_uncertainty
    >>> X = np.random.default_rng(0).standard_normal((200, 4))
    >>> result = compare_uncertainty(X, X[:, 0] > 0, repeats=2, epochs=5, hidden=(16,), members=2)
    >>> sorted(result.contrasts("ece"))[:3]
    ['MC dropout', 'MC dropout, scaled', 'ensemble']
    """
    begin = time.perf_counter()
    members = whole_number("members", members, 2, 2**20)
    mc_samples = whole_number("mc_samples", mc_samples, 1, 2**32)
    repeats = whole_number("repeats", repeats, 1, 2**32)
    seed = whole_number("seed", seed, 0, 2**64 + 1 - repeats)
    options: dict[str, Any] = {
        "rates": rates,
        "l2": (0.0,),
        "hidden": hidden,
        "epochs": epochs,
        "patience": patience,
    }
    check_called(on_repeat=on_repeat)
    arms_for(1, **options)  # raises before anything is read
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"rates is {rates!r}; expected numbers above 0 and below 1")
    if not hidden:
        raise ValueError("hidden is (); expected the widths of one or more layers")
    problem = _problem(X, y, task, repeats, test_size, validation_size)
    train, test = problem.sizes(0, seed)
    settings = arms_for(train, **options)
    plan = _Plan(
        problem, settings["no dropout"][0], settings["dropout"], members, mc_samples, threads
    )
    result = UncertaintyResult(problem.task, repeats, seed, Sampling(test / train))
    try:
        for repeat in range(repeats):
            _Repeat(plan, repeat, seed + repeat).add_to(result)
            if on_repeat is not None:
                on_repeat(repeat)
    finally:
        problem.shared.forget()
    result.seconds = time.perf_counter() - begin
    return result


def _problem(
    X: Any, y: Any, task: str | None, repeats: int, test_size: Any, validation_size: Any
) -> Problem:
    """Check the data: dense rows, one target each, split in each repeat."""
    names = ("test_data", "train_size", "groups", "times", "cv", "transformer")
    given: dict[str, Any] = dict.fromkeys(names)
    problem = make_problem(
        X,
        y,
        **given,
        task=task,
        repeats=repeats,
        test_size=test_size,
        validation_size=validation_size,
        stratify=True,
        arms={},
    )
    if problem.y.ndim != 1 or not problem.tests_on_splits or hasattr(problem.X, "tocsr"):
        raise ValueError(
            "X is sparse, has a given test set, or y has several columns; expected dense rows, one target for "
            "each, and no test set"
        )
    return problem


class _Plan(NamedTuple):
    """What all repeats share."""

    problem: Problem
    without: dict[str, Any]
    candidates: list[dict[str, Any]]
    members: int
    mc_samples: int
    threads: int | None


class _Repeat:
    """The fits of one repeat, and what is predicted with them."""

    def __init__(self, plan: _Plan, repeat: int, seed: int) -> None:
        self.plan, self.seed = plan, seed
        self.part = plan.problem.part(repeat, seed)
        self.rows = _numbers(plan.problem, self.part, seed)
        targets = self.part.scaled_targets("train")
        self.y = {which: targets(which) for which in ("train", "validation", "test")}

    def _fit(self, settings: dict[str, Any], seed: int) -> Network:
        problem = self.plan.problem
        metric = metric_for(None, problem.task, len(problem.classes))
        net, _ = Configuration.from_settings("arms", settings).fit_network(
            problem, self.rows, self.part, seed, Options(metric, threads=self.plan.threads)
        )
        return net  # type: ignore[no-any-return]

    def _loss(self, net: Network) -> float:
        return net.evaluate(self.rows["validation"], self.y["validation"]).loss

    def _best(self, candidates: list[dict[str, Any]]) -> tuple[Network, dict[str, Any]]:
        """Train candidates; return the best on validation rows, with its settings."""
        fits = [self._fit(settings, self.seed) for settings in candidates]
        best = min(range(len(fits)), key=lambda i: self._loss(fits[i]))
        return fits[best], candidates[best]

    def _methods(self) -> tuple[float, dict[str, Callable[[Any], _Predictive]]]:
        """Train the networks; return the dropout rate, and what predicts with each method."""
        plan, seed = self.plan, self.seed
        without = self._fit(plan.without, seed)
        plain, settings = self._best(plan.candidates)
        fixed = {"dropout_kind": "masksembles", "members": MASKS}
        masked, _ = self._best([{**settings, **fixed} for settings in plan.candidates])
        states = [np.random.SeedSequence((seed, k)) for k in range(1, plan.members)]
        seeds = [int(state.generate_state(1, np.uint64)[0]) for state in states]
        nets = [plain, *(self._fit(settings, seed) for seed in seeds)]
        last = last_layer(plain)
        return settings["dropout"], {
            "no dropout": lambda X: _of_networks([without], X),
            "plain": lambda X: _of_networks([plain], X),
            "MC dropout": lambda X: _of_masks(plain, X, plan.mc_samples),
            "last-layer MC": lambda X: _of_masks(last, X, plan.mc_samples),
            "masksembles": lambda X: _of_masks(masked, X, MASKS),
            "ensemble": lambda X: _of_networks(nets, X),
        }

    def add_to(self, result: UncertaintyResult) -> None:
        """Add the scores of this repeat to a result."""
        rate, methods = self._methods()
        result.rates.append(rate)
        measure = _measure_classes if result.task == "classification" else _measure_numbers
        for name, predict in methods.items():
            predicted = {which: predict(rows) for which, rows in self.rows.items()}
            scale, plain, scaled = measure(self.y, predicted)
            _append(result.scales, name, scale)
            for label, scores in ((name, plain), (name + SCALED, scaled)):
                for metric, value in scores.items():
                    _append(result.scores.setdefault(metric, {}), label, value)


def _append(columns: dict[str, NDArray[np.float64]], name: str, value: float) -> None:
    columns[name] = np.append(columns.get(name, np.empty(0)), value)


def _numbers(problem: Problem, part: Part, seed: int) -> dict[str, Any]:
    """Return the rows of a repeat as networks take them, the foreign ones among them."""
    rows = dict(part.selection_raw)
    rows["foreign"] = shuffled_columns(rows["test"], seed)
    if problem.transformer is None:
        return rows
    transformer = copy.deepcopy(problem.transformer)
    transformer.fit(rows["train"], part.targets("train"))
    return {which: transformer.transform(some) for which, some in rows.items()}


def shuffled_columns(X: Any, seed: int) -> Any:
    """Return rows of an array or DataFrame with the values of each column shuffled independently.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(8).reshape(4, 2)
    >>> np.array_equal(np.sort(shuffled_columns(X, 0), axis=0), X)
    True
    """
    draw = np.random.default_rng((seed, 0))
    if not hasattr(X, "iloc"):
        return draw.permuted(X, axis=0)
    shuffled = X.copy()
    for name in X.columns:
        shuffled[name] = X[name].to_numpy()[draw.permutation(len(X))]
    return shuffled


def last_layer(net: Network) -> Network:
    """Return a network with the same weights whose last hidden layer alone has dropout.

    Examples
    --------
    >>> last_layer(Network([2, 8, 8, 2], dropout=0.5)).dropout
    (0.0, 0.5)
    """
    rates = [*[0.0] * (len(net.dropout) - 1), net.dropout[-1]]
    twin = Network(
        net.units, rates, loss=net.loss, seed=net.seed, dtype=net.dtype.name, threads=net.threads
    )
    twin.load_state_dict(net.state_dict())
    return twin


# ---- Predictions --------------------------------------------------------------------------------------------------


def _of_networks(nets: list[Network], X: Any) -> _Predictive:
    """Average networks."""
    if nets[0].loss == "squared_error":
        outputs = np.array([net.predict(X).reshape(-1) for net in nets], np.float64)
        return _Predictive(outputs.mean(axis=0), outputs.var(axis=0))
    p = np.array([net.predict_proba(X) for net in nets], np.float64)
    mean = p.mean(axis=0)
    within = _entropy(p).mean(axis=0) if len(nets) > 1 else 0.0
    return _Predictive(mean, _entropy(mean) - within)


def _of_masks(net: Network, X: Any, mc_samples: int) -> _Predictive:
    sampled = net.predict_uncertainty(X, mc_samples)
    mean = sampled.mean.astype(np.float64)
    if isinstance(sampled, RegressionUncertainty):
        return _Predictive(mean.reshape(-1), np.square(sampled.std.reshape(-1), dtype=np.float64))
    return _Predictive(mean, sampled.mutual_information.astype(np.float64))


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of the last axis, in nats."""
    return np.asarray(-(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=-1))


# ---- Measures -----------------------------------------------------------------------------------------------------

_Measured = tuple[float, dict[str, float], dict[str, float]]  # scale, scores, scores when scaled


def _measure_classes(y: dict[str, NDArray[Any]], of: dict[str, _Predictive]) -> _Measured:
    test, foreign = of["test"], of["foreign"]
    temperature = cal.fit_temperature(y["validation"], of["validation"].mean)
    wrong = test.mean.argmax(axis=1) != y["test"]
    uncertain = 1 - test.mean.max(axis=1)
    scores = {
        **_calibration(y["test"], test.mean),
        "auroc of errors": cal.auroc(uncertain[~wrong], uncertain[wrong]),
        "auroc of foreign rows": cal.auroc(_entropy(test.mean), _entropy(foreign.mean)),
        "auroc of foreign rows by disagreement": cal.auroc(test.spread, foreign.spread),
    }
    return (
        temperature,
        scores,
        _calibration(y["test"], cal.with_temperature(test.mean, temperature)),
    )


def _calibration(y: NDArray[Any], p: NDArray[Any]) -> dict[str, float]:
    return {
        "nll": cal.negative_log_likelihood(y, p),
        "accuracy": float((p.argmax(axis=1) == y).mean()),
        "brier": cal.brier_score(y, p),
        "ece": cal.expected_calibration_error(y, p),
    }


def _measure_numbers(y: dict[str, NDArray[Any]], of: dict[str, _Predictive]) -> _Measured:
    noise = float(((y["train"] - of["train"].mean) ** 2).mean())
    variance = {which: noise + some.spread for which, some in of.items()}
    scale = cal.fit_variance_scale(y["validation"], of["validation"].mean, variance["validation"])
    mean, spread = of["test"].mean, variance["test"]
    error = np.abs(y["test"] - mean)
    large = error > np.quantile(error, _TENTH)
    scores = {
        **_normal(y["test"], mean, spread),
        "coverage without noise": cal.intervals(y["test"], mean, of["test"].spread).coverage,
        "auroc of errors": cal.auroc(spread[~large], spread[large]),
        "auroc of foreign rows": cal.auroc(spread, variance["foreign"]),
    }
    return scale, scores, _normal(y["test"], mean, scale * spread)


def _normal(y: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]) -> dict[str, float]:
    held = cal.intervals(y, mean, variance)
    return {
        "nll": cal.gaussian_nll(y, mean, variance),
        "rmse": math.sqrt(((y - mean) ** 2).mean()),
        "coverage": held.coverage,
        "width": held.width,
        "interval score": held.score,
    }
