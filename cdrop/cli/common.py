"""What the commands share: exit codes, errors, output files, the ledger's directory, the data."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdrop._console import printable, put

if TYPE_CHECKING:
    import argparse

    from cdrop.cli.progress import Progress
    from cdrop.datasets import Dataset, Table
    from cdrop.experiments import ExperimentResult, Ledger

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "REFUSED",
    "CommandError",
    "begin",
    "check_outputs",
    "complain",
    "explained",
    "finish",
    "load_data",
    "open_directory",
    "plain_errors",
    "say",
    "uninterrupted",
]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
_TABLE_OPTIONS = (  # of `cdrop.datasets.load`, and of the command line
    "label",
    "task",
    "drop",
    "categories",
    "test",
    "group",
    "time",
    "sep",
    "decimal",
    "encoding",
    "missing",
)
_RENAMED = {"header": "no-header", "test_size": "test-share"}  # arguments that are other options


class CommandError(Exception):
    """A command cannot continue: the message is for the user, the code for the shell."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def say(*paragraphs: str | None) -> None:
    """Print what is not None at once: progress goes to another stream and must not overtake it.

    CommandError if standard output is full; where there is none, or its reader has left, nothing is printed.
    """
    for paragraph in paragraphs:
        if paragraph is not None:
            try:
                put(printable(paragraph, sys.stdout), sys.stdout)
            except BrokenPipeError:
                # The reader (`head`, a pager) has left; the work continues, for the sake of the files.
                _discard(sys.stdout)
            except OSError as error:
                _discard(sys.stdout)
                raise CommandError(f"standard output: {error.strerror}") from error


def complain(about: str, message: object) -> None:
    """Print a message about a command to standard error, if there is one that takes it."""
    try:
        put(printable(f"{about}: {message}", sys.stderr), sys.stderr)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: Any) -> None:
    """Let a stream lead nowhere: what is still in its buffer would fail again when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse now what would fail after the work."""
    from cdrop._files import check_writable

    given = vars(args)
    if given.get("plot") is not None:
        _check_picture(args.plot)
    if given.get("report") is not None:
        _check_report()
    seen = _inputs(args)
    for option in ("json", "plot", "report"):
        path: Path | None = given.get(option)
        if path is None:
            continue
        other = next((name for name, there in seen if _same_file(path, there)), None)
        if other is not None:
            raise CommandError(f"--{other} and --{option} name the same file, {path}", REFUSED)
        seen.append((option, path))
        try:
            _check_no_input(path)
            check_writable(path)
        except (OSError, ValueError) as error:
            raise CommandError(f"--{option}: {error}", REFUSED) from error


def _inputs(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return the paths that the command reads or keeps runs in, with their options."""
    given = {name: vars(args).get(name) for name in ("data", "test", "checkpoint")}
    return [(name, Path(at)) for name, at in given.items() if at not in (None, "mnist", "digits")]


def _same_file(one: Path, other: Path) -> bool:
    """Return whether two paths name one file, also through links."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist yet
        return os.path.realpath(one) == os.path.realpath(other)


def _check_no_input(path: Path) -> None:
    """Raise ValueError if an output has the name of a file that cdrop itself reads: of MNIST, or of kept runs."""
    from cdrop.datasets.mnist import is_idx_name
    from cdrop.experiments.ledger import is_kept_name

    name = os.path.basename(os.path.realpath(path))
    if is_idx_name(name) or is_kept_name(name):
        kind = "an IDX data file" if is_idx_name(name) else "a file of kept runs"
        raise ValueError(f"{path} has the name of {kind}; expected another name")


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


def open_directory(args: argparse.Namespace) -> Ledger | None:
    """Open the directory that keeps the runs, if one is named."""
    from cdrop.experiments import open_ledger

    if args.checkpoint is None:
        if args.resume:
            raise CommandError("--resume needs --checkpoint DIR, the directory to resume", REFUSED)
        return None
    try:
        return open_ledger(args.checkpoint, resume=args.resume)
    except (ImportError, ValueError, OSError) as error:
        raise CommandError(f"--checkpoint: {error}", REFUSED) from error


def load_data(args: argparse.Namespace, **more: Any) -> tuple[Dataset | Table, str | None]:
    """Return the data asked for, and why they are not MNIST where MNIST was hoped for."""
    from cdrop.datasets import DataError, DataNotFoundError, load

    given = vars(args)
    options = {name: given[name] for name in _TABLE_OPTIONS if given.get(name)}
    if given.get("header") is False:
        options["header"] = False
    choice = args.data or "mnist"
    try:
        return load(choice, progress=True, **options, **more), None
    except DataError as error:
        # Files that are there but damaged are reported, never passed over.
        if args.data is not None or not isinstance(error, DataNotFoundError):
            example = f"\nWithout any file: cdrop {args.command} --data digits"
            missing = isinstance(error, DataNotFoundError) and choice == "mnist"
            message = explained(args, error, f"--data {choice}")
            raise CommandError(f"{message}{example * missing}", REFUSED) from error
        return load("digits", **more), f"{error}\nDrawn digits take MNIST's place.\n"
    except (ImportError, TypeError, ValueError) as error:  # such as an option that has no meaning
        message = explained(args, error, f"--data {choice}")
        if args.data is None and message.endswith("it has no meaning for mnist"):
            message += ". A table is named with --data FILE"
        raise CommandError(message, REFUSED) from error
    except (MemoryError, OSError) as error:
        raise CommandError(f"--data {choice}: {error}") from error


def explained(args: argparse.Namespace, error: Exception, where: str = "") -> str:
    """Return an error's text, preceded by the option that it is about, or by `where`."""
    text, given = str(error), vars(args)
    for option in ("data", "test"):
        if given.get(option) and text.startswith(f"{given[option]}: "):
            where = f"--{option} {given[option]}"
            text = text.removeprefix(f"{given[option]}: ")
            break
    for argument in re.findall(r"^\w+(?=\[| is | has | ')|test_size", text):
        if argument in given or argument in _RENAMED:
            where = f"--{_RENAMED.get(argument, argument.replace('_', '-'))}"
    return f"{where}: {text}" if where else text


@contextmanager
def plain_errors(args: argparse.Namespace, progress: Progress) -> Iterator[None]:
    """Turn the errors of an experiment into a command's, and end the display of its progress."""
    from concurrent.futures import BrokenExecutor  # of a worker that was killed

    from cdrop.datasets import DataError
    from cdrop.experiments import OtherExperimentError

    try:
        yield
    except OtherExperimentError as error:
        raise CommandError(f"--checkpoint: {error}", REFUSED) from error
    except (ImportError, ValueError) as error:  # arguments are checked before the experiment begins
        code = FAILED if progress.begun else REFUSED
        where = f"--data {args.data or 'mnist'}" if isinstance(error, DataError) else ""
        raise CommandError(explained(args, error, where), code) from error
    except (MemoryError, OSError, BrokenExecutor) as error:
        raise CommandError(str(error) or "out of memory") from error
    finally:
        progress.close()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no second Ctrl-C come between finished repeats and their file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def begin(
    args: argparse.Namespace, result: ExperimentResult, finished: int, fallback: str | None
) -> None:
    """Print what is known before the work: warnings, data, arms, and the runs that were finished before."""
    from cdrop.experiments import report

    say(*result.preset.warnings, fallback, report.heading(result))
    say(report.kept(args.checkpoint, finished), "")


def finish(
    args: argparse.Namespace,
    result: ExperimentResult,
    text: Callable[[], str],
    more: dict[str, Any] | None = None,
) -> int:
    """Save a result, with `more` in its JSON, and print its text; return the exit code."""
    from cdrop.experiments import report, results

    with uninterrupted():
        lines, errors = _save(args, result, more or {})
        if args.checkpoint is not None and not result.complete:
            lines.append(report.how_to_resume(args.checkpoint, len(result.trials)))
        try:
            say(text(), *lines)
        finally:
            for problem in errors:
                complain(f"cdrop {args.command}", f"error: {problem}")
        say(*result.preset.warnings)
    if result.stopped == results.INTERRUPTED:
        return INTERRUPTED
    done = result.complete or result.stopped == results.OUT_OF_TIME
    return 0 if done and not errors else FAILED


def _save(
    args: argparse.Namespace, result: ExperimentResult, more: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Write the files asked for; return a line about each, and the errors.

    After long work no failure may lose results: if the JSON cannot be written, it is among the lines to be printed,
    and the report is printed in any case.
    """
    from cdrop._files import write_atomically

    plain = result.to_dict() | more
    text = json.dumps(plain, indent=2, allow_nan=False) + "\n"

    def write_plot(path: Path) -> None:
        kind = path.suffix.lower().lstrip(".")
        write_atomically(path, lambda stream: result.plot(stream, format=kind))

    outputs: dict[str, Callable[[Path], object]] = {
        "json": lambda path: write_atomically(path, lambda f: f.write(text.encode())),
        "plot": write_plot,
        "report": lambda path: result.write_report(path, command=args.command_line),
    }
    lines: list[str] = []
    errors: list[str] = []
    for option, write in outputs.items():
        path: Path | None = getattr(args, option)
        if path is None:
            continue
        if not (result.repeats or (option == "json" and result.trials)):
            lines.append(f"{path} was not written: no repeat was finished.")
            continue
        try:
            write(path)
            lines.append(f"Written: {path}")
        except Exception as error:  # the writers are matplotlib's, too: nothing is known of them
            errors.append(f"{path} was not written: {error}")
            if option == "json":
                lines.append(text)
    return lines, errors
