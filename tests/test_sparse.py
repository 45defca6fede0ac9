"""Sparse input trains and predicts as dense input does, to the bit, and is checked as strictly."""

import copy
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import LOSSES, digest, problem, run_python

from cdrop import Network
from cdrop.callbacks import Callback
from cdrop.experiments import paired_experiment

FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")


def sparse(x, zeros=0.3, seed=0):
    """CSR that stores some of the zeros, too."""
    stored = (x != 0) | (np.random.default_rng(seed).random(x.shape) < zeros)
    rows, columns = np.nonzero(stored)
    csr = sp.csr_array((x[rows, columns], (rows, columns)), x.shape)
    assert csr.nnz == stored.sum()
    return csr


def data(units, rows=90, share=0.2, seed=0, dtype="float32", loss="softmax_cross_entropy"):
    x, y = problem(units, loss, rows, seed, dtype)
    x[np.random.default_rng(seed).random(x.shape) > share] = 0
    x[rows // 3 : rows // 3 + 3] = 0
    return x, y


def trained(x, y, units, *, background=False, **settings):
    net = Network([x.shape[1], *units], dropout=0.4, seed=5, **settings)
    if not background:
        net._set_background(None)  # decided: none, as for sparse input
    net.fit(x, y, l2=1e-3, batch_size=32, iterations=7)
    net.fit(x, y, np.arange(x.shape[0]) % 3 + 0.5, batch_size=40, epochs=1)
    net.train_step(x, y)
    return net


def assert_same_training(x, y, units, **settings):
    csr = sparse(x)
    dense, from_csr = (trained(a, y, units, **settings) for a in (x, csr))
    assert digest(dense) == digest(from_csr)
    for predict in (dense.predict, dense.predict_proba):
        np.testing.assert_array_equal(predict(csr), predict(x), strict=True)
    assert dense.score(csr, y) == dense.score(x, y)
    return digest(dense)


# ---- The same bits -------------------------------------------------------------------------


@pytest.mark.parametrize("input_dropout", [0.0, 0.3])
@pytest.mark.parametrize("n_in", [1, 63, 64, 65, 300])
def test_sparse_training_is_dense_training(n_in, input_dropout, dtype, simd):
    x, y = data([n_in, 3], dtype=dtype)
    digests = {
        assert_same_training(
            x, y, [33, 3], input_dropout=input_dropout, dtype=dtype, threads=threads
        )
        for threads in (1, 2, 3)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0], ids=["empty", "a few entries", "full"])
@pytest.mark.parametrize("scaling", ["train", "test"])
def test_however_full_it_is(share, scaling, dtype):
    x, y = data([130, 3], share=share, dtype=dtype)
    assert_same_training(x, y, [20, 3], input_dropout=0.2, scaling=scaling, dtype=dtype)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_every_loss(loss):
    x, y = data([40, 3], loss=loss)
    csr = sparse(x)
    dense, from_csr = (trained(a, y, [8, 3], loss=loss) for a in (x, csr))
    assert digest(dense) == digest(from_csr)
    assert dense.score(csr, y) == dense.score(x, y)


def test_70_000_rows_and_columns(simd):
    n, rng = 70_000, np.random.default_rng(0)
    columns = np.sort(rng.choice(n, (n, 3)), axis=1)
    columns[[n - 1, 65_536], :] = [[3, 65_535, n - 1], [65_535, 65_536, 65_537]]
    indptr, entries = np.arange(0, 3 * n + 1, 3), rng.random(3 * n, "float32")
    x, y = sp.csr_array((entries, columns.ravel(), indptr), (n, n)), rng.integers(0, 2, n)
    net, dense = (Network([n, 2], input_dropout=0.1, seed=1) for _ in range(2))
    net.fit(x, y, batch_size=50, iterations=2)
    last = [n - 1, 65_535, 65_536, 3]
    dense.load_state_dict(net.state_dict())
    net.train_step(x[last], y[last])
    dense.train_step(x[last].toarray(), y[last])
    assert digest(net) == digest(dense)
    outputs = x @ net.coefs_[0] + net.intercepts_[0]
    ratio = np.exp(outputs[:, 1] - outputs[:, 0])
    np.testing.assert_allclose(net.predict_proba(x)[:, 1], ratio / (1 + ratio), rtol=1e-5)


def test_entries_that_are_flushed_are_zeros_in_both_forms():
    x, y = data([20, 3], share=0.5)
    x[::2] *= np.float32(1e-41)  # denormal
    assert_same_training(x, y, [8, 3])


@pytest.mark.parametrize("rows", [0, 1, 20_000])
def test_prediction_in_pieces(rows):
    net = Network([1000, 3])
    x = sp.random_array((rows, 1000), density=0.01, rng=np.random.default_rng(0), dtype=np.float32)
    np.testing.assert_array_equal(net.predict_proba(x), net.predict_proba(x.toarray()))
    np.testing.assert_array_equal(net.predict(x), net.predict(x.toarray()))


# ---- What is taken -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("container", ["array", "matrix"])
def test_every_format_of_scipy(kind, container):
    x, y = data([12, 3])
    matrix = getattr(sp, f"{kind}_{container}")(x)
    assert digest(trained(matrix, y, [8, 3])) == digest(trained(x, y, [8, 3]))


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", ["bool", "i1", "u8", "f4", "f8"])
def test_every_dtype_of_entries_and_indices(kind, index):
    x, y = data([12, 3])
    x = (4 * x).astype("i1").clip(0).astype(kind)
    csr = sp.csr_array(x)
    csr.indices, csr.indptr = csr.indices.astype(index), csr.indptr.astype(index)
    assert digest(trained(csr, y, [8, 3])) == digest(trained(x, y, [8, 3]))


def unsorted_with_duplicates(x):
    csr = sp.csr_array(x)
    indptr, indices, entries = [0], [], []
    for row in range(len(x)):
        part = slice(csr.indptr[row], csr.indptr[row + 1])
        columns, values = csr.indices[part][::-1], csr.data[part][::-1]
        indices += [*columns, *columns]
        entries += [*(values / 4), *(values * 0.75)]
        indptr.append(len(indices))
    spare = [0, 0]  # room that no row uses
    return sp.csr_array(
        (np.array([*entries, np.nan, np.nan], x.dtype), [*indices, *spare], indptr), x.shape
    )


def test_order_and_duplicates_do_not_matter_and_stay():
    x, y = data([12, 3], dtype="float64")
    csr = unsorted_with_duplicates(x)
    before = copy.deepcopy((csr.data, csr.indices, csr.indptr))
    assert digest(trained(csr, y, [8, 3])) == digest(trained(x, y, [8, 3]))
    np.testing.assert_equal((csr.data, csr.indices, csr.indptr), before)


def test_read_only_arrays():
    x, y = data([12, 3])
    csr = sparse(x)
    for array in (csr.data, csr.indices, csr.indptr):
        array.flags.writeable = False
    assert digest(trained(csr, y, [8, 3])) == digest(trained(x, y, [8, 3]))


def test_a_matrix_changed_while_it_trains_does_no_harm():
    x, y = data([12, 3])
    csr = sparse(x)

    class Vandal(Callback):
        def on_fit_begin(self, net, total):
            csr.indices[:] = 2**31 - 1
            csr.indptr[:] = 2**31 - 1

    net, other = Network([12, 3]), Network([12, 3])
    net.fit(csr, y, iterations=5, callbacks=[Vandal()])
    other._set_background(None)
    other.fit(x, y, iterations=5)
    assert digest(net) == digest(other)


def test_scipy_is_never_imported():
    code = "import sys, cdrop; assert not any('scipy' in name for name in sys.modules)"
    assert "scipy" in sys.modules
    assert run_python(code).returncode == 0


# ---- Backgrounds ---------------------------------------------------------------------------


def test_sparse_input_has_no_background_and_finds_none():
    x, y = data([12, 3], share=1.0)
    ones = np.where(x > 1, 2, 1).astype("float32")
    net = trained(sp.csr_array(ones), y, [8, 3], background=True)
    assert not net._background.any()
    assert trained(ones, y, [8, 3], background=True)._background.any()


def test_a_network_with_a_background_takes_sparse_input():
    ones = np.where(data([12, 3], share=1.0)[0] > 1, 2, 1).astype("float32")
    y = data([12, 3])[1]
    net = trained(ones, y, [8, 3], background=True)
    np.testing.assert_allclose(
        net.predict_proba(sp.csr_array(ones)), net.predict_proba(ones), atol=1e-6
    )
    other = copy.deepcopy(net)
    net.train_step(ones, y)
    other.train_step(sp.csr_array(ones), y)
    for a, b in zip(net.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# ---- What is not ---------------------------------------------------------------------------


def broken(**parts):
    csr = sp.csr_array(np.eye(4, 3))
    for name, value in parts.items():
        csr.__dict__[name] = np.asarray(value)
    return csr


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (sp.csr_array((4, 5)), ValueError, r"X has shape \(4, 5\); expected \(rows, 3\)"),
        (sp.coo_array(np.ones(3)), ValueError, r"X has shape \(3,\); expected \(rows, 3\)"),
        (sp.csr_array(np.eye(4, 3) * 1j), TypeError, "X has dtype complex128"),
        (sp.csr_array(([1.0, np.nan], [0, 2], [0, 1, 1, 1, 2]), (4, 3)), ValueError, r"X\[3, 2\]"),
        (sp.csr_array(([np.inf], [1], [0, 0, 1, 1, 1]), (4, 3)), ValueError, r"X\[1, 1\] is inf"),
        (sp.csr_array(np.eye(4, 3) * 1e39), ValueError, r"X\[0, 0\] is inf"),
        (broken(indices=[0, 1, 3]), ValueError, "X has column indices from 0 to 3"),
        (broken(indices=[0, -1, 2]), ValueError, "X has column indices from -1 to 2"),
        (broken(indices=[0.0, 1.0, 2.0]), TypeError, "X has indices of float64"),
        (broken(indptr=[0, 1, 2, 3, 4]), ValueError, "X has an indptr"),
        (broken(indptr=[1, 1, 2, 3, 3]), ValueError, "X has an indptr"),
        (broken(indptr=[0, 2, 1, 3, 3]), ValueError, "X has an indptr"),
        (broken(indptr=[0, 1, 2, 3]), ValueError, "X has an indptr"),
        (broken(data=[1.0, 2.0]), ValueError, "X has an indptr"),
    ],
)
def test_errors_name_the_argument_and_change_nothing(matrix, error, message):
    net = Network([3, 2])
    before = digest(net)
    for call in (net.fit, net.train_step, net.score):
        with pytest.raises(error, match=message):
            call(matrix, np.zeros(4, int))
    for call in (net.predict, net.predict_proba):
        with pytest.raises(error, match=message):
            call(matrix)
    assert digest(net) == before


def test_errors_in_a_later_piece_name_the_row(monkeypatch):
    monkeypatch.setattr("cdrop.network._PIECE", 300)
    x = np.zeros((1000, 3))
    x[700, 1] = np.nan
    for matrix in (x, sp.csr_array(x)):
        with pytest.raises(ValueError, match=r"X\[700, 1\] is nan"):
            Network([3, 2]).predict(matrix)


def test_no_rows():
    with pytest.raises(ValueError, match="X has 0 rows"):
        Network([3, 2]).fit(sp.csr_array((0, 3)), [])


# ---- Matrices that do not fit themselves -------------------------------------------------------


def torn(format, **parts):
    """A matrix of 6 rows and 4 columns in a format, with some of its parts exchanged."""
    made = sp.coo_array(np.arange(24.0).reshape(6, 4) % 5).asformat(format)
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def torn_lists():
    made = torn("lil")
    made.data[2] = [*made.data[2], 7.0] * 1000
    return made


FAR = np.int32(2**30)
TORN = {
    "csc, row": torn("csc", indices=torn("csc").indices + FAR),
    "csc, negative": torn("csc", indices=torn("csc").indices - FAR),
    "csc, indptr": torn("csc", indptr=torn("csc").indptr * FAR),
    "csr, indptr": torn("csr", indptr=torn("csr").indptr * 1000),
    "csr, column": torn("csr", indices=torn("csr").indices + FAR),
    "bsr, block": torn("bsr", indices=torn("bsr").indices + FAR),
    "bsr, shape": torn("bsr", data=np.ones((len(torn("bsr").data), 4, 3))),
    "bsr, indptr": torn("bsr", indptr=torn("bsr").indptr + 9),
    "coo, row": torn("coo", row=torn("coo").row + FAR),
    "coo, column": torn("coo", col=torn("coo").col - FAR),
    "coo, length": torn("coo", col=torn("coo").col[:3]),
    "dia, offsets": torn("dia", offsets=np.arange(1000, dtype=np.int32)),
    "lil, lengths": torn_lists(),
}


@pytest.mark.parametrize("name", TORN)
def test_a_matrix_is_checked_before_scipy_converts_it(name):
    """Each of them made SciPy read or write out of bounds."""
    y = [0, 1, 0, 1, 0, 1]
    net = Network([4, 3, 2])
    for call in (
        lambda: net.fit(TORN[name], y, epochs=1),
        lambda: net.predict(TORN[name]),
        lambda: paired_experiment({"a": {"iterations": 1}}, TORN[name], y, repeats=1),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^X has .*; expected "):
            call()
    assert net.history.iterations == 0
