"""Rates that change from step to step: their values, training with them, and what files keep of them."""

import copy
import math
import pickle

import numpy as np
import pytest
from conftest import digest, problem

import cdrop
from cdrop import DropoutMLPClassifier, Network, reference
from cdrop.callbacks import Callback
from cdrop.experiments import Settings
from cdrop.optimizers import AdamW, Momentum
from cdrop.rates import (
    Constant,
    Cosine,
    CosLog4,
    Curriculum,
    Early,
    FlatCos,
    Function,
    Late,
    Linear,
    Piecewise,
    Rate,
    from_text,
    get_rate,
)

PLACES = np.linspace(0, 1, 101)
SEVERAL = [
    Constant(0.3),
    Linear(0.4, 0.1),
    Cosine(0.5, 0.1),
    FlatCos(0.3),
    CosLog4(0.4),
    Early(0.5, until=0.4),
    Late(0.5, start=0.6),
    Curriculum(0.5, gamma=5.0),
    Piecewise([(0.2, 0.1), (0.5, 0.4), (0.9, 0.0)]),
]
UNITS = [6, 16, 16, 3]


@pytest.mark.parametrize(
    ("rate", "formula"),
    [
        (Constant(0.3), lambda t: 0.3),
        (Linear(0.4, 0.1), lambda t: 0.4 - 0.3 * t),
        (Cosine(0.5, 0.1), lambda t: 0.1 + 0.4 * (1 + math.cos(math.pi * t)) / 2),
        (
            FlatCos(0.3),
            lambda t: 0.3 * (1 if t < 0.5 else (1 + math.cos(math.pi * (2 * t - 1))) / 2),
        ),
        (CosLog4(0.4), lambda t: 0.2 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t)))),
        (Early(0.5, until=0.4), lambda t: 0.5 if t < 0.4 else 0.0),
        (Late(0.5, start=0.6), lambda t: 0.0 if t < 0.6 else 0.5),
        (Curriculum(0.5, gamma=700.0), lambda t: 0.5 * (1 - math.exp(-700 * t))),
        (Curriculum(0.5), lambda t: 0.5 * (1 - math.exp(-10 * t))),
        (Piecewise([(0.2, 0.1), (0.5, 0.4)]), lambda t: np.interp(t, [0.2, 0.5], [0.1, 0.4])),
        (Function(lambda t: t * t), lambda t: t * t),
    ],
)
def test_values_are_those_of_the_formula(rate, formula):
    assert [rate.at(t) for t in PLACES] == pytest.approx([formula(t) for t in PLACES], abs=1e-14)


def test_the_base_alone_is_not_a_rate():
    with pytest.raises(TypeError, match="abstract"):
        Rate()


def test_progress_is_that_of_the_fit_or_of_the_life():
    rate = Linear(1.0, 0.0)
    assert rate.of_step(1000, 5, 10) == 0.5
    within_life = Linear(1.0, 0.0, steps=20)
    assert [within_life.of_step(n, 0, 1) for n in (0, 5, 20, 30)] == [1.0, 0.75, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"expected Linear\(\.\.\., steps=\.\.\.\) outside of one"):
        rate.of_step(3, 0, None)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Constant("a"), TypeError, "value is 'a'"),
        (lambda: Constant(math.nan), ValueError, "value is nan"),
        (lambda: Constant(True), TypeError, "value is True"),
        (lambda: Linear(0.1, -0.1), ValueError, "last is -0.1"),
        (lambda: Early(0.1, until=0), ValueError, "until is 0"),
        (lambda: Early(0.1, until=1.1), ValueError, "until is 1.1"),
        (lambda: Late(0.1, start=None), TypeError, "start is None"),
        (lambda: Curriculum(0.1, gamma=701), ValueError, "gamma is 701"),
        (lambda: Constant(0.1, steps=0), ValueError, "steps is 0"),
        (lambda: Constant(0.1, steps=2.5), TypeError, "steps is 2.5"),
        (lambda: Piecewise([]), ValueError, "points is "),
        (lambda: Piecewise([(0.5, 1.0), (0.5, 2.0)]), ValueError, "points is "),
        (lambda: Piecewise([(0.5, math.inf)]), ValueError, "points is "),
        (lambda: Piecewise([0.5, 0.2]), TypeError, "points is "),
        (lambda: Function(3), TypeError, "function is 3"),
        (lambda: get_rate("constants", value=0.1), ValueError, "rate is 'constants'"),
        (
            lambda: get_rate("early", value=0.1, untill=1),
            TypeError,
            "untill is not a setting of early",
        ),
    ],
)
def test_bad_settings_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("constant", 0.4),
        ("linear", Linear(0.4, 0.0)),
        ("cosine", Cosine(0.4)),
        ("flatcos", FlatCos(0.4)),
        ("coslog4", CosLog4(0.4)),
        ("early:0.3", Early(0.4, until=0.3)),
        ("late:0.5", Late(0.4, start=0.5)),
        ("curriculum", Curriculum(0.4)),
        ("curriculum:5", Curriculum(0.4, gamma=5.0)),
    ],
)
def test_commands_name_rates(text, rate):
    assert from_text(text, 0.4) == rate
    arms = Settings(dropout=0.4, schedule=text, sweep=(0.2,)).arms()
    assert arms["with"]["dropout"] == rate
    assert arms["dropout 0.2"]["dropout"] == from_text(text, 0.2)
    assert arms["without"]["dropout"] == 0.0


@pytest.mark.parametrize("text", ["early", "early:", "early:nan", "early:2", "linear:1", "flat", 3])
def test_bad_names_of_rates_are_refused(text):
    with pytest.raises(ValueError, match="expected"):
        Settings(schedule=text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"dropout": Linear(0.5, 1.0)},
            r"dropout, Linear\(first=0.5, last=1.0\) at progress 1, is 1.0",
        ),
        ({"dropout": [0.1, Constant(1.5)]}, r"dropout\[1\], Constant\(value=1.5\) at progress 0"),
        ({"dropout": [Constant(0.1)]}, "dropout has 1 entries; expected 2"),
        ({"input_dropout": Function(lambda t: t - 0.5)}, "input_dropout, Function.* is -0.5"),
    ],
)
def test_rates_of_dropping_are_checked_before_the_training(arguments, words):
    with pytest.raises(ValueError, match=words):
        Network(UNITS, **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"learning_rate": Function(lambda t: -t)}, "learning_rate, .* is -0.005"),
        ({"l2": Function(lambda t: math.nan)}, "l2, .* is nan"),
        ({"l2": Late(0.1, start=0.5), "optimizer": "adamw"}, "l2 is 1.0; expected 0 with adamw"),
    ],
)
def test_rates_of_a_fit_are_checked_before_it(arguments, words):
    net, (x, y) = Network(UNITS), problem(UNITS)
    before = digest(net)
    with pytest.raises(ValueError, match=words):
        net.fit(x, y, iterations=5, **arguments)
    assert digest(net) == before


def test_a_value_that_only_a_step_shows_is_named_with_it():
    rate = Function(lambda t: 0.1 if math.isclose(round(t * 200), t * 200) else 2.0)
    net, (x, y) = Network(UNITS, dropout=rate), problem(UNITS)
    with pytest.raises(ValueError, match=r"dropout\[0\], .* in step 2, is 2.0"):
        net.fit(x, y, iterations=7)
    assert net.history.iterations == 1


@pytest.mark.parametrize("length", [{"iterations": 12}, {"epochs": 3}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_rates_train_as_numbers_do(length, dtype):
    x, y = problem(UNITS, dtype=dtype)
    number = Network(UNITS, dropout=0.3, input_dropout=0.1, scaling="test", dtype=dtype)
    number.fit(x, y, learning_rate=0.01, l2=0.1, batch_size=16, **length)
    rate = Network(
        UNITS, dropout=Constant(0.3), input_dropout=Constant(0.1), scaling="test", dtype=dtype
    )
    rate.fit(x, y, learning_rate=Constant(0.01), l2=Constant(0.1), batch_size=16, **length)
    assert digest(rate) == digest(number)
    assert np.array_equal(rate.predict_proba(x), number.predict_proba(x))
    assert np.array_equal(rate.predict_proba(x, 5), number.predict_proba(x, 5))


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_constant_rates_of_an_optimizer_train_as_numbers_do(optimizer):
    x, y = problem(UNITS)
    name = {"momentum": "momentum", "adamw": "weight_decay"}[optimizer]
    made = {"momentum": Momentum, "adamw": AdamW}[optimizer]
    seen = []
    for value in (0.2, Constant(0.2)):
        net = Network(UNITS, dropout=0.3)
        net.fit(x, y, optimizer=made(**{name: value}), iterations=10)
        seen.append(digest(net))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("rate", SEVERAL, ids=lambda rate: rate.name)
@pytest.mark.parametrize("scaling", ["train", "test"])
def test_training_equals_a_loop_of_the_reference(rate, scaling):
    x, y = problem(UNITS, dtype="float64")
    steps, learning_rate, l2 = 20, Linear(0.1, 0.01), Late(0.05, start=0.5)
    net = Network(UNITS, dropout=[rate, 0.2], input_dropout=rate, scaling=scaling, dtype="float64")
    weights, biases = net.coefs_, net.intercepts_
    state = reference.initial_state((weights, biases), "momentum")
    momentum = Linear(0.5, 0.9)
    net.fit(
        x,
        y,
        optimizer=Momentum(momentum),
        learning_rate=learning_rate,
        l2=l2,
        shuffle=False,
        iterations=steps,
    )
    for step in range(steps):
        at = rate.at(step / steps)
        spec = reference.NetworkSpec(UNITS, [at, 0.2], at, scaling=scaling)
        reference.train_step(
            (weights, biases), state, x, y, spec, step=step + 1,
            learning_rate=learning_rate.at(step / steps), l2=l2.at(step / steps),
            momentum=momentum.at(step / steps),
        )  # fmt: skip
    for own, twin in zip(net.coefs_, weights, strict=True):
        assert np.allclose(own, twin, rtol=1e-10, atol=1e-13)
    spec = reference.NetworkSpec(UNITS, [net._dropping[1], 0.2], net._dropping[0], scaling=scaling)
    probabilities = np.exp(reference.forward((weights, biases), x, spec)[-1])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert np.allclose(net.predict_proba(x), probabilities, rtol=1e-10)


def fitted(steps, cut=None, **arguments):
    """Train with every rate over `steps` steps of the life, in two fits if `cut` says where."""
    net = Network(
        UNITS,
        dropout=[Early(0.5, until=0.5, steps=steps), Curriculum(0.3, steps=steps)],
        input_dropout=Late(0.2, start=0.3, steps=steps),
        **arguments,
    )
    x, y = problem(UNITS)
    for length in (steps,) if cut is None else (cut, steps - cut):
        net.fit(x, y, learning_rate=Cosine(0.05, steps=steps), iterations=length, batch_size=16)
        net = pickle.loads(pickle.dumps(net)) if cut else net
    return net


def test_rates_over_the_life_continue_from_fit_to_fit():
    whole = fitted(20)
    assert digest(fitted(20, cut=7)) == digest(whole)
    assert digest(fitted(20, threads=2)) == digest(whole)
    assert whole._dropping[1] == 0.0
    assert whole._dropping[2] == Curriculum(0.3).at(19 / 20)


def test_every_simd_path_trains_to_the_same_bytes(on_each_path):
    assert len(set(on_each_path(lambda: digest(fitted(20))).values())) == 1


@pytest.mark.parametrize("length", [{"iterations": 20}, {"epochs": 7}])
def test_a_checkpoint_resumes_at_the_rates_of_its_step(length, tmp_path):
    x, y = problem(UNITS)
    arguments = {"batch_size": 16, "learning_rate": FlatCos(0.05), "l2": Cosine(0.1), **length}

    def made():
        return Network(UNITS, dropout=Linear(0.5, 0.1), input_dropout=Early(0.3, until=0.6))

    whole = made()
    whole.fit(x, y, **arguments)

    class Crash(Callback):
        def on_iteration(self, net, iteration, loss):
            if iteration == 9:
                raise OSError("crash")

    path = tmp_path / "fit.cdrop"
    with pytest.raises(OSError, match="crash"):
        made().fit(x, y, checkpoint=path, checkpoint_every=4, callbacks=[Crash()], **arguments)
    resumed = made()
    resumed.fit(x, y, checkpoint=path, checkpoint_every=4, **arguments)
    assert digest(resumed) == digest(whole)
    other = {**arguments, "l2": Cosine(0.2)}
    with pytest.raises(ValueError, match="l2"):
        made().fit(x, y, checkpoint=path, **other)


@pytest.mark.parametrize("rate", SEVERAL, ids=lambda rate: rate.name)
def test_files_and_copies_keep_rates(rate, tmp_path):
    x, y = problem(UNITS)
    net = Network(UNITS, dropout=[rate, 0.2], input_dropout=rate, scaling="test")
    net.fit(x, y, optimizer=Momentum(momentum=rate), learning_rate=rate, iterations=7)
    net.save(tmp_path / "net.cdrop")
    for other in (
        cdrop.load(tmp_path / "net.cdrop"),
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
    ):
        assert other.dropout == (rate, 0.2)
        assert other._dropping == net._dropping
        assert other._optimizer == Momentum(momentum=rate)
        assert np.array_equal(other.predict_proba(x), net.predict_proba(x))
        assert digest(other) == digest(net)
    assert eval(repr(rate)) == rate


def test_files_of_numbers_are_as_before(tmp_path):
    net = Network(UNITS, dropout=0.3)
    assert "dropping" not in net._to_parts()[0]


def test_code_is_not_saved(tmp_path):
    class Own(Rate):
        def at(self, progress):
            return progress / 2

    for rate in (Own(), Function(lambda t: t / 2)):
        net = Network(UNITS, dropout=rate)
        net.fit(*problem(UNITS), iterations=4)
        assert net._dropping[1] == 0.375
        with pytest.raises(TypeError, match="a file holds no code"):
            net.save(tmp_path / "net.cdrop")


def test_forged_rates_are_refused():
    net = Network(UNITS, dropout=Early(0.3, until=0.5))
    settings, arrays = net._to_parts()
    for bad in (
        {"rate": "function", "function": 1},
        {"rate": "early"},
        {"rate": "late", "x": 1},
        {},
    ):
        forged = {**settings, "settings": {**settings["settings"], "dropout": [bad, 0.1]}}
        with pytest.raises((TypeError, ValueError)):
            Network._from_parts(forged, arrays)
    for bad in ([0.1], [0.0, 1.0, 0.0], "abc", [0.0, math.nan, 0.0]):
        with pytest.raises((TypeError, ValueError), match="dropping"):
            Network._from_parts({**settings, "dropping": bad}, arrays)


def test_other_rates_take_over_a_state():
    x, y = problem(UNITS)
    net = Network(UNITS, dropout=0.3)
    net.fit(x, y, iterations=5)
    changing = Network(UNITS, dropout=Late(0.5, start=0.5))
    changing.load_state_dict(net.state_dict())
    changing.fit(x, y, iterations=4)
    assert changing._dropping == (0.0, 0.5, 0.5)
    back = Network(UNITS, dropout=0.1)
    back.load_state_dict(changing.state_dict())
    assert back._dropping == (0.0, 0.1, 0.1)


def test_a_failed_step_keeps_the_rates_of_the_last_one():
    x, y = problem(UNITS)
    net = Network(UNITS, dropout=Linear(0.5, 0.1, steps=10), scaling="test")
    net.train_step(x, y)
    seen = net.predict_proba(x)
    with pytest.raises(FloatingPointError):
        net.train_step(np.full_like(x, 3e38), y)
    assert net._dropping == (0.0, 0.5, 0.5)
    assert np.array_equal(net.predict_proba(x), seen)


def test_a_single_step_needs_rates_over_the_life():
    net, (x, y) = Network(UNITS, dropout=Early(0.3, until=0.5)), problem(UNITS)
    before = digest(net)
    with pytest.raises(ValueError, match="steps="):
        net.train_step(x, y)
    assert digest(net) == before


def test_without_dropout_at_the_end_masks_have_no_use():
    net, (x, y) = Network(UNITS, dropout=Early(0.3, until=0.5)), problem(UNITS)
    net.fit(x, y, iterations=4)
    with pytest.raises(ValueError, match="all rates of this network are 0 after its last step"):
        net.predict_uncertainty(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_take_rates(tmp_path):
    x, y = problem(UNITS, rows=60)
    model = DropoutMLPClassifier(
        (16,), dropout=Early(0.5, until=0.5), alpha=Cosine(0.01), learning_rate=FlatCos(0.01),
        max_iter=6, random_state=0, tol=0.0, n_iter_no_change=10,
    ).fit(x, y)  # fmt: skip
    net = Network([6, 16, 3], dropout=Early(0.5, until=0.5), initializer="glorot", seed=0)
    net.fit(
        x, y, optimizer="adam", l2=Cosine(0.01), share_l2=True, learning_rate=FlatCos(0.01),
        batch_size=60, epochs=6,
    )  # fmt: skip
    assert digest(model.network_) == digest(net)
    assert model.learning_rate_ == pytest.approx(0.0, abs=1e-12)
    model.save(tmp_path / "model.cdrop")
    assert cdrop.load(tmp_path / "model.cdrop").get_params() == model.get_params()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_two_classes_are_sampled_at_the_rates_of_the_last_step():
    x, y = problem([6, 16, 2], rows=60)
    arguments = {"max_iter": 4, "random_state": 0, "tol": 0.0, "n_iter_no_change": 10}
    model = DropoutMLPClassifier((16,), dropout=Late(0.4, start=0.5), **arguments).fit(x, y)
    constant = Network([6, 16, 1], dropout=0.4, loss="sigmoid_cross_entropy", initializer="glorot")
    constant.set_weights(model.network_.coefs_, model.network_.intercepts_)
    sampled = model.predict_proba(x, mc_samples=8)[:, 1]
    assert sampled == pytest.approx(constant.predict_proba(x, 8)[:, 0], abs=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_starts_change_rates():
    x, y = problem(UNITS, rows=60)
    model = DropoutMLPClassifier((16,), dropout=0.2, max_iter=3, warm_start=True, random_state=0)
    updates = model.fit(x, y).network_.history.iterations
    model.set_params(dropout=Linear(0.4, 0.0)).fit(x, y)
    assert model.network_.dropout == (Linear(0.4, 0.0),)
    assert model.network_.history.iterations > updates
