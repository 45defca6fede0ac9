"""What happens first at ``import cdrop``: the variables ``CDROP_SIMD`` and ``CDROP_NUM_THREADS`` are read."""

from __future__ import annotations

import os
import sys

_REFUSED = 2  # the command line's exit code for bad input


def _is_command() -> bool:
    """Return whether this process is ``cdrop ...`` or ``python -m cdrop ...``."""
    program, *arguments = sys.argv or [""]
    if program != "-m":
        return os.path.basename(program) in ("cdrop", "cdrop.exe")
    before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
    return before[-2:] == ["-m", "cdrop"] or before[-1] == "-mcdrop"


try:
    from cdrop import _threads

    _threads.install()
except ImportError as error:
    if not (str(error).startswith("CDROP_") and _is_command()):
        raise
    if sys.stderr is not None:
        print(f"cdrop: error: {error}", file=sys.stderr)
    sys.exit(_REFUSED)
