"""The update rules: by hand, against the twin over many steps, their settings and state."""

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import OPTIMIZERS, assert_close

from cdrop import kernels, optimizers, reference
from cdrop.optimizers import get_optimizer

SLOTS = {name: reference.OPTIMIZERS[name][1] for name in OPTIMIZERS}

# Weight 1, learning rate 0.1, gradients 0.5 and -0.25, epsilon as good as 0: after each update.
UPDATES = [
    ("sgd", {}, 0.95, 0.975),
    ("momentum", {}, 0.95, 0.93),
    ("momentum", {"momentum": 0.5}, 0.95, 0.95),
    ("nesterov", {}, 0.905, 0.912),
    ("nesterov", {"momentum": 0.5}, 0.925, 0.95),
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


def fresh(name, shape, dtype):
    return [np.zeros(shape, dtype) for _ in range(SLOTS[name])]


@pytest.mark.parametrize(("name", "settings", "first", "second"), UPDATES, ids=str)
def test_updates_by_hand(name, settings, first, second, dtype, simd):
    if "epsilon" in reference.OPTIMIZERS[name][2]:
        settings = {**settings, "epsilon": 1e-30}
    weight, state = np.ones((7, 3), dtype), fresh(name, (7, 3), dtype)
    sign = np.where(np.arange(21).reshape(7, 3) % 2, -1, 1).astype(dtype)
    for step, (g, expected) in enumerate([(0.5, first), (-0.25, second)], 1):
        rule = {"optimizer": name, "learning_rate": 0.1, "step": step, **settings}
        kernels.update(weight, (g * sign).astype(dtype), state, **rule)
        up = weight[sign > 0]
        np.testing.assert_allclose(up, expected, rtol=2e-6 if dtype == "float32" else 1e-14)
    assert weight.dtype == dtype


@pytest.mark.parametrize("n", [1, 17, 130])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_updates_are_those_of_the_twin(name, n, dtype, simd):
    rng = np.random.default_rng(n)
    start = rng.standard_normal(n).astype(dtype)
    gradients = [rng.standard_normal(n).astype(dtype) for _ in range(50)]
    runs = []
    for update in (kernels.update, reference.update):
        weight, state = start.copy(), fresh(name, n, dtype)
        for step, g in enumerate(gradients, 1):
            l2 = 0.0 if name == "adamw" else 0.01
            update(weight, g, state, optimizer=name, learning_rate=0.01, l2=l2, step=step)
        runs.append([weight, *state])
    for a, b in zip(*runs, strict=True):
        scale = 10 if dtype == "float32" else 1
        assert_close(a / scale, b / scale, "update")


@pytest.mark.isa
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_path_gives_the_same_bytes(name, dtype, on_each_path):
    def results():
        for n in range(131):
            rng = np.random.default_rng(n)
            arrays = [rng.random(n).astype(dtype) for _ in range(2 + SLOTS[name])]
            weight, gradient, *state = arrays
            kernels.update(
                weight, gradient - 0.5, state, optimizer=name, learning_rate=0.1, step=n + 1
            )
            yield b"".join(a.tobytes() for a in (weight, *state))

    by_path = on_each_path(lambda: list(results()))
    assert all(result == by_path["scalar"] for result in by_path.values())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw"])
def test_l2_adds_to_the_gradient(name, simd):
    start, gradient = np.random.default_rng(0).standard_normal((2, 3, 19))
    results = []
    for g, l2 in ((gradient, 0.25), (gradient + 0.25 * start, 0.0)):
        weight, state = start.copy(), fresh(name, start.shape, "float64")
        kernels.update(weight, g, state, optimizer=name, learning_rate=0.1, l2=l2)
        results.append([weight, *state])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("adagrad", 0.5), ("rmsprop", 1 / (math.sqrt(0.1) + 1)), ("adam", 0.5), ("adamw", 0.5)],
)
def test_epsilon_is_added_to_the_root(name, expected, simd):
    weight, state = np.zeros(1), fresh(name, 1, "float64")
    kernels.update(weight, np.full(1, 1e-8), state, optimizer=name, learning_rate=1.0)
    assert -weight[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (2, 3, 4)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arrays_of_any_shape(name, shape, dtype):
    weight = np.ones(shape, dtype)
    kernels.update(
        weight, np.ones(shape, dtype), fresh(name, shape, dtype), optimizer=name, learning_rate=0.1
    )
    assert weight.shape == shape
    assert np.all(weight < 1)


@pytest.mark.parametrize("layout", ["fortran", "big-endian", "strided", "read-only"])
def test_gradients_of_any_layout(layout):
    gradient = np.arange(12.0).reshape(3, 4)
    other = {
        "fortran": np.asfortranarray(gradient),
        "big-endian": gradient.astype(">f8"),
        "strided": np.repeat(gradient, 2, axis=1)[:, ::2],
        "read-only": gradient.copy(),
    }[layout]
    other.flags.writeable = False
    weight = np.zeros((3, 4))
    kernels.update(weight, other, [], learning_rate=1.0)
    np.testing.assert_array_equal(weight, -gradient)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule_goes_down_a_valley(name):
    weight = np.array([3.0, -2.0])
    state, scale = fresh(name, 2, "float64"), np.array([1.0, 10.0])
    for step in range(1, 2001):
        rule = {"optimizer": name, "learning_rate": 0.5 if name == "adagrad" else 0.01}
        kernels.update(weight, scale * weight, state, step=step, **rule)
    assert np.all(np.abs(weight) < 0.02)


# ---- Names and settings --------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rules_have_the_settings_and_defaults_of_the_twin(name):
    rule = get_optimizer(name)
    settings = reference.OPTIMIZERS[name][2].split()
    defaults = reference._Step(lr=0.1, t=1)
    assert vars(rule) == {setting: getattr(defaults, setting) for setting in settings}
    assert rule.name == name
    assert get_optimizer(rule) is rule
    assert type(rule).__name__ in optimizers.__all__
    for setting in settings:
        assert getattr(get_optimizer(name, **{setting: 0.25}), setting) == 0.25
        with pytest.raises(AttributeError):  # frozen: a network trusts what was checked
            setattr(rule, setting, 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rule_as_an_object_is_the_rule_by_name(name):
    results = []
    for rule in (name, get_optimizer(name)):
        weight, state = np.ones(5), fresh(name, 5, "float64")
        kernels.update(weight, np.arange(5.0), state, optimizer=rule, learning_rate=0.1)
        results.append(weight)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("base", [0.5, 0.9, 0.999, 1 - 1e-9])
def test_powers_of_the_bias_correction(base):
    for exponent in (1, 2, 3, 7, 10, 100, 1000, 12345):
        exact = Fraction(base) ** exponent
        got = Fraction(optimizers._power(base, exponent))
        assert abs(got - exact) <= exact * (exponent + 1) / 2**53 + Fraction(5e-324)


def test_bias_correction_of_late_steps_is_one():
    for step in (10**6, 2**62):
        assert optimizers.Adam().constants(0.1, 0.0, step)[-2:] == (1.0, 1.0)
