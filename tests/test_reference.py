"""The NumPy twin against published outputs, plain loops, finite differences, and PyTorch's runs."""

import doctest
import importlib
import itertools
import json
import math
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import LOSSES, UPDATES
from hypothesis import given, settings
from hypothesis import strategies as st

from cdrop import reference as ref

DATA = Path(__file__).with_name("data")
sys.path.append(str(DATA))
make_masks = importlib.import_module("make_masks")
torch_cases = importlib.import_module("torch_cases")
IMPLEMENTATIONS = importlib.import_module("implementations").IMPLEMENTATIONS
GOLDEN = json.loads((DATA / "masks.json").read_text())
TORCH = np.load(DATA / "torch_steps.npz")

DTYPES = ["float32", "float64"]
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
SHAPES = [(0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1), (3, 65, 2), (5, 130, 7)]

# First outputs for state {1, 2, 3, 4} and seed 1234567, as other implementations publish them.
XOSHIRO = [
    *(41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205),
    *(9973669472204895162, 14011001112246962877, 12406186145184390807),
    *(15849039046786891736, 10450023813501588000),
]
SPLITMIX = [
    *(6457827717110365317, 3203168211198807973, 9817491932198370423),
    *(4593380528125082431, 16408922859458223821),
]


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- The generator -------------------------------------------------------------------------


def test_xoshiro_gives_the_published_outputs():
    state = np.array([[1], [2], [3], [4]], np.uint64)
    assert [int(ref._draw(state)[0]) for _ in XOSHIRO] == XOSHIRO
    assert list(itertools.islice(make_masks.xoshiro256pp([1, 2, 3, 4]), 10)) == XOSHIRO


def test_mix_gives_the_published_outputs_of_splitmix64():
    states = 1234567 + ref._GOLDEN * np.arange(1, 6, dtype=np.uint64)
    assert ref._mix(states).tolist() == SPLITMIX
    assert list(itertools.islice(make_masks.splitmix64(1234567), 5)) == SPLITMIX


@pytest.mark.parametrize("record", GOLDEN["streams"], ids=lambda r: str(r["key"]["seed"]))
def test_recorded_streams(record):
    words = ref.random_words(record["n"], **record["key"])
    assert [f"{w:x}" for w in words[:10]] == record["first"]
    assert make_masks.sha256(words.tolist()) == record["sha256"]
    expected = [float.fromhex(x) for x in record["normals"]]
    np.testing.assert_allclose(ref.random_normal(9, **record["key"]), expected, rtol=1e-14)


def test_every_bit_of_the_key_gives_other_words():
    bits = {"seed": 64, "step": 64, "purpose": 32, "layer": 32, "block": 61}
    keys = [{name: 1 << bit} for name, count in bits.items() for bit in range(count)]
    words = [ref.random_words(8, **{"purpose": 0, **key}) for key in keys]
    assert len(set(np.concatenate(words).tolist())) == 8 * len(keys)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_streams_are_prefixes_of_longer_ones(n):
    key = {"seed": 5, "step": 2, "block": 3}
    assert ref.random_words(n, **key).tolist() == ref.random_words(200, **key)[:n].tolist()
    assert ref.random_normal(n, **key).tolist() == ref.random_normal(200, **key)[:n].tolist()


def test_normals_have_the_moments_of_a_normal():
    n = 200_000
    x = ref.random_normal(n, seed=3)
    moments = [np.mean(x**k) for k in range(1, 5)]
    # The variance of x**k is E x**2k - (E x**k)**2, with E x**2k = 1, 3, 15, 105.
    spread = np.sqrt(np.array([1, 2, 15, 96]) / n)
    assert np.all(np.abs((np.array(moments) - [0, 1, 0, 3]) / spread) < 4)
    assert abs(np.mean(x[:-1] * x[1:])) * math.sqrt(n) < 4


# ---- Masks ---------------------------------------------------------------------------------


def test_recorded_masks():
    for record in GOLDEN["masks"]:
        key = {name: record[name] for name in ("seed", "step", "layer", "purpose")}
        mask = ref.bernoulli_mask(record["rows"], record["width"], record["keep"], **key)
        assert [f"{w:x}" for w in mask.ravel()[:2]] == record["first"], record
        assert make_masks.sha256(mask.ravel().tolist()) == record["sha256"], record


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 140),
    width=st.integers(0, 140),
    keep=st.floats(0, 1) | st.integers(0, 2**32).map(lambda k: k / 2**32),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**64 - 1),
    layer=st.integers(0, 2**32 - 1),
)
def test_masks_follow_their_definition(rows, width, keep, seed, step, layer):
    key = {"seed": seed, "step": step, "layer": layer}
    mask = ref.bernoulli_mask(rows, width, keep, **key)
    assert mask.shape == (rows, -(-width // 64))
    assert mask.dtype == np.uint64
    assert mask.ravel().tolist() == make_masks.mask_words(rows, width, keep, **key)


@pytest.mark.parametrize("keep", [0.3, 0.5])
@pytest.mark.parametrize("width", [1, 64, 65, 200])
def test_rows_do_not_depend_on_how_many_are_drawn(width, keep):
    whole = ref.bernoulli_mask(200, width, keep, seed=1, step=2, layer=3)
    for rows in (0, 1, 63, 64, 65, 128, 129):
        part = ref.bernoulli_mask(rows, width, keep, seed=1, step=2, layer=3)
        np.testing.assert_array_equal(part, whole[:rows])


@pytest.mark.parametrize("keep", [2.0**-20, 0.1, 0.5, 0.8, 1 - 2.0**-20])
def test_units_are_kept_at_the_drawn_rate(keep):
    rows, width = 4096, 512
    bits = ref.unpack_mask(ref.bernoulli_mask(rows, width, keep, seed=11, step=1), width)
    p = ref.drawn_keep(keep)

    def z(kept, n):
        return np.max(np.abs(kept - n * p) / math.sqrt(n * p * (1 - p)))

    assert z(bits.sum(), bits.size) < 4
    if 0.01 < p < 0.99:
        lanes = bits.reshape(rows, 8, 64)  # 8 words a row: word w is drawn by lane w
        assert z(lanes.sum(axis=(0, 2)), rows * 64) < 4.5
        assert z(lanes.sum(axis=(0, 1)), rows * 8) < 4.5
        assert z(bits.reshape(-1, 64, width).sum(axis=(1, 2)), 64 * width) < 4.5


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 2}, {"layer": 2}, "block"])
def test_masks_of_different_keys_are_independent(other):
    def units(**key):
        return ref.unpack_mask(ref.bernoulli_mask(1024, 512, 0.5, **key), 512)

    key = {"seed": 1, "step": 1, "layer": 1}
    one = units(**key)
    two = np.roll(one, 64, axis=0) if other == "block" else units(**{**key, **other})
    assert abs(np.sum(one == two) - one.size / 2) / math.sqrt(one.size / 4) < 4


def test_rates_are_rounded_to_32_bits():
    ulp = 2.0**-32
    rates = [0.5 * ulp, 0.6 * ulp, 1.5 * ulp, 2.5 * ulp, 1 - 0.5 * ulp, 1 - 0.6 * ulp]
    assert [ref.drawn_keep(p) / ulp for p in rates] == [0, 1, 2, 2, 2**32, 2**32 - 1]
    assert not ref.bernoulli_mask(3, 70, 0.5 * ulp).any()
    assert ref.unpack_mask(ref.bernoulli_mask(3, 70, 1 - 0.5 * ulp), 70).all()


def test_bit_j_of_word_w_is_unit_64_w_plus_j():
    units = np.zeros((2, 130), bool)
    units[0, [0, 63, 64]] = units[1, [1, 129]] = True
    words = [[1 << 63 | 1, 1, 0], [2, 0, 2]]
    assert ref.pack_mask(units).tolist() == words
    np.testing.assert_array_equal(ref.unpack_mask(np.array(words, np.uint64), 130), units)


@pytest.mark.parametrize("width", [0, 1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_pack_and_unpack_are_inverse(rows, width):
    units = rng().random((rows, width)) < 0.5
    mask = ref.pack_mask(units)
    assert mask.shape == (rows, -(-width // 64))
    np.testing.assert_array_equal(ref.unpack_mask(mask, width), units)
    full = np.full_like(mask, 2**64 - 1)  # what stands in the padding is nobody's unit
    assert ref.unpack_mask(full, width).all()


# ---- Kernels -------------------------------------------------------------------------------


def scalar_activation(name, z):
    return {
        "identity": z,
        "relu": max(z, 0.0),
        "leaky_relu": z if z > 0 else 0.01 * z,
        "tanh": math.tanh(z),
        "sigmoid": 1 / (1 + math.exp(-z)),
    }[name]


def scalar_slope(name, h):
    return {
        "identity": 1.0,
        "relu": float(h > 0),
        "leaky_relu": 1.0 if h > 0 else 0.01,
        "tanh": 1 - h**2,
        "sigmoid": h * (1 - h),
    }[name]


def layer_case(shape, dtype):
    rows, n_in, n_out = shape
    draw = rng(rows + n_in)
    x, weight = draw.standard_normal((rows, n_in)), draw.standard_normal((n_in, n_out))
    bias, dout = draw.standard_normal(n_out), draw.standard_normal((rows, n_out))
    kept = draw.random((rows, n_in)) < 0.6
    x[draw.random((rows, n_in)) < 0.2] = 0.0
    return kept, *(a.astype(dtype) for a in (x, weight, bias, dout))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_masked_gemm_is_the_plain_sum(activation, shape, dtype):
    kept, x, weight, bias, _ = layer_case(shape, dtype)
    expected = np.zeros((shape[0], shape[2]))
    for r, o in itertools.product(range(shape[0]), range(shape[2])):
        live = [i for i in range(shape[1]) if kept[r, i]]
        total = math.fsum(float(x[r, i]) * 1.25 * float(weight[i, o]) for i in live)
        expected[r, o] = scalar_activation(activation, total + float(bias[o]))
    mask = ref.pack_mask(kept)
    out = ref.masked_gemm(x, weight, bias, mask=mask, scale=1.25, activation=activation)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected, rtol=0, atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_masked_gradients_are_the_plain_sums(activation, shape, dtype):
    kept, x, weight, _, dout = layer_case(shape, dtype)
    rows, n_in, n_out = shape
    mask = ref.pack_mask(kept)
    got = ref.masked_gradients(dout, x, weight, mask=mask, scale=1.25, activation=activation)
    dinput, dweight, dbias = np.zeros((rows, n_in)), np.zeros((n_in, n_out)), np.zeros(n_out)
    for r, o in itertools.product(range(rows), range(n_out)):
        dbias[o] += dout[r, o]
        for i in np.flatnonzero(kept[r]):
            slope = scalar_slope(activation, float(x[r, i]))
            dinput[r, i] += float(dout[r, o]) * float(weight[i, o]) * 1.25 * slope
            dweight[i, o] += float(x[r, i]) * 1.25 * float(dout[r, o])
    for a, b in zip(got, (dinput, dweight, dbias), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=20 * TOLERANCE[dtype])


def test_without_mask_and_bias_the_layer_is_plain():
    x, weight = rng().standard_normal((4, 3)), rng(1).standard_normal((3, 2))
    np.testing.assert_array_equal(ref.masked_gemm(x, weight), x @ weight)
    full = ref.bernoulli_mask(4, 3, 1.0)
    np.testing.assert_array_equal(ref.masked_gemm(x, weight, mask=full), x @ weight)
    empty = ref.bernoulli_mask(4, 3, 0.0)
    assert not ref.masked_gemm(x, weight, mask=empty).any()


def test_a_dropped_nan_is_gone_and_a_live_one_stays():
    x, weight = np.array([[np.nan, 1.0], [np.nan, 1.0]]), np.ones((2, 1))
    mask = ref.pack_mask([[False, True], [True, True]])
    out = ref.masked_gemm(x, weight, mask=mask, activation="relu")
    assert out[0, 0] == 1.0
    assert np.isnan(out[1, 0])
    dout = np.ones((2, 1))
    dinput, dweight, _ = ref.masked_gradients(dout, x, weight, mask=mask, activation="relu")
    assert dinput.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert np.isnan(dweight[0, 0])


# ---- Losses --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_of_plain_numbers(dtype):
    z = np.array([[0.5, -1.0, 2.0], [0.0, 0.25, -3.0]], dtype)
    t = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.25]], dtype)
    w = np.array([1.0, 3.0], dtype)
    softmax = [
        math.log(sum(math.exp(v - row[k]) for v in row)) for row, k in zip(z, (2, 0), strict=True)
    ]
    s = 1 / (1 + np.exp(-z.astype(float)))
    sigmoid = -(t * np.log(s) + (1 - t) * np.log(1 - s)).sum(axis=1)
    square = 0.5 * ((z - t).astype(float) ** 2).sum(axis=1)
    for rows, args, loss in (
        (softmax, (z, np.array([2, 0])), ref.softmax_cross_entropy),
        (sigmoid, (z, t), ref.sigmoid_cross_entropy),
        (square, (z, t), ref.squared_error),
    ):
        assert loss(*args)[0] == pytest.approx((rows[0] + rows[1]) / 2, rel=TOLERANCE[dtype])
        value, gradient = loss(*args, w)
        assert type(value) is float
        assert value == pytest.approx((rows[0] + 3 * rows[1]) / 4, rel=TOLERANCE[dtype])
        assert gradient.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_are_stable_for_logits_of_any_size(dtype):
    z = np.array([[1e4, -1e4], [1e4, -1e4], [-1e30, 1e30]], dtype)
    loss, gradient = ref.softmax_cross_entropy(z[:2], [0, 1])
    assert loss == 1e4  # rows 0 and 2e4
    assert gradient.tolist() == [[0.0, 0.0], [0.5, -0.5]]
    assert ref.softmax_cross_entropy(z[2:], [1])[0] == 0.0
    loss, gradient = ref.sigmoid_cross_entropy(z[:2], np.array([[1, 0], [0, 0.5]], dtype))
    assert loss == pytest.approx(0.5 * (1e4 + 5e3), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0], [0.5, -0.25]], atol=0)
    tiny = ref.sigmoid_cross_entropy(np.array([[-40.0]], dtype), np.zeros((1, 1), dtype))
    np.testing.assert_allclose([tiny[0], tiny[1][0, 0]], math.exp(-40), rtol=1e-6)


@pytest.mark.parametrize("name", ref.LOSSES)
def test_a_row_of_weight_two_counts_as_two_rows(name):
    z = rng().standard_normal((3, 4))
    y = np.array([0, 3, 1]) if name == "softmax_cross_entropy" else rng(1).random((3, 4))
    twice = [0, 1, 1]
    loss, gradient = ref.LOSSES[name](z, y, np.array([1.0, 2.0, 0.0]))
    same, rows = ref.LOSSES[name](z[twice], y[twice])
    assert loss == pytest.approx(same, rel=1e-14)
    expected = [rows[0], rows[1] + rows[2], np.zeros(4)]
    np.testing.assert_allclose(gradient, expected, rtol=1e-14)


# ---- Updates -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("optimizer", "hyper", "first", "second"), UPDATES, ids=str)
def test_updates_by_hand(optimizer, hyper, first, second, dtype):
    slots, names = ref.OPTIMIZERS[optimizer][1:]
    hyper = {**hyper, "epsilon": 1e-30} if "epsilon" in names else hyper
    weight = np.ones((2, 1), dtype)
    state = [np.zeros_like(weight) for _ in range(slots)]
    for step, (g, expected) in enumerate([(0.5, first), (-0.25, second)], 1):
        gradient = np.array([[g], [-g]], dtype)
        rule = {"optimizer": optimizer, "learning_rate": 0.1, "step": step}
        ref.update(weight, gradient, state, **rule, **hyper)
        assert weight[0, 0] == pytest.approx(expected, rel=TOLERANCE[dtype])
    assert weight.dtype == dtype


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("adagrad", 0.5), ("rmsprop", 1 / (math.sqrt(0.1) + 1)), ("adam", 0.5), ("adamw", 0.5)],
)
def test_epsilon_is_added_to_the_root(optimizer, expected):
    weight, slots = np.zeros(1), ref.OPTIMIZERS[optimizer][1]
    state = [np.zeros(1) for _ in range(slots)]
    ref.update(weight, np.full(1, 1e-8), state, optimizer=optimizer, learning_rate=1.0)
    assert -weight[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("optimizer", [name for name in ref.OPTIMIZERS if name != "adamw"])
def test_l2_adds_to_the_gradient(optimizer):
    start, gradient = rng().standard_normal((2, 3, 4))
    results = []
    for g, l2 in ((gradient, 0.25), (gradient + 0.25 * start, 0.0)):
        weight = start.copy()
        state = [np.zeros_like(weight) for _ in range(ref.OPTIMIZERS[optimizer][1])]
        ref.update(weight, g, state, optimizer=optimizer, learning_rate=0.1, l2=l2)
        results.append([weight, *state])
    np.testing.assert_array_equal(results[0], results[1])


# ---- A training step -----------------------------------------------------------------------


def small_net(activation, loss, scaling, seed=0):
    spec = ref.NetworkSpec(
        (5, 4, 3, 3), [0.5, 0.25], 0.2, activation=activation, loss=loss, scaling=scaling
    )
    draw = rng(seed)
    weights = [draw.standard_normal(shape) for shape in itertools.pairwise(spec.sizes)]
    biases = [draw.standard_normal(n) for n in spec.sizes[1:]]
    x = draw.standard_normal((6, 5))
    y = draw.integers(0, 3, 6) if loss == "softmax_cross_entropy" else draw.random((6, 3))
    masks = [ref.pack_mask(draw.random((6, n)) < 0.6) for n in spec.sizes[:-1]]
    batch = {"masks": masks, "sample_weight": draw.random(6) + 0.5, "l2": 0.1}
    return spec, (weights, biases), (x, y), batch


def step_on_copies(spec, params, data, batch, learning_rate=0.0):
    params = tuple([a.copy() for a in part] for part in params)
    state = ref.initial_state(params, "sgd")
    loss = ref.train_step(params, state, *data, spec, step=1, learning_rate=learning_rate, **batch)
    return loss, params


def live_preactivations(spec, params, x, masks):
    """Return what the kinks of a ReLU see, for units whose value the loss can depend on."""
    outputs = [*ref.forward(params, x, spec, masks=masks)[1:-1]]
    scales = spec.scales(training=True)
    for layer in range(len(outputs)):
        h = x if layer == 0 else outputs[layer - 1]
        weight, bias = params[0][layer], params[1][layer]
        z = ref.masked_gemm(h, weight, bias, mask=masks[layer], scale=scales[layer])
        yield z[ref.unpack_mask(masks[layer + 1], z.shape[1])]


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_gradients_against_central_differences(activation, loss, scaling):
    spec, params, data, batch = small_net(activation, loss, scaling)
    for z in live_preactivations(spec, params, data[0], batch["masks"]):
        assert np.abs(z).min() > 1e-3, "choose another seed: a kink is within reach"
    # Plain SGD at rate 1 steps by exactly the gradient of the loss that the step returns.
    moved = step_on_copies(spec, params, data, batch, learning_rate=1.0)[1]
    h = 1e-5
    for part, after, on_weights in zip(params, moved, (True, False), strict=True):
        for a, b in zip(part, after, strict=True):
            gradient, numeric = a - b, np.empty_like(a)
            for index in np.ndindex(a.shape):
                value = a[index]
                losses = []
                for a[index] in (value + h, value - h):
                    losses.append(step_on_copies(spec, params, data, batch)[0])
                a[index] = value
                numeric[index] = (losses[0] - losses[1]) / (2 * h)
            error = np.abs(gradient - numeric)
            assert np.all(error < 1e-6 * np.abs(gradient) + 1e-9), (on_weights, error.max())
            assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", torch_cases.SMALL)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_training_is_that_of_pytorch(implementation, name):
    case = torch_cases.SMALL[name]
    initial = torch_cases.initial_weights(case)
    data = torch_cases.batches(case)
    run = IMPLEMENTATIONS[implementation](case, initial, data, "float64")
    for part in fields(run):
        expected = TORCH[f"{name}/{part.name}"]
        actual = getattr(run, part.name)
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-13, err_msg=part.name)


def test_recorded_cases_are_those_compared():
    about = json.loads(str(TORCH["about"]))
    cases = [json.loads(json.dumps(vars(case))) for case in torch_cases.SMALL.values()]
    assert about["cases"] == cases
    assert {case["optimizer"] for case in cases} == set(ref.OPTIMIZERS)
    assert {case["activation"] for case in cases} == set(ref.ACTIVATIONS)
    assert {case["loss"] for case in cases} == set(LOSSES)


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_prediction_is_the_mean_over_all_masks(activation, scaling):
    # Dropped units feed a linear layer, so weighting all 2**7 masks gives the mean exactly.
    rate, hidden = 0.3, 7
    spec = ref.NetworkSpec([4, hidden, 3], rate, activation=activation, scaling=scaling)
    params = ref.initial_weights(spec.sizes, seed=1, dtype="float64")
    x = rng().standard_normal((1, 4))
    keep, mean = ref.drawn_keep(1 - rate), np.zeros((1, 3))
    for bits in itertools.product([False, True], repeat=hidden):
        probability = keep ** sum(bits) * (1 - keep) ** (hidden - sum(bits))
        mean += probability * ref.forward(params, x, spec, masks=[None, ref.pack_mask([bits])])[-1]
    np.testing.assert_allclose(ref.forward(params, x, spec)[-1], mean, rtol=1e-13)


def test_the_two_scalings_agree_in_expectation():
    # Input dropout too: in a linear net the mean over drawn masks tends to the prediction.
    predictions = {}
    for scaling in ("train", "test"):
        spec = ref.NetworkSpec([3, 4, 2], 0.5, 0.2, activation="identity", scaling=scaling, seed=2)
        weights, biases = ref.initial_weights(spec.sizes, seed=3, dtype="float64")
        if scaling == "test":  # the classic form keeps its weights 1 / keep times as large
            weights = [w / (1 - p) for w, p in zip(weights, (0.2, 0.5), strict=True)]
            weights = [
                w * (1 - p) / ref.drawn_keep(1 - p)
                for w, p in zip(weights, (0.2, 0.5), strict=True)
            ]
        params = (weights, biases)
        x = np.tile(rng().standard_normal((1, 3)), (20_000, 1))
        predictions[scaling] = ref.forward(params, x[:1], spec)[-1][0]
        samples = ref.forward(params, x, spec, masks=ref.keyed_masks(spec, len(x), 1))[-1]
        z = (samples.mean(axis=0) - predictions[scaling]) / (samples.std(axis=0) / len(x) ** 0.5)
        assert np.all(np.abs(z) < 4)
    np.testing.assert_allclose(predictions["train"], predictions["test"], rtol=1e-13)


def test_a_step_draws_its_masks_from_its_key():
    spec, params, data, batch = small_net("relu", "squared_error", "train")
    keyed = {**batch, "masks": None}
    masks = ref.keyed_masks(spec, 6, step=1)
    for layer, (width, rate) in enumerate([(5, 0.2), (4, 0.5), (3, 0.25)]):
        words = make_masks.mask_words(6, width, 1 - rate, seed=0, step=1, layer=layer)
        assert masks[layer].ravel().tolist() == words
    given_masks = step_on_copies(spec, params, data, {**batch, "masks": masks}, 0.1)
    drawn_masks = step_on_copies(spec, params, data, keyed, 0.1)
    assert given_masks[0] == drawn_masks[0]
    for a, b in zip(
        itertools.chain(*given_masks[1]), itertools.chain(*drawn_masks[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_without_dropout_no_mask_is_drawn():
    spec = ref.NetworkSpec([5, 4, 3], dropout=0)
    assert ref.keyed_masks(spec, 6, 1) == [None, None]
    assert spec.scales(training=True) == spec.scales(training=False) == [1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_are_limited_by_column(dtype):
    weight = np.array([[3, 3, 0, 30, NAN, math.inf], [4, 4, 0, -40, 9, 9]], dtype)
    weight[0, 1] = np.nextafter(weight[0, 1], 0)  # just below the limit
    before = weight.copy()
    ref.limit_norms(weight, 5)
    np.testing.assert_allclose(weight[:, 3], [3, -4], rtol=1e-6 if dtype == "float32" else 1e-15)
    np.testing.assert_array_equal(np.delete(weight, 3, 1), np.delete(before, 3, 1))


def test_a_step_limits_hidden_units_after_the_update():
    spec, params, data, batch = small_net("relu", "squared_error", "train")
    loss, free = step_on_copies(spec, params, data, batch, 0.1)
    limited_loss, limited = step_on_copies(spec, params, data, {**batch, "max_norm": 0.9}, 0.1)
    assert limited_loss == loss
    for w in free[0][:-1]:
        norms = np.linalg.norm(w, axis=0)
        assert (norms > 0.9).any()
        w *= np.minimum(1, 0.9 / norms)
    for a, b in zip(itertools.chain(*limited), itertools.chain(*free), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize(("optimizer", "extra"), [("sgd", {"l2": 0.5}), ("adamw", {})])
def test_biases_are_not_regularized(optimizer, extra):
    params = ([np.ones((2, 2))], [np.ones(2)])
    state = ref.initial_state(params, optimizer)
    x, y = np.zeros((1, 2)), np.ones((1, 2))  # outputs are the biases: no error, no gradient
    spec = ref.NetworkSpec([2, 2], [], loss="squared_error")
    loss = ref.train_step(params, state, x, y, spec, step=1, learning_rate=0.1, **extra)
    assert loss == 0.5 * extra.get("l2", 0) * 4
    assert np.all(params[0][0] < 1)
    assert np.all(params[1][0] == 1)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    spec, params, (x, y), batch = small_net("relu", "squared_error", "train")
    state = ref.initial_state(params, "adam")
    before = [a.copy() for a in itertools.chain(*params)]
    with pytest.raises(FloatingPointError, match="nan"):
        ref.train_step(params, state, x, np.full_like(y, NAN), spec, step=1, **batch)
    for a, b in zip(itertools.chain(*params), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert state.updates == 0


def test_an_update_that_overflows_is_reported_after_it():
    spec, params, (x, y), batch = small_net("relu", "squared_error", "train")
    state = ref.initial_state(params, "sgd")
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="the update left a weight or bias"),
    ):
        ref.train_step(params, state, x, y + 1e4, spec, step=1, learning_rate=1e308, **batch)
    assert state.updates == 1


@pytest.mark.parametrize("activation", ref.ACTIVATIONS)
def test_float32_steps_stay_float32_and_near_float64(activation):
    spec, params, (x, y), batch = small_net(activation, "softmax_cross_entropy", "train")
    single = tuple([a.astype("float32") for a in part] for part in params)
    loss, after = step_on_copies(spec, single, (x.astype("float32"), y), batch, 0.1)
    exact, exact_after = step_on_copies(spec, params, (x, y), batch, 0.1)
    assert loss == pytest.approx(exact, rel=1e-5)
    for a, b in zip(itertools.chain(*after), itertools.chain(*exact_after), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_whole_fit_learns():
    x = rng().standard_normal((200, 5)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype(int)
    spec = ref.NetworkSpec([5, 16, 2], 0.2, seed=4)
    params = ref.initial_weights(spec.sizes, seed=4)
    state = ref.initial_state(params, "rmsprop")
    parts = ref.fixed_batches(len(x), 32, seed=4)
    losses = []
    for step in range(1, 201):
        rows = parts[ref.drawn_batch(len(parts), 4, step)]
        batch = x[rows], y[rows], spec
        losses.append(ref.train_step(params, state, *batch, step=step, learning_rate=0.01))
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
    assert np.mean(ref.forward(params, x, spec)[-1].argmax(axis=1) == y) > 0.9


# ---- Initial weights and batch order -------------------------------------------------------


@pytest.mark.parametrize(("initializer", "variance"), [("he", 2 / 300), ("glorot", 2 / 500)])
def test_initial_weights_have_the_variance_they_should(initializer, variance):
    weights, biases = ref.initial_weights([300, 200, 10], initializer, seed=1, dtype="float64")
    w = weights[0] / math.sqrt(variance)
    assert abs(w.mean()) * math.sqrt(w.size) < 4
    assert abs(np.mean(w**2) - 1) * math.sqrt(w.size / 2) < 4
    assert [b.shape for b in biases] == [(200,), (10,)]
    assert not any(b.any() for b in biases)


def test_initial_weights_are_keyed_by_layer_and_row():
    weights = ref.initial_weights([3, 5, 2], seed=7)[0]
    exact = ref.initial_weights([3, 5, 2], seed=7, dtype="float64")[0]
    for layer, w in enumerate(weights):
        assert w.dtype == np.float32
        for i, row in enumerate(w):
            normals = ref.random_normal(w.shape[1], seed=7, purpose=1, layer=layer, block=i)
            expected = normals * math.sqrt(2 / len(w))
            assert exact[layer][i].tolist() == expected.tolist()
            assert row.tolist() == expected.astype("float32").tolist()


def test_fixed_batches_are_a_cut_shuffle():
    batches = ref.fixed_batches(1000, 64, seed=9)
    words = make_masks.random_words(1000, seed=9, step=0, purpose=2)
    assert np.concatenate(batches).tolist() == sorted(range(1000), key=words.__getitem__)
    assert [len(batch) for batch in batches] == [64] * 15 + [40]


def test_epochs_have_their_own_orders():
    orders = [ref.epoch_order(500, 9, epoch) for epoch in (1, 2)]
    words = make_masks.random_words(500, seed=9, step=1, purpose=2, layer=1)
    assert orders[0].tolist() == sorted(range(500), key=words.__getitem__)
    assert sorted(orders[1].tolist()) == list(range(500))
    assert orders[0].tolist() != orders[1].tolist()


def test_drawn_batches_are_uniform():
    drawn = [ref.drawn_batch(7, 3, t) for t in range(1, 2001)]
    words = [make_masks.random_words(1, seed=3, step=t, purpose=2)[0] for t in range(1, 2001)]
    assert drawn == [(word >> 32) * 7 >> 32 for word in words]
    counts = np.bincount(drawn, minlength=7)
    expected = 2000 / 7
    assert np.sum((counts - expected) ** 2 / expected) < 25  # chi-squared, 6 degrees: p = 3e-4


# ---- Errors --------------------------------------------------------------------------------

X, W = np.ones((2, 3)), np.ones((3, 4))
NAN = float("nan")
ERRORS = [
    (ValueError, "keep", lambda: ref.drawn_keep(1.1)),
    (ValueError, "keep", lambda: ref.drawn_keep(-1e-9)),
    (ValueError, "keep", lambda: ref.bernoulli_mask(1, 1, NAN)),
    (ValueError, "rows", lambda: ref.bernoulli_mask(-1, 1, 0.5)),
    (ValueError, "width", lambda: ref.bernoulli_mask(1, -1, 0.5)),
    (TypeError, "integer", lambda: ref.bernoulli_mask(1.5, 1, 0.5)),
    (ValueError, "seed", lambda: ref.bernoulli_mask(1, 1, 0.5, seed=-1)),
    (ValueError, "seed", lambda: ref.bernoulli_mask(1, 1, 1.0, seed=2**64)),
    (ValueError, "layer", lambda: ref.bernoulli_mask(1, 1, 0.5, layer=2**32)),
    (ValueError, "step", lambda: ref.random_words(1, step=2**64)),
    (ValueError, "purpose", lambda: ref.random_words(1, purpose=2**32)),
    (ValueError, "block", lambda: ref.random_normal(1, block=2**61)),
    (ValueError, "n is", lambda: ref.random_words(-1)),
    (ValueError, "mask", lambda: ref.pack_mask([True])),
    (TypeError, "mask", lambda: ref.unpack_mask(np.zeros((1, 1)), 3)),
    (ValueError, "mask", lambda: ref.unpack_mask(np.zeros((1, 2), np.uint64), 64)),
    (ValueError, "mask", lambda: ref.masked_gemm(X, W, mask=np.zeros((3, 1), np.uint64))),
    (ValueError, "weight", lambda: ref.masked_gemm(X, W.T)),
    (ValueError, "bias", lambda: ref.masked_gemm(X, W, np.ones(3))),
    (ValueError, "x has shape", lambda: ref.masked_gemm(X[0], W)),
    (ValueError, "activation", lambda: ref.masked_gemm(X, W, activation="gelu")),
    (TypeError, "weight", lambda: ref.masked_gemm(X, W.astype("float32"))),
    (TypeError, "x has dtype", lambda: ref.masked_gemm(X.astype(int), W)),
    (TypeError, "bias", lambda: ref.masked_gemm(X, W, np.ones(4, "float32"))),
    (ValueError, "dout", lambda: ref.masked_gradients(X, X, W)),
    (ValueError, "weight", lambda: ref.masked_gradients(np.ones((2, 4)), X, W[:2])),
    (ValueError, "labels", lambda: ref.softmax_cross_entropy(X, [0, 3])),
    (ValueError, "labels", lambda: ref.softmax_cross_entropy(X, [-1, 0])),
    (ValueError, "labels", lambda: ref.softmax_cross_entropy(X, [0])),
    (TypeError, "labels", lambda: ref.softmax_cross_entropy(X, [0.0, 1.0])),
    (ValueError, "row", lambda: ref.softmax_cross_entropy(X[:0], np.zeros(0, int))),
    (ValueError, "row", lambda: ref.sigmoid_cross_entropy(X[:0], X[:0])),
    (ValueError, "row", lambda: ref.squared_error(X[:0], X[:0])),
    (ValueError, "targets", lambda: ref.sigmoid_cross_entropy(X, 2 * X)),
    (ValueError, "targets", lambda: ref.sigmoid_cross_entropy(X, X * NAN)),
    (ValueError, "column", lambda: ref.squared_error(X[:, :0], X[:, :0])),
    (ValueError, "targets", lambda: ref.squared_error(X, W)),
    (TypeError, "targets", lambda: ref.squared_error(X, X.astype("float32"))),
    (ValueError, "sample_weight", lambda: ref.squared_error(X, X, [1.0, -1.0])),
    (ValueError, "sample_weight", lambda: ref.squared_error(X, X, [0.0, 0.0])),
    (ValueError, "sample_weight", lambda: ref.squared_error(X, X, [1.0, math.inf])),
    (ValueError, "sample_weight", lambda: ref.squared_error(X, X, [1.0])),
    (ValueError, "dropout", lambda: ref.NetworkSpec([2, 3, 1], 1.0)),
    (ValueError, "dropout", lambda: ref.NetworkSpec([2, 3, 1], 1 - 2.0**-34)),
    (ValueError, "dropout", lambda: ref.NetworkSpec([2, 3, 1], [0.1, 0.2])),
    (ValueError, "dropout", lambda: ref.NetworkSpec([2, 3, 1], 0.5, NAN)),
    (ValueError, "sizes", lambda: ref.NetworkSpec([2])),
    (ValueError, "sizes", lambda: ref.NetworkSpec([2, 0, 1])),
    (ValueError, "loss", lambda: ref.NetworkSpec([2, 1], [], loss="hinge")),
    (ValueError, "scaling", lambda: ref.NetworkSpec([2, 1], [], scaling="both")),
    (ValueError, "max_norm", lambda: ref.limit_norms(W.copy(), 0.0)),
    (ValueError, "max_norm", lambda: ref.limit_norms(W.copy(), math.inf)),
    (ValueError, "weight", lambda: ref.limit_norms(W[0].copy(), 1.0)),
    (TypeError, "weight", lambda: ref.limit_norms(W.astype(int), 1.0)),
    (ValueError, "initializer", lambda: ref.initial_weights([2, 1], "zeros")),
]
UPDATE_ERRORS = [
    (ValueError, "optimizer", {"optimizer": "lion"}),
    (ValueError, "state", {"optimizer": "adam"}),
    (ValueError, "learning_rate", {"learning_rate": NAN}),
    (ValueError, "learning_rate", {"learning_rate": -1.0}),
    (ValueError, "l2", {"l2": math.inf}),
    (ValueError, "step", {"step": 0}),
    (TypeError, "momentum", {"momentum": 0.9}),
    (TypeError, "gradient", {"gradient": np.ones(3, "float32")}),
    (ValueError, "gradient", {"gradient": np.ones(4)}),
    (ValueError, "l2", {"optimizer": "adamw", "state": [np.zeros(3), np.zeros(3)], "l2": 0.1}),
    (ValueError, "state", {"optimizer": "momentum", "state": [np.zeros(2)]}),
]


@pytest.mark.parametrize(("error", "match", "call"), ERRORS)
def test_wrong_arguments(error, match, call):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(("error", "match", "changed"), UPDATE_ERRORS)
def test_a_refused_update_changes_nothing(error, match, changed):
    weight = np.ones(3)
    arguments = {"gradient": np.ones(3), "state": [], "learning_rate": 0.1, **changed}
    with pytest.raises(error, match=match):
        ref.update(weight, **arguments)
    assert weight.tolist() == [1.0, 1.0, 1.0]


def test_examples():
    result = doctest.testmod(ref)
    assert result.attempted > 5
    assert result.failed == 0
