"""The article's experiment: the same network trained without and with dropout, repeated in pairs.

Repeat r gives both arms the seed ``settings.seed + r``, hence the same initial weights and the same
order of minibatches: within a pair only the dropout masks differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cdrop._checks import whole_number
from cdrop.datasets import Dataset
from cdrop.experiments import article, machine
from cdrop.experiments.claims import Claim, judge
from cdrop.experiments.statistics import mean, standard_deviation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdrop.callbacks import Callback
    from cdrop.datasets import Features
    from cdrop.experiments.ledger import Ledger

    NetworkFactory = Callable[..., Any]

__all__ = ["ARMS", "Arm", "ComparisonResult", "Run", "Settings", "compare", "describe_data"]

ARMS = ("without", "with")
INTERRUPTED = "interrupted"  # `ComparisonResult.stopped` after Ctrl-C


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
        The loss is kept after each iteration whose number is a multiple of this, and the last.

    Raises
    ------
    TypeError, ValueError
        If a count or the seed is no whole number, or out of range; the network checks the others.
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

    def __post_init__(self) -> None:
        for name in ("repeats", "iterations", "print_every"):
            whole_number(name, getattr(self, name), 1, 2**62)
        whole_number("hidden", self.hidden, 1, 2**32)
        whole_number("seed", self.seed, 0, 2**64 + 1 - self.repeats)

    @property
    def seeds(self) -> list[int]:
        """The seed of each repeat."""
        return [self.seed + repeat for repeat in range(self.repeats)]

    @property
    def printed_iterations(self) -> list[int]:
        """The iterations whose loss is kept."""
        kept = list(range(self.print_every, self.iterations + 1, self.print_every))
        if not kept or kept[-1] != self.iterations:
            kept.append(self.iterations)
        return kept

    def differences(self) -> list[str]:
        """Say where these settings leave the article's; repeats, seed and threads are free.

        Examples
        --------
        >>> Settings(hidden=128, repeats=50).differences()
        ['hidden 128 instead of 256']
        """
        free = {"repeats", "seed", "threads"}
        return [
            f"{name.replace('_', ' ')} {value} instead of {standard}"
            for name, standard in dataclasses.asdict(Settings()).items()
            if name not in free and (value := getattr(self, name)) != standard
        ]


@dataclass
class Arm:
    """Results of one arm, one entry per finished repeat.

    Attributes
    ----------
    dropout : float
        Probability of dropping a hidden unit.
    test_accuracy : list of float
        Share of test images classified correctly after the training.
    loss : list of list of float
        Training loss at the printed iterations, with its L2 term and its masks.
    seconds : list of float
        Time of each training.
    """

    dropout: float
    test_accuracy: list[float] = field(default_factory=list)
    loss: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def mean_accuracy(self) -> float:
        """Mean test accuracy over repeats; NaN without any."""
        return mean(self.test_accuracy)

    @property
    def std_accuracy(self) -> float:
        """Standard deviation of test accuracy between repeats, divisor n - 1."""
        return standard_deviation(self.test_accuracy)

    def mean_loss(self) -> list[float]:
        """Return the loss at each printed iteration, averaged over repeats."""
        return [mean(column) for column in zip(*self.loss, strict=True)]

    def add(self, run: Run) -> None:
        """Append one training."""
        self.test_accuracy.append(run.test_accuracy)
        self.loss.append(run.loss)
        self.seconds.append(run.seconds)


class Run(NamedTuple):
    """One finished training: which one, and what came out."""

    repeat: int
    arm: str
    test_accuracy: float
    loss: list[float]
    seconds: float


@dataclass
class ComparisonResult:
    """What a comparison found.

    Attributes
    ----------
    settings : Settings
        What was asked for.
    arms : dict of str to Arm
        Keys ``without`` and ``with``; both hold the same repeats, the finished ones.
    data : dict
        Name, source, hashes and sizes of the data.
    machine : dict
        As `cdrop.experiments.machine.describe` returns it.
    started : str
        Time of the beginning, ISO 8601, UTC.
    seconds : float
        Time of the whole comparison.
    stopped : str or None
        Why it ended before all repeats were done; None if they were.
    """

    settings: Settings
    arms: dict[str, Arm]
    data: dict[str, Any]
    machine: dict[str, Any]
    started: str
    seconds: float = 0.0
    stopped: str | None = None

    @property
    def repeats(self) -> int:
        """Number of finished repeats."""
        return len(self.arms["with"].test_accuracy)

    @property
    def complete(self) -> bool:
        """Whether all repeats were done."""
        return self.stopped is None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == INTERRUPTED

    @property
    def beside_article(self) -> bool:
        """Whether data and settings are the article's, so that its numbers may stand beside."""
        return bool(self.data["name"] == "MNIST") and not self.settings.differences()

    def claims(self) -> list[Claim]:
        """Return the article's claims, each with its verdict on these repeats."""
        return judge(self.arms["without"], self.arms["with"])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, ready for JSON.

        Returns
        -------
        dict
            ``arms.without.test_accuracy`` and ``arms.with.test_accuracy`` are lists over repeats,
            ``arms.*.loss`` lists over repeats of lists over ``printed_iterations``. A number that
            is not finite is None.
        """
        plain: dict[str, Any] = {
            "format": "cdrop-compare",
            "version": 1,
            "complete": self.complete,
            "stopped": self.stopped,
            "repeats_done": self.repeats,
            "settings": dataclasses.asdict(self.settings),
            "data": self.data,
            "machine": self.machine,
            "time": {"started": self.started, "seconds": self.seconds},
            "seeds": self.settings.seeds[: self.repeats],
            "printed_iterations": self.settings.printed_iterations,
            "arms": {name: _arm_dict(arm) for name, arm in self.arms.items()},
            "comparable_with_article": self.beside_article,
            "claims": [dataclasses.asdict(claim) for claim in self.claims()],
        }
        finite: dict[str, Any] = _finite(plain)
        return finite


def compare(
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    on_begin: Callable[[ComparisonResult], None] | None = None,
    on_run: Callable[[Run], None] | None = None,
    network: NetworkFactory | None = None,
    ledger: Ledger | None = None,
) -> ComparisonResult:
    """Train without and with dropout on the same data, `settings.repeats` times in pairs.

    Parameters
    ----------
    dataset : Dataset
        The data; preprocessed once as the article does.
    settings : Settings, optional
        The article's by default.
    callbacks : sequence of Callback
        Handed to every ``fit``.
    on_begin : callable, optional
        Called before the first training with the result, as yet without repeats.
    on_run : callable, optional
        Called with a `Run` after each training, and with those that the ledger has, in their turn.
    network : callable, optional
        Called as `cdrop.Network`, which it is by default.
    ledger : Ledger, optional
        Keeps every training, so that a comparison that was killed goes on with the same numbers; see
        `cdrop.experiments.open_ledger`. Callbacks hear of what is trained now.

    Returns
    -------
    ComparisonResult
        With the repeats that were finished in both arms: after Ctrl-C or a training that broke
        down there are fewer than asked for, and `stopped` says why.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, the network refuses the settings or the data, or the ledger is another
        comparison's.
    OSError
        If the ledger cannot be written.
    """
    settings = Settings() if settings is None else settings
    _check_kinds(dataset, settings, ledger, on_begin=on_begin, on_run=on_run, network=network)
    result = ComparisonResult(
        settings=settings,
        arms={"without": Arm(0.0), "with": Arm(settings.dropout)},
        data=describe_data(dataset),
        machine=machine.describe(settings.threads),
        started=now(),
    )
    if ledger is not None:
        ledger.claim(settings, result.data, result.started)
        result.started = ledger.started
    begin = time.perf_counter()
    runs: list[Run] = []
    earlier = 0.0
    try:
        if on_begin is not None:
            on_begin(result)
        features = dataset.to_features("float32")
        for repeat, arm in product(range(settings.repeats), ARMS):
            run = None if ledger is None else ledger.finished(repeat, arm)
            if run is None:
                run = _train(features, settings, repeat, arm, callbacks, network, ledger)
            else:
                earlier += run.seconds
            # Kept before it is told: Ctrl-C in the telling must not cost what was told.
            runs.append(run)
            if on_run is not None:
                on_run(runs[-1])
    except KeyboardInterrupt:
        result.stopped = INTERRUPTED
    except ArithmeticError as error:
        result.stopped = str(error)
    for run in runs[: len(runs) // 2 * 2]:  # whole pairs
        result.arms[run.arm].add(run)
    result.seconds = time.perf_counter() - begin + earlier
    return result


def now() -> str:
    """Return the time as results tell it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_kinds(dataset: Any, settings: Any, ledger: Any, **called: Any) -> None:
    """Raise unless the arguments of `compare` are of the kinds that they must be."""
    kinds: dict[str, tuple[Any, type]] = {
        "dataset": (dataset, Dataset),
        "settings": (settings, Settings),
    }
    if ledger is not None:
        from cdrop.experiments.ledger import Ledger  # which knows this module

        kinds["ledger"] = ledger, Ledger
    for name, (value, kind) in kinds.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r}; expected {kind.__name__}")
    for name, value in called.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {value!r}; expected something to call, or None")


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


def _train(
    data: Features,
    settings: Settings,
    repeat: int,
    arm: str,
    callbacks: Sequence[Callback],
    network: NetworkFactory | None,
    ledger: Ledger | None,
) -> Run:
    """Train and test one network, and keep the result."""
    begin = time.perf_counter()
    classes = 1 + max(int(labels.max()) for labels in (data.y_train, data.y_test))
    net = (network or _default_network())(
        [data.X_train.shape[1], settings.hidden, settings.hidden, classes],
        dropout=settings.dropout if arm == "with" else 0.0,
        seed=settings.seeds[repeat],
        threads=settings.threads,
    )
    history = net.fit(
        data.X_train,
        data.y_train,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        l2=settings.l2,
        batch_size=settings.batch_size,
        iterations=settings.iterations,
        callbacks=callbacks,
        **({} if ledger is None else ledger.checkpoint(settings, repeat, arm)),
    )
    if (
        history.interrupted
    ):  # `fit` returns normally after Ctrl-C; a part of a training is no result
        raise KeyboardInterrupt
    if len(history.loss) < settings.iterations:
        raise ValueError(
            f"a callback ended a training after {len(history.loss)} of {settings.iterations} "
            "iterations; a comparison needs all of them"
        )
    loss = [float(history.loss[iteration - 1]) for iteration in settings.printed_iterations]
    accuracy = float(net.score(data.X_test, data.y_test))
    run = Run(repeat, arm, accuracy, loss, time.perf_counter() - begin)
    if ledger is not None:
        ledger.add(run)
    return run


def _default_network() -> NetworkFactory:
    """Return `cdrop.Network`."""
    from cdrop.network import Network

    return Network


def _arm_dict(arm: Arm) -> dict[str, Any]:
    """Return an arm's results with their means."""
    return dataclasses.asdict(arm) | {
        "mean_test_accuracy": arm.mean_accuracy,
        "std_test_accuracy": arm.std_accuracy,
        "mean_loss": arm.mean_loss(),
    }


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None, at any depth."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
