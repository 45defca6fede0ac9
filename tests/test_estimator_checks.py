"""Scikit-learn's own checks of estimators: in full without dropout, with named exceptions under it."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor

FULL = [DropoutMLPClassifier(), DropoutMLPRegressor()]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(FULL)
def test_without_dropout(estimator, check):
    check(estimator)
