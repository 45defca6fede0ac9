"""Exported models, run by another runtime, predict what cdrop predicts."""

import sys
import warnings

import numpy as np
import pytest
from conftest import ACTIVATIONS, LOSSES, problem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_poisson_deviance
from sklearn.neural_network import MLPClassifier, MLPRegressor

import cdrop
from cdrop import Network
from cdrop.convert import from_sklearn, to_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLOSE = 1e-5


def run(model, x):
    """Answer by onnxruntime, as a dict by output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": x.astype(np.float32)}), strict=True))


def trained(units, loss, **settings):
    net = Network(units, loss=loss, seed=3, **settings)
    x, y = problem(units, loss, rows=60, dtype=net.dtype)
    net.fit(x, y, batch_size=16, iterations=30, learning_rate=0.01)
    return net, x


def assert_alike(net, x):
    answers = run(to_onnx(net), x)
    if net.loss == "squared_error":
        assert list(answers) == ["output"]
        np.testing.assert_allclose(answers["output"], net.predict(x), rtol=CLOSE, atol=CLOSE)
    else:
        assert list(answers) == ["label", "probabilities"]
        assert answers["label"].dtype == np.int64
        np.testing.assert_array_equal(answers["label"], net.predict(x))
        np.testing.assert_allclose(answers["probabilities"], net.predict_proba(x), atol=CLOSE)
    assert all(a.dtype == np.float32 for n, a in answers.items() if n != "label")


@pytest.mark.parametrize("scaling", ["train", "test"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_kind_of_network_predicts_the_same(activation, loss, scaling, dtype):
    net, x = trained(
        [7, 19, 11, 4],
        loss,
        activation=activation,
        scaling=scaling,
        dtype=dtype,
        dropout=[0.5, 0.3],
        input_dropout=0.2,
    )
    for rows in (60, 1, 0):
        assert_alike(net, x[:rows])


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "shared"])
@pytest.mark.parametrize("scaling", ["train", "test"])
def test_networks_with_other_kinds_of_dropout_predict_the_same(kind, scaling):
    kinds = {"dropout_kind": [kind, "bernoulli"], "input_dropout_kind": kind}
    rates = {"dropout": [0.5, 0.3], "input_dropout": 0.2}
    assert_alike(
        *trained([7, 19, 11, 4], "softmax_cross_entropy", scaling=scaling, **rates, **kinds)
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("units", [[5, 1], [1, 3], [5, 2, 1], [3, 200, 70, 2]])
def test_small_and_wide_networks_predict_the_same(units, loss):
    assert_alike(*trained(units, loss))


def test_a_background_needs_no_node():
    net = Network([20, 30, 3], seed=1)
    x = np.where(np.random.default_rng(0).random((50, 20)) < 0.9, 0.7, 3).astype(np.float32)
    net.fit(x, np.arange(50) % 3, iterations=30)
    assert net.state_dict()["background"].any()
    assert_alike(net, x)


class Estimator:
    """What `to_onnx` looks at in a fitted estimator."""

    def __init__(self, net, classes, multilabel=False):
        self.network_, self.classes_, self._multilabel = net, classes, multilabel


@pytest.mark.parametrize(
    "classes",
    [np.array([-5, 7, 2**40]), np.array(["a", "bcd", "é"]), np.array(["a", "b", "c"], object)],
)
def test_an_estimators_labels_are_its_classes(classes):
    net, x = trained([7, 9, 3], "softmax_cross_entropy")
    answers = run(to_onnx(Estimator(net, classes)), x)
    assert answers["label"].tolist() == classes[net.predict(x)].tolist()
    np.testing.assert_allclose(answers["probabilities"], net.predict_proba(x), atol=CLOSE)


@pytest.mark.parametrize(
    "classes", [np.array([3, 4]), np.array(["no", "yes"]), np.array([False, True])]
)
def test_one_unit_for_two_classes(classes):
    net, x = trained([7, 9, 1], "sigmoid_cross_entropy")
    model = to_onnx(Estimator(net, classes))
    answers, p = run(model, x), net.predict_proba(x)
    assert answers["label"].tolist() == classes[net.predict(x)[:, 0]].tolist()
    assert answers["label"].shape == (60,)
    np.testing.assert_allclose(answers["probabilities"], np.hstack([1 - p, p]), atol=CLOSE)
    assert [len(a) for a in run(model, x[:1]).values()] == [1, 1]


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_several_labels_at_once_stay_0_and_1(labels):
    net, x = trained([7, 9, labels], "sigmoid_cross_entropy")
    answers = run(to_onnx(Estimator(net, np.arange(labels), True)), x)
    np.testing.assert_array_equal(answers["label"], net.predict(x))
    np.testing.assert_allclose(answers["probabilities"], net.predict_proba(x), atol=CLOSE)


def test_the_file_and_what_it_says(tmp_path):
    net = trained([7, 9, 3], "softmax_cross_entropy")[0]
    model = to_onnx(net, tmp_path / "m.onnx")
    read = onnx.load(tmp_path / "m.onnx")
    assert read == model
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (read.producer_name, read.producer_version) == ("cdrop", cdrop.__version__)
    assert (read.opset_import[0].version, read.ir_version) == (13, 7)
    assert [n.op_type for n in read.graph.node if n.op_type == "Dropout"] == []
    sizes = [v.type.tensor_type.shape.dim for v in (*read.graph.input, *read.graph.output)]
    assert [[d.dim_param or d.dim_value for d in dims] for dims in sizes] == [
        ["n", 7],
        ["n"],
        ["n", 3],
    ]


def test_what_cannot_be_exported_is_reported(tmp_path, monkeypatch):
    net = Network([2, 2], dtype="float64")
    state = net.state_dict()
    for bad in (np.nan, 1e39):
        state["arrays"]["weight.0"][1, 0] = bad
        net.load_state_dict(state)
        with pytest.raises(ValueError, match="layer 0 are not finite in float32"):
            to_onnx(net, tmp_path / "m")
    for bad in (None, 3, object(), Network, Estimator(None, None)):
        with pytest.raises(TypeError, match="model is"):
            to_onnx(bad)
    with pytest.raises(TypeError, match="classes_ is"):
        to_onnx(Estimator(Network([2, 2]), np.array([0.5, 1.5])))
    with pytest.raises(ValueError, match="at least two classes"):
        to_onnx(Estimator(Network([2, 1]), np.array(["a"])))
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        to_onnx(Network([2, 2]), tmp_path / "absent" / "m")
    monkeypatch.setitem(sys.modules, "onnx.checker", None)
    with pytest.raises(ImportError, match=r"pip install 'cdrop\[onnx\]'"):
        to_onnx(Network([2, 2]), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# ---- From scikit-learn -------------------------------------------------------------------------


def fitted(kind, y, dtype="float64", **settings):
    x = problem([6, 2], rows=len(y), dtype=dtype)[0]
    with warnings.catch_warnings(action="ignore"):  # of too few epochs
        return kind(hidden_layer_sizes=(9, 5), random_state=3, **{"max_iter": 15, **settings}).fit(
            x, y
        ), x


TARGETS = {
    "binary": np.arange(60) % 2,
    "texts": np.array(["no", "yes", "perhaps"])[np.arange(60) % 3],
    "labels": (np.arange(180).reshape(60, 3) % np.array([2, 3, 5]) == 0).astype(int),
    "two-labels": (np.arange(120).reshape(60, 2) % np.array([2, 3]) == 0).astype(int),
    "one-number": np.sin(np.arange(60.0)),
    "numbers": np.sin(np.arange(180.0)).reshape(60, 3),
}


@pytest.mark.parametrize("activation", ["relu", "logistic", "tanh", "identity"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_perceptron_of_scikit_learn_predicts_the_same(tmp_path, target, activation, dtype):
    kind = MLPRegressor if "number" in target else MLPClassifier
    theirs, x = fitted(kind, TARGETS[target], dtype, activation=activation)
    ours = from_sklearn(theirs)
    close = 1e-12 if dtype == "float64" else 1e-5
    assert type(ours).__name__ == f"Dropout{kind.__name__}"
    if kind is MLPRegressor:
        np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=close, atol=close)
    else:
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=close)
    assert ours.predict(x).shape == theirs.predict(x).shape
    assert [w.tobytes() for w in ours.coefs_] == [w.tobytes() for w in theirs.coefs_]
    assert ours.loss_curve_ == theirs.loss_curve_
    assert ours.n_iter_ == theirs.n_iter_
    assert (ours.out_activation_, ours.n_layers_) == (theirs.out_activation_, theirs.n_layers_)
    ours.save(tmp_path / "m")
    np.testing.assert_array_equal(cdrop.load(tmp_path / "m").predict(x), ours.predict(x))
    with warnings.catch_warnings(action="ignore"):
        ours.set_params(warm_start=True, max_iter=30).fit(x, TARGETS[target])
    assert len(ours.loss_curve_) > theirs.n_iter_
    if kind is MLPClassifier:
        assert ours.loss_ < theirs.loss_curve_[0]
    answers = run(to_onnx(ours), x)
    np.testing.assert_allclose(
        answers["output" if kind is MLPRegressor else "probabilities"].reshape(-1),
        (ours.predict(x) if kind is MLPRegressor else ours.predict_proba(x)).reshape(-1),
        rtol=CLOSE,
        atol=CLOSE,
    )
    if kind is MLPClassifier:
        assert answers["label"].tolist() == ours.predict(x).tolist()


def test_parameters_and_scores_come_along():
    settings = {"solver": "sgd", "alpha": 0.5, "early_stopping": True, "batch_size": 7}
    theirs, x = fitted(MLPClassifier, np.arange(60) % 3, **settings)
    ours = from_sklearn(theirs)
    given = ours.get_params()
    assert {name: given[name] for name in settings} == settings
    assert given["hidden_layer_sizes"] == (9, 5)
    assert given["dropout"] == 0
    assert ours.validation_scores_ == theirs.validation_scores_
    assert ours.best_validation_score_ == theirs.best_validation_score_
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    lbfgs, x = fitted(MLPClassifier, TARGETS["binary"], solver="lbfgs")
    assert from_sklearn(lbfgs).get_params()["solver"] == "adam"
    assert from_sklearn(lbfgs).loss_ == lbfgs.loss_


def test_feature_names_come_along():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(np.random.default_rng(0).random((20, 2)), columns=["a", "b"])
    with warnings.catch_warnings(action="ignore"):
        theirs = MLPClassifier(max_iter=3).fit(x, np.arange(20) % 2)
    ours = from_sklearn(theirs)
    assert ours.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_what_cannot_be_taken_over_is_reported():
    for bad in (None, 3, MLPClassifier, LogisticRegression(), Network([2, 2])):
        with pytest.raises(TypeError, match="model is"):
            from_sklearn(bad)
    with pytest.raises(ValueError, match="not fitted"):
        from_sklearn(MLPClassifier())


@pytest.mark.skipif("loss" not in MLPRegressor().get_params(), reason="new in scikit-learn 1.7")
def test_the_loss_comes_along():
    counts = TARGETS["binary"] + 1.0
    theirs, x = fitted(MLPRegressor, counts, loss="poisson")
    ours = from_sklearn(theirs)
    assert (ours.loss, ours.out_activation_) == ("poisson", "exp")
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-12)
    np.testing.assert_allclose(run(to_onnx(ours), x)["output"][:, 0], ours.predict(x), rtol=CLOSE)
    assert ours.network_.evaluate(x, counts).loss == pytest.approx(
        mean_poisson_deviance(counts, theirs.predict(x)) / 2
    )


def test_a_model_that_is_converted_keeps_its_generator():
    draws = np.random.RandomState(0)
    x, y = np.eye(4).repeat(5, axis=0), np.arange(20) % 2
    with warnings.catch_warnings(action="ignore"):
        theirs = MLPClassifier(max_iter=1, random_state=draws).fit(x, y)
        before = repr(draws.get_state())
        from_sklearn(theirs).fit(x, y)
    assert repr(draws.get_state()) == before
