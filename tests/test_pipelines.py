"""Models of scikit-learn that contain an estimator, in ONNX: onnxruntime predicts what they predict."""

import sys

import numpy as np
import pytest
from conftest import ACTIVATIONS
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop.convert import register_converters, to_onnx

onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

pytestmark = pytest.mark.filterwarnings("ignore")  # of other libraries, and too few epochs
SETTINGS = {"hidden_layer_sizes": 8, "dropout": 0.2, "max_iter": 5, "random_state": 0}
CLOSE = 1e-5
X, Y = load_iris(return_X_y=True)


def run(model, rows):
    """Answer by onnxruntime, as a dict by output."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    inputs = rows if isinstance(rows, dict) else {"X": rows}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_alike(model, found, rows):
    assert list(found) == ["label", "probabilities"]
    assert np.array_equal(found["label"], model.predict(rows))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=CLOSE)


LABELS = {
    "three": Y,
    "two": Y > 1,
    "floats": Y.astype(float) * 2 - 1,
    "two floats": (Y > 1).astype(np.float32),
    "small integers": Y.astype(np.uint8),
    "text": np.array(["one", "two", "drei é"])[Y],
    "two objects": np.array(["no", "yes"], object)[(Y > 1).astype(int)],
}


@pytest.mark.parametrize("labels", LABELS)
def test_pipelines_predict_the_same(labels):
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS)).fit(X, LABELS[labels])
    found = run(to_onnx(pipe), X.astype(np.float32))
    assert_alike(pipe, found, X)
    text = pipe.classes_.dtype.kind in "UO"
    assert found["label"].dtype == (object if text else np.int64)
    bare = run(to_onnx(pipe[-1]), pipe[0].transform(X).astype(np.float32))
    assert np.array_equal(bare["label"], found["label"])


@pytest.mark.parametrize("activation", ["logistic" if a == "sigmoid" else a for a in ACTIVATIONS])
def test_all_activations_predict_the_same(activation):
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS, activation=activation))
    assert_alike(pipe.fit(X, Y), run(to_onnx(pipe, X=X), X), X)


def test_several_labels_predict_the_same():
    x, y = make_multilabel_classification(60, n_classes=3, random_state=0)
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS)).fit(x, y)
    assert_alike(pipe, run(to_onnx(pipe), x.astype(np.float32)), x)


@pytest.mark.parametrize("outputs", [1, 2])
def test_regressors_predict_the_same(outputs):
    x, y = load_diabetes(return_X_y=True)
    y = y / 100 if outputs == 1 else np.stack([y, -y], axis=1) / 100
    pipe = make_pipeline(StandardScaler(), DropoutMLPRegressor(**SETTINGS)).fit(x, y)
    found = run(to_onnx(pipe), x.astype(np.float32))["variable"]
    assert found.shape == (len(x), outputs)
    np.testing.assert_allclose(found.reshape(y.shape), pipe.predict(x), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    "loss", [{"loss": "poisson"}, {"loss": "huber"}, {"loss": "quantile", "quantile": [0.9, 0.1]}]
)
def test_regressors_of_other_losses_predict_the_same(loss):
    x, y = load_diabetes(return_X_y=True)
    if "quantile" in loss:
        loss = {**loss, "sort_quantiles": True}
    pipe = make_pipeline(StandardScaler(), DropoutMLPRegressor(**SETTINGS, **loss)).fit(x, y / 100)
    found, predicted = run(to_onnx(pipe), x.astype(np.float32))["variable"], pipe.predict(x)
    np.testing.assert_allclose(found.reshape(predicted.shape), predicted, rtol=CLOSE, atol=CLOSE)


def test_columns_of_text_and_numbers_are_inputs():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": X[:, 0], "width": X[:, 1], "kind": np.array(list("abc"))[Y]})
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), ["size", "width"]), ("coded", OneHotEncoder(), ["kind"])]
    )
    pipe = make_pipeline(columns, DropoutMLPClassifier(**SETTINGS)).fit(frame, Y)
    inputs = {name: frame[[name]].to_numpy() for name in ("size", "width")}
    inputs["kind"] = frame[["kind"]].to_numpy().astype(object)
    assert_alike(pipe, run(to_onnx(pipe, X=frame), inputs), frame)
    with pytest.raises(ValueError, match="X is None; expected a data frame"):
        to_onnx(pipe)


def test_searches_are_converted_and_written(tmp_path):
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS))
    search = GridSearchCV(pipe, {"dropoutmlpclassifier__dropout": [0.1, 0.2]}, cv=2).fit(X, Y)
    made = to_onnx(search, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == made.SerializeToString()
    assert_alike(search, run(made, X.astype(np.float32)), X)


def test_skl2onnx_converts_after_registration():
    register_converters()
    register_converters()
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS)).fit(X, Y)
    found = run(skl2onnx.to_onnx(pipe, X[:1].astype(np.float32)), X.astype(np.float32))
    assert np.array_equal(found["output_label"], pipe.predict(X))
    expected = pipe.predict_proba(X)
    np.testing.assert_allclose(
        [found["output_probability"][9][i] for i in range(3)], expected[9], atol=CLOSE
    )
    options = {DropoutMLPClassifier: {"zipmap": False}}
    made = skl2onnx.to_onnx(pipe[-1], X[:1].astype(np.float32), options=options)
    assert_alike(pipe[-1], run(made, X.astype(np.float32)), X)


def test_models_without_an_estimator_of_cdrop_are_converted_too():
    model = LogisticRegression().fit(X, Y)
    assert "output_label" in run(to_onnx(model), X.astype(np.float32))


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "M8[D]"), TypeError),
        (np.array([1, 2, 2**63 + 5], np.uint64), ValueError),
        (np.array([1.0, 2.0, 2.0**63]), ValueError),
        (np.array(["a", "b", "\ud800"], object), ValueError),
        (np.array(["a", "b", "c\0d"], object), ValueError),
    ],
)
def test_labels_that_onnx_cannot_hold_are_refused(labels, error):
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier(**SETTINGS)).fit(X, Y)
    pipe[-1].classes_ = labels
    for model in (pipe, pipe[-1]):
        with pytest.raises(error, match="(?s)classes_ is .*; expected"):
            to_onnx(model)


def test_what_is_not_a_model_is_refused(monkeypatch):
    pipe = make_pipeline(StandardScaler(), DropoutMLPClassifier())
    for model in (
        pipe,
        DropoutMLPClassifier(),
        DropoutMLPClassifier,
        "pipe",
        None,
        3,
        StandardScaler,
    ):
        with pytest.raises((TypeError, ValueError), match="model is|not fitted|X is None"):
            to_onnx(model)
    with pytest.raises(TypeError, match="^X is list; expected None for a Network"):
        to_onnx(Network([2, 2]), X=[[1.0, 2.0]])
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    for call in (register_converters, lambda: to_onnx(pipe.fit(X, Y))):
        with pytest.raises(ImportError, match=r"need skl2onnx: pip install 'cdrop\[onnx\]'"):
            call()


def test_a_network_loaded_alone_keeps_its_labels(tmp_path):
    model = DropoutMLPClassifier(**SETTINGS).fit(X, LABELS["text"])
    model.save(tmp_path / "model")
    net = load(tmp_path / "model", as_network=True)
    assert_alike(model, run(to_onnx(net), X.astype(np.float32)), X)
