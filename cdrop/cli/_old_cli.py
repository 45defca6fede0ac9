"""The command line: options, help and exit codes. The work is in `cdrop.commands`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cdrop import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["build_parser", "main"]

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")

COMPARE_TEXT = """\
Train the article's network without and with dropout, in pairs that share initial weights and
minibatches, and report losses, test accuracies and a verdict on each claim of the article."""

COMPARE_EXAMPLES = """\
examples:
  cdrop compare                               the article's experiment, 5 repeats, some seconds
  cdrop compare --repeats 50 --json out.json  enough repeats to separate the arms
  cdrop compare --data digits                 no file and no network needed; not MNIST
  cdrop compare --data fashion/ --plot a.png  any folder with the four IDX files
  cdrop compare --data own.csv --label kind   a table: all columns but kind are numbers
  cdrop compare --train-size 500              a small training set, each class with its share
  cdrop compare --dropout 0.2 --l2 0 --iterations 8000
  cdrop compare --repeats 20 --sweep 0.1,0.2,0.3,0.5,0.7 --report out.html
                                              more probabilities of dropping; a page with pictures
  cdrop compare --repeats 500 --checkpoint kept --resume
                                              begins, or goes on where it was killed

MNIST is looked for in $CDROP_DATA/mnist, then in the cache folder, then on the network.

With --checkpoint (it needs the extra io) a training is safe as soon as it is finished, and a long one
every 1,000 iterations. --resume goes on with what was killed or interrupted, and ends with the same
numbers as if it had not been. Data and settings must be the same, but --repeats and --threads.

exit codes: 0 done, 1 failed, 2 refused before the work began (a bad option or path, a missing
extra), 130 Ctrl-C (the finished repeats are reported and saved)."""

PAPER_TEXT = """\
Train rows of table 2 of Srivastava et al. (JMLR 15, 2014): MNIST without augmentation or pretraining, on
all 60,000 training images, and print the test error beside the paper's."""

PAPER_EXAMPLES = """\
rows:
{rows}

examples:
  cdrop paper                                 the rows up to 3 x 1024, three times each: an hour
                                              and more on two cores, most of it for max-norm
  cdrop paper max-norm --repeats 1 --epochs 5 a first look, some seconds
  cdrop paper --checkpoint kept --resume --time-limit 60
                                              an hour of it; the same command goes on
  cdrop paper --search max-norm               its candidate recipes, by 10,000 images held out

What the paper leaves open (rule, rate, norm, batch, epochs) was chosen by 10,000 of the training images, never
by the test images (docs/paper.md). --search trains every candidate again, and tells their errors.

With --checkpoint (it needs the extra io) a training is safe as soon as it is finished, and every 1,000
steps. --resume goes on with what was killed, interrupted or out of time, and ends with the same numbers.

exit codes: 0 done, or out of time; 1 failed; 2 refused before the work began; 130 Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 refused before the work began, 130 interrupted.

    Raises
    ------
    SystemExit
        For ``--help``, ``--version`` and bad options, as argparse does.
    """
    args = build_parser().parse_args(argv)
    args.command_line = shlex.join(["cdrop", *(sys.argv[1:] if argv is None else argv)])
    try:
        code: int = args.run(args)
    except commands.CommandError as error:
        print(f"cdrop {args.command}: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"cdrop {args.command}: interrupted", file=sys.stderr)
        return commands.INTERRUPTED
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from cdrop import __version__

    parser = argparse.ArgumentParser(
        prog="cdrop",
        description="Dropout training on CPUs.",
        epilog="`cdrop COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"cdrop {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    compare = subparsers.add_parser(
        "compare",
        help="the article's experiment: without and with dropout",
        description=COMPARE_TEXT,
        epilog=COMPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_compare_options(compare)
    compare.set_defaults(run=commands.run_compare)
    _add_paper(subparsers)
    bench = subparsers.add_parser(
        "bench",
        help="how long a training step takes here, and what it is spent on",
        description="Time training steps on drawn digits: with and without dropout, on all threads and on one.",
    )
    _add_bench_options(bench)
    bench.set_defaults(run=commands.run_bench)
    info = subparsers.add_parser(
        "info", help="SIMD path, threads, versions and extras", description="Describe this machine."
    )
    info.set_defaults(run=commands.run_info)
    return parser


def _add_paper(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cdrop paper``."""
    from cdrop.experiments.paper import ROWS

    rows = (
        f"  {name:<9} {row.about}: {row.error:.2f} %{' (on request)' * row.on_request}"
        for name, row in ROWS.items()
    )
    parser = subparsers.add_parser(
        "paper",
        help="rows of the paper's table: MNIST with wide nets, dropout and max-norm",
        description=PAPER_TEXT,
        epilog=PAPER_EXAMPLES.format(rows="\n".join(rows)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "rows",
        nargs="*",
        type=_one_of(tuple(ROWS)),
        metavar="ROW",
        help="which rows (all but those on request)",
    )
    add("--search", action="store_true", help="try each row's candidates on images held out")
    add("--repeats", type=_whole(1), metavar="N", help="trainings of each (3; of a search 1)")
    add("--epochs", type=_whole(1), metavar="N", help="instead of the recipes' own")
    add("--seed", type=_whole(0), default=0, metavar="N", help="of the first repeat (0)")
    _add_threads(parser)
    _add_data_options(parser)
    _add_checkpoint_options(parser)
    add(
        "--time-limit",
        type=_number(0, math.inf, low_open=True),
        metavar="MIN",
        help="stop after so many minutes",
    )
    add("--json", type=Path, metavar="FILE", help="save all results, training by training")
    parser.set_defaults(run=commands.run_paper, plot=None, report=None)


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cdrop bench``."""
    parser.add_argument(
        "--large",
        dest="size",
        action="store_const",
        const="large",
        default="small",
        help="784-1024-1024-1024-10, batch 128, instead of 784-256-256-10, batch 256",
    )
    parser.add_argument(
        "--rounds", type=_whole(1), default=7, metavar="N", help="rounds; medians are shown (7)"
    )
    _add_threads(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save every round")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of threads."""
    from cdrop._kernels import MAX_THREADS

    parser.add_argument(
        "--threads",
        type=_whole(1, MAX_THREADS),
        metavar="N",
        help="threads (all CPUs, or CDROP_NUM_THREADS)",
    )


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cdrop compare``."""
    count, rate = _whole(1), _number(0, math.inf, low_open=True)
    add = parser.add_argument
    add("--repeats", type=count, default=5, metavar="N", help="pairs of trainings (5)")
    add("--iterations", type=count, default=1000, metavar="N", help="minibatches each (1000)")
    add("--hidden", type=count, default=256, metavar="N", help="units per hidden layer (256)")
    add(
        "--dropout",
        type=_number(0, 1),
        default=0.5,
        metavar="P",
        help="probability of dropping a hidden unit, in the arm with dropout (0.5)",
    )
    add(
        "--sweep",
        type=_rates,
        default=(),
        metavar="P,P,...",
        help="further probabilities of dropping, each with an arm of its own (none)",
    )
    add("--optimizer", choices=OPTIMIZERS, default="rmsprop", help="update rule (rmsprop)")
    add("--learning-rate", type=rate, default=1e-3, metavar="X", help="step size (0.001)")
    add("--batch-size", type=count, default=256, metavar="N", help="rows per minibatch (256)")
    add("--l2", type=_number(0, math.inf), default=1e-3, metavar="X", help="L2 on weights (0.001)")
    add(
        "--seed",
        type=_whole(0),
        default=0,
        metavar="N",
        help="seed of the first repeat; repeat r has N + r (0)",
    )
    _add_threads(parser)
    add(
        "--jobs",
        type=_whole(1),
        metavar="N",
        help="trainings at a time, each on one thread (one; for 20 or more, a core each)",
    )
    _add_data_options(parser)
    _add_checkpoint_options(parser)
    add("--json", type=Path, metavar="FILE", help="save all results, repeat by repeat")
    add("--plot", type=Path, metavar="FILE", help="save a picture (.png, .svg, .pdf)")
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="save a page of HTML: verdicts, pictures, tables",
    )


def _add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a folder that keeps the trainings."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep each finished training in DIR, a new or empty folder",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with what DIR has, if it has anything"
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which data to take."""
    add = parser.add_argument
    add(
        "--data",
        metavar="mnist|digits|DIR|FILE",
        help="MNIST, drawn digits, a folder of IDX files, or a file .npz, .csv or .csv.gz "
        "(MNIST, and drawn digits without it)",
    )
    add("--label", metavar="COLUMN", help="the column of a .csv file that has the labels")
    add(
        "--train-size",
        type=_whole(1),
        metavar="N",
        help="draw so many of the training rows, each class with its share (all)",
    )
    add(
        "--test-share",
        type=_number(0, 1, low_open=True),
        metavar="X",
        help="share of the rows set apart for testing, where a file has no test rows (0.2)",
    )


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """Return an argument type: one of some names; argparse's ``choices`` refuse an empty list."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return parse


def _rates(text: str) -> tuple[float, ...]:
    """Parse probabilities of dropping with commas between them."""
    rate = _number(0, 1)
    return tuple(rate(part) for part in text.split(","))


def _whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return an argument type: whole numbers from `least` to `most`."""
    span = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number {span}, got {text!r}")
        return value

    return parse


def _number(low: float, high: float, *, low_open: bool = False) -> Callable[[str], float]:
    """Return an argument type: finite numbers from `low` up to, but not including, `high`."""
    span = f"{'above' if low_open else 'of at least'} {low:g}"
    if math.isfinite(high):
        span += f" and below {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value < high) or (low_open and value == low):
            raise argparse.ArgumentTypeError(f"expected a finite number {span}, got {text!r}")
        return value

    return parse
