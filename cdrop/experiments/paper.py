"""Rows of table 2 of Srivastava et al. (2014): MNIST without augmentation or pretraining, with and without dropout.

The paper gives each row's architecture and error, and the ranges its other settings were chosen from. So each row has
`Recipe` candidates here, judged by 10,000 training images held out, never by the test images; docs/paper.md has what
each came to. The table's figures then come from runs on all 60,000, as in the paper.

The rows of two layers of 1024 units are those of its section 10, with Bernoulli and Gaussian dropout.

References
----------
Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15 (2014), section 6.1.1, table 2, section
10 and appendix B.1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop._checks import choice, whole_number
from cdrop.experiments.article import not_mnist
from cdrop.experiments.paired import paired_experiment
from cdrop.experiments.results import ExperimentResult, Preset, Published
from cdrop.experiments.statistics import mean
from cdrop.optimizers import Adam, Momentum, Optimizer
from cdrop.schedules import Cosine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cdrop.datasets import Dataset

__all__ = [
    "HELD_OUT",
    "ROWS",
    "Outcome",
    "Planned",
    "Recipe",
    "Row",
    "inputs",
    "outcomes",
    "plan",
    "train_rows",
]

HELD_OUT = 10_000  # training images, by which a search judges


@dataclass(frozen=True)
class Recipe:
    """What the paper leaves open: how a row is trained.

    Attributes
    ----------
    optimizer : Optimizer
    learning_rate : float
        At the beginning; it goes down to 0 along half a cosine.
    max_norm : float or None
        Largest norm of a hidden unit's incoming weights.
    batch_size : int
        Images in a minibatch.
    epochs : int
        Passes over the training images.
    """

    optimizer: Optimizer
    learning_rate: float
    max_norm: float | None = None
    batch_size: int = 128
    epochs: int = 100

    def __str__(self) -> str:
        limit = "" if self.max_norm is None else f", max-norm {self.max_norm:g}"
        length = f"batch {self.batch_size}, {self.epochs} epochs"
        return f"{self._rule()} {self.learning_rate:g}{limit}, {length}"

    def _rule(self) -> str:
        """Return the rule's name with those of its settings that are not the defaults."""
        rule = self.optimizer
        chosen = [
            f"{setting.name}={getattr(rule, setting.name):g}"
            for setting in fields(rule)
            if getattr(rule, setting.name) != setting.default
        ]
        return f"{rule.name}({', '.join(chosen)})" if chosen else rule.name


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    about : str
        The paper's words, shortened.
    error : float
        The paper's test error, in percent.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        ``"sigmoid"`` is the paper's logistic unit.
    dropout : bool
        Whether hidden units are dropped with probability 0.5 and pixels with 0.2.
    candidates : tuple of Recipe
        What a search chooses from; the first is the one that is used.
    on_request : bool
        Whether it is trained only where it is named.
    kind : str
        What dropout does to hidden units and pixels: ``dropout_kind`` of `Network`.
    """

    about: str
    error: float
    hidden: tuple[int, ...]
    activation: str
    dropout: bool
    candidates: tuple[Recipe, ...] = field(repr=False)
    on_request: bool = False
    kind: str = "bernoulli"


_PLAIN = (
    Recipe(Adam(), 2e-3, None, 128, 40),
    Recipe(Adam(), 1e-3, None, 128, 40),
    Recipe(Adam(), 1e-3, None, 64, 40),
)
_LOGISTIC = (Recipe(Adam(), 2e-3, None, 512, 150), Recipe(Adam(), 1e-3, None, 128, 100))
_RELU = (
    Recipe(Adam(), 5e-4, None, 256, 150),
    Recipe(Adam(), 1e-3, None, 512, 150),
    Recipe(Adam(), 1e-3, None, 128, 100),
)
_MAX_NORM = (
    Recipe(Momentum(0.95, ramp=2000), 0.03, 0.9, 128, 600),
    Recipe(Momentum(0.95, ramp=2000), 0.03, 1.0, 128, 400),
    Recipe(Adam(), 1e-3, 1.0, 256, 150),
    Recipe(Adam(), 2e-3, 1.2, 512, 200),
)

_NOISE = (
    Recipe(Momentum(0.95, ramp=2000), 0.03, 0.9, 128, 600),
    Recipe(Momentum(0.95, ramp=2000), 0.03, 1.0, 128, 200),
    Recipe(Adam(), 1e-3, 1.0, 256, 150),
)

ROWS = {
    "standard": Row("standard net, logistic, 2 x 800", 1.60, (800, 800), "sigmoid", False, _PLAIN),
    "logistic": Row("dropout, logistic, 3 x 1024", 1.35, (1024,) * 3, "sigmoid", True, _LOGISTIC),
    "relu": Row("dropout, ReLU, 3 x 1024", 1.25, (1024,) * 3, "relu", True, _RELU),
    "max-norm": Row(
        "dropout, ReLU, max-norm, 3 x 1024", 1.06, (1024,) * 3, "relu", True, _MAX_NORM
    ),
    "3x2048": Row(
        "dropout, ReLU, max-norm, 3 x 2048", 1.04, (2048,) * 3, "relu", True, _MAX_NORM, True
    ),
    "2x4096": Row(
        "dropout, ReLU, max-norm, 2 x 4096", 1.01, (4096,) * 2, "relu", True, _MAX_NORM, True
    ),
    "2x1024": Row(
        "dropout, ReLU, max-norm, 2 x 1024", 1.08, (1024,) * 2, "relu", True, _NOISE, True
    ),
    "gaussian": Row(
        "Gaussian noise, ReLU, max-norm, 2 x 1024",
        0.95,
        (1024,) * 2,
        "relu",
        True,
        _NOISE,
        True,
        "gaussian",
    ),
}


@dataclass(frozen=True)
class Planned:
    """A row and the recipe to train it by."""

    row: Row
    recipe: Recipe

    def configuration(self) -> dict[str, Any]:
        """Return what `paired_experiment` needs."""
        row, recipe = self.row, self.recipe
        kinds = {"dropout_kind": row.kind, "input_dropout_kind": row.kind}
        return {
            **({} if row.kind == "bernoulli" else kinds),
            "hidden": row.hidden,
            "activation": row.activation,
            "dropout": 0.5 if row.dropout else 0.0,
            "input_dropout": 0.2 if row.dropout else 0.0,
            "optimizer": recipe.optimizer,
            "learning_rate": Cosine(recipe.learning_rate, recipe.epochs),
            "max_norm": recipe.max_norm,
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
        }

    def work(self, dataset: Dataset) -> int:
        """Return about how much work the run is, to estimate the time that is left: passes of images over weights."""
        row = self.row
        units = (dataset.X_train[0].size, *row.hidden, dataset.n_classes)
        weights: int = sum(a * b for a, b in itertools.pairwise(units))
        # Under dropout half of the logistic units are live, of ReLUs a quarter. Without it products are dense and fast.
        slower = 2 if row.dropout and row.activation == "sigmoid" else 1
        return self.recipe.epochs * len(dataset.X_train) * weights * slower


@dataclass(frozen=True)
class Outcome:
    """What a row came to.

    Attributes
    ----------
    name : str
        As in the plan.
    planned : Planned
    errors : list of float
        In percent, one for each finished training.
    seconds : float
        Mean time of a run; NaN without any.
    """

    name: str
    planned: Planned
    errors: list[float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can carry it."""
        return {
            "name": self.name,
            "about": self.planned.row.about,
            "paper_error_percent": self.planned.row.error,
            "recipe": str(self.planned.recipe),
            "error_percent": self.errors,
            "mean_error_percent": mean(self.errors) if self.errors else None,
            "seconds": self.seconds if self.errors else None,
        }


def plan(
    rows: Sequence[str] | None = None, epochs: int | None = None, *, candidates: bool = False
) -> dict[str, Planned]:
    """Return what is to be trained.

    Parameters
    ----------
    rows : sequence of str, optional
        Keys of ``ROWS``; by default all that need not be asked for.
    epochs : int, optional
        Instead of the recipes' own.
    candidates : bool, default False
        Every candidate of each row, called ``"row: recipe"``, not only the chosen one, called as the row is.

    Raises
    ------
    TypeError, ValueError
        If a row is none, or the epochs are not an integer above 0.
    """
    if rows is None:
        rows = [name for name, row in ROWS.items() if not row.on_request]
    if epochs is not None:
        epochs = whole_number("epochs", epochs, 1, 2**53)
    planned = {}
    for name in rows:
        row = ROWS[choice("rows", name, tuple(ROWS))]
        for recipe in row.candidates if candidates else row.candidates[:1]:
            recipe = recipe if epochs is None else replace(recipe, epochs=epochs)
            planned[f"{name}: {recipe}" if candidates else name] = Planned(row, recipe)
    return planned


def train_rows(
    dataset: Dataset,
    plan: Mapping[str, Planned],
    *,
    search: bool = False,
    repeats: int = 3,
    **options: Any,
) -> ExperimentResult:
    """Train rows of the table.

    Parameters
    ----------
    dataset : Dataset
        Images and labels: for a search with ``HELD_OUT`` images for validation, else with none, so that all train.
    plan : mapping of str to Planned
        As `plan` returns it.
    search : bool, default False
        Test on the images for validation: no test image is looked at.
    repeats : int, default 3
        Runs of each; repeat r has the seed ``seed + r``.
    **options
        As in `paired_experiment`: ``seed``, ``n_jobs``, ``threads``, ``ledger``, ``time_limit``, ...

    Returns
    -------
    ExperimentResult
        Its arms have the names of the plan.

    Raises
    ------
    TypeError, ValueError
        As `paired_experiment` raises them.
    """
    X, held_out, tested = inputs(dataset)
    test = (held_out, dataset.y_val) if search else (tested, dataset.y_test)
    return paired_experiment(
        {name: planned.configuration() for name, planned in plan.items()},
        X,
        dataset.y_train,
        test_data=test,
        repeats=repeats,
        metric="accuracy",
        about=dataset.describe(),
        preset=preset(dataset, plan, search=search),
        **options,
    )


def preset(dataset: Dataset, plan: Mapping[str, Planned], *, search: bool) -> Preset:
    """Return what the views show in addition: recipes, and the paper's accuracies."""
    rows = {name: planned.row for name, planned in plan.items()}
    published = Published(
        "the paper", {name: (1 - row.error / 100, math.nan) for name, row in rows.items()}
    )
    return Preset(
        title="Candidates, by images held out" if search else "Srivastava et al. (2014), table 2",
        facts={} if search else {name: str(planned.recipe) for name, planned in plan.items()},
        labels={} if search else {name: row.about for name, row in rows.items()},
        warnings=not_mnist(dataset),
        published=None if search else published,
    )


def outcomes(result: ExperimentResult, plan: Mapping[str, Planned]) -> list[Outcome]:
    """Return the outcome of each row, over all finished runs, including those of unfinished repeats."""
    found = []
    for name, planned in plan.items():
        trials = sorted((t for t in result.trials if t.arm == name), key=lambda t: t.repeat)
        errors = [100 * (1 - trial.scores["accuracy"]) for trial in trials]
        found.append(Outcome(name, planned, errors, mean([trial.seconds for trial in trials])))
    return found


def inputs(dataset: Dataset) -> list[NDArray[np.float32]]:
    """Return the rows for training, for validation and for testing.

    No mean is subtracted, as `Dataset.to_features` does: dropped pixels then look like background, and most
    pixels are 0, which the kernels pass over.
    """
    if not dataset.has_images:
        features = dataset.to_features("float32")
        return [features.X_train, features.X_val, features.X_test]
    images = (dataset.X_train, dataset.X_val, dataset.X_test)
    return [
        np.divide(part.reshape(len(part), math.prod(part.shape[1:])), 255, dtype=np.float32)
        for part in images
    ]
