"""The result of an experiment: arms, contrasts, baseline; text, figures and page are views of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop._checks import choice, finite_number
from cdrop.experiments import statistics
from cdrop.experiments.statistics import Evidence, Sampling, Scores, Verdict

if TYPE_CHECKING:
    import os
    from typing import BinaryIO

    from matplotlib.figure import Figure

    from cdrop.experiments.metrics import Metric
    from cdrop.experiments.trials import Trial

__all__ = ["Arm", "Claim", "Contrast", "ExperimentResult", "Preset", "Published", "finite"]

INTERRUPTED = "interrupted"  # `ExperimentResult.stopped` after Ctrl-C
OUT_OF_TIME = "time limit"  # and after `time_limit`
CURVES = ("loss", "test_loss", "test_score")


@dataclass(repr=False)
class Arm:
    """Results of one arm, one entry per finished repeat.

    Attributes
    ----------
    name : str
    metric : str
        Name of the metric that `score` is.
    candidates : list of dict
        The settings of each candidate, in values that JSON can carry; an arm without a choice has one.
    trials : list of Trial
        One per finished repeat, in order.
    """

    name: str
    metric: str
    candidates: list[dict[str, Any]]
    trials: list[Trial] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return the number of repeats and the mean score, on one line: trials hold a value for each test row."""
        mean = f", {self.metric} {self.mean_score:.4g}" if self.trials else ""
        return f"<Arm {self.name!r}: {len(self.trials)} repeats{mean}>"

    @property
    def score(self) -> list[float]:
        """The test score by the experiment's metric, over repeats."""
        return self.scores(self.metric)

    def scores(self, metric: str) -> list[float]:
        """Return the test scores by a metric, over repeats; NaN where the arm does not have it."""
        return [trial.scores.get(metric, math.nan) for trial in self.trials]

    @property
    def mean_score(self) -> float:
        """Mean of `score`; NaN without any."""
        return statistics.mean(self.score)

    @property
    def std_score(self) -> float:
        """Standard deviation of `score` between repeats, divisor n - 1."""
        return statistics.standard_deviation(self.score)

    @property
    def seconds(self) -> list[float]:
        """Time of each run, with the choice among candidates."""
        return [trial.seconds for trial in self.trials]

    @property
    def chosen(self) -> list[int]:
        """Index of the candidate that the validation rows chose, over repeats."""
        return [trial.candidate for trial in self.trials]

    @property
    def iterations(self) -> list[int]:
        """The iterations that all repeats have a point of their learning curves at."""
        common = set.intersection(*(set(t.iterations) for t in self.trials)) if self.trials else ()
        return sorted(common)

    @property
    def has_curves(self) -> bool:
        """Whether there are learning curves: at least two common iterations."""
        return len(self.iterations) > 1

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation over repeats of ``loss``, ``test_loss`` or ``test_score``.

        Both have an entry for each of `iterations`.
        """
        columns = list(zip(*self.curves(name), strict=True))
        means = [statistics.mean(column) for column in columns]
        return means, [statistics.standard_deviation(column) for column in columns]

    def curves(self, name: str) -> list[list[float]]:
        """Return ``loss``, ``test_loss`` or ``test_score``, over repeats and `iterations`."""
        choice("name", name, CURVES)
        common = self.iterations
        rows = []
        for trial in self.trials:
            at = dict(zip(trial.iterations, getattr(trial, name), strict=True))
            rows.append([at[iteration] for iteration in common])
        return rows

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return everything for JSON; `names` are the metrics to include."""
        scores = {f"test_{name}": self.scores(name) for name in names}
        summary = {
            f"{kind}_test_{name}": of(scores[f"test_{name}"])
            for name in names
            for kind, of in (("mean", statistics.mean), ("std", statistics.standard_deviation))
        }
        curves = {
            "loss": self.curves("loss"),
            "mean_loss": self.curve("loss")[0],
            f"test_{'accuracy' if 'accuracy' in names else 'r2'}_curve": self.curves("test_score"),
            "test_loss_curve": self.curves("test_loss"),
        }
        return {
            "candidates": self.candidates,
            "chosen": self.chosen,
            **scores,
            **summary,
            "iterations": self.iterations,
            **(curves if self.iterations else {}),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Contrast:
    """What the repeats say about two arms.

    Attributes
    ----------
    first, second : str
        Their names.
    score : Evidence
        Difference of the mean test scores, second minus first.
    p_better : Evidence
        Probability that one run of the second beats one of the first (Bouthillier et al. 2021).
    spread : Evidence
        Standard deviation between repeats of the first over that of the second.
    p_holm : float or None
        The p-value of `score`, corrected by Holm's method for the number of contrasts.
    verdict : {"better", "worse", "no difference that matters", "not decided"}
        Whether the second is better than the first, after that correction.
    repeats_needed : dict of float to int or None
        For some sizes of a difference, the repeats that detect it with a probability of 80 %; None where no number
        does.
    """

    first: str
    second: str
    score: Evidence
    p_better: Evidence
    spread: Evidence
    p_holm: float | None
    verdict: Verdict
    repeats_needed: dict[float, int | None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        plain = dict(vars(self))
        for name in ("score", "p_better", "spread"):
            plain[name] = dict(vars(plain[name]))
        return plain


@dataclass(frozen=True)
class Claim:
    """A published claim, and what the repeats say about it.

    Attributes
    ----------
    name : str
        Short name, as in the JSON.
    text : str
        The claim in words.
    quantity : str
        What `evidence` estimates.
    evidence : Evidence
        Of which "better" supports the claim.
    conclusions : dict of Verdict to str
        The verdict as a sentence.
    published : float or None
        The publication's own estimate of the quantity.
    note : str
        What else bears on the claim; may be empty.
    """

    name: str
    text: str
    quantity: str
    evidence: Evidence
    conclusions: dict[str, str]
    published: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``"supported"``, ``"contradicted"``, or what the evidence's verdict is."""
        words = {"better": "supported", "worse": "contradicted"}
        return words.get(self.evidence.verdict, self.evidence.verdict)


@dataclass(frozen=True)
class Published:
    """Figures of a publication, to show next to an experiment's.

    Attributes
    ----------
    source : str
        Such as "the article, 5 repeats".
    score : dict of str to tuple of float
        Mean and standard deviation (NaN where none was published) of the metric, by arm.
    loss : dict of str to tuple
        Iterations and training losses of a published run, by arm.
    """

    source: str
    score: dict[str, tuple[float, float]]
    loss: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """What a preset (the article, the paper, your own table) hands to the views, as data.

    Attributes
    ----------
    title : str
        Heading of figures and page.
    facts : dict of str to str
        Lines of the heading, before those that every experiment has.
    warnings : tuple of str
        What must be known before anything else.
    labels : dict of str to str
        Longer names of some arms, for tables and legends.
    published : Published or None
        Figures to show next to these.
    notes : tuple of str
        Paragraphs below the tables.
    claims : callable or None
        From the result to the claims that it is to judge.
    call : str
        The Python call that repeats it, for the page.
    """

    title: str = "Paired experiment"
    facts: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    published: Published | None = None
    notes: tuple[str, ...] = ()
    claims: Callable[[ExperimentResult], list[Claim]] | None = None
    call: str = ""


@dataclass(repr=False)
class ExperimentResult:
    """What an experiment found.

    ``print(result)`` shows it as a table, a notebook as HTML.

    Attributes
    ----------
    arms : dict of str to Arm
        All hold the same repeats; the first is what the others are compared with.
    metric : Metric
        What the verdicts are about.
    task : {"classification", "multilabel", "regression"}
    sampling : Sampling
        Where chance comes from: splits of the data, or one given test set.
    asked : int
        Repeats asked for; with `until_decided` at most.
    seed : int
        Of repeat 0.
    data : dict
        Sizes of the data, and what the caller said of them.
    machine : dict
        Processor, SIMD path, threads, versions, and ``jobs``, the number of runs at a time.
    started : str
        Start time, ISO 8601, UTC.
    margin : float
        The largest difference of the metric that does not matter.
    alpha : float
        Level of the verdicts: 0.05, or what the look at which an experiment with `until_decided` ended may spend.
    repeats : list of int
        The finished repeats, in order: those all of whose runs are done.
    baseline : dict of str to list of float
        By metric, the score in each finished repeat of a prediction that ignores the inputs.
    seconds : float
        Duration, including the runs that were read from a ledger.
    stopped : str or None
        Why it ended before all repeats were done; None if they were, or if a planned look decided.
    until_decided : bool
        Whether planned looks may end it early.
    decided_at : int or None
        With `until_decided`, the number of repeats at which it was decided.
    trials : list of Trial
        All finished runs, including those of unfinished repeats.
    preset : Preset
        What the views show in addition.
    """

    arms: dict[str, Arm]
    metric: Metric
    task: str
    sampling: Sampling
    asked: int
    seed: int
    data: dict[str, Any]
    machine: dict[str, Any]
    started: str
    margin: float = 0.0
    alpha: float = 0.05
    repeats: list[int] = field(default_factory=list)
    baseline: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str | None = None
    until_decided: bool = False
    decided_at: int | None = None
    trials: list[Trial] = field(default_factory=list)
    preset: Preset = field(default_factory=Preset)

    @property
    def complete(self) -> bool:
        """Whether all repeats were done, or a planned look decided."""
        return self.stopped is None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that some run has, the one that the verdicts are about first."""
        names = [self.metric.name, *self.baseline]
        return list(dict.fromkeys(names))

    @property
    def condition(self) -> str:
        """What a verdict is about, in words.

        Examples are "over 20 splits of these data" and "for this training set, over seeds and test rows".
        """
        if self.sampling.ratio is not None:
            n = len(self.repeats) or self.asked
            return f"over {n:,} split{'' if n == 1 else 's'} of these data"
        rows = "seeds and test rows" if self._has_rows else "seeds, with these test rows"
        return f"for this training set, over {rows}"

    @property
    def _has_rows(self) -> bool:
        return self.metric.rows is not None

    def label(self, arm: str) -> str:
        """Return an arm's longer name, if the preset has one."""
        return self.preset.labels.get(arm, arm)

    def scores(self, arm: str) -> Scores:
        """Return what the statistics need of an arm."""
        trials = self.arms[choice("arm", arm, tuple(self.arms))].trials
        values = np.array([trial.scores[self.metric.name] for trial in trials])
        if self.sampling.ratio is not None or not trials or trials[0].rows is None:
            return Scores(values)
        return Scores(values, np.array([trial.rows for trial in trials], np.float32))

    def contrasts(
        self, baseline: str | None = None, *, sizes: Sequence[float] | None = None
    ) -> list[Contrast]:
        """Compare every arm with one of them.

        Parameters
        ----------
        baseline : str, optional
            Name of that arm; the first by default.
        sizes : sequence of float, optional
            Differences of the score for which `repeats_needed` is worked out; by default some around the
            interval's half width.

        Returns
        -------
        list of Contrast

        Raises
        ------
        TypeError, ValueError
            If there is no such arm, or a size is not above 0.

        References
        ----------
        Holm: A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6 (1979) 65-70.
        """
        first = next(iter(self.arms)) if baseline is None else baseline
        choice("baseline", first, tuple(self.arms))
        if sizes is not None and not isinstance(sizes, (tuple, list)):
            raise TypeError(f"sizes is {sizes!r}; expected a sequence of numbers")
        for i, size in enumerate(sizes or ()):
            finite_number(f"sizes[{i}]", size, positive=True)
        others = [name for name in self.arms if name != first]
        scores = {name: self.scores(name) for name in self.arms}
        options: dict[str, Any] = {"level": 1 - self.alpha}
        better = {**options, "greater_is_better": self.metric.greater_is_better}
        found = [
            statistics.difference(
                scores[first], scores[name], self.sampling, margin=self.margin, **better
            )
            for name in others
        ]
        holm = statistics.holm([e.p_value for e in found])
        equivalent = statistics.holm([e.p_equivalence for e in found])
        result = []
        for name, evidence, p, q in zip(others, found, holm, equivalent, strict=True):
            pair = scores[first], scores[name], self.sampling
            result.append(
                Contrast(
                    first,
                    name,
                    evidence,
                    statistics.probability_better(*pair, **better),
                    statistics.spread_ratio(*pair, **options),
                    p,
                    statistics.verdict(
                        evidence,
                        p,
                        q,
                        alpha=self.alpha,
                        greater_is_better=self.metric.greater_is_better,
                    ),
                    {
                        size: statistics.repeats_needed(*pair[:2], size, self.sampling)
                        for size in (_sizes(evidence) if sizes is None else sizes)
                    },
                )
            )
        return result

    def claims(self) -> list[Claim]:
        """Return the preset's claims with their verdicts; none without a preset or a finished repeat."""
        return self.preset.claims(self) if self.preset.claims and self.repeats else []

    def sweep(self) -> tuple[str, dict[float, str]] | None:
        """Return the one numeric setting in which at least three arms differ, and the arms by its values, in order."""
        alone = {n: a.candidates[0] for n, a in self.arms.items() if len(a.candidates) == 1}
        if len(alone) < 3 or len(alone) < len(self.arms):
            return None
        settings = list(alone.values())
        differ = [
            key
            for key in dict.fromkeys(key for one in settings for key in one)
            if any(one.get(key) != settings[0].get(key) for one in settings)
        ]
        if len(differ) != 1:
            return None
        values: dict[str, Any] = {name: one.get(differ[0]) for name, one in alone.items()}
        if not all(type(value) in (int, float) for value in values.values()):
            return None
        return differ[0], {values[name]: name for name in sorted(values, key=values.__getitem__)}

    # ---- Views ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        arms = ", ".join(map(repr, self.arms))
        state = "" if self.complete else f", stopped={self.stopped!r}"
        return (
            f"<ExperimentResult: {arms}; {len(self.repeats)} repeats, {self.metric.label}{state}>"
        )

    def __str__(self) -> str:
        from cdrop.experiments.report import text

        return text(self)

    def _repr_html_(self) -> str:
        from cdrop.experiments.report import html_table

        return html_table(self)

    def plot(
        self, file: str | os.PathLike[str] | BinaryIO | None = None, *, format: str | None = None
    ) -> Figure:
        """Draw learning curves, scores and differences of the repeats, every arm by name; see ``cdrop.plotting``."""
        from cdrop.plotting import plot_result

        return plot_result(self, file, format=format)

    def write_report(
        self, file: str | os.PathLike[str] | BinaryIO, *, command: str | None = None
    ) -> None:
        """Write one page of HTML that needs nothing from elsewhere; see ``cdrop.experiments.page``."""
        from cdrop.experiments.page import write_report

        write_report(self, file, command=command)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, ready for JSON.

        Returns
        -------
        dict
            ``arms.NAME.test_accuracy`` (and so on, for each metric) is a list over repeats; ``arms.NAME.loss`` and the
            other curves are lists over repeats of lists over ``arms.NAME.iterations``. A number that is not finite is
            None.
        """
        plain: dict[str, Any] = {
            "format": "cdrop-experiment",
            "version": 2,
            "complete": self.complete,
            "stopped": self.stopped,
            "decided_at": self.decided_at,
            "repeats_asked": self.asked,
            "repeats_done": len(self.repeats),
            "repeats": self.repeats,
            "seeds": [self.seed + repeat for repeat in self.repeats],
            "task": self.task,
            "metric": self.metric.name,
            "margin": self.margin,
            "alpha": self.alpha,
            "sampling": {"test_to_train": self.sampling.ratio},
            "condition": self.condition,
            "data": self.data,
            "machine": self.machine,
            "time": {"started": self.started, "seconds": self.seconds},
            "baseline": self.baseline,
            "arms": {name: arm.to_dict(self.metrics) for name, arm in self.arms.items()},
            "contrasts": [c.to_dict() for c in self.contrasts()] if self.repeats else [],
            "claims": [
                {"name": c.name, "text": c.text, "verdict": c.verdict, **vars(c.evidence)}
                for c in self.claims()
            ],
        }
        result: dict[str, Any] = finite(plain)
        return result


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None, and NumPy's by Python's, at any depth."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sizes(evidence: Evidence) -> tuple[float, ...]:
    """Return the round numbers next to the interval's half width: twice, about, half and a fifth of it."""
    if evidence.interval is None:
        return ()
    half = (evidence.interval[1] - evidence.interval[0]) / 2
    if not half > 0:
        return ()
    return tuple(float(f"{half * factor:.1g}") for factor in (2, 1, 0.5, 0.2))
