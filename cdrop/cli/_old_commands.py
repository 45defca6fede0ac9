"""What the commands of `cdrop` do, from checked arguments to an exit code.

Everything heavy is imported inside the functions that need it, so that ``--help`` comes at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cdrop.datasets import Dataset
    from cdrop.experiments import ComparisonResult, ExperimentResult, Ledger, Settings
    from cdrop.experiments.paper import Outcome

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "REFUSED",
    "CommandError",
    "run_bench",
    "run_compare",
    "run_info",
    "run_paper",
]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
WORTH_JOBS = 20  # trainings: below that, starting processes takes what they save


class CommandError(Exception):
    """A command cannot go on: the message is for the user, the code for the shell."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def run_info(args: argparse.Namespace) -> int:
    """Print what this machine and this installation are (``cdrop info``)."""
    del args
    from cdrop import kernels, report
    from cdrop.datasets import cache_folder
    from cdrop.experiments import machine

    extras = {
        extra: (name, machine.package_version(name)) for extra, name in machine.EXTRAS.items()
    }
    usable, built = kernels.simd_paths(), kernels.simd_paths(built=True)
    _say(report.info(machine.describe(), usable, built, extras, cache_folder()))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Time training steps (``cdrop bench``)."""
    from dataclasses import asdict

    from cdrop import report
    from cdrop._files import write_atomically
    from cdrop.experiments import bench, machine

    _check_outputs(args)
    about = machine.describe(args.threads)
    _say(report.bench_heading(about, args.size, args.rounds))
    times = bench.measure(args.size, threads=args.threads, rounds=args.rounds)
    _say(report.bench(times))
    if args.json:
        result = about | {"size": args.size, "steps": [asdict(t) for t in times]}
        write_atomically(args.json, lambda f: f.write(json.dumps(result, indent=1).encode()))
        _say(f"Saved {args.json}")
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Train, report and save the comparison (``cdrop compare``)."""
    from cdrop import report
    from cdrop.experiments import compare
    from cdrop.progress import comparison_progress

    settings = _settings(args)
    _check_outputs(args)
    ledger, jobs = _open_ledger(args), _jobs(args, settings)
    dataset, fallback = _load(args)
    arms = settings.configurations()
    kept = 0 if ledger is None else len(ledger.among(settings.repeats, arms))
    foreign = None if dataset.is_mnist else report.not_mnist(dataset.name)
    _say(foreign, fallback)

    def begin(result: ComparisonResult) -> None:
        about = report.kept(args.checkpoint, kept, settings.repeats * len(arms))
        _say(report.heading(result), about, "")

    listeners, close = comparison_progress(settings, kept, jobs)
    with _plain_errors(args, ended=close):
        result = compare(dataset, settings, n_jobs=jobs, on_begin=begin, ledger=ledger, **listeners)
    with _uninterrupted():
        lines, errors = _save(args, result)
        if ledger is not None and not result.complete:
            finished = len(ledger.among(settings.repeats, arms))
            lines.append(report.how_to_resume(args.checkpoint, finished))
        _say(report.comparison(result), *lines)
        for problem in errors:
            print(f"cdrop compare: error: {problem}", file=sys.stderr, flush=True)
        _say(foreign)
    return _exit_code(result, errors)


def run_paper(args: argparse.Namespace) -> int:
    """Train rows of the paper's table, or search for how to (``cdrop paper``)."""
    from cdrop import report
    from cdrop.experiments import paper
    from cdrop.experiments.paired import trainings_left
    from cdrop.progress import TrainingWork

    _check_outputs(args)
    repeats = args.repeats or (1 if args.search else 3)
    ledger = _open_ledger(args)
    dataset, fallback = _load(args, validation=paper.HELD_OUT if args.search else 0)
    foreign = None if dataset.is_mnist else report.not_mnist(dataset.name)
    _say(foreign, fallback)
    plan = paper.plan(args.rows or None, args.epochs, candidates=args.search)
    work = {name: planned.work(dataset) for name, planned in plan.items()}
    kept = [] if ledger is None else ledger.among(repeats, plan)
    left = trainings_left(repeats, plan, kept)
    progress = TrainingWork(
        [work[name] for _, name in left], sum(work[trial.configuration] for trial in kept)
    )

    def begin(result: ExperimentResult) -> None:
        about = report.kept(args.checkpoint, len(kept), repeats * len(plan))
        _say(report.paper_heading(result, plan, search=args.search), about, "")

    with _plain_errors(args, ended=progress.close):
        result = paper.train_rows(
            dataset,
            plan,
            search=args.search,
            repeats=repeats,
            seed=args.seed,
            threads=args.threads,
            ledger=ledger,
            time_limit=None if args.time_limit is None else 60 * args.time_limit,
            callbacks=[progress],
            on_begin=begin,
            on_trial=lambda trial: progress.tell(report.paper_line(trial)),
        )
    with _uninterrupted():
        code = _tell_paper(args, result, paper.outcomes(result, plan))
        _say(foreign)
    return code


def _tell_paper(
    args: argparse.Namespace, result: ExperimentResult, outcomes: Sequence[Outcome]
) -> int:
    """Print and save what the rows came to."""
    from cdrop import report

    content = _json_text(result.to_dict() | {"rows": [outcome.to_dict() for outcome in outcomes]})
    lines, failed = [], False
    if args.json is not None:
        try:
            _write_text(args.json, content)
            lines.append(f"Written: {args.json}")
        except OSError as error:
            failed = True
            print(f"cdrop paper: error: {args.json} was not written: {error}", file=sys.stderr)
            lines.append(content)
    if args.checkpoint is not None and not result.complete:
        lines.append(report.how_to_resume(args.checkpoint, len(result.trials)))
    _say(report.paper(result, outcomes, search=args.search), *lines)
    if result.stopped == "interrupted":
        return INTERRUPTED
    return FAILED if failed or not (result.complete or args.time_limit) else 0


def _settings(args: argparse.Namespace) -> Settings:
    """Return the settings asked for, once they fit together."""
    from dataclasses import fields

    from cdrop.experiments import Settings

    if args.optimizer == "adamw" and args.l2 != 0:
        raise CommandError(
            f"--optimizer adamw has a weight decay of its own: expected --l2 0, got {args.l2:g}",
            REFUSED,
        )
    if args.seed + args.repeats > 2**64:
        raise CommandError(
            f"--seed {args.seed}: expected at most 2**64 - {args.repeats}, because each of "
            f"{args.repeats} repeats takes the next seed",
            REFUSED,
        )
    given = vars(args)
    return Settings(**{f.name: given[f.name] for f in fields(Settings) if f.name in given})


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse now what would fail after the training."""
    from cdrop._files import check_writable

    given = vars(args)
    if given.get("plot") is not None:
        _check_picture(args.plot)
    if given.get("report") is not None:
        _check_report()
    seen: dict[Path, str] = {}
    for option in ("json", "plot", "report"):
        path: Path | None = given.get(option)
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise CommandError(f"--{other} and --{option} name the same file, {path}", REFUSED)
        try:
            check_writable(path)
        except OSError as error:
            raise CommandError(f"--{option}: {error}", REFUSED) from error


def _open_ledger(args: argparse.Namespace) -> Ledger | None:
    """Open the folder that keeps the trainings, if one is named."""
    from cdrop.experiments import open_ledger

    if args.checkpoint is None:
        if args.resume:
            raise CommandError("--resume needs --checkpoint DIR, the folder to go on with", REFUSED)
        return None
    try:
        return open_ledger(args.checkpoint, resume=args.resume)
    except (ImportError, ValueError, OSError) as error:
        raise CommandError(f"--checkpoint: {error}", REFUSED) from error


def _jobs(args: argparse.Namespace, settings: Settings) -> int:
    """Return how many trainings run at a time: one for each core, if there are enough for that to be worth it."""
    from cdrop.experiments.machine import package_version

    there = package_version("joblib") is not None
    if args.jobs is not None:
        if args.jobs != 1 and not there:
            raise CommandError("--jobs needs joblib: pip install 'cdrop[parallel]'", REFUSED)
        return int(args.jobs)
    trainings = settings.repeats * len(settings.configurations())
    many = trainings >= WORTH_JOBS and args.threads is None and there
    return -1 if many else 1


def _check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn."""
    from cdrop.plotting import check_format

    try:
        check_format(path)
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'cdrop[plot]'", REFUSED) from error
    except ValueError as error:
        raise CommandError(f"--plot {path}: {error}", REFUSED) from error


def _check_report() -> None:
    """Refuse a page that cannot be made."""
    from importlib import import_module

    for name in ("jinja2", "matplotlib"):
        try:
            import_module(name)
        except ImportError as error:
            message = f"--report needs {name}: pip install 'cdrop[report]'"
            raise CommandError(message, REFUSED) from error


def _load(args: argparse.Namespace, validation: int | None = None) -> tuple[Dataset, str | None]:
    """Return the data asked for, and why they are not MNIST where MNIST was hoped for."""
    dataset, fallback = _load_all(args, validation)
    if args.train_size is None:
        return dataset, fallback
    try:
        return dataset.subset(args.train_size), fallback
    except ValueError as error:
        raise CommandError(f"--train-size: {error}", REFUSED) from error


def _load_all(args: argparse.Namespace, validation: int | None) -> tuple[Dataset, str | None]:
    """Do what `_load` does, but for the training size."""
    from cdrop.datasets import DataError, DataNotFoundError, load

    choice = args.data or "mnist"
    try:
        data = load(
            choice,
            label=args.label,
            validation=validation,
            test_share=args.test_share,
            progress=True,
        )
    except DataError as error:
        # Files that are there but damaged are told, never passed over.
        if args.data is not None or not isinstance(error, DataNotFoundError):
            raise CommandError(
                f"--data {choice}: {error}\nWithout any file: cdrop {args.command} --data digits"
            ) from error
        return load("digits", validation=validation), f"{error}\nDrawn digits take MNIST's place.\n"
    except ValueError as error:  # --label or --test-share, with data they have no meaning for
        raise CommandError(f"--data {choice}: {error}", REFUSED) from error
    return data, None


@contextmanager
def _plain_errors(args: argparse.Namespace, ended: Callable[[], None]) -> Iterator[None]:
    """Turn the errors of an experiment into a command's, and end the showing of its progress."""
    from cdrop.datasets import DataError
    from cdrop.experiments import OtherExperimentError

    try:
        yield
    except OtherExperimentError as error:
        raise CommandError(f"--checkpoint: {error}", REFUSED) from error
    except DataError as error:
        raise CommandError(f"--data {args.data}: {error}") from error
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    finally:
        ended()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no second Ctrl-C come between finished repeats and their file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _save(args: argparse.Namespace, result: ComparisonResult) -> tuple[list[str], list[str]]:
    """Write the files asked for; return a line about each, and the errors.

    After long work no failure may lose results: if the JSON cannot be written, it is among the
    lines to be printed, and the report is printed in any case.
    """
    lines: list[str] = []
    errors: list[str] = []
    write_page = partial(_write_report, command=args.command_line)
    outputs = ((args.json, _write_json), (args.plot, _write_plot), (args.report, write_page))
    for path, write in outputs:
        if path is None:
            continue
        if result.repeats == 0:
            lines.append(f"{path} was not written, for want of a finished repeat.")
            continue
        try:
            write(path, result)
            lines.append(f"Written: {path}")
        except Exception as error:  # the writers are matplotlib's, too: nothing is known of them
            errors.append(f"{path} was not written: {error}")
            if write is _write_json:
                lines.append(_json_text(result.to_dict()))
    return lines, errors


def _json_text(plain: dict[str, Any]) -> str:
    """Return the content of a JSON file."""
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def _write_text(path: Path, content: str) -> None:
    """Write a file of text, whole or not at all."""
    from cdrop._files import write_atomically

    write_atomically(path, lambda stream: stream.write(content.encode()))


def _write_json(path: Path, result: ComparisonResult) -> None:
    """Write all results."""
    _write_text(path, _json_text(result.to_dict()))


def _write_plot(path: Path, result: ComparisonResult) -> None:
    """Draw and write the picture."""
    from cdrop._files import write_atomically
    from cdrop.plotting import check_format, plot_comparison

    picture_format = check_format(path)
    write_atomically(path, lambda stream: plot_comparison(result, stream, format=picture_format))


def _write_report(path: Path, result: ComparisonResult, *, command: str) -> None:
    """Write the page."""
    from cdrop.html_report import write_report

    write_report(result, path, command=command)


def _exit_code(result: ComparisonResult, errors: list[str]) -> int:
    """Return what the shell is told."""
    if result.interrupted:
        return INTERRUPTED
    return 0 if result.complete and not errors else FAILED


def _say(*paragraphs: str | None) -> None:
    """Print what is not None at once: progress goes to another stream and must not overtake it."""
    try:
        for paragraph in paragraphs:
            if paragraph is not None:
                print(paragraph)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has left; the work goes on, for the sake of the files.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
