"""Fuzzed model files and data files, guided by the coverage of what reads them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from campaign import Run, campaign, need_module

TARGET = Path(__file__).with_name("_fuzzed.py")
LONGEST = 1.0  # seconds of CPU that one input may take
HANG = 20  # seconds
KEPT = Path("build/fuzz")  # where an input that was read wrongly stays


def fuzzed(run: Run, target: str, runs: int, plant: str = "none"):
    """Fuzz in a separate process; return its exit code, what it said, what came of the inputs, its directory."""
    directory = run.directory / f"{target} {plant}"
    (directory / "corpus").mkdir(parents=True)
    flags = {
        "atheris_runs": runs,
        "seed": run.seed + 1,  # 0 would be another one each time
        "max_len": 16384,  # a RandomState takes 7 KB
        "timeout": HANG,
        "rss_limit_mb": 0,  # RLIMIT_AS bounds memory, not a look at it now and then
        "artifact_prefix": f"{directory}/fault-",
    }
    process = subprocess.run(
        [
            sys.executable,
            TARGET,
            target,
            plant,
            directory,
            *(f"-{k}={v}" for k, v in flags.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # atheris prints an exception to one, libFuzzer the rest to the other
        text=True,
        errors="replace",
        check=False,
    )
    counts = directory / "counts"
    totals = json.loads(counts.read_text()) if counts.exists() else {}
    return process.returncode, process.stdout, totals, directory


def tell_fuzzed(run: Run, row: int, target: str):
    """Fuzz with a million inputs, and report what came of them."""
    need_module("atheris")
    runs = run.trials(10**6)
    code, said, totals, directory = fuzzed(run, target, runs)
    faults = list(directory.glob("fault-*"))
    for fault in faults:
        KEPT.mkdir(parents=True, exist_ok=True)
        shutil.copy(fault, KEPT)
        print(said[-3000:], f"The input is {KEPT / fault.name}", sep="\n")
    slowest, changed = totals.pop("slowest", 0), totals.pop("changed", 0)
    places = re.findall(r"cov: (\d+)", said) or ["no"]
    results = ", ".join(f"{count} {result}" for result, count in sorted(totals.items()))
    run.figure(
        row,
        f"{target}: {sum(totals.values())} inputs, {changed} of them changed: {results}; {len(faults)} crashes, hangs, "
        f"wrong results; slowest {slowest * 1e3:.0f} ms, memory below 128 MiB more, {places[-1]} places reached",
        code == 0 and changed > 0.9 * runs and slowest < LONGEST,
    )


def tell_planted(run: Run, row: int, target: str, plants: dict[str, str]):
    """Plant faults, and report whether each is found as what it is."""
    for plant, sign in plants.items():
        code, said, totals, _ = fuzzed(run, target, 20_000, plant)
        found = code != 0 and sign in said
        after = f" after {totals['changed']} changed inputs" if "changed" in totals else ""
        run.figure(
            row, f"{target}, planted: {plant}: {sign if found else 'NOT FOUND'}{after}", found
        )


@campaign(16)
def fuzz_unsigned(run: Run):
    """Change model files: networks' and estimators'; none may load but unchanged."""
    tell_fuzzed(run, 16, "unsigned")
    tell_planted(run, 16, "unsigned", {"digest not checked": "WrongResult"})


@campaign(16)
def fuzz_signed(run: Run):
    """Change model files and set their digest right; what loads must be what the file says, and work."""
    tell_fuzzed(run, 16, "signed")
    plants = {
        "model not compared": "WrongResult",
        "sizes believed": "MemoryError",
        "hang": "libFuzzer: timeout",
        "crash": "libFuzzer: deadly signal",
    }
    tell_planted(run, 16, "signed", plants)


@campaign(17)
def fuzz_idx(run: Run):
    """Change IDX files, plain and compressed, inside and outside."""
    tell_fuzzed(run, 17, "idx")
    tell_planted(run, 17, "idx", {"header believed": "MemoryError", "rest not read": "WrongResult"})


@campaign(17)
def fuzz_tables(run: Run):
    """Change .npz and .csv files, plain and compressed, inside and outside."""
    tell_fuzzed(run, 17, "tables")
    plants = {
        "arrays not checked": "WrongResult",
        "cells not checked": "WrongResult",
        "table header believed": "MemoryError",
    }
    tell_planted(run, 17, "tables", plants)
