"""What the commands of `cdrop` do, from checked arguments to an exit code.

Everything heavy is imported inside the functions that need it, so that ``--help`` comes at once.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cdrop.datasets import Dataset
    from cdrop.experiments import ComparisonResult, Ledger, Settings, Trial

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "REFUSED",
    "CommandError",
    "run_bench",
    "run_compare",
    "run_info",
]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
MOST_LINES = 20  # of progress, where no bar can be drawn
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

    settings = _settings(args)
    _check_outputs(args)
    ledger, jobs = _open_ledger(args), _jobs(args, settings)
    dataset, fallback = _load(args.data)
    kept = 0 if ledger is None else ledger.count(settings.repeats, settings.configurations())
    foreign = None if dataset.name == "MNIST" else report.not_mnist(dataset.name)
    _say(foreign, fallback)
    begun = False

    def begin(result: ComparisonResult) -> None:
        nonlocal begun
        begun = True
        about = report.kept(args.checkpoint, kept, result)
        _say(report.heading(result), about, "")

    with _progress(settings, kept, jobs) as listeners:
        try:
            result = compare(
                dataset, settings, n_jobs=jobs, on_begin=begin, ledger=ledger, **listeners
            )
        except (ValueError, OSError) as error:
            if begun:
                raise CommandError(str(error)) from error
            raise CommandError(f"--checkpoint: {error}", REFUSED) from error  # all else is checked
    with _uninterrupted():
        lines, errors = _save(args, result)
        if ledger is not None and not result.complete:
            finished = ledger.count(settings.repeats, settings.configurations())
            lines.append(report.how_to_resume(args.checkpoint, finished))
        _say(report.comparison(result), *lines)
        for problem in errors:
            print(f"cdrop compare: error: {problem}", file=sys.stderr, flush=True)
        _say(foreign)
    return _exit_code(result, errors)


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

    if args.plot is not None:
        _check_picture(args.plot)
    if args.report is not None:
        _check_report()
    seen: dict[Path, str] = {}
    for option in ("json", "plot", "report"):
        path: Path | None = getattr(args, option)
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


def _load(choice: str | None) -> tuple[Dataset, str | None]:
    """Return the data asked for, and why they are not MNIST where MNIST was hoped for."""
    from cdrop.datasets import DataError, DataNotFoundError, drawn_digits, load_mnist

    if choice == "digits":
        return drawn_digits(), None
    folder = None if choice in (None, "mnist") else choice
    try:
        return load_mnist(folder, progress=True), None
    except DataError as error:
        # Files that are there but damaged are told, never passed over.
        if choice is not None or not isinstance(error, DataNotFoundError):
            raise CommandError(
                f"--data {choice or 'mnist'}: {error}\nWithout any file: cdrop compare --data digits"
            ) from error
        reason = str(error)
    return drawn_digits(), f"{reason}\nDrawn digits take MNIST's place.\n"


@contextmanager
def _progress(settings: Settings, kept: int, jobs: int) -> Iterator[dict[str, Any]]:
    """Yield what `compare` needs to show progress: a bar on a terminal, else sparse lines.

    The bar counts iterations, or trainings where several run at a time; those that are kept are done.
    """
    from cdrop.callbacks import ProgressBar

    trainings = settings.repeats * len(settings.configurations())
    unit = settings.iterations if jobs == 1 else 1
    counted = "it" if jobs == 1 else "training"
    bar = ProgressBar(total=trainings * unit, initial=kept * unit, unit=counted)
    if not bar.visible:
        yield {"on_trial": _lines(settings)}
        return
    try:
        yield {"callbacks": [bar]} if jobs == 1 else {"on_trial": lambda trial: bar.advance()}
    finally:
        bar.close()


def _lines(settings: Settings) -> Callable[[Trial], None]:
    """Return what prints a line about a repeat whose two arms are done, of all repeats some."""
    from cdrop import report

    pairs: dict[int, dict[str, Trial]] = {}
    step = math.ceil(settings.repeats / MOST_LINES)

    def tell(trial: Trial) -> None:
        pair = pairs.setdefault(trial.repeat, {})
        pair[trial.configuration] = trial
        if not {"without", "with"} <= pair.keys():
            return
        del pairs[trial.repeat]
        if (trial.repeat + 1) % step == 0:
            line = report.run_line(pair["without"], pair["with"], settings.repeats)
            with suppress(OSError):  # a reader that has left must not cost the training
                print(line, file=sys.stderr, flush=True)

    return tell


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
                lines.append(_to_json(result))
    return lines, errors


def _to_json(result: ComparisonResult) -> str:
    """Return the content of the JSON file."""
    return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"


def _write_json(path: Path, result: ComparisonResult) -> None:
    """Write all results."""
    from cdrop._files import write_atomically

    content = _to_json(result).encode()
    write_atomically(path, lambda stream: stream.write(content))


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
