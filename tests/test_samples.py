"""The predictions of single passes under dropout, and their quantiles."""

import numpy as np
import pytest
from conftest import DTYPES, LOSSES, problem, with_biases
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, _memory, uncertainty

UNITS = [9, 40, 4]


def network(loss, dtype="float32", units=UNITS):
    return with_biases(Network(units, dropout=0.4, loss=loss, seed=3, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_mean_of_the_first_samples_is_that_of_as_many_masks(loss, dtype, simd):
    net = network(loss, dtype)
    x = problem(UNITS, loss, rows=300, dtype=dtype)[0]
    samples = net.predict_uncertainty(x, 5, samples=True).samples
    assert samples.shape == (5, 300, 4)
    assert samples.dtype == net.dtype
    for count in (1, 2, 5):
        mean = net.predict_uncertainty(x, count).mean
        np.testing.assert_allclose(
            mean, samples[:count].mean(axis=0, dtype=float), rtol=1e-6, atol=1e-9
        )
    assert np.array_equal(samples[0], net.predict_uncertainty(x, 1).mean)
    assert len(np.unique(samples.round(6), axis=0)) == 5


def test_samples_are_the_same_bytes_however_rows_are_cut(monkeypatch):
    net = network("softmax_cross_entropy")
    x = problem(UNITS, rows=700)[0]
    whole = net.predict_uncertainty(x, 3, seed=8, samples=True).samples
    monkeypatch.setattr(Network, "_piece", lambda net: 256)
    net.threads = 2
    assert np.array_equal(net.predict_uncertainty(x, 3, seed=8, samples=True).samples, whole)
    assert net.predict_uncertainty(x, 3).samples is None


def test_samples_of_subnetworks_are_their_predictions():
    net = network("squared_error")
    x, subnetworks = problem(UNITS, "squared_error", rows=20)[0], net.subnetworks(3)
    samples = subnetworks.predict_uncertainty(x, samples=True).samples
    for sample, subnetwork in zip(samples, subnetworks, strict=True):
        np.testing.assert_allclose(sample, subnetwork.predict(x), rtol=1e-4, atol=1e-5)


def test_one_column_has_no_axis():
    net = network("squared_error", units=[3, 20, 1])
    x = np.arange(12.0).reshape(4, 3)
    assert net.predict_uncertainty(x, 6, samples=True).samples.shape == (6, 4, 1)
    net.fit(x, x[:, 0], iterations=1)
    result = net.predict_uncertainty(x, 6, samples=True)
    assert result.samples.shape == (6, 4)
    assert result.quantile(0.5).shape == (4,)
    assert result.quantile([0.1, 0.9]).shape == (2, 4)


def test_quantiles_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(uncertainty, "_AT_ONCE", 100)  # several pieces
    x = problem(UNITS, rows=50)[0]
    result = network("softmax_cross_entropy").predict_uncertainty(x, 9, samples=True)
    for q in (0.25, [0, 0.05, 1], np.float32(0.5), (0.3,), 1):
        found = result.quantile(q)
        assert found.dtype == np.float32
        expected = np.quantile(result.samples.astype(float), q, axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bad_quantiles_are_refused():
    result = network("squared_error").predict_uncertainty(np.ones((2, 9)), 3, samples=True)
    for q in (None, "a", "0.5", True, 1j, [None], [[0.1]], [], -0.1, 1.1, np.nan, np.inf, {}, b"a"):
        with pytest.raises((TypeError, ValueError), match=r"^q is .*; expected a number between"):
            result.quantile(q)
    result = network("squared_error").predict_uncertainty(np.ones((2, 9)), 3)
    with pytest.raises(ValueError, match=r"samples is None.*expected .*samples=True"):
        result.quantile(0.5)


def test_samples_that_do_not_fit_in_memory_are_refused(monkeypatch):
    net, x = network("squared_error"), np.ones((50, 9))
    with pytest.raises(MemoryError, match=r"^samples of 2000000000 masks for 50 rows take .* GiB;"):
        net.predict_uncertainty(x, 2 * 10**9, samples=True)
    monkeypatch.setattr(_memory, "free_memory", lambda: 3 * 50 * 4 * 4)
    assert net.predict_uncertainty(x, 3, samples=True).samples.nbytes == 3 * 50 * 4 * 4
    with pytest.raises(MemoryError, match="expected at most .* fewer masks"):
        net.predict_uncertainty(x, 4, samples=True)
    net.predict_uncertainty(x, 4)


def test_free_memory_is_that_of_the_system_and_of_the_cgroup(tmp_path):
    assert _memory.free_memory(tmp_path, tmp_path) == np.inf
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     5 kB\n")
    assert _memory.free_memory(tmp_path, tmp_path) == 5 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory.free_memory(tmp_path, tmp_path) == 5 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert _memory.free_memory(tmp_path, tmp_path) == 2000


def classifier(**settings):
    return DropoutMLPClassifier(8, dropout=0.3, max_iter=3, random_state=0, **settings)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [1, 2, 3, "several"])
def test_classifiers_have_a_column_of_samples_for_each_class(classes, iris):
    x, y = iris
    if classes == "several":
        x, y = make_multilabel_classification(60, n_classes=3, random_state=0)
    else:
        x, y = x[: 50 * classes], y[: 50 * classes]
    model = classifier().fit(x, y)
    result = model.predict_uncertainty(x, 7, samples=True)
    assert result.samples.shape == (7, *model.predict_proba(x).shape)
    np.testing.assert_allclose(result.samples.mean(axis=0), result.mean, rtol=1e-5, atol=1e-7)
    assert np.array_equal(result.mean, model.predict_proba(x, mc_samples=7))
    if classes in (2, 3):
        np.testing.assert_allclose(result.samples.sum(axis=2), 1, rtol=1e-5)
    assert model.predict_uncertainty(x, 7).samples is None


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("outputs", [1, 2])
def test_regressors_have_samples_of_the_shape_of_predictions(outputs):
    x, y = load_diabetes(return_X_y=True)
    targets = y if outputs == 1 else np.stack([y, -y], axis=1)
    model = DropoutMLPRegressor(8, dropout=0.3, max_iter=2, random_state=0).fit(x, targets)
    result = model.predict_uncertainty(x[:9], 20, samples=True)
    assert result.samples.shape == (20, *model.predict(x[:9]).shape)
    np.testing.assert_allclose(result.samples.std(axis=0), result.std, rtol=1e-6)
    low, high = result.quantile([0.1, 0.9])
    assert low.shape == result.mean.shape
    assert (low < high).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipelines_and_searches_pass_arguments_of_predictions_on(iris):
    x, y = iris
    pipe = make_pipeline(StandardScaler(), classifier()).fit(x, y)
    mean = pipe[-1].predict_uncertainty(pipe[:-1].transform(x), 6).mean
    assert np.array_equal(pipe.predict_proba(x, mc_samples=6), mean)
    assert not np.array_equal(pipe.predict_proba(x), mean)
    numbers = DropoutMLPRegressor(8, max_iter=2, random_state=0)
    pipe = make_pipeline(StandardScaler(), numbers)
    grid = {"dropoutmlpregressor__dropout": [0.1, 0.2]}
    search = GridSearchCV(pipe, grid, cv=2).fit(x, y.astype(float))
    predicted, std = search.best_estimator_.predict(x, return_std=True)
    assert np.array_equal(predicted, search.predict(x))
    assert std.shape == predicted.shape
    assert (std > 0).all()
