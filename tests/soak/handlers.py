"""What comes into a fit from outside: signal handlers, asynchronous exceptions, calls of other threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

from campaign import Run, campaign

HERE = Path(__file__).resolve().parent
ROW = 29


def tried(kind, trials, seed, plant="none", limit=600):
    """Return what a run came to: its counts, or "hung", or the last line that it said."""
    command = [sys.executable, HERE / "_handled.py", kind, plant, str(trials), str(seed)]
    try:
        process = subprocess.run(
            list(map(os.fspath, command)),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hung"
    if process.returncode:
        return (process.stderr.splitlines() or [f"exit code {process.returncode}"])[-1]
    return json.loads(process.stdout)


def report(run, kind, trials, what):
    """Report what came of trials."""
    found = tried(kind, run.trials(trials), run.seed)
    good = isinstance(found, dict)
    counts = ", ".join(f"{count} {name}" for name, count in found.items()) if good else found
    run.figure(ROW, f"{what}: {counts}{'; 0 hung, 0 torn' if good else ''}", good)


def tell_planted(run, kind, plant, trials, sign):
    """Plant a fault, and report whether it is found as what it is."""
    found = tried(kind, trials, run.seed, plant, limit=20 if sign == "hung" else 120)
    seen = isinstance(found, str) and sign in found
    run.figure(ROW, f"control, {plant}, {kind}: {found if seen else f'NOT FOUND, {found}'}", seen)


@campaign(ROW)
def handlers(run: Run):
    """Signal handlers, asynchronous exceptions and calls of 6 threads within fits: no hang, no torn state."""
    report(run, "handlers", 1000, "signal handlers that save, copy, raise and train within fits")
    report(run, "exceptions", 1000, "asynchronous exceptions within fits")
    report(run, "calls", 10**5, "mixed calls of 6 threads, switched every microsecond")
    tell_planted(run, "handlers", "late counters", 300, "Torn")
    tell_planted(run, "exceptions", "late counters", 300, "Torn")
    tell_planted(run, "handlers", "lock", 300, "hung")
