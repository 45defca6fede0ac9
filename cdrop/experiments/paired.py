"""Paired experiments: arms trained and tested on the same rows with the same seeds, in many repeats.

Repeat r gives every arm the seed ``seed + r``, and with it the same split of the data, the same initial weights where
the units agree, and the same order of minibatches: within a repeat only the settings of the arms differ.

A run is a pure function of arm, data and seed. So it does not matter where it takes place: here, in other processes,
or on other machines; and one whose worker was lost is made again.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from numpy.typing import ArrayLike

from cdrop._checks import finite_number, truth_value, whole_number
from cdrop._console import standard_streams
from cdrop.callbacks import Callback, check_callbacks
from cdrop.experiments import machine, statistics
from cdrop.experiments.arms import Candidate, NetworkFactory, Options, parse_arms, run
from cdrop.experiments.data import Problem
from cdrop.experiments.ledger import Ledger
from cdrop.experiments.metrics import metric_for
from cdrop.experiments.problem import make_problem
from cdrop.experiments.results import INTERRUPTED, OUT_OF_TIME, Arm, ExperimentResult, Preset
from cdrop.experiments.statistics import Look, Sampling
from cdrop.experiments.trials import Trial

__all__ = ["count_left", "paired_experiment", "runs_left"]

_REPEATS, _MOST_REPEATS = 20, 100  # without a number, and until decided
_PER_BATCH = 2  # runs per worker that a backend without a generator makes before it reports


def paired_experiment(
    arms: Mapping[str, Any],
    X: Any,
    y: ArrayLike | None = None,
    *,
    test_data: tuple[Any, ArrayLike] | None = None,
    repeats: int | None = None,
    seed: int = 0,
    task: str | None = None,
    metric: Any = None,
    margin: float = 0.0,
    until_decided: bool = False,
    test_size: float = 0.2,
    validation_size: float = 0.2,
    train_size: int | None = None,
    stratify: bool = True,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    cv: Any = None,
    transformer: Any = None,
    curve_every: int | None = None,
    n_jobs: int | None = None,
    threads: int | None = None,
    ledger: Ledger | None = None,
    time_limit: float | None = None,
    about: Mapping[str, Any] | None = None,
    preset: Preset | None = None,
    callbacks: Sequence[Callback] = (),
    on_begin: Callable[[ExperimentResult], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    network: NetworkFactory | None = None,
) -> ExperimentResult:
    """Train and test arms in repeats that share splits, initial weights and the order of minibatches.

    Without `test_data` every repeat splits the data with its own seed, and the intervals are those of the corrected
    resampled t-test. With it, they cover seeds and test rows, for this training set.

    Parameters
    ----------
    arms : mapping of str
        By name: settings of a network (``hidden``, the widths of the hidden layers; ``patience``, epochs without a
        better validation loss after which training stops and the best weights are kept; arguments of `Network` such
        as ``dropout``, and of `Network.fit` such as ``l2`` and ``epochs``), a scikit-learn estimator or Pipeline, or
        a list of these. Of a list, the candidate that is best on validation rows is tested in each repeat. The first
        arm is what the others are compared with. A single arm is trained and tested as several are: the result has
        its scores, and no contrasts.
    X : array_like, sparse matrix or DataFrame, shape (n, features); or Table or Dataset of `cdrop.datasets`
        Networks need numbers, see `transformer`; estimators get the rows as they are.
    y : array_like, shape (n,) or (n, outputs)
        Classes of any kind (text, integers, booleans), or numbers; None with a Table or Dataset. A matrix of 0 and 1
        with arms of ``loss="sigmoid_cross_entropy"`` stands for several labels at once.
    test_data : tuple (X, y), optional
        A given test set.
    repeats : int, optional
        Default: 20, or the number of folds of `cv`. With `until_decided` the most repeats, 100 by default.
    seed : int, default 0
        Repeat r has ``seed + r``.
    task : {"classification", "regression"}, optional
        By default `y` decides; see `cdrop.datasets.encode_labels`. Estimators and scorers see classes as numbers from
        0, in the order of their names: with two, the second is the positive class.
    metric : str or scorer, optional
        "log_loss" (default for classes), "accuracy", "balanced_accuracy", "roc_auc" (two classes); "rmse" (default for
        numbers), "mae", "r2"; or a scikit-learn scorer or its name, where greater is better.
    margin : float, default 0.0
        The largest difference of the metric that does not matter.
    until_decided : bool, default False
        Stop at the first planned look at which every contrast is decided; see
        `cdrop.experiments.statistics.plan_looks`. Needs at least two arms.
    test_size : float, default 0.2
        Share of the rows that each repeat holds out for testing; not used with `times`, `cv` or `test_data`.
    validation_size : float, default 0.2
        Share of the other rows that early stopping and the choice among candidates use. Arms without these train on
        them.
    train_size : int, optional
        Rows to train on, validation rows included; all that are left by default. With `times` the latest.
    stratify : bool, default True
        Whether each class has its share of every part.
    groups : array_like, shape (n,), optional
        Rows of a group stay on one side of every split; not together with `times`.
    times : array_like, shape (n,), optional
        Numbers or datetimes: every repeat tests on rows later than those it trains on. The test rows of repeat r are
        part r + 2 of `repeats` + 1 equal parts.
    cv : splitter of scikit-learn, or iterable of (train, test), optional
        Its folds, one per repeat, instead of random splits.
    transformer : object, optional
        With ``fit(X, y)`` and ``transform(X)``; copied and fitted on the training rows of each repeat, in front of
        networks. By default that of the Table, or for DataFrames `cdrop.datasets.TableEncoder`; arrays are used as
        they are.
    curve_every : int, optional
        Add a point to the learning curves of networks after each iteration that is a multiple of this; by default only
        the last.
    n_jobs : int, optional
        Runs at a time, as in joblib: -1 for all cores. By default one, here, or what a surrounding
        ``joblib.parallel_config`` says, such as a Dask cluster. The numbers are the same.
    threads : int, optional
        Threads of each run. By default one if several run at a time, else `cdrop.get_num_threads()`.
    ledger : Ledger, optional
        Records every run, so that an experiment that was killed resumes with the same numbers; see
        `cdrop.experiments.open_ledger`.
    time_limit : float, optional
        Seconds after which the experiment stops, as after Ctrl-C.
    about : mapping, optional
        More entries for `ExperimentResult.data`.
    preset : Preset, optional
        What the views show in addition.
    callbacks : sequence of Callback
        Passed to every ``Network.fit``; only where one run takes place at a time.
    on_begin : callable, optional
        Called before the first run with the result, which has no repeats yet.
    on_trial : callable, optional
        Called with a `Trial` after each run.
    network : callable, optional
        Called as `cdrop.Network`, which it is by default; it must be picklable if runs take place elsewhere.

    Returns
    -------
    ExperimentResult
        With the repeats whose runs were all finished: after Ctrl-C, the time limit, or training that diverged, there
        are fewer than asked for, and `stopped` says why.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, a network or estimator refuses a setting or the data, or the ledger is another
        experiment's.
    ImportError
        If an argument needs a package that is not installed: the message names the extra.
    OSError
        If the ledger cannot be written.

    References
    ----------
    Nadeau and Bengio: Inference for the generalization error. Machine Learning 52 (2003) 239-281.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.experiments import paired_experiment
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 20)).astype("float32")
    >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same sign", "other sign")
    >>> shared = {"hidden": (64, 64), "iterations": 50}
    >>> result = paired_experiment({"none": shared, "half": {**shared, "dropout": 0.5}}, X, y, repeats=3)
    >>> result.repeats, list(result.arms), result.condition
    ([0, 1, 2], ['none', 'half'], 'over 3 splits of these data')
    """
    check_called(on_begin=on_begin, on_trial=on_trial, network=network)
    _check_kinds(ledger, about, preset)
    looks, deadline = truth_value("until_decided", until_decided), _Deadline(time_limit)
    if repeats is None and cv is None:
        repeats = _MOST_REPEATS if looks else _REPEATS
    candidates = parse_arms(arms)
    if looks and len(candidates) == 1:
        raise ValueError(
            f"until_decided is True, and arms has the name {next(iter(candidates))!r} alone; expected two or more "
            "arms, whose differences can be decided, or until_decided=False"
        )
    problem = make_problem(
        X,
        y,
        test_data=test_data,
        task=task,
        repeats=repeats,
        test_size=test_size,
        validation_size=validation_size,
        train_size=train_size,
        stratify=stratify,
        groups=groups,
        times=times,
        cv=cv,
        transformer=transformer,
        arms=candidates,
    )
    repeats = problem.splitter.repeats
    done = [] if ledger is None else ledger.among(repeats, candidates)
    jobs = _jobs(n_jobs, count_left(repeats, candidates, done))
    seed = whole_number("seed", seed, 0, 2**64 + 1 - repeats)
    options = Options(
        metric_for(metric, problem.task, len(problem.classes)),
        None if curve_every is None else whole_number("curve_every", curve_every, 1, 2**62),
        1 if jobs > 1 and threads is None else threads,
        network,
        _callbacks(callbacks, deadline, jobs),
    )
    result = _result(problem, candidates, options, seed, jobs)
    result.until_decided = looks
    result.margin, result.preset = finite_number("margin", margin), preset or Preset()
    result.data = {**(about or {}), **result.data}  # the sizes are those of the repeats
    _claim(ledger, result, problem, options)
    work = _Work(problem, candidates, repeats, seed, options, ledger, jobs, done)
    begin, earlier = time.perf_counter(), sum(trial.seconds for trial in work.done)
    plan = _looks(problem, repeats, looks)
    try:
        result.stopped = _stopped_by(
            lambda: _perform(result, work, plan, deadline, on_begin or _ignore, on_trial or _ignore)
        )
    finally:
        problem.shared.forget()  # from here on the caller may change the rows
    if result.stopped is not None:
        _collect(result, work.done)
    result.seconds = time.perf_counter() - begin + earlier
    return result


def _ignore(event: Any) -> None:
    """Take no notice."""


def _perform(
    result: ExperimentResult,
    work: _Work,
    plan: Sequence[Look],
    deadline: _Deadline,
    on_begin: Callable[[ExperimentResult], None],
    on_trial: Callable[[Trial], None],
) -> None:
    """Make the runs before each look, until one decides or all are made."""
    on_begin(result)
    for look in plan:
        result.alpha = look.alpha
        for trial in work.before(look):
            on_trial(trial)
            if work.left:
                deadline.check()
        _collect(result, [trial for trial in work.done if trial.repeat < look.repeats])
        verdicts = [c.verdict for c in result.contrasts(sizes=())] if len(plan) > 1 else []
        if verdicts and "not decided" not in verdicts:
            result.decided_at = look.repeats
            return


def runs_left(
    repeats: int, arms: Collection[str], done: Iterable[Trial]
) -> Iterator[tuple[int, str]]:
    """Yield repeat and arm of each run still to be made, in order: there may be more than memory holds."""
    finished = {(trial.repeat, trial.arm) for trial in done}
    pairs = ((repeat, name) for repeat in range(repeats) for name in arms)
    return (pair for pair in pairs if pair not in finished)


def count_left(repeats: int, arms: Collection[str], done: Iterable[Trial]) -> int:
    """Return the number of runs still to be made."""
    return repeats * len(arms) - len({(trial.repeat, trial.arm) for trial in done})


def now() -> str:
    """Return the time as results have it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _looks(problem: Problem, repeats: int, several: bool) -> list[Look]:
    """Return when the verdicts are looked at, and at which level."""
    if several and problem.splitter.times is not None:
        raise ValueError(
            "until_decided is True; expected False with times, which need a fixed number of repeats"
        )
    return statistics.plan_looks(repeats) if several else [Look(repeats, 1 - statistics.LEVEL)]


def _callbacks(callbacks: Any, deadline: _Deadline, jobs: int) -> tuple[Callback, ...]:
    """Return what every fit is to call; in other processes nothing can be called."""
    callbacks = check_callbacks(callbacks)
    if jobs == 1:
        return (deadline, *callbacks)
    if callbacks:
        raise ValueError(
            f"callbacks is not empty, and {jobs} runs take place at a time; expected none, or n_jobs=1"
        )
    return ()


def _result(
    problem: Problem,
    arms: Mapping[str, Sequence[Candidate]],
    options: Options,
    seed: int,
    jobs: int,
) -> ExperimentResult:
    """Return the result of an experiment that has not begun."""
    train, test = problem.sizes(0, seed)
    metric, repeats = options.metric, problem.splitter.repeats
    memory = problem.memory(jobs, repeats * len(arms), 1 if metric.name == "accuracy" else 4)
    return ExperimentResult(
        arms={n: Arm(n, metric.name, [c.describe() for c in some]) for n, some in arms.items()},
        metric=metric,
        task=problem.task,
        sampling=Sampling(test / train if problem.tests_on_splits else None),
        asked=repeats,
        seed=seed,
        data={"train": train, "test": test, "memory_bytes": memory},
        machine={**machine.describe(options.threads), "jobs": jobs},
        started=now(),
    )


def _claim(
    ledger: Ledger | None, result: ExperimentResult, problem: Problem, options: Options
) -> None:
    """Record the experiment in its ledger, if there is one, which knows when it began."""
    if ledger is None:
        return
    identity = {
        "seed": result.seed,
        "metric": options.metric.name,
        "curve_every": options.curve_every,
        "data": problem.digest(),
    }
    arms = {name: arm.candidates for name, arm in result.arms.items()}
    result.started = ledger.claim(identity, arms, result.started)


def _collect(result: ExperimentResult, trials: Iterable[Trial]) -> None:
    """Put the runs of the finished repeats into the result, in order, with the baseline's scores there."""
    by_repeat: dict[int, dict[str, Trial]] = {}
    result.trials = list(trials)
    for trial in result.trials:
        by_repeat.setdefault(trial.repeat, {})[trial.arm] = trial
    result.repeats = [r for r in sorted(by_repeat) if len(by_repeat[r]) == len(result.arms)]
    for name, arm in result.arms.items():
        arm.trials = [by_repeat[repeat][name] for repeat in result.repeats]
    firsts = next(iter(result.arms.values())).trials
    names = firsts[0].baseline if firsts else ()
    result.baseline = {name: [trial.baseline[name] for trial in firsts] for name in names}
    if result.sampling.ratio is not None and firsts:
        result.sampling = Sampling(statistics.mean([trial.test / trial.train for trial in firsts]))


def _stopped_by(go: Callable[[], None]) -> str | None:
    """Return why an experiment ended before all was done, or None; an error of the caller's is raised."""
    try:
        go()
    except KeyboardInterrupt:
        return INTERRUPTED
    except _OutOfTimeError:
        return OUT_OF_TIME
    except ArithmeticError as error:
        return str(error) or type(error).__name__
    return None


class _OutOfTimeError(Exception):
    """The time limit has come."""


class _Deadline(Callback):
    """Ends an experiment when its time is over, within a run too."""

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
    """The runs of an experiment: those that are done, and what makes the others."""

    def __init__(
        self,
        problem: Problem,
        arms: dict[str, list[Candidate]],
        repeats: int,
        seed: int,
        options: Options,
        ledger: Ledger | None,
        jobs: int,
        done: list[Trial],
    ) -> None:
        self.problem, self.arms, self.seed, self.ledger = problem, arms, seed, ledger
        self.options, self.jobs, self.done = options, jobs, done
        self.left = count_left(repeats, arms, done)

    def before(self, look: Look) -> Iterator[Trial]:
        """Make what is left before a look, and yield each run as it is finished."""
        left = runs_left(look.repeats, self.arms, self.done)
        return self._here(left) if self.jobs == 1 else self._elsewhere(left)

    def _here(self, left: Iterable[tuple[int, str]]) -> Iterator[Trial]:
        """Make runs one after the other; a long one has its own checkpoint."""
        for which in left:
            options = self.options
            if self.ledger is not None:
                options = replace(options, checkpoint=self.ledger.checkpoint(*which))
            yield self._keep(run(*self._arguments(which), options))

    def _elsewhere(self, left: Iterable[tuple[int, str]]) -> Iterator[Trial]:
        """Make runs by joblib, several at a time."""
        from joblib import Parallel, delayed

        task, here = delayed(_run_for), os.getpid()
        tasks = (task(here, *self._arguments(which), self.options) for which in left)
        batches: Iterator[Iterable[Any]] = iter([tasks])
        # One at a time goes to a worker: a batch of them would be lost, and reported, together.
        try:
            parallel = Parallel(n_jobs=self.jobs, batch_size=1, return_as="generator_unordered")
        except ValueError:  # a backend that returns lists only, such as multiprocessing and Ray
            parallel = Parallel(n_jobs=self.jobs, batch_size=1)
            size = _PER_BATCH * self.jobs
            batches = iter(lambda: list(itertools.islice(tasks, size)), [])
        with standard_streams():
            for batch in batches:
                for trial in parallel(batch):
                    yield self._keep(trial)

    def _arguments(self, which: tuple[int, str]) -> tuple[Problem, str, list[Candidate], int, int]:
        """Return the positional arguments of `run`, except for the options."""
        repeat, name = which
        return self.problem, name, self.arms[name], repeat, self.seed + repeat

    def _keep(self, trial: Trial) -> Trial:
        """Record a run before it is reported: Ctrl-C in the reporting must not cost what was reported."""
        if self.ledger is not None:
            self.ledger.add(trial)
        self.left -= 1
        self.done.append(trial)
        return trial


_watched: int | None = None  # the process that this one ends with


def _run_for(process: int, *arguments: Any) -> Trial:
    """Make a run in a worker of `process`, with which the worker ends, however that ends."""
    global _watched
    # A worker elsewhere has another parent, and Windows keeps the number of one that has ended.
    if sys.platform != "win32" and os.getppid() == process != _watched:
        _watched = process
        threading.Thread(target=_end_with, args=(process,), daemon=True).start()
    return run(*arguments)


def _end_with(process: int) -> None:
    """End this process within a second of its parent: joblib's workers survive one that is killed."""
    while os.getppid() == process:
        time.sleep(0.5)
    os._exit(1)


def _jobs(n_jobs: int | None, runs: int) -> int:
    """Return how many of a number of runs take place at a time, as joblib and what surrounds the call have it."""
    if n_jobs is not None:
        n_jobs = whole_number("n_jobs", n_jobs, -(2**31), 2**31)
        if n_jobs == 0:
            raise ValueError("n_jobs is 0; expected a number of runs, or -1 for all cores")
    if n_jobs == 1 or (n_jobs is None and "joblib" not in sys.modules):
        return 1  # without joblib loaded no surrounding call can say otherwise
    try:
        import joblib
    except ImportError as error:
        raise ImportError(
            f"n_jobs is {n_jobs}, which needs joblib: pip install 'cdrop[parallel]'"
        ) from error
    return max(1, min(int(joblib.effective_n_jobs(n_jobs)), runs))


def check_called(**called: Any) -> None:
    """Raise unless these arguments can be called, or are None."""
    for name, value in called.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} is {value!r}; expected a callable, or None")


def _check_kinds(ledger: Any, about: Any, preset: Any) -> None:
    """Raise unless these arguments are of their types, or None."""
    if about is not None and not hasattr(about, "keys"):
        raise TypeError(f"about is {about!r}; expected a mapping, or None")
    if ledger is not None and not isinstance(ledger, Ledger):
        raise TypeError(f"ledger is {ledger!r}; expected the result of open_ledger, or None")
    if preset is not None and not isinstance(preset, Preset):
        raise TypeError(f"preset is {preset!r}; expected a Preset, or None")
