"""The article's experiment, as a preset: the same network with and without dropout, its figures and its three claims.

The article trained a 784-256-256-10 network on MNIST, 5 times without and 5 times with dropout. It printed one run's
loss per arm, and the mean and standard deviation of test accuracy. All that is particular to it is in this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdrop._checks import choice, finite_number, truth_value, whole_number
from cdrop._kernels import KINDS
from cdrop.datasets import Dataset, Table
from cdrop.experiments.paired import paired_experiment
from cdrop.experiments.results import Claim, ExperimentResult, Preset, Published
from cdrop.experiments.statistics import Scores, difference, mean, spread_ratio
from cdrop.rates import from_text

__all__ = ["Settings", "compare", "preset"]

ARMS = ("without", "with")
ITERATIONS = tuple(range(100, 1001, 100))
PUBLISHED = Published(
    "the article, 5 repeats",
    {"without": (0.9640, 0.0071), "with": (0.9692, 0.0006)},
    {
        "without": (
            ITERATIONS,
            (0.7142, 0.5242, 0.3711, 0.3891, 0.2560, 0.3012, 0.2451, 0.2316, 0.1841, 0.2194),
        ),
        "with": (
            ITERATIONS,
            (0.8994, 0.7619, 0.6473, 0.4278, 0.4877, 0.3574, 0.3651, 0.3070, 0.2755, 0.3182),
        ),
    },
)


@dataclass(frozen=True)
class Settings:
    """Settings of the comparison; the defaults are the article's.

    Attributes
    ----------
    repeats : int
        Pairs of runs.
    iterations, batch_size : int
        Minibatches per run, and rows in each.
    hidden : int
        Width of both hidden layers.
    dropout : float
        Probability of dropping a hidden unit in the arm with dropout.
    schedule : str
        How that probability changes over the iterations, as `cdrop.rates.from_text` takes it; its largest value is
        `dropout`. Rates of the sweep change in the same way.
    kind : str
        What dropout does to the hidden units of the arms with dropout: ``dropout_kind`` of `Network`.
    optimizer : str
        Update rule.
    learning_rate, l2 : float
        Step size; factor of half the sum of squared weights in the loss.
    print_every : int
        Interval, in iterations, between the points of the learning curves.
    seed : int
        Seed of the first repeat; repeat r has ``seed + r``.
    threads : int or None
        Threads of each run, as in `Network`.
    sweep : tuple of float
        More probabilities of dropping, each with its own arm.
    margin : float
        The largest difference of accuracy that does not matter.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range; what `Network` checks, it checks when it is made.
    """

    repeats: int = 5
    iterations: int = 1000
    batch_size: int = 256
    hidden: int = 256
    dropout: float = 0.5
    schedule: str = "constant"
    kind: str = "bernoulli"
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    l2: float = 1e-3
    print_every: int = 100
    seed: int = 0
    threads: int | None = None
    sweep: tuple[float, ...] = ()
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("repeats", "iterations", "print_every", "batch_size"):
            whole_number(name, getattr(self, name), 1, 2**62)
        whole_number("hidden", self.hidden, 1, 2**32)
        whole_number("seed", self.seed, 0, 2**64 + 1 - self.repeats)
        finite_number("learning_rate", self.learning_rate, positive=True)
        for name in ("l2", "margin"):
            finite_number(name, getattr(self, name))
        if not isinstance(self.sweep, (tuple, list)):
            raise TypeError(f"sweep is {self.sweep!r}; expected probabilities of dropping")
        rates = {"dropout": self.dropout, **{f"sweep[{i}]": r for i, r in enumerate(self.sweep)}}
        for name, rate in rates.items():
            if not 0 <= finite_number(name, rate) < 1:
                raise ValueError(f"{name} is {rate!r}; expected a number of at least 0 and below 1")
        from_text(self.schedule, self.dropout)
        choice("kind", self.kind, KINDS)

    def arms(self) -> dict[str, dict[str, Any]]:
        """Return the arms as `paired_experiment` takes them.

        Examples
        --------
        >>> list(Settings(sweep=(0.1, 0.2, 0.5)).arms())
        ['without', 'with', 'dropout 0.1', 'dropout 0.2']
        """
        rates = {"without": 0.0, "with": self.dropout}
        rates |= {f"dropout {rate}": rate for rate in self.sweep if rate not in rates.values()}
        shared = {
            "hidden": (self.hidden, self.hidden),
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "l2": self.l2,
            "batch_size": self.batch_size,
            "iterations": self.iterations,
        }
        return {name: {**shared, **self._dropout(rate)} for name, rate in rates.items()}

    def _dropout(self, rate: float) -> dict[str, Any]:
        if not rate:
            return {"dropout": rate}
        kind = {} if self.kind == "bernoulli" else {"dropout_kind": self.kind}
        return {"dropout": from_text(self.schedule, rate), **kind}

    def differences(self) -> list[str]:
        """Return where these settings differ from the article's; repeats, seed, threads, sweep and margin are free.

        Examples
        --------
        >>> Settings(hidden=128, repeats=50).differences()
        ['hidden 128 instead of 256']
        """
        free = {"repeats", "seed", "threads", "sweep", "margin"}
        return [
            f"{name.replace('_', ' ')} {value} instead of {standard}"
            for name, standard in dataclasses.asdict(Settings()).items()
            if name not in free and (value := getattr(self, name)) != standard
        ]


def compare(
    data: Dataset | Table,
    settings: Settings | None = None,
    *,
    splits: bool = False,
    **options: Any,
) -> ExperimentResult:
    """Train with dropout and without on the same data, ``settings.repeats`` times in pairs.

    Parameters
    ----------
    data : Dataset or Table
        A Dataset is tested on its test rows, and its verdicts are for its training rows. A Table is split in each
        repeat.
    settings : Settings, optional
        The article's by default.
    splits : bool, default False
        Put the rows of a Dataset together and split them in each repeat, into parts of the same sizes.
    **options
        As in `paired_experiment`: ``n_jobs``, ``ledger``, ``time_limit``, ``callbacks``, ``on_begin``, ...

    Returns
    -------
    ExperimentResult
        Its arms are ``without``, ``with``, and one for each rate of the sweep.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or as `paired_experiment` raises them.

    Examples
    --------
    >>> from cdrop.datasets import load_mnist
    >>> from cdrop.experiments import Settings, compare
    >>> print(compare(load_mnist(), Settings(repeats=20)))  # doctest: +SKIP
    """
    settings = Settings() if settings is None else settings
    if not isinstance(data, (Dataset, Table)):
        raise TypeError(f"data is a {type(data).__name__}; expected a Dataset or a Table")
    if not isinstance(settings, Settings):
        raise TypeError(f"settings is {settings!r}; expected Settings")
    metric = options.get("metric") or ("accuracy" if rows_are_classes(data) else None)
    rows: Any = data
    sizes: dict[str, Any] = {}
    if truth_value("splits", splits) and isinstance(data, Dataset):
        rows = data.pooled()
        sizes = {"test_size": len(data.y_test), "train_size": len(data.y_train)}
    return paired_experiment(
        settings.arms(),
        rows,
        repeats=settings.repeats,
        seed=settings.seed,
        margin=settings.margin,
        curve_every=settings.print_every,
        threads=settings.threads,
        about=data.describe() | {"settings": dataclasses.asdict(settings)},
        preset=preset(data, settings, splits, metric),
        **sizes,
        **{**options, "metric": metric},
    )


def rows_are_classes(data: Dataset | Table) -> bool:
    """Return whether the targets are classes."""
    return isinstance(data, Dataset) or data.task == "classification"


def not_mnist(data: Dataset | Table) -> tuple[str, ...]:
    """Return a warning if these are images or rows with their own split, and not MNIST's."""
    if isinstance(data, Table) or data.is_mnist:  # of a table nobody expects it
        return ()
    short = data.name.removesuffix(" (not MNIST)")
    return (f"NOT MNIST: the data are {short}; no number here is a result on MNIST.",)


def preset(
    data: Dataset | Table, settings: Settings, splits: bool = False, metric: Any = "accuracy"
) -> Preset:
    """Return what the views show in addition: settings, the article's figures where they compare, its claims."""
    differences = settings.differences()
    if data.name != "MNIST":
        whole = "all of MNIST" if isinstance(data, Dataset) and data.is_mnist else "MNIST"
        differences.insert(0, f"{data.name} instead of {whole}")
    if splits:
        differences.insert(0, "other splits instead of the official one")
    if metric != "accuracy":
        differences.append("another metric instead of accuracy")
    notes = (f"The article's figures are for another setting (here {'; '.join(differences)}).",)
    return Preset(
        title=f"Dropout or none: {data.name}",
        facts={
            "network": f"two hidden layers of {settings.hidden} ReLU units;"
            f" dropout {_rate_of(settings)} after both, or none",
            "training": f"{settings.optimizer}, learning rate {settings.learning_rate:g}, L2 {settings.l2:g},"
            f" {settings.iterations:,} minibatches of {settings.batch_size}",
        },
        labels={"without": "without dropout", "with": "with dropout"},
        published=None if differences else PUBLISHED,
        warnings=not_mnist(data),
        notes=notes if differences else (),
        claims=_claims if metric == "accuracy" else None,
        call=f"compare(data, {settings!r}{', splits=True' if splits else ''})",
    )


def _rate_of(settings: Settings) -> str:
    changes = [] if settings.schedule == "constant" else [settings.schedule]
    changes += [] if settings.kind == "bernoulli" else [settings.kind]
    return f"{settings.dropout:g} ({', '.join(changes)})" if changes else f"{settings.dropout:g}"


def _claims(result: ExperimentResult) -> list[Claim]:
    """Judge the article's claims: better mean accuracy, consistency, convergence, in its order."""
    without, dropped = (result.arms[name] for name in ARMS)
    first, second = (result.scores(name) for name in ARMS)
    level = 1 - result.alpha
    losses = [Scores(np.array([mean(row) for row in a.curves("loss")])) for a in (without, dropped)]
    theirs: list[float | None] = [None, None, None]
    if result.preset.published is not None:
        (a, spread_a), (b, spread_b) = (PUBLISHED.score[name] for name in ARMS)
        printed = [mean(PUBLISHED.loss[name][1]) for name in ARMS]
        theirs = [b - a, spread_a / spread_b, printed[1] - printed[0]]
    return [
        Claim(
            "accuracy",
            "dropout gives the better mean test accuracy",
            "mean accuracy with minus without dropout",
            difference(first, second, result.sampling, level=level, margin=result.margin),
            {
                "supported": "Dropout gives the better mean test accuracy",
                "contradicted": "Dropout gives the worse mean test accuracy",
                "no difference that matters": "The mean test accuracies differ by no more than the margin",
                "not decided": "Which arm has the better mean test accuracy is not decided",
            },
            theirs[0],
        ),
        Claim(
            "consistency",
            "dropout is far more consistent between repeats",
            "standard deviation of accuracy without over with dropout",
            spread_ratio(first, second, result.sampling, level=level),
            {
                "supported": "Dropout is more consistent between repeats",
                "contradicted": "Dropout is less consistent between repeats",
                "not decided": "Which arm is more consistent between repeats is not decided",
            },
            theirs[1],
        ),
        Claim(
            "convergence",
            "the network without dropout converges faster in training loss",
            "mean training loss with minus without dropout",
            difference(losses[0], losses[1], result.sampling, level=level),
            {
                "supported": "Without dropout the training loss falls faster",
                "contradicted": "With dropout the training loss falls faster",
                "not decided": "In which arm the training loss falls faster is not decided",
            },
            theirs[2],
            _where_lower(without.curve("loss")[0], dropped.curve("loss")[0]),
        ),
    ]


def _where_lower(without: Sequence[float], dropped: Sequence[float]) -> str:
    """Say at how many points the mean loss without dropout is the lower one."""
    lower = sum(a < b for a, b in zip(without, dropped, strict=True))
    return f"the mean loss without dropout is lower at {lower} of {len(without)} points"
