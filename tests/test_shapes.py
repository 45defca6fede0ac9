"""Any shape: a step and a prediction in sizes that are odd, tiny, wide and larger than the caches."""

import numpy as np
import pytest
from conftest import assert_close, parameters, problem, run_python
from test_network import Twin, assert_same, spec_of, with_biases

from cdrop import Network, reference

SHAPES = {
    "one of everything": ([1, 1, 1], 1),
    "one class": ([7, 9, 1], 20),
    "batch of 1": ([70, 33, 5], 1),
    "width 1": ([5, 1, 7, 1, 3], 30),
    "no multiples": ([131, 77, 201, 13], 83),
    "one over": ([65, 129, 257, 17], 129),
    "100,000 features": ([100_000, 3, 2], 4),
    "10,000 classes": ([11, 17, 10_000], 19),
    "70,000 rows": ([3, 4, 2], 70_000),
    "larger than L2": ([900, 901, 10], 10),
    "larger than L3": ([3000, 3000, 4], 5),
}


def assert_same_step_and_prediction(units, rows, **settings):
    net = Network(units, seed=2, **settings)
    if len(net.intercepts_[0]) < 1000:
        with_biases(net)
    x, y = problem(units, rows=rows, dtype=net.dtype.name)
    expected = reference.forward((net.coefs_, net.intercepts_), x, spec_of(net))[-1]
    assert_close(net._predicted(x, "outputs"), expected, "step")
    np.testing.assert_array_equal(net.predict(x), net._predicted(x, "outputs").argmax(axis=1))
    np.testing.assert_allclose(net.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
    twin, start = Twin(net, "sgd"), parameters(net)
    for _ in range(2):
        net.train_step(x, y, optimizer="sgd", learning_rate=0.1)
        twin.train_step(x, y, learning_rate=0.1)
    if units[-1] > 1:  # a softmax over one class is certain: nothing moves
        assert_same(net, twin, start, "run")
        return
    assert net.history.loss == [0.0, 0.0]
    for own, before in zip(parameters(net), start, strict=True):
        np.testing.assert_array_equal(own, before)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    units, rows = SHAPES[name]
    assert_same_step_and_prediction(units, rows, dropout=0.5)


@pytest.mark.parametrize("name", [name for name, (units, _) in SHAPES.items() if max(units) < 500])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("threads", [1, 3])
def test_shapes_with_activations_that_have_no_zeros(name, activation, threads, dtype, simd):
    units, rows = SHAPES[name]
    settings = {"dropout": 0.5, "activation": activation, "dtype": dtype, "threads": threads}
    assert_same_step_and_prediction(units, min(rows, 150), **settings)


@pytest.mark.parametrize("columns", [65_535, 65_536, 65_537, 70_000])
def test_units_and_rows_beyond_16_bits_are_distinguished(columns):
    """One entry a row, in the last columns: only their weights move."""
    x = np.zeros((3, columns), "float32")
    x[range(3), [columns - 1, 65_000, 0]] = 1, 2, 3
    net = Network([columns, 2])
    before = net.coefs_[0]
    net.train_step(x, [0, 1, 0], optimizer="sgd", learning_rate=0.1)
    moved = np.flatnonzero((net.coefs_[0] != before).any(axis=1))
    np.testing.assert_array_equal(moved, [0, 65_000, columns - 1])


@pytest.mark.linux
@pytest.mark.parametrize("kind", ["float32", "float64", "sparse"])
def test_predicting_many_rows_takes_no_more_memory_than_few(kind):
    code = f"""
import resource
import numpy as np
from cdrop import Network
kind = {kind!r}
rows, columns = 100_000, 200
if kind == "sparse":
    import scipy.sparse as sp
    places = np.tile(np.arange(0, columns, 4, dtype="int32"), rows)
    x = sp.csr_array((np.ones(len(places), "f8"), places, np.arange(0, len(places) + 1, 50)), (rows, columns))
else:
    x = np.ones((rows, columns), kind)
net = Network([columns, 64, 10])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
net.predict(x[:30_000]), net.predict_proba(x[:30_000])
before = peak()
net.predict(x), net.predict_proba(x)
print(peak() - before)
"""
    process = run_python(code)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 100_000 * (8 + 40) + 10 * 2**20
