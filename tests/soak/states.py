"""States that are rightly signed and changed: what loads must train, predict, save and end, or be refused."""

import collections
import json
import math
import os
import random
import signal
import struct
import tempfile
from pathlib import Path

import numpy as np
from campaign import Run, campaign
from conftest import problem
from model_files import forged, parts

from cdrop import Network, _state, load, storage
from cdrop.callbacks import Callback, Validation
from cdrop.schedules import Constant, Cosine, InverseScaling, Plateau, Schedule, Step

ROW = 16
LONGEST = 5  # seconds of the processor; and of the clock 60 times as many, which notices what waits
NUMBERS = [
    0,
    1,
    2,
    -1,
    0.5,
    1.0,
    -1.0,
    5e-324,
    1e-310,
    1e308,
    2**31,
    2**53,
    2**62,
    2**62 - 1,
    2**64,
]
ODD = [None, True, False, "", "adam", "step", [], {}, [0.0], [1.0, 0.0], "x" * 300, 10**400]
SPECIAL = [math.nan, math.inf, -math.inf]
COUNTS_IN_STATES = ("updates", "epoch", "epochs", "steps", "total", "state", "learning_rate")
SCHEDULES = [Step(0.1, every=2), Cosine(epochs=3), InverseScaling(), Plateau(), Constant(0.01)]
RULES = ["adam", "momentum", "adagrad", "rmsprop", "adamw", "sgd", "nesterov"]


class Wrong(AssertionError):
    """What loaded does not work."""


# ---- Good files --------------------------------------------------------------------------------


class Steps(Callback):
    """Counts the steps of a fit, which must be as many as it says that it will make."""

    def on_fit_begin(self, net, total):
        self.left = total

    def on_iteration(self, net, iteration, loss):
        self.left -= 1

    def state_dict(self):
        return None


def arguments(net, i):
    """Return data and settings of a fit with epochs."""
    x, y = problem(net.units, net.loss, rows=12)
    if i % 3 == 1:
        y = y[:, 0] if y.ndim == 2 and net.units[-1] == 1 else y
    return {
        "X": x,
        "y": y,
        "batch_size": 5,
        "epochs": 2,
        "optimizer": RULES[i % len(RULES)],
        "learning_rate": SCHEDULES[i % len(SCHEDULES)],
        "validation": (x, y),
    }


def resumed(i):
    """Return network, callbacks and arguments of a fit that checkpoints, and of the same one again."""
    net = Network([3, 4, 3], dropout=0.5, seed=i, threads=1)
    given = arguments(net, i)
    return net, [Steps(), Validation(given["X"], given["y"], every=2)], given


def made(directory):
    """Return files of networks and checkpoints, with the numbers of their kinds."""
    files = []
    for i in range(12):
        loss = ("softmax_cross_entropy", "squared_error", "sigmoid_cross_entropy")[i % 3]
        units, dtype = [3, 2, 3 if i % 3 == 0 else 1], ("float32", "float64")[i % 2]
        net = Network(units, dropout=0.5, loss=loss, seed=i, dtype=dtype, threads=1)
        if i:
            net.fit(**arguments(net, i))
        files.append((i, bytes(storage._packed("Network", *net._to_parts()))))
        path = directory / f"checkpoint{i}"
        net, callbacks, given = resumed(i)
        net.fit(**given, callbacks=callbacks, checkpoint=path)
        files.append((i, path.read_bytes()))
    return files


# ---- Changes -----------------------------------------------------------------------------------


def places(value):
    """Yield each object or list of a value with each of its keys, at any depth."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def change(about, arrays, draw):
    """Change a setting or an array in a way that a forger may."""
    if draw.random() < 0.3:
        name = draw.choice(list(arrays))
        dtype, shape, content = arrays[name]
        kind = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}.get(dtype)
        if kind is None or not content or draw.random() < 0.2:
            size = draw.randrange(4)
            arrays[name] = ["F64", [size], struct.pack(f"<{size}d", *[draw.random()] * size)]
            return
        numbers = np.frombuffer(content, kind).copy()
        with np.errstate(all="ignore"):
            numbers[draw.randrange(len(numbers)) :] = (
                draw.choice([0, -1, 2**40])
                if kind == "<i8"
                else draw.choice([*SPECIAL, 0, -1, 1e38])
            )
        arrays[name] = [dtype, shape, numbers.tobytes()]
        return
    found = list(places(about["settings"]))
    counters = [(where, key) for where, key in found if key in COUNTS_IN_STATES or key == 0]
    where, key = draw.choice(counters if counters and draw.random() < 0.5 else found)
    if draw.random() < 0.1 and isinstance(where, dict):
        del where[key]
    elif isinstance(where[key], (int, float)) and draw.random() < 0.7:
        where[key] = draw.choice([*NUMBERS, *map(float, NUMBERS[:12]), *SPECIAL])
    else:
        where[key] = draw.choice([*NUMBERS, *ODD, *SPECIAL])


# ---- What loads --------------------------------------------------------------------------------


def check_works(model, i, path):
    """Predict, evaluate, train, save and load again; weights that are not finite may end the training."""
    net = getattr(model, "network", model)
    net.threads = 1
    x, y = problem(net.units, net.loss, rows=12)
    try:
        net.predict(x)
    except ValueError as error:
        if "makes outputs that are not finite" not in str(error):
            raise
    net.evaluate(x, y)
    schedule = net._schedule or SCHEDULES[i % len(SCHEDULES)]
    rule = net._optimizer or "adam"
    try:
        net.fit(
            x, y, batch_size=5, epochs=2, optimizer=rule, learning_rate=schedule, validation=(x, y)
        )
    except FloatingPointError:
        pass
    net.save(path)
    again = load(path)
    if storage._texts(again._to_parts()[0]) != storage._texts(net._to_parts()[0]):
        raise Wrong("a file holds another state than was saved")


def came_to(content, i, path):
    """Load a file; return what came of it, or raise."""
    path.write_bytes(content)
    try:
        model = load(path)
    except storage.ModelFileError:
        return "refused"
    try:
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        signal.alarm(60 * LONGEST)
        check_works(model, i, path)
        if type(model).__name__ == "Checkpoint":
            path.write_bytes(content)
            net, callbacks, given = resumed(i)
            try:
                net.fit(**given, callbacks=callbacks, checkpoint=path)
            except (TypeError, ValueError, FloatingPointError):
                return "loaded, but no fit resumes from it"
            if callbacks[0].left:
                raise Wrong(f"the fit ended with {callbacks[0].left} steps left")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return "loaded"


def too_long(*_):
    raise Wrong(f"it took more than {LONGEST} s")


def fuzzed(run, trials):
    """Return what came of changed files, and the first that went wrong, with its error."""
    in_memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk takes most of the time
    with tempfile.TemporaryDirectory(dir=in_memory) as directory:
        return fuzzed_in(Path(directory), run, trials)


def fuzzed_in(directory, run, trials):
    """Do the work of `fuzzed` in a directory."""
    counts, draw, path = collections.Counter(), random.Random(run.seed), directory / "m"
    files = made(directory)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, too_long)
    for _ in range(trials):
        i, content = draw.choice(files)
        about, arrays = parts(content)
        about.pop("sha256")
        for _ in range(draw.choice([1, 1, 2])):
            change(about, arrays, draw)
        try:
            changed = forged(about, arrays)
        except (OverflowError, ValueError):
            continue
        try:
            counts[came_to(changed, i, path)] += 1
        except Exception as error:
            return counts, f"{type(error).__name__}: {error}, with {json.dumps(about)[:600]}"
    return counts, None


def without_check(kind):
    """Take the check of a part of states away, and return a function that brings it back."""
    if kind == "schedules not checked":
        real = Schedule._check
        Schedule._check = lambda self, state: None
        return lambda: setattr(Schedule, "_check", real)
    real = _state.whole_number
    _state.whole_number = lambda name, value, low, high: value
    return lambda: setattr(_state, "whole_number", real)


@campaign(ROW)
def fuzz_states(run: Run):
    """Change states of networks and checkpoints and sign them; what loads trains, predicts, saves and ends."""
    counts, wrong = fuzzed(run, run.trials(10**5))
    figures = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    run.figure(
        ROW, f"rightly signed, changed states: {figures}; {wrong or '0 wrong'}", wrong is None
    )
    for kind in ("schedules not checked", "counters not checked"):
        restore = without_check(kind)
        try:
            counts, wrong = fuzzed(run, 20_000)
        finally:
            restore()
        after = f"found after {sum(counts.values())}" if wrong else "NOT FOUND"
        run.figure(ROW, f"control, {kind}: {after}", wrong is not None)
