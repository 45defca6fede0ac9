"""The parser: commands, options, help. What a command does is in the module of its name."""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cdrop.cli.common import REFUSED, complain, say

__all__ = ["build_parser"]

_MORE = ",..."  # ends the metavar of a list
KINDS = ("bernoulli", "gaussian", "uniform", "shared", "concrete", "masksembles")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")

COMPARE_TEXT = """\
Does dropout help? Train networks with and without it in pairs that share data,
initial weights and minibatches, many times; report the differences with their
intervals, and a verdict.

On your own table, each repeat splits the rows, both arms stop early, and
dropout rate and L2 are chosen on validation rows inside the split. On MNIST the
article's experiment is repeated."""

COMPARE_EXAMPLES = """\
examples:
  cdrop compare --data titanic.csv --label survived
      a table: 20 splits, both arms at their best settings
  cdrop compare --data houses.xlsx --label price --metric r2 --margin 0.01
      numbers as target; 0.01 of R2 does not matter
  cdrop compare --data visits.csv --label cured --group patient --until-decided
      a patient's rows stay together; planned looks
  cdrop compare
      the article's experiment on MNIST, 5 repeats
  cdrop compare --data mnist --splits 20
      the same over 20 splits of all its images
  cdrop compare --data own.csv --label kind --protocol article
      the article's network and settings on a table
  cdrop compare --repeats 20 --sweep 0.1,0.2,0.3,0.5,0.7 --report out.html
      more probabilities of dropping; a page with pictures
  cdrop compare --schedule early:0.3
      dropout in the first 30 % of the iterations alone
  cdrop compare --repeats 500 --checkpoint kept --resume
      starts, or resumes where it was killed

MNIST is looked for in $CDROP_DATA/mnist, then in the cache directory, then on
the network.

With --checkpoint a run is safe as soon as it is finished, and a long one every
1,000 iterations (extra io). --resume continues what was killed or interrupted,
and ends with the same numbers as if it had not been. Data and settings must be
the same; --repeats, --splits and --threads may differ.

exit codes: 0 done; 1 failed; 2 refused before the work began (a bad option,
path, column or file, a missing extra); 130 Ctrl-C (finished repeats are
reported and saved)."""

PAPER_TEXT = """\
Train rows of table 2 of Srivastava et al. (JMLR 15, 2014): MNIST without
augmentation or pretraining, on all 60,000 training images. Print the test error
next to the paper's."""

PAPER_EXAMPLES = """\
rows:
{rows}

examples:
  cdrop paper
      the rows up to 3 x 1024, three times each: an hour and more on two cores,
      most of it for max-norm
  cdrop paper max-norm --repeats 1 --epochs 5
      a first look, some seconds
  cdrop paper --checkpoint kept --resume --time-limit 60
      an hour of it; the same command continues
  cdrop paper --search max-norm
      its candidate recipes, by 10,000 images held out

What the paper leaves open (rule, rate, norm, batch, epochs) was chosen by
10,000 of the training images, never by the test images (docs/paper.md).
--search trains every candidate again and reports their errors.

With --checkpoint a run is safe as soon as it is finished, and (extra io) every
1,000 steps. --resume continues what was killed, interrupted or out of time, and
ends with the same numbers.

exit codes: 0 done, or out of time; 1 failed; 2 refused before the work began;
130 Ctrl-C."""


class _Parser(argparse.ArgumentParser):
    """A parser that prints as the commands do: also where a stream is absent or full."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and refuse unknown arguments here: argparse leaves those of a command to the parser above it."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = self._joined(list(args or ()), unknown)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed, unknown

    def _joined(self, args: list[str], unknown: list[str]) -> str:
        """Return how the value of a list is given, where blanks separate what commas must."""
        lists = [a for a in self._actions if str(a.metavar).endswith(_MORE)]
        options = {option: a.metavar for a in lists for option in a.option_strings}
        for start, text in enumerate(args):
            option, equals, value = text.partition("=")
            first = start + 1 if equals else start + 2
            more = itertools.takewhile(
                lambda arg: arg in unknown and not arg.startswith("-"), args[first:]
            )
            some = [value] if equals else args[start + 1 : first]
            some += more
            if option not in options or len(some) < 2:
                continue
            given = shlex.quote(",".join(some))
            return (
                f"; {option} expects {options[option]}, with commas and no blanks: {option} {given}"
            )
        return ""

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message.rstrip("\n"))

    def error(self, message: str) -> NoReturn:
        complain(f"{self.format_usage()}{self.prog}", f"error: {message}")
        raise SystemExit(REFUSED)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from cdrop._version import __version__

    parser = _Parser(
        prog="cdrop",
        description="Dropout training on CPUs.",
        epilog="`cdrop COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"cdrop {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    compare = commands.add_parser(
        "compare",
        help="does dropout help? on your own table, or the article's experiment",
        usage="cdrop compare [--data FILE --label COLUMN] [options]",
        description=COMPARE_TEXT,
        epilog=COMPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_compare_options(compare)
    _add_paper(commands)
    bench = commands.add_parser(
        "bench",
        help="time of a training step here, and what it is spent on",
        description="Time training steps on drawn digits: with and without dropout, on all threads and on one.",
    )
    _add_bench_options(bench)
    commands.add_parser(
        "info", help="SIMD path, threads, versions and extras", description="Describe this machine."
    )
    return parser


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cdrop compare``."""
    _add_data_options(parser, tables=True)
    _add_table_options(parser.add_argument_group("tables"))
    _add_design_options(parser.add_argument_group("experiment"))
    _add_network_options(parser.add_argument_group("networks"))
    files = parser.add_argument_group("files")
    _add_checkpoint_options(files)
    files.add_argument("--json", type=Path, metavar="FILE", help="save all results, run by run")
    files.add_argument(
        "--plot", type=Path, metavar="FILE", help="save a picture (.png, .svg, .pdf)"
    )
    files.add_argument(
        "--report", type=Path, metavar="FILE", help="save an HTML page: verdict, pictures, tables"
    )


def _add_data_options(parser: argparse.ArgumentParser, *, tables: bool) -> None:
    """Add the options that name the data."""
    kinds = "MNIST, drawn digits, a directory of IDX files"
    if tables:
        kinds += (
            ", or a table: .npz, .csv, .tsv, .txt, .xlsx, .parquet, .feather, .json, .jsonl, .arff"
        )
    parser.add_argument(
        "--data",
        metavar=f"mnist|digits|DIR{'|FILE' * tables}",
        help=f"{kinds} (default: MNIST, or drawn digits if it is not found)",
    )
    parser.add_argument(
        "--train-size",
        type=_whole(1),
        metavar="N",
        help="number of training rows to draw, stratified by class (default: all)",
    )


def _add_table_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say how a table is read."""
    add = group.add_argument
    add("--label", metavar="COLUMN", help="column to predict: its name, its number from 0, or last")
    add("--task", choices=("classification", "regression"), help="default: decided by the column")
    add("--drop", type=_names, metavar="COL,...", help="columns to leave out")
    add(
        "--categories",
        type=_names,
        metavar="COL,...",
        help="columns of numbers that are codes, to be one-hot encoded",
    )
    add(
        "--test", metavar="FILE", help="a file of test rows with the same columns (default: splits)"
    )
    add("--group", metavar="COLUMN", help="rows of one group stay on one side of every split")
    add("--time", metavar="COLUMN", help="test on rows later than those trained on")
    add(
        "--sep",
        type=lambda text: {"tab": "\t", r"\t": "\t"}.get(text, text),
        metavar="CHAR",
        help="separator of a text file: a character, or tab (default: detected)",
    )
    add("--decimal", metavar="CHAR", help="decimal mark (default: detected)")
    add(
        "--encoding", metavar="NAME", help="encoding of a text file (default: UTF-8, else detected)"
    )
    add(
        "--missing",
        type=_names,
        metavar="TEXT,...",
        help="more texts that mean a missing value, as in --missing=-9,none",
    )
    add(
        "--no-header",
        dest="header",
        action="store_false",
        help="the first line is a row (default: detected)",
    )


def _add_design_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of the experiment."""
    add = group.add_argument
    add(
        "--protocol",
        choices=("tuned", "article"),
        help="tuned: early stopping, rate and L2 chosen inside each split (default for tables); article: the "
        "article's network and 1,000 minibatches (default for images)",
    )
    add("--splits", type=_whole(2), metavar="N", help="random splits of the rows (tables: 20)")
    add(
        "--repeats",
        type=_whole(1),
        metavar="N",
        help="repeats on a given test set (default: 5, or 20 when tuned)",
    )
    add("--metric", metavar="NAME", help="log_loss, accuracy, balanced_accuracy, roc_auc, rmse, mae, r2, or a "
        "scikit-learn scorer (default: log_loss or rmse; accuracy in the article's protocol)")  # fmt: skip
    add(
        "--margin",
        type=_number(0, math.inf),
        default=0.0,
        metavar="X",
        help="largest difference of the metric that does not matter (default: 0)",
    )
    add(
        "--until-decided",
        action="store_true",
        help="stop at the first planned look that decides (at most 100 splits or repeats by default)",
    )
    add(
        "--test-share",
        type=_number(0, 1, low_open=True),
        metavar="X",
        help="share of the rows that each split tests on (default: 0.2)",
    )
    add(
        "--seed",
        type=_whole(0),
        default=0,
        metavar="N",
        help="seed of the first repeat; repeat r uses N + r (default: 0)",
    )
    _add_threads(group)
    add(
        "--jobs",
        type=_whole(1),
        metavar="N",
        help="runs at a time, each on one thread (default: one per core, in processes from 20 runs on; 1 for fewer "
        "that take more than some seconds each)",
    )


def _add_network_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of the networks; a default depends on the protocol."""
    add = group.add_argument
    rate = _number(0, math.inf, low_open=True)
    add(
        "--hidden",
        type=_list(_whole(1)),
        metavar="N,...",
        help="widths of the hidden layers (tuned: 128,128; article: one width, 256)",
    )
    add("--learning-rate", type=rate, metavar="X", help="step size (default: 0.001)")
    add(
        "--l2",
        type=_list(_number(0, math.inf)),
        metavar="X,...",
        help="L2 on weights (tuned: chosen among 0, 0.0001 and 0.001; article: 0.001)",
    )
    add(
        "--rates",
        type=_list(_number(0, 1, low_open=True)),
        metavar="P,...",
        help="tuned: probabilities of dropping to choose from (default: 0.1,0.2,0.3,0.5)",
    )
    add("--epochs", type=_whole(1), metavar="N", help="tuned: the most epochs (default: 200)")
    add(
        "--dropout",
        type=_number(0, 1),
        metavar="P",
        help="article: probability of dropping a hidden unit in the arm with dropout (default: 0.5)",
    )
    add(
        "--schedule",
        type=_schedule,
        metavar="NAME[:X]",
        help="article: how that probability changes from step to step: early:0.3 (in the first 30 %% of the steps), "
        "late:0.5, linear, cosine, flatcos, coslog4 or curriculum (default: constant)",
    )
    add(
        "--kind",
        choices=KINDS,
        help="what dropout does: drop single units, multiply them by gaussian or uniform noise, drop the same units in "
        "all rows of a minibatch (shared), learn the rate of each layer (concrete), or choose among 8 fixed masks "
        "(masksembles) (default: bernoulli)",
    )
    add(
        "--sweep",
        type=_list(_number(0, 1)),
        metavar="P,...",
        help="article: more probabilities of dropping, each with its own arm",
    )
    add("--iterations", type=_whole(1), metavar="N", help="article: minibatches (default: 1000)")
    add(
        "--batch-size",
        type=_whole(1),
        metavar="N",
        help="article: rows per minibatch (default: 256)",
    )
    add("--optimizer", choices=OPTIMIZERS, help="article: update rule (default: rmsprop)")


def _add_paper(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Add ``cdrop paper``."""
    from cdrop.experiments.paper import ROWS

    rows = (
        f"  {name:<9} {row.about}: {row.error:.2f} %{' (on request)' * row.on_request}"
        for name, row in ROWS.items()
    )
    parser = commands.add_parser(
        "paper",
        help="rows of the paper's table: MNIST with wide nets, dropout and max-norm",
        usage="cdrop paper [ROW ...] [options]",
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
        help="rows to train (default: all but those on request)",
    )
    add("--search", action="store_true", help="try each row's candidates on images held out")
    add(
        "--repeats",
        type=_whole(1),
        metavar="N",
        help="runs of each row (default: 3; 1 with --search)",
    )
    add("--epochs", type=_whole(1), metavar="N", help="epochs (default: those of the recipes)")
    add(
        "--seed",
        type=_whole(0),
        default=0,
        metavar="N",
        help="seed of the first repeat (default: 0)",
    )
    _add_threads(parser)
    _add_data_options(parser, tables=False)
    _add_checkpoint_options(parser)
    add(
        "--time-limit",
        type=_number(0, math.inf, low_open=True),
        metavar="MIN",
        help="stop after this number of minutes",
    )
    add("--json", type=Path, metavar="FILE", help="save all results, run by run")
    parser.set_defaults(plot=None, report=None)


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
        "--rounds", type=_whole(1), default=7, metavar="N", help="rounds, for medians (default: 7)"
    )
    _add_threads(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save every round")


def _add_threads(parser: argparse._ActionsContainer) -> None:
    """Add the option for the number of threads."""
    from cdrop._kernels import MAX_THREADS

    parser.add_argument(
        "--threads",
        type=_whole(1, MAX_THREADS),
        metavar="N",
        help="threads of each run (default: all CPUs, or CDROP_NUM_THREADS)",
    )


def _add_checkpoint_options(parser: argparse._ActionsContainer) -> None:
    """Add the options for a directory that keeps the runs."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep each finished run in DIR, a new or empty directory",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume the experiment in DIR, if there is one"
    )


# ---- Types of arguments -----------------------------------------------------------------------------------------


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """Return an argument type: one of some names; argparse's ``choices`` refuse an empty list."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return parse


def _names(text: str) -> tuple[str, ...]:
    """Parse names with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _list(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return an argument type: values with commas between them."""

    def parse_all(text: str) -> tuple[Any, ...]:
        parts = text.split(",")
        if len(parts) > 1 and not all(map(str.strip, parts)):
            raise argparse.ArgumentTypeError(
                f"expected values with one comma and no blanks between them, got {text!r}"
            )
        return tuple(map(parse, parts))

    return parse_all


def _plain(text: str) -> str:
    """Return a number's text; ValueError for digits of other scripts and for 1_000, which Python accepts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return text


def _whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return an argument type: integers from `least` to `most`."""
    span = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(_plain(text))
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected an integer {span}, got {text!r}")
        return value

    return parse


def _number(low: float, high: float, *, low_open: bool = False) -> Callable[[str], float]:
    """Return an argument type: finite numbers from `low` up to, but not including, `high`."""
    span = f"{'above' if low_open else 'of at least'} {low:g}"
    if math.isfinite(high):
        span += f" and below {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(_plain(text))
        except ValueError:
            value = math.nan
        if not (low <= value < high) or (low_open and value == low):
            raise argparse.ArgumentTypeError(f"expected a finite number {span}, got {text!r}")
        return value

    return parse


def _schedule(text: str) -> str:
    """Check the name and setting of a rate."""
    from cdrop.rates import from_text

    try:
        from_text(text, 0.5)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("schedule is ")) from None
    return text
