"""The programs that draw masks and count (words.h): how to compile and run them, and a bound on what they find."""

import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from campaign import ROOT, need
from scipy import stats

BITS_OF_A_PIECE = 2**22  # where width is 512: words.c draws 16 steps of 4 layers of 128 rows
WHOLE = 2**32
ORDERS = {"units": 0, "rows": 1, "blocks": 64, "layers": 128, "steps": 512}


def program(name: str) -> str:
    """Compile one of the programs, if need be, and return its path."""
    make = [need("make", debian="make"), "--silent", "-j2", "C_CONFIG=host"]
    target = f"build/c-host/soak_{name}"
    subprocess.run([*make, target], cwd=ROOT, check=True)
    return str(ROOT / target)


def output(path: str, settings: dict) -> bytes:
    """Run a program of words.h; `keep` is a share here, drawn too large by `off`; width is 512 unless it is given."""
    settings = {"width": 512, **settings}
    if "keep" in settings:
        settings["keep"] = round((settings["keep"] + settings.pop("off", 0)) * WHOLE)
    arguments = [f"{name}={value}" for name, value in settings.items()]
    return subprocess.run([path, *arguments], stdout=subprocess.PIPE, check=True).stdout


def side_by_side(function: Callable, cases: Iterable) -> list:
    """Call a function with each case, as many at a time as this process has CPUs."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(function, cases))


def outputs(path: str, cases: Iterable[dict]) -> list[bytes]:
    """Run a program for each case."""
    return side_by_side(lambda settings: output(path, settings), cases)


def pieces(log2_bits: int) -> int:
    """Return how many pieces have that many bits at width 512."""
    return 2**log2_bits // BITS_OF_A_PIECE


def bound(n: int) -> float:
    """Return what the largest of n normal deviates exceeds once in a thousand times."""
    return float(stats.norm.isf(1e-3 / n / 2))
