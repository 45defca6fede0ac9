"""Fits and comparisons that are killed: children of a process that has imported all, so that one costs milliseconds."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from comparisons import small_dataset, timeless
from conftest import digest, problem

import cdrop
from cdrop import Network, _kernels, load, storage
from cdrop.callbacks import Callback, LossPrinter, Validation
from cdrop.experiments import Settings, compare, ledger, open_ledger
from cdrop.schedules import Plateau

SERVER = """
import json, os, sys
import killed_fits
for line in sys.stdin:
    trial = json.loads(line)
    if trial["kind"] == "compare":
        killed_fits.data()
    pid = os.fork()
    if not pid:
        try:
            killed_fits.victim(**trial)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os.write(1, b"broken\\n")
            os._exit(1)
        os._exit(0)
    os.write(1, b"pid %d\\n" % pid)
    sys.stdin.readline()  # only then may the number be another process's
    os.write(1, b"reaped %d\\n" % os.waitpid(pid, 0)[1])
"""


class Best(Callback):
    """Keeps the best weights, and stops where nothing has been better for long: it has much to remember."""

    def on_fit_begin(self, net, total):
        self.best, self.waited, self.weights = float("inf"), 0, []

    def on_epoch_end(self, net, epoch):
        if epoch.validation_loss < self.best:
            self.best, self.waited, self.weights = epoch.validation_loss, 0, net.coefs_
        else:
            self.waited += 1
        return self.waited > 5


class Report(Callback):
    """Report each step to the process that kills."""

    def on_iteration(self, net, iteration, loss):
        os.write(1, b"%d\n" % iteration)

    def state_dict(self):
        return None


class Fit:
    """One way to fit, which can be started again as often as wanted."""

    def __init__(self, kind, threads=None, **options):
        self.net = Network([6, 20, 3], dropout=0.5, seed=4, threads=threads)
        x, y = problem(self.net.units, rows=70)
        self.watching = [Best(), Validation(x[:9], y[:9], every=4), LossPrinter(every=10**9)]
        by = {
            "iterations": {"iterations": 50, "l2": 1e-3},
            "epochs": {
                "epochs": 12,
                "learning_rate": Plateau(0.01, patience=1),
                "validation": (x[50:], y[50:]),
                "rows": np.arange(50),
            },
        }
        self.arguments = {"X": x, "y": y, "batch_size": 8, "optimizer": "adam", **by[kind]}
        self.arguments |= options

    def run(self, *more, **options):
        """Fit; return everything that must be the same in the end."""
        self.net.fit(**self.arguments, callbacks=[*self.watching, *more], **options)
        best, scores = self.watching[:2]
        weights = [w.tobytes() for w in best.weights]
        return digest(self.net), self.net.history, best.best, best.waited, weights, scores.scores


data = functools.cache(small_dataset)
SETTINGS = Settings(repeats=3, iterations=120, hidden=8, batch_size=32, print_every=50)


def comparison(directory=None, resume=True, on_trial=None):
    """Return the result of a small comparison, without times, as JSON."""
    kept = None if directory is None else open_ledger(directory, resume=resume)
    return timeless(compare(data(), SETTINGS, ledger=kept, on_trial=on_trial))


def careless_write(path, write):
    """Write as one does who has not thought of kills, on a disk that takes its time."""
    with open(path, "wb", buffering=0) as stream:

        class Pieces:
            def write(self, content):
                for i in range(0, len(content), 128):
                    stream.write(content[i : i + 128])
                    os.fsync(stream.fileno())

        write(Pieces())


def careless_append(self, entry):
    """Write all lines again for each new one, on a disk that takes its time."""
    path = self.directory / ledger._FILE
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    with open(path, "wb", buffering=0) as stream:
        for line in [*lines, ledger._line(entry)]:
            time.sleep(0.02)
            stream.write(line)


def victim(path, kind, every, threads, simd, careless):
    """What a child does until it is killed."""
    _kernels._select_simd(simd)
    if careless:
        if kind == "compare":
            ledger.Ledger._append = careless_append
        else:
            storage.write_atomically = careless_write
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what it says of files that it finds damaged
    if kind == "compare":
        cdrop.set_num_threads(threads)
        ledger._LONG = every
        comparison(path, on_trial=lambda trial: os.write(1, b"run\n"))
    else:
        Fit(kind, threads).run(Report(), checkpoint=path, checkpoint_every=every)
    os.write(1, b"end\n")


class Victims:
    """The process whose children are killed."""

    def __enter__(self):
        directories = [Path(cdrop.__file__).parents[1], Path(__file__).parent]
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, directories))},
        )
        return self

    def __exit__(self, *_):
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()

    def _say(self, line):
        self.server.stdin.write(line + "\n")
        self.server.stdin.flush()

    def kill(self, delay, after=0, **trial):
        """Let a child run, kill it `delay` seconds after its line number `after`; return its lines."""
        self._say(json.dumps(trial))
        lines, pid = [], None
        while pid is None or (len(lines) < after and not {"end", "broken"} & set(lines)):
            line = self.server.stdout.readline().strip()
            if line.startswith("pid"):
                pid = int(line.split()[1])
            else:
                lines.append(line)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        self._say("")
        while not (line := self.server.stdout.readline().strip()).startswith("reaped"):
            lines.append(line)
        assert trial["careless"] or int(line.split()[1]) in (0, signal.SIGKILL), (
            "it broke down by itself"
        )
        return lines


class Lost(Exception):
    """Something that was acknowledged is gone, or what came of it is not what it would have been."""


def kill_fit(victims, directory, draw, kind, expected, careless=False):
    """Kill a fit up to three times, then let it end here; `Lost` if anything is.

    Returns the number of kills, and of those that left a temporary file: they came in the middle of a write.
    """
    path, kills, torn = directory / "run", 0, 0
    every = draw.randint(1, 6)
    for _ in range(draw.randint(1, 3)):
        trial = {"kind": kind, "every": every, "careless": careless, "path": str(path)}
        trial |= {"threads": draw.randint(1, 2), "simd": draw.choice(cdrop.kernels.simd_paths())}
        lines = victims.kill(0.06 * draw.random(), after=draw.randint(0, 12), **trial)
        kills += "end" not in lines
        torn += any(name.endswith(".cdrop-tmp") for name in os.listdir(directory))
        steps = [int(line) for line in lines if line.isdigit()]
        check_kept(path, (steps[-1] - 1) // every * every if steps else 0)
    if Fit(kind, 1).run(checkpoint=path, checkpoint_every=every) != expected:
        raise Lost("the resumed fit has ended elsewhere")
    if os.listdir(directory) != ["run"]:
        raise Lost(f"stale files: {os.listdir(directory)}")
    path.unlink()
    return kills, torn


def check_kept(path, acknowledged):
    """Raise `Lost` unless the file is whole and not behind what was acknowledged."""
    if not path.exists():
        if acknowledged:
            raise Lost("there is no checkpoint")
        return
    try:
        done = load(path).network.history.iterations
    except storage.ModelFileError as error:
        raise Lost(str(error)) from error
    if done < acknowledged:
        raise Lost(f"the checkpoint is of step {done}, behind {acknowledged}")


def kill_comparison(victims, directory, draw, expected, careless=False):
    """The same for a comparison with a ledger; torn are kills that left a part of a line or a temporary file."""
    path, kills, torn, kept = directory / "kept", 0, 0, 0
    for _ in range(draw.randint(1, 3)):
        trial = {"kind": "compare", "every": 30, "careless": careless, "path": str(path)}
        trial |= {"threads": draw.randint(1, 2), "simd": draw.choice(cdrop.kernels.simd_paths())}
        said = victims.kill(0.06 * draw.random(), after=draw.randint(0, 3), **trial)
        kills += "end" not in said
        torn += is_torn(path)
        reported, kept = kept + said.count("run"), len(opened(path).trials)
        if kept < reported:
            raise Lost(f"{kept} runs are kept, and {reported} were reported")
    opened(path)
    if comparison(path) != expected:
        raise Lost("the resumed comparison has other numbers")
    if os.listdir(path) != [ledger._FILE]:
        raise Lost(f"stale files: {os.listdir(path)}")
    (path / ledger._FILE).unlink()
    path.rmdir()
    return kills, torn


def opened(path):
    """Open a ledger to resume; `Lost` if it is damaged."""
    try:
        return open_ledger(path, resume=True)
    except ValueError as error:
        raise Lost(str(error)) from error


def is_torn(path):
    """Return whether a kill came in the middle of a write."""
    if not path.exists():
        return False
    file = path / ledger._FILE
    partial = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    return partial or any(name.endswith(".cdrop-tmp") for name in os.listdir(path))


def careless_losses(victims, directory, kill, expected, times, seed=0):
    """Run trials with a writer that must lose data, each in a separate directory; return how often it did."""
    lost = 0
    for number in range(times):
        own = directory / f"careless-{number}"
        own.mkdir()
        try:
            kill(victims, own, random.Random(seed + number), expected=expected, careless=True)
        except Lost:
            lost += 1
    return lost
