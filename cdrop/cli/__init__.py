"""The command line: ``cdrop COMMAND``, also ``python -m cdrop``. Each command has a module here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from cdrop.cli.common import INTERRUPTED, CommandError
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
    # Imported when it runs: everything heavy is inside the commands, so that ``--help`` is fast.
    from importlib import import_module

    args = build_parser().parse_args(argv)
    args.command_line = shlex.join(["cdrop", *(sys.argv[1:] if argv is None else argv)])
    try:
        code: int = import_module(f"cdrop.cli.{args.command}").run(args)
    except CommandError as error:
        print(f"cdrop {args.command}: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"cdrop {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code
