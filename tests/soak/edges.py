"""Numbers and sizes at the edge: denormals must not slow a step, and arrays beyond 2^32 bytes must be right."""

import itertools
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
from campaign import ROOT, Run, campaign, need
from conftest import digest

from cdrop import Network, _batches, _kernels, kernels

# ---- Denormals ---------------------------------------------------------------------------------

UNITS, ROWS = [784, 256, 256, 10], 256


def scaled(array, factor):
    """The same numbers, so small that float32 holds them as denormals; zeros stay zeros."""
    return (array.astype("f8") * factor).astype("f4")


def normal_case():
    """What the others are compared with: ordinary numbers, a fifth of the inputs 0."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((ROWS, UNITS[0])) * (draw.random((ROWS, UNITS[0])) < 0.8)
    net = Network(UNITS, activation="tanh", dropout=0.5, threads=2)
    return net, x.astype("f4"), draw.integers(0, UNITS[-1], ROWS), "rmsprop"


def change(net, parts, factor):
    """Make some of a network's arrays denormal."""
    state = net.state_dict()
    for name, array in state["arrays"].items():
        if name.startswith(parts):
            array[:] = scaled(array + (array == 0), factor)
    net.load_state_dict(state)


def denormal_inputs():
    net, x, y, rule = normal_case()
    return net, scaled(x, 1e-39), y, rule


def denormal_weights():
    net, x, y, rule = normal_case()
    change(net, "weight", 1e-39)
    return net, x, y, rule


def denormal_activations():
    """Inputs and weights that are normal, and products that are not."""
    net, x, y, rule = normal_case()
    change(net, "weight.0", 1e-18)
    return net, scaled(x, 1e-21), y, rule


def denormal_state(rule):
    def case():
        net, x, y, _ = normal_case()
        net.train_step(x, y, optimizer=rule, learning_rate=1e-300)
        change(net, "state", 1e-39)
        return net, x, y, rule

    return case


CASES = {
    "inputs": denormal_inputs,
    "weights": denormal_weights,
    "activations": denormal_activations,
    **{f"state of {rule}": denormal_state(rule) for rule in ("momentum", "rmsprop", "adam")},
}


def time_step(net, x, y, rule):
    """Seconds of a step from the state the case began with."""
    state = net.state_dict()
    start = time.perf_counter()
    net.train_step(x, y, optimizer=rule, learning_rate=1e-300)
    seconds = time.perf_counter() - start
    net.load_state_dict(state)
    return seconds


def ratio(case, rounds):
    """How much longer the case's step takes than the same step on ordinary numbers: alternating rounds, medians."""
    odd = case()
    plain = (*normal_case()[:3], odd[3])
    plain[0].train_step(*plain[1:3], optimizer=odd[3], learning_rate=1e-300)
    times = [(time_step(*odd), time_step(*plain)) for _ in range(rounds)]
    odd_time, plain_time = (statistics.median(t) for t in zip(*times, strict=True))
    return odd_time / plain_time


def compiled(directory, name, *flags):
    """Compile denormals.c with the library's sources and setup.py's flags."""
    own = re.search(r'^POSIX_FLAGS = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    sources = [*ROOT.glob("src_c/*.c"), *ROOT.glob("src_c/simd/*.c")]
    program = [str(directory / name), str(Path(__file__).with_name("denormals.c"))]
    command = [need("cc", debian="gcc"), *own.split(), *flags, "-o", *program, *map(str, sources)]
    subprocess.run([*command, "-lm", "-pthread"], check=True)
    return program[0]


def update_ratios(program):
    """What denormals.c prints."""
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {path: float(slower) for path, slower in map(str.split, said.splitlines())}


@campaign(7)
def denormals(run: Run):
    """Steps on denormal inputs, weights, activations and optimizer states against steps on ordinary numbers."""
    for path, (name, case) in itertools.product(kernels.simd_paths(), CASES.items()):
        _kernels._select_simd(path)
        slower = ratio(case, run.trials(200))
        run.figure(7, f"step on denormal {name}, {path}: {slower:.2f} times", slower <= 1.2)
    wrap = "-Wl,--wrap=cdrop_flush_denormals"
    kept = update_ratios(compiled(run.directory, "unflushed", "-DUNFLUSHED", wrap))
    flushed = update_ratios(compiled(run.directory, "flushed"))
    for path, slower in flushed.items():
        run.figure(7, f"update of denormal states, {path}: {slower:.2f} times", slower <= 1.2)
    run.figure(
        7,
        f"control, the same update without flushing: {min(kept.values()):.2f} times or more",
        min(kept.values()) > 1.2,
    )


# ---- Arrays beyond 2^32 bytes ------------------------------------------------------------------

ROOM = 14  # GiB: the largest array, its copy in panels, and the result
LONG, PIECE = 2**22 + 3, 2**17  # rows of 260 numbers, 2^32 bytes and more, and of a piece


def need_memory():
    """Stop where there is too little memory."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cached = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    free = max(pages, int(cached[1]) * 1024) / 2**30
    if free < ROOM:
        raise SystemExit(f"cdrop: this campaign needs {ROOM} GiB of memory; {free:.1f} are free")


def pieces(rows):
    """Stretches of all rows."""
    return [slice(start, min(start + PIECE, rows)) for start in range(0, rows, PIECE)]


def long_rows(columns, zeros):
    """Draw rows no two of which are equal, so that none can pass for another."""
    draw = np.random.default_rng(0)
    some = draw.standard_normal((PIECE, columns), dtype="f4")
    some[draw.random(some.shape) < zeros] = 0
    x = np.empty((LONG, columns), "f4")
    for s in pieces(LONG):
        x[s] = some[: s.stop - s.start]
        x[s, 0] = np.arange(s.start + 1, s.stop + 1) / 2**22
    return x


def equal_in_pieces(whole, piece_of):
    """Whether an array is, piece by piece, what `piece_of` gives; some of it must not be."""
    last = slice(len(whole) - PIECE, len(whole))
    same = all(np.array_equal(whole[s], piece_of(s)) for s in pieces(len(whole)))
    return same and not np.array_equal(whole[last], piece_of(slice(0, PIECE)))


def check_products(columns, outputs, zeros):
    """masked_gemm and Network.predict, of many inputs or many outputs, from lists or dense."""
    x, draw = long_rows(columns, zeros), np.random.default_rng(1)
    weight = draw.standard_normal((columns, outputs), dtype="f4")
    whole = kernels.masked_gemm(x, weight)
    right = equal_in_pieces(whole, lambda s: kernels.masked_gemm(x[s], weight))
    size = max(x.nbytes, whole.nbytes)
    del whole
    net = Network([columns, outputs], loss="squared_error")
    return size, right and equal_in_pieces(net.predict(x), lambda s: net.predict(x[s]))


def check_masks():
    """bernoulli_mask against the same rows drawn by themselves."""
    width, rows = 64 * 130, LONG
    whole = kernels.bernoulli_mask(rows, width, 0.3, seed=1)
    right = equal_in_pieces(
        whole,
        lambda s: kernels.bernoulli_mask(s.stop - s.start, width, 0.3, seed=1, first_row=s.start),
    )
    return whole.nbytes, right


def check_update():
    """An update of more than 2^30 numbers, which are then their gradients' negatives."""
    weight, gradient = np.zeros((LONG, 260), "f4"), long_rows(260, 0.1)
    kernels.update(weight, gradient, [], learning_rate=1.0)
    return weight.nbytes, equal_in_pieces(weight, lambda s: -gradient[s])


def check_training():
    """A fit draws its rows from all of a long array, and reports the one number that is not finite."""
    x, y = long_rows(260, 0.5), np.arange(LONG) % 5
    settings = {"dropout": 0.5, "seed": 1}
    fitted, stepped = (Network([260, 40, 5], **settings) for _ in range(2))
    for net in (fitted, stepped):
        net._set_background(None)
    fitted.fit(x, y, batch_size=256, iterations=20)
    order = _batches.fixed(LONG, 1)
    for number in _batches.drawn(-(-LONG // 256), 1, 0, 20):
        rows = order[256 * number : 256 * (number + 1)]
        stepped.train_step(x[rows], y[rows])
    x[-1, -1] = np.nan
    try:
        fitted.predict(x)
        message = "nothing"
    except ValueError as error:
        message = str(error)
    return x.nbytes, digest(fitted) == digest(stepped) and f"X[{LONG - 1}, 259]" in message


@campaign(2)
def large(run: Run):
    """Real arrays beyond 2^32 bytes: products, predictions, masks, updates and a fit, against pieces of them."""
    need_memory()
    checks = {
        "products from lists": lambda: check_products(260, 4, 0.8),
        "dense products": lambda: check_products(260, 4, 0.0),
        "products into many outputs": lambda: check_products(4, 260, 0.1),
        "masks": check_masks,
        "updates": check_update,
        "a fit": check_training,
    }
    for name, check in checks.items():
        start = time.monotonic()
        size, right = check()
        seconds = time.monotonic() - start
        run.figure(
            2,
            f"{name}, {size} bytes: {'the bytes of the pieces' if right else 'WRONG'} ({seconds:.0f} s)",
            right and size > 2**32,
        )
