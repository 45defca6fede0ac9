"""``cdrop compare``: options -> preset -> experiment -> views."""

from __future__ import annotations

import argparse
import math
import os
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cdrop.cli import common
from cdrop.cli.common import REFUSED, CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from cdrop.datasets import Dataset, Table
    from cdrop.experiments import ExperimentResult, Settings

__all__ = ["run"]

WORTH_JOBS = 20  # runs: below that, starting processes takes what they save
SHORT = (
    3e11  # multiply-adds forward, with nothing left out: a run that takes some seconds on one core
)
MOST_REPEATS = 100  # of --until-decided
_ARTICLE = ("iterations", "batch_size", "dropout", "schedule", "optimizer", "sweep")
_TUNED = ("rates", "epochs")


def run(args: argparse.Namespace) -> int:
    """Train, report and save."""
    from cdrop.cli.progress import Progress
    from cdrop.experiments import report
    from cdrop.experiments.paired import count_left, runs_left

    _check_options(args)
    common.check_outputs(args)
    ledger = common.open_directory(args)
    data, fallback = common.load_data(args)
    experiment, arms, repeats = _experiment(args, data)
    kept = [] if ledger is None else ledger.among(repeats, arms)
    jobs, workers = _jobs(
        args, repeats * len(arms), count_left(repeats, arms, kept), short=_are_short(data, arms)
    )
    fits = {n: [1.0] * (len(some) if isinstance(some, list) else 1) for n, some in arms.items()}
    left = (fits[name] for _, name in runs_left(repeats, arms, kept))
    done, total = (
        sum(sum(fits[trial.arm]) for trial in kept),
        repeats * sum(map(sum, fits.values())),
    )
    progress = Progress(left, done, total)

    def begin(result: ExperimentResult) -> None:
        common.begin(args, result, len(kept), fallback)
        progress.on_begin(result)

    with common.plain_errors(args, progress), workers:
        result = experiment(
            n_jobs=jobs,
            ledger=ledger,
            on_begin=begin,
            on_trial=progress.on_trial,
            callbacks=[progress] if jobs == 1 else [],
        )
    return common.finish(args, result, lambda: report.text(result, with_heading=False))


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not fit together."""
    if args.splits is not None and args.repeats is not None:
        raise CommandError("--splits and --repeats are given; expected one of them", REFUSED)
    if args.test_share is not None and args.time is not None:
        raise CommandError(
            "--test-share is given with --time; expected one of them: by time, the repeats share the rows equally",
            REFUSED,
        )
    last = args.seed + (args.splits or args.repeats or MOST_REPEATS)
    if last > 2**64:
        raise CommandError(
            f"--seed {args.seed}: expected a smaller one: repeat r uses the seed plus r", REFUSED
        )


def _check_widths(widths: list[int] | None, layers_each: int) -> None:
    """Refuse hidden layers whose weights alone, in four bytes each, exceed the memory of this machine."""
    if not widths or not hasattr(os, "sysconf"):
        return
    given, hidden = ",".join(map(str, widths)), layers_each * widths
    weights = sum(hidden) + sum(a * b for a, b in pairwise(hidden))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * weights > memory:
        raise CommandError(
            f"--hidden {given}: the weights of these layers take {4 * weights / 1e9:.3g} GB; "
            f"expected narrower layers, since this machine has {memory / 1e9:.3g} GB",
            REFUSED,
        )


def _experiment(args: argparse.Namespace, data: Dataset | Table) -> tuple[Any, Any, int]:
    """Return the preset's function with its arguments, its arms, and the most repeats."""
    protocol = args.protocol or ("article" if data.has_images else "tuned")
    foreign = _TUNED if protocol == "article" else _ARTICLE
    for name in foreign:
        if getattr(args, name) is not None:
            other = "tuned" if protocol == "article" else "article"
            option = name.replace("_", "-")
            raise CommandError(
                f"--{option} is given with the protocol {protocol}; expected it with --protocol {other}",
                REFUSED,
            )
    try:
        return _article(args, data) if protocol == "article" else _tuned(args, data)
    except ValueError as error:
        raise CommandError(common.explained(args, error), REFUSED) from error


def _article(args: argparse.Namespace, data: Dataset | Table) -> tuple[Any, Any, int]:
    """Return the article's comparison."""
    from functools import partial

    from cdrop.datasets import Dataset
    from cdrop.experiments import compare

    settings = _settings(args, data)
    options: dict[str, Any] = {"until_decided": args.until_decided, "metric": args.metric}
    if isinstance(data, Dataset):
        data = _subset(args, data)
        options["splits"] = args.splits is not None
    else:
        options |= _sizes(args, data)
    return partial(compare, data, settings, **options), settings.arms(), settings.repeats


def _settings(args: argparse.Namespace, data: Dataset | Table) -> Settings:
    """Return the settings of the article's comparison."""
    from cdrop.datasets import Dataset
    from cdrop.experiments import Settings

    if args.optimizer == "adamw" and (args.l2 is None or args.l2[0] != 0):
        raise CommandError(
            "--optimizer adamw has its own weight decay; expected --l2 0 with it", REFUSED
        )
    for name in ("hidden", "l2"):
        if getattr(args, name) is not None and len(getattr(args, name)) > 1:
            raise CommandError(
                f"--{name} has several values; expected one with the protocol article", REFUSED
            )
    _check_widths(args.hidden, 2)
    usual = 5 if isinstance(data, Dataset) else 20
    repeats = args.splits or args.repeats or (MOST_REPEATS if args.until_decided else usual)
    given: dict[str, Any] = {
        **{name: getattr(args, name) for name in _ARTICLE},
        "kind": args.kind,
        "learning_rate": args.learning_rate,
        "hidden": args.hidden and args.hidden[0],
        "l2": None if args.l2 is None else args.l2[0],
        "threads": args.threads,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return Settings(repeats=repeats, seed=args.seed, margin=args.margin, **chosen)


def _tuned(args: argparse.Namespace, data: Dataset | Table) -> tuple[Any, Any, int]:
    """Return the comparison of both arms at their best settings."""
    from functools import partial

    from cdrop.datasets import Dataset
    from cdrop.experiments import does_dropout_help
    from cdrop.experiments.advice import default_arms

    _check_widths(args.hidden, 1)
    if isinstance(data, Dataset):
        data = _subset(args, data) if args.splits is None else data.pooled()
    sizes = {} if isinstance(data, Dataset) else _sizes(args, data)
    chosen = {"rates": args.rates, "l2": args.l2, "hidden": args.hidden, "epochs": args.epochs}
    chosen |= {"learning_rate": args.learning_rate, "kind": args.kind}
    arms = default_arms(
        data,
        sizes.get("test_size", 0.2),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    repeats = args.splits or args.repeats or (MOST_REPEATS if args.until_decided else 20)
    experiment = partial(
        does_dropout_help,
        data,
        arms=arms,
        repeats=repeats,
        seed=args.seed,
        metric=args.metric,
        margin=args.margin,
        until_decided=args.until_decided,
        threads=args.threads,
        **sizes,
    )
    return experiment, arms, repeats


def _sizes(args: argparse.Namespace, data: Table) -> dict[str, Any]:
    """Return the sizes of a split."""
    for name in ("splits", "test_share"):
        if data.test is not None and getattr(args, name) is not None:
            raise CommandError(
                f"--{name.replace('_', '-')}: {data.name} has its own test rows; expected --repeats N "
                "instead, or data without them",
                REFUSED,
            )
    given = {"test_size": args.test_share, "train_size": args.train_size}
    return {name: value for name, value in given.items() if value is not None}


def _subset(args: argparse.Namespace, data: Dataset) -> Dataset:
    """Draw training rows, if asked for."""
    if args.test_share is not None:
        raise CommandError(
            f"--test-share: {data.name} has its own test rows; expected it with --protocol tuned --splits N",
            REFUSED,
        )
    try:
        return data if args.train_size is None else data.subset(args.train_size)
    except ValueError as error:
        raise CommandError(f"--train-size: {error}", REFUSED) from error


def _are_short(data: Dataset | Table, arms: Mapping[str, Any]) -> bool:
    """Return whether runs take some seconds, almost all of them in C: those of the article's comparison of images."""
    from cdrop.datasets import Dataset

    if not isinstance(data, Dataset) or any("iterations" not in arm for arm in arms.values()):
        return False
    inputs = math.prod(data.X_train.shape[1:])
    return all(
        arm["iterations"] * arm["batch_size"] * sum(a * b for a, b in pairwise(widths)) <= SHORT
        for arm in arms.values()
        for widths in [(inputs, *arm["hidden"])]
    )


def _jobs(
    args: argparse.Namespace, runs: int, left: int, *, short: bool
) -> tuple[int, AbstractContextManager[Any]]:
    """Return how many of the runs left take place at a time, and a context in which joblib has the workers for them.

    By default one on each core: in processes where there are enough runs to be worth their start, and otherwise in
    threads, if runs are short. A longer run has all cores: it shows how much of it is done, and has a checkpoint.
    """
    from cdrop import get_num_threads
    from cdrop.experiments.machine import package_version

    there = package_version("joblib") is not None
    if args.jobs is not None:
        if args.jobs != 1 and not there:
            raise CommandError("--jobs needs joblib: pip install 'cdrop[parallel]'", REFUSED)
        return max(1, min(int(args.jobs), left)), nullcontext()
    if args.threads is not None or not there:
        return 1, nullcontext()
    if runs >= WORTH_JOBS:
        return -1, nullcontext()
    jobs = max(1, min(get_num_threads(), left)) if short else 1
    if jobs == 1:
        return 1, nullcontext()
    import joblib

    return jobs, joblib.parallel_config(backend="threading")
