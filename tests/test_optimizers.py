"""The update rules: by hand, against the twin over many steps, their settings and state."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from conftest import OPTIMIZERS, UPDATES, assert_close, digest, problem

from cdrop import Network, _kernels, kernels, load, optimizers, reference, schedules
from cdrop.optimizers import Momentum, Nesterov, get_optimizer

SLOTS = {name: reference.OPTIMIZERS[name][1] for name in OPTIMIZERS}


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


# ---- A ramp of momentum --------------------------------------------------------------------

RAMPED = [
    rule(0.99, start=0.5, ramp=20, dampened=dampened)
    for rule in (Momentum, Nesterov)
    for dampened in (False, True)
]


def ramp_by_hand(rule, weight, gradients):
    """Return weight and velocity after these gradients, as appendix A of arXiv:1207.0580 has them."""
    w, v = weight.copy(), np.zeros_like(weight)
    for t, g in enumerate(gradients):
        momentum = 0.5 + (0.99 - 0.5) * (t / 20) if t < 20 else 0.99
        rate = 0.1 * (1 - momentum) if rule.dampened else 0.1
        v = momentum * v - rate * g
        w += momentum * v - rate * g if isinstance(rule, Nesterov) else v
    return w, v


@pytest.mark.parametrize("rule", RAMPED, ids=str)
def test_a_ramp_is_to_the_bit_the_one_by_hand(rule, dtype, simd):
    rng = np.random.default_rng(0)
    start, *gradients = rng.standard_normal((31, 67)).astype(dtype)
    settings = {"optimizer": rule.name, "learning_rate": 0.1, **vars(rule)}
    for update in (kernels.update, reference.update):
        weight, state = start.copy(), fresh(rule.name, 67, dtype)
        for step, g in enumerate(gradients, 1):
            update(weight, g, state, **settings, step=step)
        for array, expected in zip(
            [weight, *state], ramp_by_hand(rule, start, gradients), strict=True
        ):
            np.testing.assert_array_equal(array, expected)


def test_a_ramp_reaches_its_momentum_and_stays():
    rule = Momentum(0.99, ramp=3)
    seen = [rule.constants(0.1, 0.0, step)[4] for step in (1, 2, 3, 4, 5, 2**62)]
    assert seen[:3] == pytest.approx([0.5, 0.5 + 0.49 / 3, 0.5 + 0.98 / 3], rel=1e-15)
    assert seen[3:] == [0.99] * 3


def ramped_fit(net, rule, iterations):
    x, y = problem(net.units, rows=70)
    rates = {"learning_rate": 0.02, "l2": 0.01, "max_norm": 1.5, "batch_size": 16}
    net.fit(x, y, optimizer=rule, iterations=iterations, **rates)
    return net


@pytest.mark.parametrize("rule", RAMPED, ids=str)
def test_a_ramp_resumes_in_its_middle(rule, tmp_path, on_each_path):
    pytest.importorskip("safetensors")

    def fresh_net(threads):
        return Network([19, 67, 33, 3], dropout=0.5, input_dropout=0.2, threads=threads)

    whole = digest(ramped_fit(fresh_net(1), rule, 30))
    assert whole != digest(ramped_fit(fresh_net(1), type(rule)(0.99), 30))

    def resumed():
        for threads in (1, 2, 3):
            net = ramped_fit(fresh_net(threads), rule, 7)
            net.save(tmp_path / "m")
            yield digest(ramped_fit(load(tmp_path / "m"), rule, 23))
            yield digest(ramped_fit(net, rule, 23))

    assert all(set(got) == {whole} for got in on_each_path(lambda: list(resumed())).values())


@pytest.mark.parametrize("rule", [Momentum, Nesterov])
def test_a_state_names_a_ramp_only_where_there_is_one(rule):
    net = Network([9, 5, 3])
    for settings in ({}, {"ramp": 20}, {"start": 0.1, "ramp": 20, "dampened": True}):
        numbers = {name: np.asarray(value)[()] for name, value in settings.items()}  # of NumPy
        ramped_fit(net, rule(momentum=0.8, **numbers), 2)
        expected = {"name": rule.__name__.lower(), "momentum": 0.8, **settings}
        got = net.state_dict()["optimizer"]
        assert got == expected
        assert [type(value) for value in got.values()] == [type(v) for v in expected.values()]


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
        value = {"ramp": 20, "dampened": True}.get(setting, 0.25)
        assert getattr(get_optimizer(name, **{setting: value}), setting) == value
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
        got = Fraction(_kernels.power(base, exponent))
        assert abs(got - exact) <= exact * (exponent + 1) / 2**53 + Fraction(5e-324)


def test_bias_correction_of_late_steps_is_one():
    for step in (10**6, 2**62):
        assert optimizers.Adam().constants(0.1, 0.0, step)[-2:] == (1.0, 1.0)


@pytest.mark.parametrize(
    "half",
    [
        np.array(0.5),
        np.array(0.5, object),
        np.float32(0.5),
        np.longdouble(0.5),
        Fraction(1, 2),
        Decimal("0.5"),
    ],
    ids=["array", "array of object", "float32", "longdouble", "Fraction", "Decimal"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda half: {"optimizer": optimizers.Momentum(half, start=half)},
        lambda half: {"optimizer": optimizers.Adagrad(half)},
        lambda half: {"optimizer": optimizers.RMSprop(half)},
        lambda half: {"optimizer": optimizers.AdamW(half, weight_decay=half)},
        lambda half: {"learning_rate": schedules.InverseScaling(half, power=half)},
        lambda half: {"learning_rate": schedules.Cosine(half, 5)},
        lambda half: {"learning_rate": schedules.Plateau(half, factor=half, monitor="loss")},
    ],
    ids=["Momentum", "Adagrad", "RMSprop", "AdamW", "InverseScaling", "Cosine", "Plateau"],
)
def test_a_number_of_any_type_trains_as_a_float_and_can_be_saved(half, make, tmp_path):
    pytest.importorskip("safetensors")
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    nets = [Network([3, 4, 2]), Network([3, 4, 2])]
    for net, value in zip(nets, (half, 0.5), strict=True):
        net.fit(X, y, epochs=2, **make(value))
    nets[0].save(tmp_path / "net")
    assert digest(load(tmp_path / "net")) == digest(nets[1])
