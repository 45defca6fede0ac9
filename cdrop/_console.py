"""Standard output and error as they may be: absent, closed, full, or in an encoding that lacks characters.

A program without a console (a daemon, pythonw, a shell's ``2>&-``) has None in their place.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["in_notebook", "is_open", "is_terminal", "printable", "put", "standard_streams"]

# A terminal takes these for commands, or writes backwards: all controls but tab and newline, and marks of direction.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def is_open(stream: Any) -> bool:
    """Return whether there is a stream that can be written to."""
    return stream is not None and not getattr(stream, "closed", False)


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is there, open, and a terminal."""
    asked = getattr(stream, "isatty", None)  # objects that pass lines on to a log may lack it
    return is_open(stream) and asked is not None and bool(asked())


def in_notebook() -> bool:
    """Return whether this is the kernel of a Jupyter notebook or console."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def put(text: str, stream: Any) -> None:
    """Print a line to a stream at once; nothing where there is no stream, or a closed one."""
    if is_open(stream):
        print(text, file=stream, flush=hasattr(stream, "flush"))


def printable(text: str, stream: Any) -> str:
    """Return a text with an escape for each character that a stream's encoding lacks or a terminal would obey."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    plain = _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Stand in for standard streams that are absent or closed: joblib and others flush them unasked.

    Descriptors that are closed stay open afterwards, to nowhere: the next file would get one, and errors with it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # by workers
    absent = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    absent = {name: stream for name, stream in absent.items() if not is_open(stream)}
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            for name in absent:
                setattr(sys, name, nowhere)
            yield
        finally:
            for name, stream in absent.items():
                setattr(sys, name, stream)
