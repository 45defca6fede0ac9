"""What all campaigns share: how one is registered, how it reports a figure, and what it says when a tool is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGNS: dict[str, Campaign] = {}


@dataclass
class Run:
    """One run of a campaign: its seed, how much of it is done, and a directory that goes when it ends."""

    seed: int
    share: float
    directory: Path
    failures: int = 0

    def trials(self, whole: int) -> int:
        """Return how many of a whole campaign's trials are done."""
        return max(1, round(whole * self.share))

    def figure(self, row: int, text: str, holds: bool = True) -> None:
        """Report one figure of a row of docs/reliability.md, and whether it holds its target."""
        self.failures += not holds
        print(f"row {row}: {'holds' if holds else 'FALLS SHORT'}: {text}", flush=True)


@dataclass(frozen=True)
class Campaign:
    """A function that reports figures of some rows of docs/reliability.md."""

    rows: tuple[int, ...]
    run: Callable[[Run], None]

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


def campaign(*rows: int) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a function under its name, as the campaign of these rows."""

    def register(run: Callable[[Run], None]) -> Callable[[Run], None]:
        CAMPAIGNS[run.__name__] = Campaign(rows, run)
        return run

    return register


def need(command: str, *, debian: str = "", pip: str = "") -> str:
    """Return a command's path; stop, and say how to install it, where there is none."""
    here = os.path.dirname(sys.executable)  # where pip puts them
    path = shutil.which(command, path=os.pathsep.join([here, os.environ["PATH"]]))
    if path is None:
        how = f"Debian: apt install {debian}" if debian else f"pip install {pip}"
        raise SystemExit(f"cdrop: this campaign needs {command}, which is not here. {how}")
    return path


def need_module(name: str, *, pip: str = "") -> None:
    """Stop, and say how to install it, where Python finds no module of that name."""
    if importlib.util.find_spec(name) is None:
        raise SystemExit(
            f"cdrop: this campaign needs {name}, which is not here. pip install {pip or name}"
        )


def need_header(header: str, *, debian: str) -> None:
    """Stop, and say how to install it, where the C compiler does not find a header."""
    text = f"#include <{header}>\n"
    command = [need("cc", debian="gcc"), "-fsyntax-only", "-x", "c", "-"]
    if subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode:
        raise SystemExit(f"cdrop: no {header} here. Debian: apt install {debian}")


def binding(directory: Path) -> Path:
    """Compile what Cython makes of _kernels.pyx, to be linked with objects of the library; return its object."""
    code, compiled = directory / "_kernels.c", directory / "_kernels.o"
    cython = [need("cython", pip="cython"), ROOT / "cdrop" / "_kernels.pyx", "-o", code]
    subprocess.run(cython, check=True)
    headers = (ROOT / "src_c", sysconfig.get_paths()["include"], np.get_include())
    compiler = [need("gcc", debian="gcc"), "-O1", "-fPIC", *(f"-I{path}" for path in headers)]
    subprocess.run([*compiler, "-c", code, "-o", compiled], check=True)
    return compiled
