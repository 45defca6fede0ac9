"""Kinds of dropout: Gaussian and uniform noise, and masks that all rows of a minibatch share."""

import itertools
import pickle

import numpy as np
import pytest
from conftest import check_steps, check_uncertainty

import cdrop
from cdrop import DropoutMLPClassifier, Network, kernels, reference
from cdrop.rates import Early, Linear

KINDS = ("bernoulli", "gaussian", "uniform", "shared")
NOISES = ("gaussian", "uniform")
MIXED = [
    ("gaussian",) * 3,
    ("uniform",) * 3,
    ("shared",) * 3,
    ("bernoulli", "shared", "gaussian"),
    ("shared", "bernoulli", "shared"),
]


def data(rows=70, features=70, classes=5, dtype="float64"):
    draw = np.random.default_rng(0)
    X = np.maximum(draw.normal(size=(rows, features)), 0).astype(dtype)
    return X, draw.integers(0, classes, rows)


def network(kinds, units=(70, 90, 130, 5), dropout=(0.5, 0.3), **settings):
    arguments = {"input_dropout": 0.2, "seed": 4, "dtype": "float64"} | settings
    return Network(
        units,
        dropout=list(dropout),
        dropout_kind=list(kinds[1:]),
        input_dropout_kind=kinds[0],
        **arguments,
    )


def weights(net):
    return b"".join(array.tobytes() for array in (*net.coefs_, *net.intercepts_))


# ---- Noise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize(("dtype", "error"), [("float32", 6e-6), ("float64", 2e-15)])
@pytest.mark.parametrize("width", [0, 1, 15, 16, 17, 129, 1000])
def test_noise_equals_the_reference(kind, dtype, error, width):
    key = {"kind": kind, "seed": 3, "step": 5, "layer": 2, "purpose": 4}
    noise = kernels.dropout_noise(130, width, 0.3, dtype=dtype, **key)
    assert noise.shape == (130, width)
    assert noise.dtype == dtype
    assert (
        np.abs(noise - reference.dropout_noise(130, width, 0.3, dtype="float64", **key)).max(
            initial=0
        )
        < error
    )


@pytest.mark.parametrize("kind", NOISES)
def test_rows_of_noise_do_not_depend_on_the_call(kind):
    whole = kernels.dropout_noise(200, 77, 0.5, kind=kind, seed=1)
    part = kernels.dropout_noise(10, 77, 0.5, kind=kind, seed=1, first_row=128)
    np.testing.assert_array_equal(part, whole[128:138])


@pytest.mark.parametrize(
    ("kind", "kurtosis"), [("gaussian", 3.0), ("uniform", 1.8)], ids=["gaussian", "uniform"]
)
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_moments_of_noise(kind, kurtosis, keep):
    noise = kernels.dropout_noise(2000, 500, keep, kind=kind, dtype="float64", seed=7)
    z, n = (noise - 1) / np.sqrt((1 - keep) / keep), noise.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt((kurtosis - 1) / n)
    assert abs((z**4).mean() - kurtosis) < 0.05
    for axis in (0, 1):  # neighbors are independent
        shifted = (
            np.take(z, range(1, z.shape[axis]), axis),
            np.take(z, range(z.shape[axis] - 1), axis),
        )
        assert abs((shifted[0] * shifted[1]).mean()) < 4 / np.sqrt(n)
    # The two numbers of a pair come from one radius and one angle.
    pairs = z[:, :496].reshape(2000, 31, 2, 8)
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    assert abs((first * second).mean()) < 4 * np.sqrt(2 / n)
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) < 4 * (kurtosis - 1) * np.sqrt(2 / n)


def test_normal_noise_has_the_normal_distribution():
    z = np.sort(kernels.dropout_noise(1000, 1000, 0.5, dtype="float64", seed=2).ravel() - 1)
    edges = np.array([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
    expected = np.array([0.0013499, 0.0227501, 0.1586553, 0.3085375, 0.5])
    expected = np.concatenate([expected, 1 - expected[-2::-1]])
    found = np.searchsorted(z, edges) / len(z)
    assert (np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / len(z))).all()


def test_errors_of_noise():
    for name, value, expected in (
        ("kind", "bernoulli", "kind is 'bernoulli'; expected one of 'gaussian', 'uniform'"),
        ("keep", 0.0, "keep is 0.0; expected"),
        ("first_row", 3, "first_row is 3; expected a multiple of 64"),
        ("dtype", "int32", "dtype"),
    ):
        arguments = {"rows": 1, "width": 1, "keep": 0.5} | {name: value}
        with pytest.raises(ValueError, match=expected):
            kernels.dropout_noise(**arguments)


# ---- Training -------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", MIXED, ids=" ".join)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dropout", [(0.5, 0.3), (0.0, 0.5), (0.97, 0.97)], ids=str)
def test_steps_equal_those_of_the_reference(kinds, activation, dropout):
    X, y = data()
    net = network(kinds, dropout=dropout, activation=activation)
    spec = reference.NetworkSpec(
        net.units, list(dropout), 0.2, activation=activation, seed=4, kinds=kinds
    )
    params = check_steps(net, [spec] * 3, X, y, max_norms=(None, 2.0, None))
    check_uncertainty(net, spec, params, X)


@pytest.mark.parametrize("units", [(20, 30, 40, 3), (3, 1, 2, 1)], ids=str)
def test_steps_of_small_networks_equal_those_of_the_reference(units):
    """Whose layers are one block of 64 units, or less."""
    X, y = data(20, units[0], units[-1])
    kinds = ("bernoulli", "shared", "shared")
    net = network(kinds, units, input_dropout=0.0)
    spec = reference.NetworkSpec(units, [0.5, 0.3], seed=4, kinds=kinds)
    check_steps(net, [spec] * 3, X, y)


@pytest.mark.parametrize("input_dropout", [0.0, 0.2])
def test_a_layer_that_is_dropped_as_a_whole_after_steps_that_kept_units(input_dropout):
    X, y = data(30)
    kinds, last = ("bernoulli", "shared", "shared"), 1 - 2**-31
    falling = Linear(0.5, last, steps=1)
    net = network(kinds, dropout=(falling, falling), input_dropout=input_dropout)
    specs = [
        reference.NetworkSpec(net.units, [rate] * 2, input_dropout, seed=4, kinds=kinds)
        for rate in (0.5, last, last)
    ]
    check_steps(net, specs, X, y)


@pytest.mark.parametrize("kind", NOISES)
def test_gradients_under_fixed_noise_are_finite_differences(kind):
    """Of the step itself: plain SGD changes each weight by the learning rate times its gradient."""
    X, y = data(20, 6, 3)
    start = Network(
        [6, 7, 5, 3],
        dropout=0.4,
        input_dropout=0.3,
        dropout_kind=kind,
        input_dropout_kind=kind,
        activation="tanh",
        dtype="float64",
    )

    def loss(layer, place, change):
        coefs = start.coefs_
        coefs[layer][place] += change
        net = pickle.loads(pickle.dumps(start))
        net.set_weights(coefs, start.intercepts_)
        return net.train_step(X, y, optimizer="sgd", learning_rate=1e-12)

    stepped = pickle.loads(pickle.dumps(start))
    stepped.train_step(X, y, optimizer="sgd", learning_rate=1.0)
    for layer, place in ((0, (2, 3)), (1, (4, 1)), (2, (0, 2))):
        gradient = start.coefs_[layer][place] - stepped.coefs_[layer][place]
        slope = (loss(layer, place, 1e-6) - loss(layer, place, -1e-6)) / 2e-6
        assert gradient == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_shared_masks_and_a_background():
    """The rows' most common value is subtracted from the input, and its products are added once a step."""
    X, y = data(100)
    kinds = ("bernoulli", "shared", "shared")
    net = network(kinds, input_dropout=0.0)
    net.fit(X + 3, y, optimizer="sgd", learning_rate=0.01, batch_size=100, epochs=1, shuffle=False)
    assert (net.state_dict()["background"] == 3).all()
    spec = reference.NetworkSpec(net.units, [0.5, 0.3], 0.0, seed=4, kinds=kinds)
    params = reference.initial_weights(net.units, seed=4, dtype="float64")
    state = reference.initial_state(params, "sgd")
    reference.train_step(params, state, X + 3, y, spec, step=1, learning_rate=0.01)
    for ours, theirs in zip((*net.coefs_, *net.intercepts_), itertools.chain(*params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_shared_masks_give_the_bytes_of_equal_masks_for_all_rows():
    """Whatever runs on smaller matrices: the reference step is not compared to the bit, this is."""
    X, y = data(64, 70, 5, "float32")
    shared = network(("shared",) * 3, dtype="float32")
    row = X[:1], y[:1]
    single = network(
        ("bernoulli",) * 3, dtype="float32"
    )  # in batches of one row masks are the same
    for _ in range(5):
        assert shared.train_step(*row, l2=1e-3) == single.train_step(*row, l2=1e-3)
    assert weights(shared) == weights(single)


@pytest.mark.parametrize("dropout", [0.999, 0.9999999])
def test_steps_that_drop_whole_layers(dropout):
    X, y = data(30)
    net = network(("bernoulli", "shared", "shared"), dropout=(dropout, dropout), input_dropout=0)
    before = net.coefs_
    for _ in range(4):
        net.train_step(X, y, optimizer="momentum", l2=0.1)
    after = net.coefs_
    assert all(np.isfinite(w).all() for w in after)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))  # L2 shrinks them


@pytest.mark.parametrize("input_dropout", [0.2, 0.0])  # without it, a fit keeps lists of its rows
@pytest.mark.parametrize("kinds", MIXED, ids=" ".join)
def test_same_bytes_on_every_thread_count_and_from_sparse_input(kinds, input_dropout):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = data(150, dtype="float32")
    fits = []
    for threads, matrix in ((1, X), (2, X), (3, X), (2, sparse.csr_array(X))):
        net = network(kinds, dtype="float32", threads=threads, input_dropout=input_dropout)
        net.fit(matrix, y, iterations=6, batch_size=100, l2=1e-3)
        fits.append(weights(net) + net.predict_proba(matrix, mc_samples=3).tobytes())
    assert len(set(fits)) == 1


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_resumed_fit_gives_the_bytes_of_one_that_was_not_stopped(tmp_path, max_norm):
    pytest.importorskip("safetensors")
    X, y = data(150)
    kinds, rates = ("gaussian", "shared", "shared"), (Early(0.5, until=0.4, steps=10), 0.3)
    whole, part = (network(kinds, dropout=rates) for _ in range(2))
    settings = {"batch_size": 64, "l2": 1e-3, "max_norm": max_norm}
    whole.fit(X, y, iterations=10, **settings)
    part.fit(X, y, iterations=10, callbacks=[Stop(4)], **settings)
    part.save(tmp_path / "net")
    loaded = cdrop.load(tmp_path / "net")
    assert loaded.dropout_kind == ("shared", "shared")
    assert loaded.input_dropout_kind == "gaussian"
    for net in (part, loaded, pickle.loads(pickle.dumps(part))):
        assert net.history.iterations == 4
        net.fit(X, y, iterations=6, **settings)
        assert weights(net) == weights(whole)


class Stop(cdrop.callbacks.Callback):
    """Ends a fit after some steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_iteration(self, net, iteration, loss):
        return iteration >= self.steps


def test_weights_set_between_steps_are_used():
    """A step with shared masks has copied the weights of the next one."""
    X, y = data(64)
    first, second = (network(("shared",) * 3) for _ in range(2))
    first.train_step(X, y)
    second.train_step(X, y)
    coefs = [np.full_like(w, 0.01) for w in first.coefs_]
    for net in (first, second):
        net.set_weights(coefs, net.intercepts_)
    copy = pickle.loads(pickle.dumps(second))
    assert first.train_step(X, y) == copy.train_step(X, y)
    assert weights(first) == weights(copy)


def test_rates_that_change_change_the_shared_units():
    X, y = data(64)
    kinds = ("bernoulli", "shared", "shared")
    changing = network(kinds, dropout=(Linear(0.2, 0.6, steps=4), 0.5), input_dropout=0)
    copied = network(kinds, dropout=(Linear(0.2, 0.6, steps=4), 0.5), input_dropout=0)
    for _ in range(4):
        changing.train_step(X, y)
        copied = pickle.loads(pickle.dumps(copied))  # which has copied nothing for its next step
        copied.train_step(X, y)
        assert weights(changing) == weights(copied)


def test_a_step_that_is_refused_leaves_the_next_one_as_it_was():
    X, y = data(64)
    net, other = (network(("shared",) * 3) for _ in range(2))
    for one in (net, other):
        one.train_step(X, y)
    with pytest.raises(FloatingPointError):
        net.train_step(np.full_like(X, 1e308), y)
    assert net.train_step(X, y) == other.train_step(X, y)
    assert weights(net) == weights(other)


# ---- The arguments --------------------------------------------------------------------------


def test_kinds_are_shown_saved_and_fixed():
    net = Network([4, 8, 8, 2], dropout=0.5, dropout_kind="gaussian")
    assert repr(net) == "Network([4, 8, 8, 2], dropout=0.5, dropout_kind='gaussian')"
    assert "dropout_kind" not in repr(Network([4, 8, 2], dropout=0.5))
    assert "dropout_kind" not in Network([4, 8, 2]).state_dict()["settings"]
    assert Network([4, 8, 8, 2], dropout_kind=["shared", "uniform"]).dropout_kind == (
        "shared",
        "uniform",
    )
    with pytest.raises(AttributeError, match="dropout_kind of a network cannot be changed"):
        net.dropout_kind = "uniform"
    plain = Network([4, 8, 8, 2], dropout=0.5)
    plain.load_state_dict(net.state_dict())
    assert plain.dropout_kind == ("bernoulli", "bernoulli")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dropout_kind": "normal"}, "dropout_kind is 'normal'; expected one of 'bernoulli', 'gau"),
        (
            {"dropout_kind": ["shared"]},
            "dropout_kind has 1 entries; expected 2, one for each hidden",
        ),
        ({"dropout_kind": ["shared", 3]}, r"dropout_kind\[1\] is 3; expected one of"),
        ({"dropout_kind": None}, "dropout_kind is None; expected one of"),
        (
            {"input_dropout_kind": ["shared"]},
            r"input_dropout_kind is \['shared'\]; expected one of",
        ),
    ],
    ids=str,
)
def test_invalid_kinds(settings, expected):
    with pytest.raises(ValueError, match=expected):
        Network([4, 8, 8, 2], **settings)
    with pytest.raises(ValueError, match=expected):
        DropoutMLPClassifier((8, 8), **settings).fit(*data(20, 4, 2))


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_no_subnetworks_and_no_scale_in_prediction(kind):
    X, _ = data(5, 4)
    net = Network([4, 8, 2], dropout=0.5, dropout_kind=kind, scaling="test", seed=1)
    with pytest.raises(ValueError, match=f"{kind} noise, which drops none; expected dropout_kind"):
        net.subnetworks(3)
    np.testing.assert_array_equal(net.predict_proba(X), Network([4, 8, 2], seed=1).predict_proba(X))
    dropped = Network([4, 8, 2], dropout=0.5, dropout_kind="shared", scaling="test", seed=1)
    assert (dropped.predict_proba(X) != net.predict_proba(X)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_estimators_take_kinds(kind):
    X, y = data(100, 4, 2)
    model = DropoutMLPClassifier(
        (16,), dropout=0.3, dropout_kind=kind, input_dropout=0.1, input_dropout_kind=kind,
        max_iter=3, random_state=0, warm_start=True,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="did not converge|Maximum iterations"):
        model.fit(X, y)
    assert model.network_.dropout_kind == (kind,)
    assert model.network_.input_dropout_kind == kind
    model.set_params(dropout_kind="uniform", max_iter=5)
    with pytest.warns(UserWarning, match="did not converge|Maximum iterations"):
        model.fit(X, y)
    assert model.network_.dropout_kind == ("uniform",)
    assert model.network_.history.iterations > 5
