"""Several masks for each row of a minibatch: multi-sample dropout, and R-Drop's consistency."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import digest, parameters, problem, whole_state

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, reference
from cdrop.experiments import paired_experiment
from cdrop.experiments.arms import Configuration
from cdrop.rates import Early

UNITS = (20, 70, 66, 4)
CROSS_ENTROPIES = ("softmax_cross_entropy", "sigmoid_cross_entropy")
R_DROP = {"mask_samples": 2, "consistency": 1.5}
MANY = ({"mask_samples": 2}, {"mask_samples": 3}, R_DROP)
# Where the first dropout is decides what runs once for all masks: nothing, some layers, all but one.
PLACES = ({"input_dropout": 0.3}, {}, {"dropout": [0.0, 0.5]})


def network(**settings):
    given = {"units": UNITS, "dropout": 0.4, "seed": 3, "dtype": "float64", **settings}
    return Network(**given)


def data(units=UNITS, rows=70, loss="softmax_cross_entropy", dtype="float64", seed=0):
    x, y = problem(units, loss, rows, seed, dtype)
    x[np.random.default_rng(seed).random(x.shape) < 0.5] = 0
    return x, y


def spec_of(net):
    kinds = [net.input_dropout_kind, *net.dropout_kind]
    settings = {k: v for k, v in net._loss_settings.items() if v}
    return reference.NetworkSpec(
        net.units, net.dropout, net.input_dropout, net.activation, net.loss, net.scaling, net.seed,
        settings, kinds,
    )  # fmt: skip


def largest_difference(net, params):
    ours = (*net.coefs_, *net.intercepts_)
    return max(np.abs(a - b).max() for a, b in zip(ours, (*params[0], *params[1]), strict=True))


def steps_and_twin(net, masks, rows=70, optimizer="adam", weighted=False, steps=2, y=None):
    """Make some steps with a network and its twin; return the largest difference of losses and weights."""
    params = net.coefs_, net.intercepts_
    state, spec = reference.initial_state(params, optimizer), spec_of(net)
    how = {"learning_rate": 0.01, "l2": 1e-3, "max_norm": 2.0, **masks}
    worst = 0.0
    for step in range(1, steps + 1):
        x, truth = data(net.units, rows, net.loss, seed=step)
        truth = truth if y is None else y
        weight = np.arange(rows) % 3 + 0.5 if weighted else None
        loss = net.train_step(x, truth, weight, optimizer=optimizer, **how)
        expected = reference.train_step(
            params, state, x, truth, spec, step=step, sample_weight=weight, **how
        )
        worst = max(worst, abs(loss - expected), largest_difference(net, params))
    return worst


# ---- Against the twin ----------------------------------------------------------------------


@pytest.mark.parametrize("masks", MANY, ids=["2", "3", "r-drop"])
@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "identity"])
def test_steps_are_those_of_the_twin(activation, place, masks):
    for rows in (1, 67):
        net = network(activation=activation, **place)
        assert steps_and_twin(net, masks, rows) < 1e-10


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
@pytest.mark.parametrize("loss", CROSS_ENTROPIES)
def test_noise_and_several_labels_equal_the_twin(loss, place, kind):
    net = network(dropout_kind=kind, input_dropout_kind=kind, loss=loss, **place)
    assert steps_and_twin(net, R_DROP, weighted=True) < 1e-10


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop"])
def test_optimizers_equal_the_twin(optimizer):
    assert steps_and_twin(network(), R_DROP, optimizer=optimizer) < 1e-10


@pytest.mark.parametrize("scaling", ["train", "test"])
def test_soft_labels_smoothing_and_scaling_equal_the_twin(scaling):
    soft = np.random.default_rng(0).dirichlet(np.ones(4), 70)
    net = network(label_smoothing=0.1, scaling=scaling)
    assert steps_and_twin(net, R_DROP, y=soft, weighted=True) < 1e-10


@pytest.mark.parametrize("units", [(20, 4), (20, 1), (20, 70, 1), (20, 30, 300)])
def test_other_depths_and_outputs_equal_the_twin(units):
    dropout = [0.4] * (len(units) - 2)
    net = network(units=units, dropout=dropout, input_dropout=0.2, loss=CROSS_ENTROPIES[1])
    assert steps_and_twin(net, R_DROP) < 1e-10


@pytest.mark.parametrize("loss", ["squared_error", "quantile", "poisson"])
def test_losses_of_numbers_equal_the_twin(loss):
    net = network(loss=loss)
    y = np.abs(data(loss="squared_error")[1])
    assert steps_and_twin(net, {"mask_samples": 3}, y=y) < 1e-10


# ---- Against the definition ----------------------------------------------------------------


def objective(params, x, y, spec, masks, consistency):
    """The loss by its formula, of rows that come twice."""
    z = reference.forward(params, x, spec, masks=masks)[-1]
    if spec.loss == "softmax_cross_entropy":
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        entropy = -np.log(p[np.arange(len(y)), y])
        p = p[:, None, :]
    else:
        p = 1 / (1 + np.exp(-z))
        entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)
        p = np.stack([p, 1 - p], axis=2)
    a, b = p[::2], p[1::2]
    divergence = 0.5 * (a * np.log(a / b) + b * np.log(b / a)).sum(axis=(1, 2))
    return entropy.mean() + consistency * divergence.mean()


@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
@pytest.mark.parametrize("loss", CROSS_ENTROPIES)
def test_gradients_against_central_differences_of_the_formula(loss, place):
    net = network(units=(6, 9, 7, 3), activation="tanh", loss=loss, **place)
    x, y = data(net.units, 11, loss)
    spec, before = spec_of(net), (net.coefs_, net.intercepts_)
    masks = reference.keyed_masks(spec, 22, 1)
    twice = np.repeat(x, 2, axis=0), np.repeat(y, 2, axis=0)
    seen = net.train_step(x, y, optimizer="sgd", learning_rate=1.0, **R_DROP)
    assert seen == pytest.approx(objective(before, *twice, spec, masks, 1.5), rel=1e-12)
    after, small = (net.coefs_, net.intercepts_), 1e-5
    for part, layer in itertools.product((0, 1), range(3)):
        array = before[part][layer]
        for i in np.ndindex(array.shape):
            kept, sides = array[i], []
            for move in (small, -small):
                array[i] = kept + move
                sides.append(objective(before, *twice, spec, masks, 1.5))
            array[i] = kept
            slope = (sides[0] - sides[1]) / (2 * small)
            assert kept - after[part][layer][i] == pytest.approx(slope, abs=1e-8)


def test_without_shared_layers_it_is_a_step_on_repeated_rows():
    x, y = data()
    nets = [network(input_dropout=0.3, dtype="float32") for _ in range(2)]
    weight = np.arange(70) % 3 + 0.5
    nets[0].train_step(x, y, weight, mask_samples=3)
    nets[1].train_step(*(np.repeat(a, 3, axis=0) for a in (x, y)), np.repeat(weight, 3))
    assert digest(nets[0]) == digest(nets[1])


def test_consistency_makes_predictions_under_masks_agree():
    x, y = data(rows=128)
    spread = []
    for consistency in (0.0, 30.0):
        net = network(dtype="float32")
        net.fit(x, y, mask_samples=2, consistency=consistency, batch_size=64, epochs=60)
        spread.append(net.predict_uncertainty(x, 50).mutual_information.mean())
    assert spread[1] < 0.5 * spread[0]


# ---- The same bytes ------------------------------------------------------------------------


@pytest.mark.parametrize("masks", MANY, ids=["2", "3", "r-drop"])
@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
def test_bytes_depend_on_neither_threads_nor_path_nor_storage(place, masks, dtype, on_each_path):
    x, y = data(rows=190, dtype=dtype)

    def fits():
        for threads, matrix in ((1, x), (2, x), (3, x), (2, sp.csr_array(x))):
            net = network(dtype=dtype, threads=threads, **place)
            net._set_background(None)
            net.fit(matrix, y, iterations=5, batch_size=100, l2=1e-3, **masks)
            yield digest(net)

    assert len(set(itertools.chain(*on_each_path(lambda: list(fits())).values()))) == 1


def test_a_mask_depends_on_its_row_alone():
    """The first rows of a minibatch have the same masks whatever rows follow."""
    x, y = data(rows=130)
    outputs = []
    for rows in (66, 130):
        net = network()
        weight = np.where(np.arange(rows) < 66, 1.0, 0.0)
        net.train_step(x[:rows], y[:rows], weight, optimizer="sgd", **R_DROP)
        outputs.append(digest(net))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
def test_defaults_change_nothing(place):
    x, y = data()
    nets = [network(**place, dtype="float32") for _ in range(2)]
    nets[0].fit(x, y, iterations=5, batch_size=30)
    nets[1].fit(x, y, iterations=5, batch_size=30, mask_samples=1, consistency=0.0)
    assert whole_state(nets[0]) == whole_state(nets[1])


def test_steps_that_drop_nothing_are_those_of_one_mask():
    x, y = data()
    nets = [network(dropout=Early(0.5, until=0.4, steps=10)) for _ in range(2)]
    states = []
    for net, masks in zip(nets, (R_DROP, {}), strict=True):
        net.fit(x, y, iterations=4, batch_size=30, **R_DROP)
        net.fit(x, y, iterations=4, batch_size=30, **masks)
        states.append(whole_state(net))
    assert states[0] == states[1]


def test_other_steps_in_between_leave_no_trace():
    """Memory is taken again when a step needs more of it, and holds no state."""
    x, y = data(rows=130)
    plan = ({}, R_DROP, {"rows": 130}, {"mask_samples": 5, "rows": 64}, R_DROP, {"rows": 20})
    nets = [network(dtype="float32") for _ in range(2)]
    for step in plan:
        rows, masks = step.get("rows", 70), {k: v for k, v in step.items() if k != "rows"}
        fresh = network(dtype="float32")
        fresh.load_state_dict(nets[1].state_dict())
        nets[1] = fresh
        for net in nets:
            net.train_step(x[:rows], y[:rows], **masks)
            net.predict(x)
        assert digest(nets[0]) == digest(nets[1])


def test_inputs_with_a_background_train_as_without():
    x, y = data(rows=130)
    x[x == 0] = 0.75
    nets = [network() for _ in range(2)]
    nets[1]._set_background(None)
    for net in nets:
        net.fit(x, y, iterations=6, batch_size=64, **R_DROP)
    assert nets[0]._background.any()
    for a, b in zip(*map(parameters, nets), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


class Stop(cdrop.callbacks.Callback):
    """Ends a fit after some steps."""

    def on_iteration(self, net, iteration, loss):
        if iteration == 7:
            raise RuntimeError("killed")


def test_a_resumed_fit_gives_the_bytes_of_one_that_was_not_stopped(tmp_path):
    pytest.importorskip("safetensors")
    x, y = data(rows=150)
    settings = {"batch_size": 60, "epochs": 4, **R_DROP}
    whole, part, other = (network(dtype="float32") for _ in range(3))
    whole.fit(x, y, **settings)
    kept = {"checkpoint": tmp_path / "fit", "checkpoint_every": 1}
    with pytest.raises(RuntimeError, match="killed"):
        part.fit(x, y, callbacks=[Stop()], **kept, **settings)
    for name, value in (("mask_samples", 3), ("consistency", 0.5), ("consistency", 0.0)):
        changed = {**settings, name: value}
        if name == "mask_samples":
            changed["consistency"] = 0.0
        with pytest.raises(ValueError, match=f"another {name}"):
            network(dtype="float32").fit(x, y, **kept, **changed)
    other.fit(x, y, **kept, **settings)
    assert whole_state(other) == whole_state(whole)


# ---- Errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "masks", "message"),
    [
        ({}, {"consistency": 0.5}, r"consistency is 0\.5 .*expected mask_samples=2"),
        ({}, {"consistency": 0.5, "mask_samples": 3}, "with mask_samples 3; expected mask_sam"),
        ({"loss": "squared_error"}, R_DROP, "consistency is 1.5, and the loss is 'squared_error'"),
        ({"dropout": 0.0}, {"mask_samples": 2}, "mask_samples is 2, and the network has no drop"),
        ({"dropout_kind": "shared"}, {"mask_samples": 2}, "mask_samples is 2, .* is 'shared'"),
        (
            {"input_dropout": 0.2, "input_dropout_kind": "shared"},
            {"mask_samples": 2},
            "expected another kind, such as 'bernoulli'",
        ),
    ],
)
def test_what_does_not_combine_is_refused_before_anything_changes(settings, masks, message):
    net = network(**settings)
    x, y = data(loss=net.loss)
    before = whole_state(net)
    for call in (net.train_step, net.fit):
        with pytest.raises(ValueError, match=message):
            call(x, y, **masks)
    assert whole_state(net) == before


def test_shared_masks_where_nothing_is_dropped_do_not_count():
    net = network(dropout=[0.0, 0.5], dropout_kind=["shared", "bernoulli"])
    assert steps_and_twin(net, R_DROP) < 1e-10


@pytest.mark.parametrize("place", PLACES, ids=["input", "hidden", "last"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_loss_that_is_not_finite_changes_nothing(place, threads):
    x, y = data(rows=64)
    net = network(dtype="float32", threads=threads, **place)
    net.train_step(x, y, **R_DROP)
    coefs = net.coefs_
    coefs[2] = coefs[2] * 1e30
    coefs[1] = coefs[1] * 1e30
    net.set_weights(coefs, net.intercepts_)
    before = whole_state(net)
    with pytest.raises(FloatingPointError, match="nor are the outputs of layer|though all outputs"):
        net.train_step(x, y, **R_DROP)
    assert whole_state(net) == before


def test_an_error_names_the_layer_whose_copies_are_not_finite():
    """Of the copies, only one of the last row's is: more rows than the batch has must be looked at."""
    rows = 40
    net = network(dtype="float32", dropout=[0.0, 0.5], activation="identity")
    x = np.zeros((rows, 20), "float32")
    x[-1] = 1e30
    coefs = [np.full_like(w, 1e20 if i == 1 else 1.0) for i, w in enumerate(net.coefs_)]
    net.set_weights(coefs, net.intercepts_)
    with pytest.raises(FloatingPointError, match="nor are the outputs of layer 2 of 3"):
        net.train_step(x, np.zeros(rows, int), **R_DROP)


def test_divergence_of_the_twin_checks_its_arguments():
    with pytest.raises(ValueError, match="logits has 3 rows; expected an even number"):
        reference.divergence(np.ones((3, 2)))
    with pytest.raises(ValueError, match="loss is 'huber'; expected one of"):
        reference.divergence(np.ones((2, 2)), loss="huber")


# ---- Estimators and experiments ------------------------------------------------------------


@pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])
def test_an_estimator_trains_as_its_network_does(kind):
    masks = R_DROP if kind is DropoutMLPClassifier else {"mask_samples": 3}
    x, y = data(rows=90)
    y = y if kind is DropoutMLPClassifier else x[:, 0]
    model = kind(16, dropout=0.5, batch_size=30, random_state=1, max_iter=5, tol=0.0, **masks)
    assert model.get_params()["mask_samples"] == masks["mask_samples"]
    with pytest.warns(cdrop.estimators.warn.ConvergenceWarning):
        model.fit(x, y)
    net = Network(**model.network_._settings())
    targets = y if kind is DropoutMLPClassifier else y[:, None]
    net.fit(
        x, targets, optimizer="adam", l2=1e-4, share_l2=True, batch_size=30, epochs=5, **masks
    )  # fmt: skip
    for a, b in zip(*map(parameters, (net, model.network_)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_estimator_refuses_what_does_not_combine_and_stays_as_it_was():
    x, y = data(rows=30)
    model = DropoutMLPClassifier(8, dropout=0.5, max_iter=1).partial_fit(x, y, classes=range(4))
    before = digest(model.network_)
    with pytest.raises(ValueError, match="expected mask_samples=2"):
        model.set_params(consistency=1.0).fit(x, y)
    assert digest(model.network_) == before


def test_an_arm_of_an_experiment_has_masks():
    x, y = data(rows=60)
    settings = {"hidden": 8, "dropout": 0.5, "iterations": 5, "batch_size": 20}
    assert Configuration.from_settings("arm", {**settings, **R_DROP}).fit.items() >= R_DROP.items()
    arms = {"one": settings, "two": {**settings, "mask_samples": 2}, "agree": settings | R_DROP}
    result = paired_experiment(arms, x, y, test_data=(x, y), repeats=2, seed=4)
    for name, masks in (("one", {}), ("two", {"mask_samples": 2}), ("agree", R_DROP)):
        net = Network([20, 8, 4], dropout=0.5, seed=4)
        net.fit(x, y, iterations=5, batch_size=20, **masks)
        loss = result.arms[name].trials[0].scores["log_loss"]
        assert loss == pytest.approx(net.evaluate(x, y).loss, rel=1e-6)
