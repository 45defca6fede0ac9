"""cdrop and PyTorch's autograd, side by side, under the same keyed masks.

`make test-peers` runs this; PyTorch is no part of what `make test` installs. The runs are those of
tests/data/torch_cases.py, and every entry of implementations.IMPLEMENTATIONS is compared.
"""

import functools
import importlib
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
DATA = Path(__file__).parents[1] / "data"
sys.path.append(str(DATA))
cases = importlib.import_module("torch_cases")
peer = importlib.import_module("make_torch_steps")
IMPLEMENTATIONS = importlib.import_module("implementations").IMPLEMENTATIONS

pytestmark = pytest.mark.peers
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@functools.cache
def peer_run(name, seed, dtype):
    case = replace(cases.SMALL[name], seed=seed)
    initial, data = cases.initial_weights(case), cases.batches(case)
    return case, initial, data, peer.train_torch(case, initial, data, dtype)


def compare(run, expected, initial, tolerance):
    """Compare losses, and as relative distances how far training moved and what it predicts."""

    def distance(a, b):
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    start = cases.flatten(initial)
    np.testing.assert_allclose(run.losses, expected.losses, rtol=tolerance)
    assert distance(run.first - start, expected.first - start) < 10 * tolerance
    assert distance(run.last - start, expected.last - start) < 10 * tolerance
    assert distance(run.outputs, expected.outputs) < 10 * tolerance


@pytest.mark.parametrize("name", cases.SMALL)
def test_the_recorded_runs_are_still_what_pytorch_gives(name):
    *_, run = peer_run(name, cases.SMALL[name].seed, "float64")
    with np.load(DATA / "torch_steps.npz") as recorded:
        for part in fields(run):
            expected = recorded[f"{name}/{part.name}"]
            np.testing.assert_allclose(getattr(run, part.name), expected, rtol=1e-10, atol=1e-13)


@implementations
@pytest.mark.parametrize("name", cases.SMALL)
def test_small_nets_in_float64(name, implementation):
    case, initial, data, expected = peer_run(name, 1000, "float64")
    run = IMPLEMENTATIONS[implementation](case, initial, data, "float64")
    for part in fields(run):
        actual, wanted = getattr(run, part.name), getattr(expected, part.name)
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-13, err_msg=part.name)


@implementations
@pytest.mark.parametrize("name", cases.SMALL)
def test_small_nets_in_float32(name, implementation):
    case, initial, data, expected = peer_run(name, 1000, "float32")
    run = IMPLEMENTATIONS[implementation](case, initial, data, "float32")
    assert run.first.dtype == run.outputs.dtype == np.float32
    compare(run, expected, initial, 2e-6)


@implementations
@pytest.mark.parametrize("name", cases.SMALL)
def test_small_nets_with_max_norm(name, implementation):
    case, initial, data, free = peer_run(name, 1000, "float64")
    limit = 0.8 if case.initializer == "glorot" else 1.2
    expected = peer.train_torch(case, initial, data, "float64", limit)
    assert np.linalg.norm(expected.last - free.last) > 0.01 * np.linalg.norm(free.last)
    run = IMPLEMENTATIONS[implementation](case, initial, data, "float64", limit)
    for part in fields(run):
        actual, wanted = getattr(run, part.name), getattr(expected, part.name)
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-13, err_msg=part.name)


@functools.cache
def article_data():
    """Return initial weights and batches at real size, on pixels as sparse as MNIST's."""
    draw = np.random.default_rng(0)
    shape = (cases.STEPS, 256)
    x = draw.random((*shape, 784)) * (draw.random((*shape, 784)) < 0.19) - 0.1
    data = cases.Batches(x, draw.integers(0, 10, shape), None)
    return cases.initial_weights(cases.ARTICLE), data


@implementations
@pytest.mark.parametrize(
    ("optimizer", "rate", "dtype", "tolerance"),
    [
        ("rmsprop", 1e-3, "float32", 5e-6),
        ("momentum", 0.05, "float32", 5e-6),
        ("rmsprop", 1e-3, "float64", 1e-12),
    ],
)
def test_the_articles_net(optimizer, rate, dtype, tolerance, implementation):
    case = replace(cases.ARTICLE, optimizer=optimizer, learning_rate=rate)
    initial, data = article_data()
    expected = peer.train_torch(case, initial, data, dtype)
    run = IMPLEMENTATIONS[implementation](case, initial, data, dtype)
    compare(run, expected, initial, tolerance)
