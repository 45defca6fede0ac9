"""The generator and the masks that it fills: recorded bits, their definition, their statistics."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import EDGES
from hypothesis import given
from hypothesis import strategies as st

from cdrop import Network, kernels, load

DATA = Path(__file__).with_name("data")
sys.path.append(str(DATA))
make_masks = importlib.import_module("make_masks")
GOLDEN = json.loads((DATA / "masks.json").read_text())


# ---- Recorded bits -------------------------------------------------------------------------


@pytest.mark.parametrize("record", GOLDEN["streams"], ids=lambda r: str(r["key"]["seed"]))
def test_recorded_streams(record, simd):
    words = kernels.random_words(record["n"], **record["key"])
    assert words.dtype == np.uint64
    assert [f"{w:x}" for w in words[:10]] == record["first"]
    assert make_masks.sha256(words.tolist()) == record["sha256"]
    expected = [float.fromhex(x) for x in record["normals"]]
    np.testing.assert_allclose(kernels.random_normal(9, **record["key"]), expected, rtol=1e-14)


def test_recorded_masks(simd):
    assert len(GOLDEN["masks"]) > 100
    for record in GOLDEN["masks"]:
        key = {name: record[name] for name in ("seed", "step", "layer", "purpose")}
        mask = kernels.bernoulli_mask(record["rows"], record["width"], record["keep"], **key)
        assert [f"{w:x}" for w in mask.ravel()[:2]] == record["first"], record
        assert make_masks.sha256(mask.ravel().tolist()) == record["sha256"], record


@given(
    rows=st.integers(0, 70),
    width=st.integers(0, 140),
    keep=st.floats(0, 1) | st.integers(0, 2**32).map(lambda k: k / 2**32),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**64 - 1),
    layer=st.integers(0, 2**32 - 1),
    purpose=st.integers(0, 2**32 - 1),
)
def test_masks_follow_their_definition(simd, rows, width, keep, seed, step, layer, purpose):
    key = {"seed": seed, "step": step, "layer": layer, "purpose": purpose}
    mask = kernels.bernoulli_mask(rows, width, keep, **key)
    assert mask.shape == (rows, -(-width // 64))
    assert mask.dtype == np.uint64
    assert mask.ravel().tolist() == make_masks.mask_words(rows, width, keep, **key)


@pytest.mark.isa
def test_normals_are_the_same_on_every_path(on_each_path):
    normals = on_each_path(lambda: kernels.random_normal(10_001, seed=3).tobytes())
    assert len(set(normals.values())) == 1


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_streams_are_prefixes_of_longer_ones(n):
    key = {"seed": 5, "step": 2, "block": 3, "purpose": 1}
    assert kernels.random_words(n, **key).tolist() == kernels.random_words(200, **key)[:n].tolist()
    normals = kernels.random_normal(n, **key), kernels.random_normal(200, **key)
    assert normals[0].tolist() == normals[1][:n].tolist()


def test_training_draws_them_before_and_after_it_is_loaded(tmp_path, simd):
    width, seed, x = 200, 2**64 - 1, np.linspace(1, 2, 200)[None]
    net = Network([width, 1], input_dropout=0.25, loss="squared_error", seed=seed)
    for step in range(1, 7):
        if step == 4:
            net.save(tmp_path / "m")
            net = load(tmp_path / "m")
        before = net.state_dict()["arrays"]["weight.0"]
        net.train_step(x, [[100.0]], optimizer="sgd", learning_rate=1e-4)
        moved = net.state_dict()["arrays"]["weight.0"] != before  # where the unit was kept
        expected = make_masks.mask_words(1, width, 0.75, seed=seed, step=step)
        assert kernels.pack_mask(moved.T)[0].tolist() == expected


# ---- What a mask depends on ----------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.3, 0.5])
@pytest.mark.parametrize("width", [1, 64, 65, 200])
def test_rows_do_not_depend_on_how_they_are_drawn(width, keep, simd):
    key = {"seed": 1, "step": 2, "layer": 3}
    whole = kernels.bernoulli_mask(260, width, keep, **key)
    for rows in (0, 1, 63, 64, 65, 128, 129):
        part = kernels.bernoulli_mask(rows, width, keep, **key)
        np.testing.assert_array_equal(part, whole[:rows])
        for first in (64, 128):
            part = kernels.bernoulli_mask(rows, width, keep, first_row=first, **key)
            np.testing.assert_array_equal(part, whole[first : first + rows])


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 2}, {"layer": 2}, {"purpose": 4}, "block"])
def test_masks_of_different_keys_are_independent(other):
    def units(**key):
        return kernels.unpack_mask(kernels.bernoulli_mask(2048, 512, 0.5, **key), 512)

    key = {"seed": 1, "step": 1, "layer": 1}
    one = units(**key)
    two = np.roll(one, 64, axis=0) if other == "block" else units(**{**key, **other})
    assert abs(np.sum(one == two) - one.size / 2) / math.sqrt(one.size / 4) < 4


def test_defaults_of_the_key_are_zero():
    mask = kernels.bernoulli_mask(70, 70, 0.5)
    zero = kernels.bernoulli_mask(70, 70, 0.5, seed=0, step=0, layer=0, first_row=0, purpose=0)
    np.testing.assert_array_equal(mask, zero)
    words = kernels.random_words(9, seed=0, step=0, purpose=3, layer=0, block=0)
    np.testing.assert_array_equal(kernels.random_words(9), words)


@pytest.mark.parametrize("width", EDGES)
def test_all_and_nothing(width, simd):
    full = kernels.pack_mask(np.ones((3, width), bool))
    np.testing.assert_array_equal(kernels.bernoulli_mask(3, width, 1.0, seed=1), full)
    nearly = kernels.bernoulli_mask(3, width, 1 - 2.0**-34, seed=1)  # rounds to 1
    np.testing.assert_array_equal(nearly, full)
    for keep in (0.0, 2.0**-34):
        assert not kernels.bernoulli_mask(3, width, keep, seed=1).any()
    padding = ~full[0]
    assert not (kernels.bernoulli_mask(130, width, 0.9, seed=1) & padding).any()


def test_rates_are_rounded_to_32_bits():
    ulp = 2.0**-32
    rates = [0.5 * ulp, 0.6 * ulp, 1.5 * ulp, 2.5 * ulp, 1 - 0.5 * ulp, 1 - 0.6 * ulp]
    assert [kernels.drawn_keep(p) / ulp for p in rates] == [0, 1, 2, 2, 2**32, 2**32 - 1]


# ---- Statistics ----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [2.0**-20, 0.1, 1 / 3, 0.5, 0.8, 1 - 2.0**-20])
def test_units_are_kept_at_the_drawn_rate(keep):
    rows, width, steps = 8192, 512, 8  # 2**25 units
    p = kernels.drawn_keep(keep)
    positions, lanes = np.zeros(64), np.zeros(8)
    for step in range(1, steps + 1):
        mask = kernels.bernoulli_mask(rows, width, keep, seed=11, step=step)
        lanes += np.bitwise_count(mask).sum(axis=0)  # word w of a row of 8 is drawn by lane w
        bits = np.unpackbits(mask.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        positions += bits.sum(axis=0)

    def z(counts, n):
        return np.max(np.abs(np.asarray(counts) - n * p)) / math.sqrt(n * p * (1 - p))

    total = rows * width * steps
    assert z(lanes.sum(), total) < 4
    assert positions.sum() == lanes.sum()
    if 0.01 < p < 0.99:  # at the extremes the counts are too few to be normal
        assert z(lanes, total / 8) < 4.5
        assert z(positions, total / 64) < 4.5


def test_no_two_rows_of_a_batch_are_correlated():
    masks = [kernels.bernoulli_mask(128, 512, 0.5, seed=5, step=step) for step in range(1, 65)]
    signs = np.hstack([kernels.unpack_mask(mask, 512) for mask in masks]) * np.float32(2) - 1
    bound = 5.2  # the largest of 8128 normal deviates is above it once in 600 times

    def largest():
        return np.abs(np.tril(signs @ signs.T, -1)).max() / math.sqrt(signs.shape[1])

    assert largest() < bound
    signs[1, ::16] = signs[0, ::16]  # two correlated rows
    assert largest() > bound


def test_normals_have_the_moments_of_a_normal():
    n = 1_000_000
    x = kernels.random_normal(n, seed=3)
    moments = [np.mean(x**k) for k in range(1, 5)]
    # The variance of x**k is E x**2k - (E x**k)**2, with E x**2k = 1, 3, 15, 105.
    spread = np.sqrt(np.array([1, 2, 15, 96]) / n)
    assert np.all(np.abs((np.array(moments) - [0, 1, 0, 3]) / spread) < 4)
    assert abs(np.mean(x[:-1] * x[1:])) * math.sqrt(n) < 4
    tails = {1: 0.31731050786291415, 2: 0.04550026389635842, 3: 0.0026997960632601866}
    for limit, p in tails.items():
        assert abs(np.sum(np.abs(x) > limit) - n * p) / math.sqrt(n * p * (1 - p)) < 4
