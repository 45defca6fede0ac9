"""Memory: flat over many fits, and each allocation of the library that fails is a MemoryError that changes nothing."""

import ctypes
import gc
import resource
import subprocess
from pathlib import Path

import numpy as np
from campaign import Run, campaign, need
from conftest import digest, problem, run_python

from cdrop import Network, _kernels, kernels

HERE = Path(__file__).resolve().parent
UNITS = [20, 70, 3]
X, Y = problem(UNITS, rows=90)
FIT = {"batch_size": 40, "iterations": 6}

# ---- Growth ------------------------------------------------------------------------------------

MOST_GROWN = 2**20


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def grown(fits, one_fit):
    """Fit that often; return by how many bytes the process grows after the first tenth."""
    for i in range(fits):
        if i == fits // 10:
            gc.collect()
            before = resident()
        one_fit(i)
    gc.collect()
    return resident() - before


def one_fit(i):
    """Make a network of one of many kinds, train it, ask it."""
    net = Network(
        [20, 16 + i % 70, 3],
        dropout=0.5,
        seed=i,
        dtype=("float32", "float64")[i % 2],
        threads=1 + i % 3,
    )
    net.fit(X, Y, optimizer=("adam", "nesterov")[i % 2], validation=(X, Y), batch_size=40, epochs=2)
    net.predict_uncertainty(X, 3)


@campaign(25)
def flat(run: Run):
    """Fit 10,000 networks; the process must not grow. A hoarder must be seen to."""
    fits, hoard = run.trials(10_000), []

    def hoarding(i):
        one_fit(i)
        hoard.append(bytes(4 * MOST_GROWN // fits))

    growth = grown(fits, one_fit)
    run.figure(
        25, f"{fits} fits: {growth / 2**10:.0f} KiB more after the first tenth", growth < MOST_GROWN
    )
    hoarded = grown(fits, hoarding)
    hoard.clear()
    run.figure(
        25,
        f"control: the same with {4 * MOST_GROWN // fits} bytes kept of each: {hoarded / 2**10:.0f} KiB more",
        hoarded >= MOST_GROWN,
    )


# ---- Failing allocations -----------------------------------------------------------------------


class Allocations:
    """What tests/soak/failing_malloc.c, which this process was begun with, says of a library's allocations."""

    def __init__(self, library):
        self.shim = ctypes.CDLL(None)
        self.shim.failing_held.restype = ctypes.c_long
        self.shim.failing_watch(*map(ctypes.c_void_p, code_of(library)))

    @property
    def held(self):
        """Blocks taken and not given back."""
        return self.shim.failing_held()

    def failing(self, nth, call, *arguments):
        """Call with the nth allocation refused; return the result or the MemoryError, and whether it came to that."""
        self.shim.failing_set(ctypes.c_long(nth))
        try:
            result = call(*arguments)
        except MemoryError as error:
            result = error
        refused = not self.shim.failing_pending()
        self.shim.failing_set(ctypes.c_long(0))
        return result, refused

    def forget_spare(self):
        """Refuse a call so much memory that the library gives up the block it keeps between calls."""
        big = np.ones((300, 300))
        error, refused = self.failing(1, kernels.masked_gemm, big, big)
        assert refused
        assert isinstance(error, MemoryError)


def code_of(library):
    """Return where the code of a loaded library begins and ends."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, *_, name = line.split()[:6]
        if "x" in rights and name == str(library):
            return [int(address, 16) for address in where.split("-")]
    raise AssertionError(f"{library} is not loaded")


def untrained():
    return Network(UNITS, dropout=0.5, seed=1, threads=2)


def trained():
    net = untrained()
    net.fit(X, Y, **FIT)
    return net


def product(_):
    return kernels.masked_gemm(X, np.ones((20, 70), X.dtype), threads=2)


def gradients(_):
    return kernels.masked_gradients(np.ones((90, 70), X.dtype), X, np.ones((20, 70), X.dtype))


def limited(_):
    weight = np.ones((20, 70))
    kernels.limit_norms(weight, 0.5)
    return weight


# Each makes something new, which a call that fails must leave as it is.
CASES = {
    "create": (lambda: None, lambda _: untrained()),
    "fit": (untrained, lambda net: net.fit(X, Y, **FIT)),
    "fit, kept lists": (untrained, lambda net: net.fit(np.abs(X) * (X > 1), Y, **FIT)),
    "fit on": (trained, lambda net: net.fit(X, Y, optimizer="adam", batch_size=90, epochs=2)),
    "step": (untrained, lambda net: net.train_step(X, Y)),
    "predict": (trained, lambda net: net.predict_proba(X)),
    "score": (trained, lambda net: net.evaluate(X, Y)),
    "uncertainty": (trained, lambda net: net.predict_uncertainty(X, 5)),
    "subnetworks": (trained, lambda net: net.subnetworks(3).predict_proba(X)),
    "extract": (trained, lambda net: net.subnetworks(3).extract(1)),
    "state": (trained, lambda net: net.load_state_dict(trained().state_dict())),
    "masked_gemm": (lambda: None, product),
    "masked_gradients": (lambda: None, gradients),
    "limit_norms": (lambda: None, limited),
}


def state_of(result):
    """Return what a result says, as something to compare."""
    if isinstance(result, Network):
        return digest(result), repr(result), result.history.iterations
    if isinstance(result, np.ndarray):
        return result.tobytes()
    if isinstance(result, (tuple, list)):
        return [state_of(part) for part in result]
    return state_of(list(vars(result).values())) if hasattr(result, "__dict__") else result


def fail_each(memory, make, call):
    """Refuse a call its first allocation, its second and so on, until it needs no more; return how many, and faults."""
    faults, nth, expected_thing = [], 0, make()
    expected, held = (state_of(call(expected_thing)), state_of(expected_thing)), None
    while True:
        nth += 1
        thing = make()
        before = state_of(thing)
        memory.forget_spare()
        result, refused = memory.failing(nth, call, thing)
        if isinstance(result, MemoryError):
            if state_of(thing) != before:
                faults.append(f"{nth}: changed")
            del result
            result = call(thing)
        if (state_of(result), state_of(thing)) != expected:
            faults.append(f"{nth}: another result")
        if not refused:
            return nth - 1, faults
        del result, thing
        gc.collect()
        memory.forget_spare()
        if held not in (None, memory.held):
            faults.append(f"{nth}: {memory.held - held} blocks leaked")
        held = memory.held


def changing(net):
    """Change a network before it takes memory, which no call may that fails."""
    net.set_weights([2 * w for w in net.coefs_], net.intercepts_)
    return net.train_step(X, Y)


def planted_is_found(library):
    """Whether a block that is lost, and a change in front of a failure, would be seen."""
    planted = ctypes.CDLL(library)
    memory = Allocations(library)
    before = memory.held
    planted.planted_leak()
    lost = memory.held - before
    _, faults = fail_each(Allocations(_kernels.__file__), untrained, changing)
    return lost == 1 and any("changed" in fault for fault in faults)


def report(library):
    """Print a line for each case and the control; this process has failing_malloc.c preloaded."""
    print(f"control: {'found' if planted_is_found(library) else 'MISSED'}")
    memory = Allocations(_kernels.__file__)
    for name, (make, call) in CASES.items():
        count, faults = fail_each(memory, make, call)
        print(f"{name}: {count}: {', '.join(faults)}")


def compiled(source, directory):
    """Compile a file of this directory as a library; return its path."""
    library = directory / Path(source).with_suffix(".so")
    command = ["gcc", "-O2", "-g", "-shared", "-fPIC", HERE / source, "-o", library]
    subprocess.run(command, check=True)
    return library


@campaign(25)
def refused(run: Run):
    """Refuse each call its nth allocation, for every n: MemoryError, nothing changed, nothing leaked."""
    need("gcc", debian="gcc")
    planted = str(compiled("planted.c", run.directory))
    code = f"import sys; sys.path.append({str(HERE)!r}); import memory; memory.report({planted!r})"
    process = run_python(code, 300, LD_PRELOAD=str(compiled("failing_malloc.c", run.directory)))
    if process.returncode:
        raise SystemExit(process.stderr)
    first, *lines = process.stdout.splitlines()
    run.figure(25, f"a planted leak and a planted change: {first}", first == "control: found")
    counts = {name: int(n) for name, n, _ in (line.split(": ", 2) for line in lines)}
    faults = [line for line in lines if not line.endswith(": ")]
    run.figure(
        25,
        f"{sum(counts.values())} allocations refused in {len(counts)} calls "
        f"({', '.join(f'{name} {n}' for name, n in counts.items())}): "
        + (
            "each a MemoryError or done without, nothing changed, nothing leaked"
            if not faults
            else "; ".join(faults)
        ),
        not faults and all(counts.values()),
    )
