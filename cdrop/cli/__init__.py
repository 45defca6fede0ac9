"""The command line: ``cdrop COMMAND``, also ``python -m cdrop``. Each command has a module here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from cdrop._console import standard_streams
from cdrop.cli.common import INTERRUPTED, CommandError, complain
from cdrop.cli.options import build_parser

__all__ = ["build_parser", "main"]


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
    with standard_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    """Run the command line, with streams to print to."""
    # Imported when it runs: everything heavy is inside the commands, so that ``--help`` is fast.
    from importlib import import_module

    about = "cdrop"
    try:
        args = build_parser().parse_args(argv)
        about = f"cdrop {args.command}"
        args.command_line = shlex.join(["cdrop", *(sys.argv[1:] if argv is None else argv)])
        code: int = import_module(f"cdrop.cli.{args.command}").run(args)
    except CommandError as error:
        complain(about, f"error: {error}")
        return error.code
    except KeyboardInterrupt:
        complain(about, "interrupted")
        return INTERRUPTED
    return code
