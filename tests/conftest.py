"""Fixtures for SIMD paths, dtypes and threads, the one table of tolerances, and what the files share.

The fixture ``simd`` switches the path inside this process, over all that this machine can run; a
network keeps the path it was made on, so tests make theirs after the switch. ``make test-isa``
runs everything once more under each ``CDROP_SIMD``, where the choice falls at import.
"""

import hashlib
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import cdrop
from cdrop import _kernels, checkpoints, kernels, reference

# Widths of output are then those of a file, whatever terminal the tests are run in.
os.environ.pop("COLUMNS", None)

# Markers of tests that only some systems can run.
SYSTEMS = {"posix": os.name == "posix", "linux": sys.platform == "linux"}


settings.register_profile(
    "cdrop",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("cdrop")

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def absent(error):
    """Name the package that an error began with the lack of, or return None."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return error and error.name


@pytest.hookimpl(wrapper=True)
def skip_without_package(item):
    """Skip, in free-threaded Python, tests that need a package: some have no wheel for it."""
    try:
        return (yield)
    except Exception as error:
        if FREE_THREADED and absent(error) is not None:
            pytest.skip(f"no {absent(error)} in this free-threaded Python")
        raise


pytest_runtest_call = skip_without_package


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    for name, here in SYSTEMS.items():
        if not here and item.get_closest_marker(name):
            pytest.skip(f"needs {name}")
    return (yield from skip_without_package(item))


DTYPES = ("float32", "float64")
THREADS = (1, 2, 3, 4, 8)
# Around the widths of vectors, mask words and blocks of rows.
EDGES = sorted({n + d for n in (0, 8, 16, 32, 64, 128) for d in (-1, 0, 1) if n + d >= 0})
ACTIVATIONS = _kernels.ACTIVATIONS
LOSSES = _kernels.LOSSES[:3]  # those that most tests run with; test_more_losses.py has the others
OPTIMIZERS = _kernels.OPTIMIZERS
# Weight 1, learning rate 0.1, gradients 0.5 and -0.25, epsilon as good as 0: the weight after each update.
UPDATES = [
    ("sgd", {}, 0.95, 0.975),
    ("momentum", {}, 0.95, 0.93),
    ("momentum", {"momentum": 0.5}, 0.95, 0.95),
    ("momentum", {"start": 0.5, "ramp": 2}, 0.95, 0.94),
    ("momentum", {"start": 0.9, "momentum": 0.1, "ramp": 2}, 0.95, 0.95),
    ("momentum", {"dampened": True}, 0.995, 0.993),
    ("momentum", {"ramp": 2, "dampened": True}, 0.975, 0.965),
    ("nesterov", {}, 0.905, 0.912),
    ("nesterov", {"momentum": 0.5}, 0.925, 0.95),
    ("nesterov", {"ramp": 2}, 0.925, 0.943),
    ("nesterov", {"ramp": 2, "dampened": True}, 0.9625, 0.963),
    ("adagrad", {}, 0.9, 0.9 + 0.025 / math.sqrt(0.3125)),
    ("rmsprop", {}, 1 - math.sqrt(0.1), 1 - math.sqrt(0.1) + 0.025 / math.sqrt(0.02875)),
    (
        "rmsprop",
        {"rho": 0.5},
        1 - math.sqrt(0.02),
        1 - math.sqrt(0.02) + 0.025 / math.sqrt(0.09375),
    ),
    ("adam", {}, 0.9, 0.9 - 0.002 / 0.19 / math.sqrt(0.00031225 / 0.001999)),
    ("adam", {"beta1": 0.5, "beta2": 0.5}, 0.9, 0.9),
    ("adamw", {}, 0.899, 0.898101 - 0.002 / 0.19 / math.sqrt(0.00031225 / 0.001999)),
    ("adamw", {"beta1": 0.5, "beta2": 0.5, "weight_decay": 0.5}, 0.85, 0.8075),
]

# How far kernels may be from the NumPy twin, by what is compared. Masks and words are exact; SIMD
# paths and thread counts are compared among themselves, always byte for byte.
TOLERANCE = {
    # Relative to the largest number expected, or to 1.
    "normal": {"float32": 1e-13, "float64": 1e-13},
    "noise": {"float32": 2e-6, "float64": 2e-15},
    "product": {"float32": 2e-6, "float64": 8e-15},
    "loss": {"float32": 1e-6, "float64": 2e-15},
    "update": {"float32": 1e-6, "float64": 1e-14},
    # Relative to how far training has moved the weights (norms), and of the losses.
    "step": {"float32": 4e-5, "float64": 2e-13},
    "run": {"float32": 2e-4, "float64": 1e-12},
    # Of central differences, relative to the gradient.
    "difference": {"float64": 1e-6},
}


def assert_close(actual, expected, kind, largest=1.0):
    """Compare a kernel's array or number with the twin's, by the table; `largest` is of what it was computed from."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if not expected.size:
        return
    scale = max(1.0, largest, float(np.abs(expected).max()))
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=TOLERANCE[kind][expected.dtype.name] * scale
    )


def distance(actual, expected, start):
    """Difference of two training runs, relative to how far the expected one has gone."""

    def flat(arrays):
        return np.concatenate([np.ravel(a).astype("float64") for a in arrays])

    went = flat(expected) - flat(start)
    return np.linalg.norm(flat(actual) - flat(expected)) / np.linalg.norm(went)


def parameters(net):
    """Return weights, then biases."""
    return [*net.coefs_, *net.intercepts_]


def digest(net):
    """Hash of everything that training changes: weights, biases, the optimizer's state, losses."""
    state = net.state_dict()
    sha = hashlib.sha256()
    for name, array in sorted(state["arrays"].items()):
        sha.update(name.encode() + array.astype(array.dtype.newbyteorder("<")).tobytes())
    sha.update(np.array(state["losses"], "<f8").tobytes())
    return sha.hexdigest()


def whole_state(net):
    """Hash of the network's whole state: that of `digest`, optimizer, schedule, counters, curves, background."""
    return checkpoints.digest(list(net._to_parts()))


def problem(units, loss="softmax_cross_entropy", rows=40, seed=0, dtype="float32"):
    """Draw inputs, a fifth of them zero, with labels or targets for a network of these units."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, units[0])) * (draw.random((rows, units[0])) < 0.8)
    if loss == "softmax_cross_entropy":
        return x.astype(dtype), draw.integers(0, units[-1], rows)
    return x.astype(dtype), draw.random((rows, units[-1])).astype(dtype)


def spec_of(net):
    """Return the twin's description of a network."""
    names = ("dropout", "input_dropout", "activation", "loss", "scaling", "seed")
    own = {name.removeprefix("huber_"): value for name, value in net._loss_settings.items()}
    settings = {name: getattr(net, name) for name in names}
    return reference.NetworkSpec(net.units, loss_settings=own, **settings)


def check_steps(net, specs, X, y, max_norms=()):
    """Compare steps of Adam with the twin's, each by its spec and largest norm; return the twin's parameters."""
    params = reference.initial_weights(net.units, seed=net.seed, dtype="float64")
    state = reference.initial_state(params, "adam")
    for step, (spec, max_norm) in enumerate(itertools.zip_longest(specs, max_norms), start=1):
        rule = {"learning_rate": 0.01, "l2": 1e-3, "max_norm": max_norm}
        expected = reference.train_step(params, state, X, y, spec, step=step, **rule)
        assert net.train_step(X, y, optimizer="adam", **rule) == pytest.approx(expected, 1e-10)
    for ours, theirs in zip((*net.coefs_, *net.intercepts_), itertools.chain(*params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    return params


def check_uncertainty(net, spec, params, X):
    """Compare predictions under masks with the twin's."""
    result = net.predict_uncertainty(X, 5)
    for name, expected in reference.uncertainty(params, X, spec, 5).items():
        np.testing.assert_allclose(getattr(result, name), expected, atol=1e-10)


def with_biases(net, seed=0):
    """Give a network biases that are not 0: those after the first step would hide little."""
    state, draw = net.state_dict(), np.random.default_rng(seed)
    for name, array in state["arrays"].items():
        if name.startswith("bias"):
            array[:] = draw.standard_normal(array.shape) / 2
    net.load_state_dict(state)
    return net


def run_python(code, timeout=60, flags=("-W", "error"), **environment):
    """Run code in another Python where cdrop and these files are found; return the process.

    One that does not end in time is killed with its children, which would keep the pipes open.
    """
    directories = [Path(cdrop.__file__).parents[1], Path(__file__).parent]
    path = os.pathsep.join([*map(str, directories), os.environ.get("PYTHONPATH", "")])
    inherited = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    with subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        env={**inherited, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    lacks = re.search(r"^ModuleNotFoundError: No module named '(\w+)'", said[1], re.MULTILINE)
    if FREE_THREADED and lacks:
        pytest.skip(f"no {lacks[1]} in this free-threaded Python")
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


@pytest.fixture(scope="module")
def another_folder(tmp_path_factory):
    """Run a module's tests in a separate directory: anything at all may be the name of a file to be written."""
    home = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("directory"))
    yield
    os.chdir(home)


@pytest.fixture(params=[pytest.param(p, marks=pytest.mark.isa) for p in kernels.simd_paths()])
def simd(request):
    """Run on each SIMD path of this machine."""
    before = kernels.simd()
    _kernels._select_simd(request.param)
    yield request.param
    _kernels._select_simd(before)


@pytest.fixture
def on_each_path():
    """Return a function that runs another on each SIMD path and gives their results by name."""
    before = kernels.simd()

    def run(function):
        results = {}
        for path in kernels.simd_paths():
            _kernels._select_simd(path)
            results[path] = function()
        return results

    yield run
    _kernels._select_simd(before)


@pytest.fixture(params=DTYPES)
def dtype(request):
    """Run in both dtypes."""
    return request.param


@pytest.fixture(params=THREADS)
def threads(request):
    """Run with several numbers of threads, as the default of every call."""
    before = cdrop.get_num_threads()
    cdrop.set_num_threads(request.param)
    yield request.param
    cdrop.set_num_threads(before)
