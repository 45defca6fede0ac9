"""The warning where validation rows lie far outside the training rows."""

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor
from cdrop.estimators import ranges
from cdrop.estimators.ranges import moved_features

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}


def alarmed(x, held_out):
    moved, compared = moved_features(x, held_out)
    return moved > 0 and 4 * moved >= compared


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("scaler", [StandardScaler, MinMaxScaler])
@pytest.mark.parametrize("table", TABLES)
def test_raw_rows_in_a_scaled_pipeline_are_found(table, scaler, sparse):
    train, held_out = train_test_split(TABLES[table]().data, test_size=0.2, random_state=0)
    scaled = scaler().fit(train).transform(train)
    if sparse:
        scaled, held_out = csr_array(scaled), csr_array(held_out)
    assert alarmed(scaled, held_out)
    assert not alarmed(train, scaler().fit_transform(train)[:1])  # too few to say


def test_counts_without_tf_idf_are_found():
    draw = np.random.default_rng(0)
    counts = draw.poisson(2 / np.arange(1, 301), (400, 300)) * draw.integers(1, 9, (400, 300))
    weights = TfidfTransformer().fit_transform(csr_array(counts))
    assert alarmed(weights[:300], csr_array(counts[300:]))
    assert not alarmed(weights[:300], weights[300:])


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.standard_cauchy((200, 5)),
        lambda rng: np.exp(4 * rng.normal(size=(200, 1))),
        lambda rng: np.repeat(rng.pareto(0.3, (200, 1)), 6, axis=1),
        lambda rng: np.eye(12)[rng.integers(0, 12, 200)],
        lambda rng: rng.poisson(0.05, (200, 40)).astype(float),
        lambda rng: np.zeros((200, 3)),
    ],
)
def test_no_alarm_for_random_splits(draw):
    rng = np.random.default_rng(1)
    for held in (1, 5, 20, 100) * 10:
        rows = draw(rng)
        assert not alarmed(rows[held:], rows[:held])


@pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])
def test_fit_warns_once_at_the_callers_line_and_a_pipeline_transforms(kind):
    X, y = load_iris(return_X_y=True)
    x, held_out, y, truth = train_test_split(X, y, test_size=0.3, random_state=0)
    net = kind((4,), max_iter=2, random_state=0).set_params(early_stopping=True)
    scaled = StandardScaler().fit(x)
    with pytest.warns(UserWarning, match=r"X_val lies far outside X: in \d of 4") as caught:
        net.fit(scaled.transform(x), y, X_val=held_out, y_val=truth)
    assert [w.filename for w in caught if "far outside" in str(w.message)] == [__file__]
    with config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="sklearn")
        steps = [("scale", StandardScaler()), ("net", net.set_fit_request(X_val=True, y_val=True))]
        pipe = Pipeline(steps, transform_input=["X_val"]).fit(x, y, X_val=held_out, y_val=truth)
    net.fit(scaled.transform(x), y, X_val=scaled.transform(held_out), y_val=truth)
    assert pipe[-1].validation_scores_ == net.validation_scores_


def test_pieces_and_kinds_give_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    x, held_out = rng.normal(size=(300, 7)) * (rng.random((300, 7)) < 0.8), rng.normal(size=(90, 7))
    held_out[:, :3] += 9
    assert moved_features(x, held_out) == (3, 7)
    monkeypatch.setattr(ranges, "_AT_ONCE", 50)
    assert moved_features(x, held_out) == (3, 7)
    assert moved_features(csr_array(x), csr_array(held_out)) == (3, 7)
