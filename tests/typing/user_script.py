"""A user's script that `make types` checks and nothing runs. An error that mypy misses is an unused `type: ignore`."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network

X = np.zeros((4, 3))
y = np.array([0, 1, 0, 1])

classifier = DropoutMLPClassifier((16,), dropout=0.5)
assert_type(classifier.fit(X, y), DropoutMLPClassifier)
assert_type(classifier.partial_fit(X, y), DropoutMLPClassifier)
assert_type(classifier.fit(X, y).predict_proba(X), NDArray[Any])
DropoutMLPClassifier(dropuot=0.5)  # type: ignore[call-arg]

regressor = DropoutMLPRegressor().fit(X, X[:, 0])
assert_type(regressor, DropoutMLPRegressor)
assert_type(regressor.predict(X), NDArray[Any])
assert_type(regressor.predict(X, return_std=True), tuple[NDArray[Any], NDArray[Any]])

Network([3, 2], dropuot=0.5)  # type: ignore[call-arg]
