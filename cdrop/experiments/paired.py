"""Paired experiments: configurations trained from the same initial weights on the same minibatches, many times.

Repeat r gives every configuration the seed ``seed + r``, hence, where the units agree, the same initial weights, and
the same order of minibatches: within a repeat only what the configurations say differs.

A training is a pure function of configuration, data and seed. So it does not matter where it runs: here, in other
processes, or on other machines, and one whose worker was lost is simply made again.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cdrop._checks import as_array, choice, finite_number, whole_number
from cdrop.callbacks import Callback, check_callbacks
from cdrop.checkpoints import digest
from cdrop.experiments import machine
from cdrop.experiments.ledger import Ledger
from cdrop.experiments.statistics import (
    Evidence,
    mean,
    paired_difference,
    repeats_needed,
    spread_ratio,
    standard_deviation,
)
from cdrop.experiments.trials import Configuration, Data, Trial, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from cdrop.experiments.trials import NetworkFactory

__all__ = ["Arm", "Contrast", "ExperimentResult", "paired_experiment"]

INTERRUPTED = "interrupted"  # `ExperimentResult.stopped` after Ctrl-C
OUT_OF_TIME = "the time limit"  # and after `time_limit`
CURVES = ("loss", "test_loss", "test_score")
SIZES = (0.01, 0.005, 0.002, 0.001)  # of differences for which the repeats needed are told


@dataclass
class Arm:
    """Results of one configuration, one entry per finished repeat.

    Attributes
    ----------
    configuration : dict
        Its settings, as JSON can carry them.
    iterations : list of int
        The iterations after which something was noted.
    loss, test_loss, test_score : list of list of float
        As in `Trial`, over repeats and iterations.
    seconds : list of float
        Time of each training.
    """

    configuration: dict[str, Any]
    iterations: list[int] = field(default_factory=list)
    loss: list[list[float]] = field(default_factory=list)
    test_loss: list[list[float]] = field(default_factory=list)
    test_score: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def score(self) -> list[float]:
        """The test score after the last iteration, over repeats."""
        return [scores[-1] for scores in self.test_score]

    @property
    def mean_score(self) -> float:
        """Mean of `score`; NaN without any."""
        return mean(self.score)

    @property
    def std_score(self) -> float:
        """Standard deviation of `score` between repeats, divisor n - 1."""
        return standard_deviation(self.score)

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation over repeats of ``loss``, ``test_loss`` or ``test_score``."""
        choice("name", name, CURVES)
        columns = list(zip(*getattr(self, name), strict=True))
        return [mean(column) for column in columns], [standard_deviation(c) for c in columns]

    def add(self, trial: Trial) -> None:
        """Append one training."""
        self.iterations = trial.iterations
        for name in (*CURVES, "seconds"):
            getattr(self, name).append(getattr(trial, name))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, with mean and standard deviation."""
        return asdict(self) | {
            "score": self.score,
            "mean_score": self.mean_score,
            "std_score": self.std_score,
        }


@dataclass(frozen=True)
class Contrast:
    """What the repeats say about two configurations.

    Attributes
    ----------
    first, second : str
        Their names; differences are second minus first, ratios first over second.
    score : Evidence
        Difference of the mean test scores, with the paired t-test.
    spread : Evidence
        Ratio of their standard deviations between repeats, with Levene's test.
    p_holm : float or None
        The p-value of `score`, corrected by Holm's method for the number of contrasts it was told with.
    repeats_needed : dict of float to int or None
        For some sizes of a difference: the repeats that see it with a probability of 80 %, at the spread of these.
    """

    first: str
    second: str
    score: Evidence
    spread: Evidence
    p_holm: float | None
    repeats_needed: dict[float, int | None]


@dataclass
class ExperimentResult:
    """What an experiment found.

    Attributes
    ----------
    arms : dict of str to Arm
        Keyed by the configurations' names; all hold the same repeats.
    repeats : list of int
        The finished repeats, in order: those whose trainings are all done.
    asked : int
        Repeats asked for.
    seed : int
        Of repeat 0.
    data : dict
        Sizes of the data, and what the caller said of them.
    machine : dict
        Processor, SIMD path, threads, versions, and ``jobs``, the trainings at a time.
    started : str
        Time of the beginning, ISO 8601, UTC.
    seconds : float
        Time it took, with the trainings that a ledger had.
    stopped : str or None
        Why it ended before all repeats were done; None if they were.
    trials : list of Trial
        All finished trainings, those of unfinished repeats too.
    """

    arms: dict[str, Arm]
    asked: int
    seed: int
    data: dict[str, Any]
    machine: dict[str, Any]
    started: str
    repeats: list[int] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all repeats were done."""
        return self.stopped is None

    def contrasts(
        self, baseline: str | None = None, *, sizes: Sequence[float] = SIZES
    ) -> list[Contrast]:
        """Set every configuration against one of them.

        Parameters
        ----------
        baseline : str, optional
            The first configuration by default.
        sizes : sequence of float
            Differences of the score for which the repeats needed are told.

        Returns
        -------
        list of Contrast

        Raises
        ------
        TypeError, ValueError
            If there is no such configuration, or a size is not above 0.

        References
        ----------
        Holm: A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6 (1979) 65-70.
        """
        first = next(iter(self.arms)) if baseline is None else baseline
        choice("baseline", first, tuple(self.arms))
        if not isinstance(sizes, (tuple, list)):
            raise TypeError(f"sizes is {sizes!r}; expected a sequence of numbers")
        for i, size in enumerate(sizes):
            finite_number(f"sizes[{i}]", size, positive=True)
        others = [name for name in self.arms if name != first]
        a = self.arms[first].score
        scores = [paired_difference(a, self.arms[name].score) for name in others]
        corrected = _holm([evidence.p_value for evidence in scores])
        return [
            Contrast(
                first,
                name,
                score,
                spread_ratio(a, self.arms[name].score),
                p,
                {size: repeats_needed(a, self.arms[name].score, size) for size in sizes},
            )
            for name, score, p in zip(others, scores, corrected, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, ready for JSON.

        Returns
        -------
        dict
            ``arms.NAME.score`` is a list over repeats, ``arms.NAME.loss`` and the other curves lists over repeats of
            lists over ``arms.NAME.iterations``. A number that is not finite is None.
        """
        plain: dict[str, Any] = {
            "format": "cdrop-experiment",
            "version": 1,
            "complete": self.complete,
            "stopped": self.stopped,
            "repeats_asked": self.asked,
            "repeats": self.repeats,
            "seeds": [self.seed + repeat for repeat in self.repeats],
            "data": self.data,
            "machine": self.machine,
            "time": {"started": self.started, "seconds": self.seconds},
            "arms": {name: arm.to_dict() for name, arm in self.arms.items()},
            "contrasts": [asdict(contrast) for contrast in self.contrasts()],
        }
        result: dict[str, Any] = finite(plain)
        return result


def paired_experiment(
    configurations: Mapping[str, Mapping[str, Any]],
    train_data: tuple[ArrayLike, ArrayLike],
    test_data: tuple[ArrayLike, ArrayLike],
    *,
    repeats: int = 5,
    seed: int = 0,
    note_every: int | None = None,
    n_jobs: int | None = None,
    threads: int | None = None,
    ledger: Ledger | None = None,
    time_limit: float | None = None,
    about: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    on_begin: Callable[[ExperimentResult], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    network: NetworkFactory | None = None,
) -> ExperimentResult:
    """Train configurations in repeats that share initial weights and the order of minibatches.

    Parameters
    ----------
    configurations : mapping of str to mapping
        For each name its settings: ``hidden``, the widths of the hidden layers, and arguments of `Network`
        (``dropout``, ``input_dropout``, ``activation``, ``loss``, ...) and of `Network.fit` (``optimizer``,
        ``learning_rate``, ``l2``, ``max_norm``, ``batch_size``, ``iterations`` or ``epochs``, ...).
    train_data, test_data : tuple (X, y)
        As `Network.fit` and `Network.score` take them.
    repeats : int, default 5
    seed : int, default 0
        Repeat r has ``seed + r``.
    note_every : int, optional
        Note losses and test scores after each iteration that is a multiple of this, for learning curves. By default
        only the last.
    n_jobs : int, optional
        Trainings at a time, as joblib has it: -1 for all cores. By default one, here, or what a surrounding
        ``joblib.parallel_config`` says, such as a Dask cluster. The numbers are the same.
    threads : int, optional
        Of each training. By default one if several run at a time, else what `cdrop.get_num_threads` says.
    ledger : Ledger, optional
        Keeps every training, so that an experiment that was killed goes on with the same numbers; see
        `cdrop.experiments.open_ledger`.
    time_limit : float, optional
        Seconds after which the experiment stops, as after Ctrl-C.
    about : mapping, optional
        What else the result shall say of the data.
    callbacks : sequence of Callback
        Handed to every ``fit``; only where one training runs at a time.
    on_begin : callable, optional
        Called before the first training with the result, as yet without repeats.
    on_trial : callable, optional
        Called with a `Trial` after each training.
    network : callable, optional
        Called as `cdrop.Network`, which it is by default; it must be picklable if trainings run elsewhere.

    Returns
    -------
    ExperimentResult
        With the repeats whose trainings were all finished: after Ctrl-C, the time limit, or a training that broke down,
        there are fewer than asked for, and `stopped` says why.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, the network refuses a setting or the data, or the ledger is another
        experiment's.
    ImportError
        If ``n_jobs`` asks for joblib, which is not installed (extra ``parallel``).
    OSError
        If the ledger cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.experiments import paired_experiment
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 20)).astype("float32")
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
    >>> shared = {"hidden": (64, 64), "iterations": 50}
    >>> result = paired_experiment(
    ...     {"without": shared, "with": {**shared, "dropout": 0.5}},
    ...     (X[:200], y[:200]),
    ...     (X[200:], y[200:]),
    ...     repeats=3,
    ... )
    >>> result.repeats, list(result.arms), result.arms["with"].iterations
    ([0, 1, 2], ['without', 'with'], [50])
    """
    repeats = whole_number("repeats", repeats, 1, 2**62)
    seed = whole_number("seed", seed, 0, 2**64 + 1 - repeats)
    if note_every is not None:
        note_every = whole_number("note_every", note_every, 1, 2**62)
    callbacks = check_callbacks(callbacks)
    check_called(on_begin=on_begin, on_trial=on_trial, network=network)
    _check_kinds(ledger, about)
    arms = _configurations(configurations)
    data = Data(*_pair("train_data", train_data), *_pair("test_data", test_data))
    jobs, deadline = _jobs(n_jobs), _Deadline(time_limit)
    if jobs > 1 and callbacks:
        raise ValueError(
            f"callbacks is not empty, and {jobs} trainings run at a time; expected none, or n_jobs=1"
        )
    if jobs > 1 and threads is None:
        threads = 1
    result = ExperimentResult(
        arms={name: Arm(c.to_dict()) for name, c in arms.items()},
        asked=repeats,
        seed=seed,
        data={"train": len(data.y_train), "test": len(data.y_test), **(about or {})},
        machine={**machine.describe(threads), "jobs": jobs},
        started=now(),
    )
    if ledger is not None:
        identity = {"seed": seed, "note_every": note_every, "data": digest(list(data))}
        settings = {name: arm.configuration for name, arm in result.arms.items()}
        result.started = ledger.claim(identity, settings, result.started)
    work = _Work(data, arms, repeats, seed, threads, note_every, network, ledger)
    begin, earlier = time.perf_counter(), sum(trial.seconds for trial in work.done)
    trials = work.here([deadline, *callbacks]) if jobs == 1 else work.elsewhere(n_jobs)

    def run() -> None:
        if on_begin is not None:
            on_begin(result)
        for trial in trials:
            if on_trial is not None:
                on_trial(trial)
            if work.left:
                deadline.check()

    result.stopped = _stopped_by(run)
    _collect(result, work.done)
    result.seconds = time.perf_counter() - begin + earlier
    return result


def trainings_left(
    repeats: int, configurations: Iterable[str], done: Iterable[Trial]
) -> list[tuple[int, str]]:
    """Return repeat and configuration of each training still to be made, in the order of the making."""
    finished = {(trial.repeat, trial.configuration) for trial in done}
    asked = itertools.product(range(repeats), configurations)
    return [which for which in asked if which not in finished]


def now() -> str:
    """Return the time as results tell it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stopped_by(run: Callable[[], None]) -> str | None:
    """Return why a run ended before all was done, or None; an error of the caller's is raised."""
    try:
        run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except _OutOfTimeError:
        return OUT_OF_TIME
    except ArithmeticError as error:
        return str(error)
    return None


class _OutOfTimeError(Exception):
    """The time limit has come."""


class _Deadline(Callback):
    """Ends an experiment when its time is over, within a training too."""

    def __init__(self, limit: float | None) -> None:
        if limit is not None:
            limit = finite_number("time_limit", limit, positive=True)
        self._end = math.inf if limit is None else time.monotonic() + limit

    def check(self) -> None:
        if time.monotonic() >= self._end:
            raise _OutOfTimeError

    def on_iteration(self, net: Any, iteration: int, loss: float) -> None:
        self.check()

    def state_dict(self) -> None:
        """As `Callback.state_dict`: the time is that of this process."""


class _Work:
    """The trainings of an experiment: those that are done, and what makes the others."""

    def __init__(
        self,
        data: Data,
        arms: dict[str, Configuration],
        repeats: int,
        seed: int,
        threads: int | None,
        note_every: int | None,
        network: NetworkFactory | None,
        ledger: Ledger | None,
    ) -> None:
        self.data, self.arms, self.seed, self.ledger = data, arms, seed, ledger
        self.options: dict[str, Any] = {
            "threads": threads,
            "note_every": note_every,
            "network": network,
        }
        self.done = [] if ledger is None else ledger.among(repeats, arms)
        self.left = trainings_left(repeats, arms, self.done)

    def here(self, callbacks: Sequence[Callback]) -> Iterator[Trial]:
        """Make what is left, one after the other; a long training has a checkpoint of its own."""
        for which in list(self.left):
            options = {**self.options, "callbacks": callbacks}
            if self.ledger is not None:
                options["checkpoint"] = self.ledger.checkpoint(*which)
            yield self._keep(train(*self._arguments(which), **options))

    def elsewhere(self, n_jobs: int | None) -> Iterator[Trial]:
        """Make what is left by joblib, several at a time, and give them as they are finished."""
        from joblib import Parallel, delayed

        # One at a time goes to a worker: a batch of them would be lost, and told, together.
        run = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
        tasks = (delayed(train)(*self._arguments(which), **self.options) for which in self.left[:])
        for trial in run(tasks):
            yield self._keep(trial)

    def _arguments(self, which: tuple[int, str]) -> tuple[Any, ...]:
        """Return the positional arguments of `train`."""
        repeat, name = which
        return self.data, self.arms[name], name, repeat, self.seed + repeat

    def _keep(self, trial: Trial) -> Trial:
        """Keep a training before it is told: Ctrl-C in the telling must not cost what was told."""
        if self.ledger is not None:
            self.ledger.add(trial)
        self.left.remove((trial.repeat, trial.configuration))
        self.done.append(trial)
        return trial


def _collect(result: ExperimentResult, trials: Iterable[Trial]) -> None:
    """Put the trainings of the finished repeats into the result, in order."""
    by_repeat: dict[int, dict[str, Trial]] = {}
    result.trials = list(trials)
    for trial in result.trials:
        by_repeat.setdefault(trial.repeat, {})[trial.configuration] = trial
    for repeat in sorted(by_repeat):
        if len(by_repeat[repeat]) == len(result.arms):
            result.repeats.append(repeat)
            for name, arm in result.arms.items():
                arm.add(by_repeat[repeat][name])


def _jobs(n_jobs: int | None) -> int:
    """Return how many trainings run at a time, as joblib and what surrounds the call have it."""
    if n_jobs is not None:
        n_jobs = whole_number("n_jobs", n_jobs, -(2**31), 2**31)
        if n_jobs == 0:
            raise ValueError("n_jobs is 0; expected a number of trainings, or -1 for all cores")
    if n_jobs == 1 or (n_jobs is None and "joblib" not in sys.modules):
        return 1  # without joblib loaded no surrounding call can say otherwise
    try:
        import joblib
    except ImportError as error:
        raise ImportError(
            f"n_jobs is {n_jobs}, for which joblib is needed: pip install 'cdrop[parallel]'"
        ) from error
    return int(joblib.effective_n_jobs(n_jobs))


def check_called(**called: Any) -> None:
    """Raise unless these arguments can be called, or are None."""
    for name, value in called.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {value!r}; expected something to call, or None")


def _check_kinds(ledger: Any, about: Any) -> None:
    """Raise unless these arguments are what they must be, or None."""
    if about is not None and not hasattr(about, "keys"):
        raise TypeError(f"about is {about!r}; expected a mapping, or None")
    if ledger is not None and not isinstance(ledger, Ledger):
        raise TypeError(f"ledger is {ledger!r}; expected what open_ledger gives, or None")


def _configurations(given: Any) -> dict[str, Configuration]:
    """Check the configurations."""
    if not hasattr(given, "items") or not len(given):
        raise ValueError(f"configurations is {given!r}; expected a mapping of one or more")
    arms = {}
    for name, settings in given.items():
        if not isinstance(name, str) or not hasattr(settings, "items"):
            raise TypeError(
                f"configurations has {name!r}: {settings!r}; expected a name and a mapping of settings"
            )
        arms[name] = Configuration.from_settings(name, settings)
    return arms


def _pair(name: str, pair: Any) -> tuple[Any, Any]:
    """Check that something is X and y; what they hold is for the network to check."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} is a {type(pair).__name__}; expected a pair (X, y)")
    X, y = as_array(f"{name}[0]", pair[0]), as_array(f"{name}[1]", pair[1])
    if X.ndim != 2 or not len(X) or len(X) != len(y):
        raise ValueError(
            f"{name} has shapes {X.shape} and {y.shape}; expected (n, features) and n targets, n at least 1"
        )
    return X, y


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number, by Holm's method; all or none, for a missing one may be the smallest."""
    there = [p for p in p_values if p is not None]
    if len(there) < len(p_values):
        return [None] * len(p_values)
    corrected: list[float | None] = [None] * len(there)
    largest = 0.0
    for rank, index in enumerate(np.argsort(there, kind="stable")):
        largest = max(largest, min(1.0, (len(there) - rank) * there[index]))
        corrected[index] = largest
    return corrected
