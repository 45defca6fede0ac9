"""The article's experiment: the same network trained without and with dropout, repeated in pairs.

Both arms of a repeat have the same initial weights and the same order of minibatches: within a pair
only the dropout masks differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop._checks import finite_number, whole_number
from cdrop.datasets import Dataset
from cdrop.experiments import article
from cdrop.experiments.claims import Claim, judge
from cdrop.experiments.paired import (
    INTERRUPTED,
    Arm,
    ExperimentResult,
    check_called,
    finite,
    paired_experiment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdrop.callbacks import Callback
    from cdrop.experiments.ledger import Ledger
    from cdrop.experiments.trials import NetworkFactory, Trial

__all__ = ["ARMS", "ComparisonResult", "Settings", "compare", "describe_data"]

ARMS = ("without", "with")


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison; the defaults are the article's.

    Attributes
    ----------
    repeats : int
        Pairs of trainings.
    iterations, batch_size : int
        Minibatches per training, and rows in each.
    hidden : int
        Width of both hidden layers.
    dropout : float
        Probability of dropping a hidden unit in the arm with dropout.
    optimizer : str
        Update rule, as in `Network.fit`.
    learning_rate, l2 : float
        Step size, and factor of the L2 penalty on weights.
    seed : int
        Seed of repeat 0; repeat r has ``seed + r``.
    threads : int or None
        Threads of a training; None for the library's default.
    print_every : int
        Losses and test accuracy are kept after each iteration whose number is a multiple of this, and the last.
    sweep : tuple of float
        Further probabilities of dropping, each with an arm of its own.

    Raises
    ------
    TypeError, ValueError
        If a count, the seed or the sweep is not as above; the network checks the others.
    """

    repeats: int = article.REPEATS
    iterations: int = article.ITERATIONS[-1]
    hidden: int = 256
    dropout: float = 0.5
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    batch_size: int = 256
    l2: float = 1e-3
    seed: int = 0
    threads: int | None = None
    print_every: int = 100
    sweep: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("repeats", "iterations", "print_every"):
            whole_number(name, getattr(self, name), 1, 2**62)
        whole_number("hidden", self.hidden, 1, 2**32)
        whole_number("seed", self.seed, 0, 2**64 + 1 - self.repeats)
        if not isinstance(self.sweep, (tuple, list)):
            raise TypeError(f"sweep is {self.sweep!r}; expected probabilities of dropping")
        for i, rate in enumerate(self.sweep):
            if not 0 <= finite_number(f"sweep[{i}]", rate) < 1:
                raise ValueError(f"sweep[{i}] is {rate!r}; expected a number from 0 to below 1")

    def configurations(self) -> dict[str, dict[str, Any]]:
        """Return the arms as `paired_experiment` takes them.

        Examples
        --------
        >>> list(Settings(sweep=(0.1, 0.2, 0.5)).configurations())
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
        return {name: {**shared, "dropout": rate} for name, rate in rates.items()}

    @property
    def printed_iterations(self) -> list[int]:
        """The iterations whose loss is kept."""
        kept = list(range(self.print_every, self.iterations + 1, self.print_every))
        if not kept or kept[-1] != self.iterations:
            kept.append(self.iterations)
        return kept

    def differences(self) -> list[str]:
        """Say where these settings leave the article's; repeats, seed, threads and sweep are free.

        Examples
        --------
        >>> Settings(hidden=128, repeats=50).differences()
        ['hidden 128 instead of 256']
        """
        free = {"repeats", "seed", "threads", "sweep"}
        return [
            f"{name.replace('_', ' ')} {value} instead of {standard}"
            for name, standard in dataclasses.asdict(Settings()).items()
            if name not in free and (value := getattr(self, name)) != standard
        ]


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison found.

    Attributes
    ----------
    settings : Settings
        What was asked for.
    experiment : ExperimentResult
        Its arms are ``without``, ``with``, and one for each rate of the sweep.
    """

    settings: Settings
    experiment: ExperimentResult

    @property
    def arms(self) -> dict[str, Arm]:
        """The results of each arm, over the finished repeats."""
        return self.experiment.arms

    @property
    def data(self) -> dict[str, Any]:
        """Name, source, hash and sizes of the data."""
        return self.experiment.data

    @property
    def repeats(self) -> int:
        """Number of finished repeats."""
        return len(self.experiment.repeats)

    @property
    def complete(self) -> bool:
        """Whether all repeats were done."""
        return self.experiment.complete

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.experiment.stopped == INTERRUPTED

    @property
    def beside_article(self) -> bool:
        """Whether data and settings are the article's, so that its numbers may stand beside."""
        return bool(self.data["name"] == "MNIST") and not self.settings.differences()

    def claims(self) -> list[Claim]:
        """Return the article's claims, each with its verdict on these repeats."""
        return judge(self.arms["without"], self.arms["with"])

    def sweep(self) -> dict[float, Arm]:
        """Return the arms by their probability of dropping, in order."""
        rates = {arm.configuration["dropout"]: arm for arm in self.arms.values()}
        return {rate: rates[rate] for rate in sorted(rates)}

    def overtakes(self) -> int | None:
        """Return the noted iteration from which on dropout has the better mean test accuracy, to the end, if any."""
        curves = [self.arms[arm].curve("test_score")[0] for arm in ARMS]
        ahead = [b > a for a, b in zip(*curves, strict=True)]
        last_behind = max((i for i, leads in enumerate(ahead) if not leads), default=-1)
        later = self.settings.printed_iterations[last_behind + 1 :]
        return later[0] if later else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, ready for JSON.

        Returns
        -------
        dict
            ``arms.without.test_accuracy`` and ``arms.with.test_accuracy`` are lists over repeats,
            ``arms.*.loss`` lists over repeats of lists over ``printed_iterations``, and so are
            ``arms.*.test_accuracy_curve`` and ``arms.*.test_loss_curve``. A number that is not finite
            is None.
        """
        experiment = self.experiment
        plain: dict[str, Any] = {
            "format": "cdrop-compare",
            "version": 1,
            "complete": self.complete,
            "stopped": experiment.stopped,
            "repeats_done": self.repeats,
            "settings": dataclasses.asdict(self.settings),
            "data": self.data,
            "machine": experiment.machine,
            "time": {"started": experiment.started, "seconds": experiment.seconds},
            "seeds": [self.settings.seed + repeat for repeat in experiment.repeats],
            "printed_iterations": self.settings.printed_iterations,
            "arms": {name: _arm_dict(arm) for name, arm in self.arms.items()},
            "comparable_with_article": self.beside_article,
            "claims": [dataclasses.asdict(claim) for claim in self.claims()],
            "contrasts": [dataclasses.asdict(contrast) for contrast in experiment.contrasts()],
        }
        result: dict[str, Any] = finite(plain)
        return result


def compare(
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    n_jobs: int | None = None,
    callbacks: Sequence[Callback] = (),
    on_begin: Callable[[ComparisonResult], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    network: NetworkFactory | None = None,
    ledger: Ledger | None = None,
) -> ComparisonResult:
    """Train without and with dropout on the same data, `settings.repeats` times in pairs.

    A layer on `paired_experiment`, which has the same for any configurations and data.

    Parameters
    ----------
    dataset : Dataset
        The data; preprocessed once as the article does.
    settings : Settings, optional
        The article's by default.
    n_jobs, callbacks, on_trial, network, ledger
        As `paired_experiment` has them.
    on_begin : callable, optional
        Called before the first training with the result, as yet without repeats.

    Returns
    -------
    ComparisonResult
        With the repeats that were finished in all arms: after Ctrl-C or a training that broke
        down there are fewer than asked for, and ``experiment.stopped`` says why.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, the network refuses the settings or the data, or the ledger is another
        experiment's.
    ImportError
        If ``n_jobs`` asks for joblib, which is not installed (extra ``parallel``).
    OSError
        If the ledger cannot be written.
    """
    settings = Settings() if settings is None else settings
    for name, value, kind in (("dataset", dataset, Dataset), ("settings", settings, Settings)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r}; expected {kind.__name__}")
    check_called(on_begin=on_begin)
    features = dataset.to_features("float32")

    def begun(experiment: ExperimentResult) -> None:
        if on_begin is not None:
            on_begin(ComparisonResult(settings, experiment))

    experiment = paired_experiment(
        settings.configurations(),
        (features.X_train, features.y_train),
        (features.X_test, features.y_test),
        repeats=settings.repeats,
        seed=settings.seed,
        note_every=settings.print_every,
        n_jobs=n_jobs,
        threads=settings.threads,
        ledger=ledger,
        about=describe_data(dataset),
        callbacks=callbacks,
        on_begin=begun,
        on_trial=on_trial,
        network=network,
    )
    return ComparisonResult(settings, experiment)


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Return name, source, fingerprint and sizes of `dataset` as plain values.

    ``sha256`` is taken over the rows and then the labels (as little-endian numbers) of training,
    validation and test in turn, so it is the same wherever the data came from; and then over the
    names of the classes, where they are more than numbers.
    """
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        rows = getattr(dataset, f"X_{part}")
        digest.update(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).data)
        digest.update(np.ascontiguousarray(getattr(dataset, f"y_{part}"), dtype="<i8").data)
    if dataset.classes != tuple(map(str, range(dataset.n_classes))):
        digest.update(json.dumps(dataset.classes).encode())
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": digest.hexdigest(),
        "is_mnist": dataset.is_mnist,
        "row": dataset.row_name,
        "train": len(dataset.y_train),
        "validation": len(dataset.y_val),
        "test": len(dataset.y_test),
    }


def _arm_dict(arm: Arm) -> dict[str, Any]:
    """Return an arm's results with their means."""
    return {
        "dropout": arm.configuration["dropout"],
        "test_accuracy": arm.score,
        "loss": arm.loss,
        "test_accuracy_curve": arm.test_score,
        "test_loss_curve": arm.test_loss,
        "seconds": arm.seconds,
        "mean_test_accuracy": arm.mean_score,
        "std_test_accuracy": arm.std_score,
        "mean_loss": arm.curve("loss")[0],
    }
