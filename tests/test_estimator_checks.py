"""Scikit-learn's own checks of estimators: in full without dropout, with named exceptions under it."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor

FULL = [DropoutMLPClassifier(), DropoutMLPRegressor()]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(FULL)
def test_without_dropout(estimator, check):
    check(estimator)


DROPPING = [
    estimator(dropout=0.1, random_state=0)
    for estimator in (DropoutMLPClassifier, DropoutMLPRegressor)
]


REASON = "a row of weight 2 has one mask where two equal rows have two, so that training differs"


def expected_failures(estimator):
    """Name the checks that cannot hold under random masks."""
    kinds = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{kind}_data": REASON for kind in kinds}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(DROPPING, expected_failed_checks=expected_failures)
def test_with_dropout(estimator, check):
    check(estimator)
