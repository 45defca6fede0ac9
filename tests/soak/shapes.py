"""Files shaped to take memory when they are read: none takes more than SECURITY.md says."""

from __future__ import annotations

import json
import math
import os
import resource
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _shaped import MIB, SHAPES, ordinary
from campaign import Run, campaign, need_module
from numpy.lib import format as npy

from cdrop import load
from cdrop.datasets.npz import _held
from cdrop.datasets.tables import _opened

ROW = 30
MOST = 8 << 30  # a reader that wants more gets a MemoryError, so that it harms nobody else
BASE = 48 * MIB  # what small files take: code that runs for the first time, names of classes

# ---- What SECURITY.md says ---------------------------------------------------------------------


def of_file(factor: float) -> Callable[[Path], float]:
    """Return the promise of a multiple of the file."""
    return lambda path: factor * path.stat().st_size


def of_arrays(path: Path) -> float:
    """8 times the arrays, tables as floats, and 1 KiB for each column."""
    held = columns = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                if info.file_size:
                    npy.read_magic(stream)
                    shape, _, dtype = npy.read_array_header_1_0(stream)
                    held += _held(shape, dtype)
                    columns += shape[1] if len(shape) == 2 else 0
    return 8 * held + 1024 * columns


def unpacked(path: Path) -> int:
    """Return the bytes that a file unpacks to."""
    with _opened(path) as stream:
        return sum(map(len, iter(lambda: stream.read(MIB), b"")))


def of_text(factor: float) -> Callable[[Path], float]:
    """Return the promise of a multiple of what a text file unpacks to."""
    return lambda path: factor * unpacked(path)


def of_columns(path: Path) -> float:
    """40 times what a text file unpacks to, and 6 KiB for each of its columns."""
    with open(path, "rb") as stream:
        columns = stream.readline().count(b",") + 1
    return 40 * unpacked(path) + 6 * 1024 * columns


PROMISES: dict[str, tuple[str, Callable[[Path], float]]] = {
    "network": ("4 times the file", of_file(4)),
    "narrow": ("40 times the file", of_file(40)),
    "model": ("150 times the file", of_file(150)),
    "images": ("3 times the images", of_text(3)),
    "arrays": ("8 times the arrays, and 1 KiB for each column", of_arrays),
    "numbers": ("24 times the text", of_text(24)),
    "cells": ("40 times the text", of_text(40)),
    "wide": ("40 times the text, and 6 KiB for each column", of_columns),
    "refused": ("nothing", lambda _: 0),
}

# ---- What is taken -----------------------------------------------------------------------------


def in_a_child(call: Callable[[], Any]) -> Any:
    """Call a function in a fork, whose memory nothing else has used, and return what it returns, through JSON."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, json.dumps(call()).encode())
        except BaseException as error:
            os.write(theirs, json.dumps(f"{type(error).__name__}: {error}"[:300]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else "killed"


def most_taken() -> int:
    """Return the most bytes of this process that have been in memory."""
    with open("/proc/self/status") as stream:
        return 1024 * next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))


def taken(read: Callable[[Path], object], path: Path) -> list[Any]:
    """Read a file; return the most memory beyond what was taken before, and what came of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))
    warnings.simplefilter("ignore")
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # forget the highest so far
    before = most_taken()
    try:
        read(path)
        result = "read"
    except ValueError as error:  # DataError and ModelFileError are
        result = f"{type(error).__name__}: {error}"[:200]
    return [most_taken() - before, result]


def measured(run: Run, name: str) -> tuple[float, float, str]:
    """Return a shape's memory, what is promised, and what came of it."""
    kind, write, read = SHAPES[name]
    path = run.directory / f"{name}.{'npz' if name.startswith('npz') else 'csv'}"
    written = in_a_child(lambda: write(path))
    if written is not None:
        raise SystemExit(f"{name} was not written: {written}")
    result = in_a_child(lambda: taken(read, path))
    promised = PROMISES[kind][1](path) + BASE
    path.unlink()
    if isinstance(result, str):
        return math.inf, promised, result
    if kind == "refused" and result[1] == "read":
        return math.inf, promised, "read, not refused"
    return result[0], promised, result[1]


def hoarding(path: Path) -> list[Any]:
    """Load a network, and keep its weights thirty times: ten times the file."""
    net = load(path)
    return [net.coefs_ for _ in range(30)]


@campaign(ROW)
def shapes(run: Run) -> None:
    """Read files and tables shaped for memory: none takes more than SECURITY.md says. A hoarder must be seen to."""
    for module in ("pandas", "sklearn.preprocessing", "safetensors.numpy"):
        need_module(module.partition(".")[0])
        __import__(module)
    names = list(SHAPES)[: run.trials(len(SHAPES))]
    above, shares = 0, dict.fromkeys(PROMISES, 0.0)
    for name in names:
        peak, promised, result = measured(run, name)
        kind = SHAPES[name][0]
        shares[kind] = max(shares[kind], peak / promised)
        above += peak > promised
        fault = "ABOVE " * (peak > promised)
        print(f"{fault}{name}: {peak / MIB:.1f} of {promised / MIB:.1f} MiB: {result}", flush=True)
    for kind, (about, _) in PROMISES.items():
        count = sum(SHAPES[name][0] == kind for name in names)
        run.figure(
            ROW,
            f"{count} files that may take {about} and {BASE // MIB} MiB: {shares[kind]:.0%} of that at most",
            shares[kind] <= 1,
        )
    SHAPES["control"] = ("network", ordinary, hoarding)
    peak, promised, _ = measured(run, "control")
    run.figure(
        ROW,
        f"control: a network whose weights are kept 30 times: {peak / MIB:.0f} MiB of {promised / MIB:.0f}",
        peak > promised,
    )
