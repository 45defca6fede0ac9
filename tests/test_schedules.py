"""Learning-rate schedules by their formulas, and as `Network.fit` follows them."""

import copy
import math
import pickle

import numpy as np
import pytest
from conftest import digest, problem
from sklearn.metrics import accuracy_score, r2_score

import cdrop
from cdrop import Network, load
from cdrop.callbacks import Callback
from cdrop.schedules import (
    Constant,
    Cosine,
    Epoch,
    InverseScaling,
    Plateau,
    Schedule,
    Step,
    get_schedule,
)


def rates(schedule, losses, rows=100):
    """Return the rate of each epoch, and the one after."""
    state = schedule.begin()
    out = [state[0]]
    for number, loss in enumerate(losses, start=1):
        state = schedule.after(state, Epoch(number, rows, loss, state[0], loss, -loss))
        out.append(state[0])
    return out


def test_formulas():
    assert rates(Constant(0.3), [1.0] * 3) == [0.3] * 4
    assert rates(Step(1.0, every=2, factor=0.5), [1.0] * 4) == [1, 1, 0.5, 0.5, 0.25]
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * e / 5)) / 2 for e in (0, 1, 2, 3, 4, 4, 4)]
    assert np.allclose(rates(Cosine(1.0, epochs=5, final=0.1), [1.0] * 6), expected, rtol=1e-15)
    expected = [0.5 / (100 * e + 1) ** 0.3 for e in range(4)]
    assert np.allclose(rates(InverseScaling(0.5, power=0.3), [1.0] * 3), expected, rtol=1e-15)


@pytest.mark.parametrize("monitor", ["loss", "validation_loss", "validation_score"])
def test_a_plateau_lowers_the_rate(monitor):
    schedule = Plateau(1.0, patience=1, factor=0.5, tol=0.1, smallest=0.3, monitor=monitor)
    losses = [1.0, 0.95, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    assert rates(schedule, losses) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("schedule", "setting", "bad"),
    [
        (schedule, setting, bad)
        for schedule, setting, values in (
            (Constant, "learning_rate", [0, -1, np.nan, np.inf, "a", None, True]),
            (Step, "every", [0, 1.5, "a"]),
            (Step, "factor", [0, 1.5, np.nan]),
            (Cosine, "epochs", [0, 2.5]),
            (Cosine, "final", [-1, 0.5]),
            (InverseScaling, "power", [-1, "a"]),
            (Plateau, "patience", [0]),
            (Plateau, "factor", [2]),
            (Plateau, "tol", [-1]),
            (Plateau, "smallest", [-1]),
            (Plateau, "monitor", ["score", None]),
        )
        for bad in values
    ],
)
def test_bad_settings_are_reported(schedule, setting, bad):
    with pytest.raises((TypeError, ValueError), match=setting):
        schedule(**{setting: bad})


def test_names():
    assert get_schedule("plateau", patience=3) == Plateau(patience=3)
    assert get_schedule(Step(0.1)) == Step(0.1)
    for bad in ("nonsense", None, 3):
        with pytest.raises(ValueError, match="schedule"):
            get_schedule(bad)
    with pytest.raises(TypeError, match="speed"):
        get_schedule("step", speed=3)
    with pytest.raises(TypeError, match="object"):
        get_schedule(Step(), every=3)


# ---- In Network.fit ------------------------------------------------------------------------


class Epochs(Callback):
    """Keeps the epochs it is called with; asks to stop after number `stop`."""

    def __init__(self, stop=None):
        self.stop = stop
        self.calls = []

    def on_epoch_end(self, net, epoch):
        self.calls.append(epoch)
        return epoch.number == self.stop


UNITS = (6, 9, 3)
DATA = problem(UNITS)  # 40 rows


def trained(*fits, **settings):
    """Train with the same settings in several fits of these numbers of epochs."""
    net = Network(UNITS, dropout=0.4, seed=2)
    for epochs in fits:
        net.fit(*DATA, batch_size=16, epochs=epochs, **settings)
    return net


def test_each_epoch_has_its_rate_and_is_reported():
    epochs = Epochs()
    net = trained(2, 3, learning_rate=Step(0.01, every=2), callbacks=[epochs])
    assert [e.number for e in epochs.calls] == [1, 2, 3, 4, 5]
    assert [e.learning_rate for e in epochs.calls] == rates(Step(0.01, every=2), [1.0] * 4)
    assert {e.rows for e in epochs.calls} == {40}
    assert net.history.epoch_loss == [e.loss for e in epochs.calls]
    losses = np.array(net.history.loss).reshape(5, 3)
    assert np.allclose(net.history.epoch_loss, losses @ [16, 16, 8] / 40)
    assert net.learning_rate == pytest.approx(1e-4)
    by_hand = Network(UNITS, dropout=0.4, seed=2)
    for rate in rates(Step(0.01, every=2), [1.0] * 4):
        by_hand.fit(*DATA, batch_size=16, epochs=1, learning_rate=rate)
    assert by_hand.learning_rate is None
    assert digest(by_hand) == digest(net)


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Step(every=2), Cosine(epochs=5), InverseScaling(), Plateau(patience=1, tol=9.0)],
)
def test_a_schedule_continues_over_fits_and_copies(schedule):
    whole, parts = trained(6, learning_rate=schedule), trained(2, 1, learning_rate=schedule)
    loaded, copied = Network(UNITS, dropout=0.4, seed=2), copy.deepcopy(parts)
    loaded.load_state_dict(parts.state_dict())
    for net in (parts, loaded, copied):
        net.fit(*DATA, batch_size=16, epochs=3, learning_rate=schedule)
        assert digest(net) == digest(whole)
        assert net.history.epoch_loss == whole.history.epoch_loss
        assert net.learning_rate == whole.learning_rate


@pytest.mark.parametrize(
    "schedule",
    [Step(np.float32(0.1), every=np.int64(2)), Cosine(np.float16(0.1), epochs=np.uint8(5))],
)
def test_numpys_numbers_can_be_saved(schedule, tmp_path):
    pytest.importorskip("safetensors")
    net = trained(2, learning_rate=schedule)
    net.save(tmp_path / "m")
    loaded = load(tmp_path / "m")
    for part in (net, loaded):
        part.fit(*DATA, batch_size=16, epochs=3, learning_rate=schedule)
    assert digest(loaded) == digest(net)
    assert loaded.learning_rate == net.learning_rate


def test_another_schedule_begins_again():
    net = trained(3, learning_rate=Step(every=1))
    net.fit(*DATA, epochs=1, learning_rate=Step(0.5, every=1))
    assert net.learning_rate == pytest.approx(0.05)


def test_a_callback_ends_the_fit_after_an_epoch():
    net = trained(5, callbacks=[Epochs(stop=2)])
    assert net.history.iterations == 6
    net.fit(*DATA, batch_size=16, epochs=3)
    assert digest(net) == digest(trained(5))


def test_validation_rows_are_evaluated_after_each_epoch():
    x, y = problem(UNITS, rows=25, seed=1)
    weight = np.arange(25)
    epochs = Epochs()
    net = trained(2, validation=(x, y, weight), callbacks=[epochs])
    assert digest(net) == digest(trained(2))
    assert epochs.calls[-1][4:] == tuple(net.evaluate(x, y, weight))
    assert net.history.validation_loss == [e.validation_loss for e in epochs.calls]
    assert net.history.validation_score == [e.validation_score for e in epochs.calls]
    net.fit(*DATA, epochs=1)
    assert math.isnan(net.history.validation_loss[-1])
    assert len(net.history.validation_loss) == 3


def test_rows_are_a_subset_without_a_copy():
    x, y = DATA
    chosen = np.arange(40)[::-2]
    for settings in ({"epochs": 3}, {"iterations": 9}, {"epochs": 3, "shuffle": False}):
        nets = [Network(UNITS, dropout=0.4, seed=2) for _ in range(2)]
        weight = np.linspace(1, 2, 40)
        nets[0].fit(x, y, weight, batch_size=8, rows=chosen, **settings)
        nets[1].fit(x[chosen], y[chosen], weight[chosen], batch_size=8, **settings)
        assert digest(nets[0]) == digest(nets[1])


def test_unshuffled_minibatches_are_slices():
    x, y = DATA
    nets = [Network(UNITS, dropout=0.4, seed=2) for _ in range(2)]
    nets[0].fit(x, y, batch_size=16, epochs=1, shuffle=False)
    for first in (0, 16, 32):
        nets[1].train_step(x[first : first + 16], y[first : first + 16])
    assert digest(nets[0]) == digest(nets[1])


def test_a_shared_l2_is_divided_by_the_minibatches_weight():
    x, y = DATA
    weight = np.linspace(0, 3, 40)
    for given, total in ((None, 40), (weight, weight.sum())):
        nets = [Network(UNITS, dropout=0.4, seed=2, dtype="float64") for _ in range(2)]
        first = nets[0].train_step(x, y, given, l2=0.3, share_l2=True)
        assert first == nets[1].train_step(x, y, given, l2=0.3 / total)
        assert digest(nets[0]) == digest(nets[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": Step()}, "learning_rate"),
        ({"validation": DATA}, "validation"),
        ({"epochs": 1, "validation": DATA[0]}, "validation"),
        ({"epochs": 1, "validation": (DATA[0],)}, "validation"),
        ({"epochs": 1, "validation": (DATA[0][:, 1:], DATA[1])}, "validation: X"),
        ({"epochs": 1, "validation": (DATA[0], DATA[1][1:])}, "validation: y"),
        ({"rows": []}, "rows"),
        ({"rows": [40]}, "rows"),
        ({"rows": [-1]}, "rows"),
        ({"rows": [0.5]}, "rows"),
        ({"rows": [[1]]}, "rows"),
        ({"shuffle": 1}, "shuffle"),
        ({"share_l2": "yes"}, "share_l2"),
    ],
)
def test_bad_arguments_of_fit_are_errors(arguments, message):
    net = Network(UNITS)
    before = digest(net)
    with pytest.raises((TypeError, ValueError), match=message):
        net.fit(*DATA, **arguments)
    assert digest(net) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"updates": 2**62},
        {"epoch": 2**62},
        {"curves": None},
        {"curves": {}},
        {"curves": {"epoch_loss": [1.0], "validation_loss": [], "validation_score": []}},
        {"schedule": {}},
        {"schedule": {"name": "step", "state": [0.1]}},
        {"schedule": {"name": "constant", "state": [-1.0]}},
        {"schedule": {"name": "constant", "state": [np.nan]}},
        {"schedule": {"name": "nonsense", "state": [0.1]}},
        {"schedule": {"name": "constant", "speed": 3, "state": [0.1]}},
    ],
)
def test_bad_states_are_reported(bad):
    net = trained(1)
    before = digest(net)
    with pytest.raises((TypeError, ValueError)):
        net.load_state_dict({**net.state_dict(), **bad})
    assert digest(net) == before


@pytest.mark.parametrize("epochs", [0, 1, 12])
@pytest.mark.parametrize(
    "schedule",
    [
        Constant(1),
        Step(1, every=1),
        Step(0.1, every=1, factor=1e-100),
        Cosine(1, epochs=3),
        InverseScaling(1, power=2),
        InverseScaling(power=1000),
        Plateau(1, patience=1, factor=1),
        Plateau(patience=1, factor=1e-200, smallest=0, tol=10),
        Plateau(patience=1, monitor="validation_loss"),
    ],
    ids=str,
)
def test_every_state_that_a_schedule_reaches_is_saved_and_resumes(schedule, epochs, tmp_path):
    """Rates of 0, and rates given as ints."""
    pytest.importorskip("safetensors", exc_type=ImportError)
    net, path = Network(UNITS, dropout=0.4, seed=2), tmp_path / "m"
    fit = {"learning_rate": schedule, "batch_size": 16, "validation": DATA}
    net.fit(*DATA, **fit, epochs=epochs)
    net.save(path)
    again = [load(path), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for other in (net, *again):
        other.fit(*DATA, **fit, epochs=2)
        assert digest(other) == digest(net)
        assert other.state_dict()["schedule"] == net.state_dict()["schedule"]


def test_a_fit_is_resumed_at_a_rate_of_0(tmp_path):
    pytest.importorskip("safetensors", exc_type=ImportError)
    fit = {"learning_rate": Step(0.1, every=1, factor=1e-200), "epochs": 6, "batch_size": 16}
    whole, killed = Network(UNITS, seed=2), Network(UNITS, seed=2)
    whole.fit(*DATA, **fit)

    class Breaks(Callback):
        def on_iteration(self, net, iteration, loss):
            if iteration == 14:
                raise OSError("power cut")

    kept = {"checkpoint": tmp_path / "c", "checkpoint_every": 1}
    with pytest.raises(OSError, match="power cut"):
        killed.fit(*DATA, **fit, **kept, callbacks=[Breaks()])
    again = Network(UNITS, seed=2)
    again.fit(*DATA, **fit, **kept, callbacks=[Callback()])
    assert again.learning_rate == 0
    assert digest(again) == digest(whole)


def test_nan_is_no_progress_for_a_plateau():
    schedule = Plateau(0.1, patience=1, factor=0.5, monitor="validation_loss")
    state = schedule.begin()
    for number in range(1, 5):
        state = schedule.after(state, Epoch(number, 100, 1.0, state[0]))
    assert state == (0.1 * 0.5 * 0.5, math.inf, 0.0)


@pytest.mark.parametrize("monitor", ["validation_loss", "validation_score"])
def test_a_schedule_that_watches_validation_rows_needs_some(monitor):
    """Else the rate would fall to nothing in silence."""
    schedule, net = Plateau(0.1, patience=1, monitor=monitor), Network(UNITS, seed=2)
    before = digest(net)
    with pytest.raises(ValueError, match="expected validation rows, which it watches, or monitor"):
        net.fit(*DATA, learning_rate=schedule, epochs=3)
    assert digest(net) == before
    net.fit(*DATA, learning_rate=schedule, epochs=3, validation=DATA)
    assert net.learning_rate == 0.1


@pytest.mark.parametrize(
    ("schedule", "state"),
    [
        (Step(), [0.1, 0.5]),
        (Step(), [0.1, -1.0]),
        (Step(), [0.1, math.inf]),
        (Step(), [math.inf, 1.0]),
        (Cosine(), [0.1, math.nan]),
        (InverseScaling(), [0.1, -5.0]),
        (Plateau(), [0.1, math.nan, 0.0]),
        (Plateau(), [0.1, 1.0, 0.5]),
        (Plateau(), [0.1, 1.0]),
        (Constant(), []),
    ],
    ids=str,
)
def test_states_that_no_schedule_reaches_are_refused(schedule, state):
    net = Network(UNITS)
    net.fit(*DATA, learning_rate=schedule, epochs=1)
    whole, before = net.state_dict(), digest(net)
    with pytest.raises(ValueError, match="the state's schedule has the state"):
        net.load_state_dict({**whole, "schedule": {**whole["schedule"], "state": state}})
    assert digest(net) == before
    net.load_state_dict(whole)


# ---- Evaluation and weights ----------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error"]
)
def test_an_evaluation_is_the_twins_loss_and_the_score(loss):
    x, y = problem(UNITS, loss, dtype="float64")
    y = (y > 0.5).astype(float) if loss.startswith("sigmoid") else y
    weight = np.linspace(0, 2, len(x))
    net = Network(UNITS, loss=loss, dropout=0.5, dtype="float64")
    net.fit(x, y, epochs=5)
    for given in (None, weight):
        result = net.evaluate(x, y, given)
        outputs = net._engine.predict(cdrop._kernels.Rows(x), "outputs", 1)
        expected, _ = getattr(cdrop.reference, loss)(outputs, y, given)
        assert result.loss == pytest.approx(expected, rel=1e-13)
        assert result.score == pytest.approx(net.score(x, y, given))
        metric = r2_score if loss == "squared_error" else accuracy_score
        assert result.score == pytest.approx(metric(y, net.predict(x), sample_weight=given))


def test_constant_targets_have_a_score_of_0_or_1():
    net = Network([2, 1], loss="squared_error")
    net.set_weights([np.zeros((2, 1))], [np.ones(1)])
    assert net.evaluate([[0.0, 1.0]], [1.0]) == (0.0, 1.0)
    assert net.evaluate([[0.0, 1.0]], [2.0]) == (0.5, 0.0)


def test_a_diverged_network_has_no_score():
    net = Network([2, 1], loss="squared_error")
    net.set_weights([np.full((2, 1), np.nan)], [np.ones(1)])
    assert all(map(math.isnan, net.evaluate([[0.0, 1.0]], [1.0])))


def test_weights_are_exchanged_or_refused_whole():
    net, other = trained(2), trained(3)
    state = net.state_dict()
    net.set_weights(other.coefs_, other.intercepts_)
    for ours, theirs in zip(net.coefs_, other.coefs_, strict=True):
        assert np.array_equal(ours, theirs)
    assert net.state_dict()["updates"] == state["updates"]
    before = digest(net)
    for coefs, intercepts in (
        (net.coefs_[:1], net.intercepts_),
        (net.coefs_, net.intercepts_[::-1]),
        (net.coefs_, "ab"),
        ([c.astype(complex) for c in net.coefs_], net.intercepts_),
    ):
        with pytest.raises((TypeError, ValueError), match="coefs|intercepts"):
            net.set_weights(coefs, intercepts)
        assert digest(net) == before


WRONG_STATES = [(math.nan,), (-1.0,), (math.inf,), ("a",), None, (), 0.5, (0.1, "x")]


@pytest.mark.parametrize("state", WRONG_STATES, ids=repr)
def test_rates_of_one_s_own_schedule_are_checked(state):
    """A rate below 0 would train uphill in silence."""

    class After(Schedule):
        def after(self, before, epoch):
            return state

    class Begin(Schedule):
        def begin(self):
            return state

    text = "; expected a tuple of numbers, first the rate of the next epoch, finite and at least 0"
    net = Network([4, 8, 4])
    with pytest.raises(ValueError, match=text):
        net.fit(np.eye(4), np.arange(4), epochs=3, learning_rate=Begin())
    assert net.history.iterations == 0
    with pytest.raises(RuntimeError, match=f"after epoch 1, learning_rate is .*{text}"):
        net.fit(np.eye(4), np.arange(4), epochs=3, learning_rate=After())
    assert net.history.iterations == 1
    assert np.isfinite(net.coefs_[0]).all()
