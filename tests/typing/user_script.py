"""A user's script that `make types` gives to mypy and pyright, and nothing runs.

An error that a checker misses is an unused comment, which it reports in turn.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, load
from cdrop.callbacks import LossPrinter

X = np.zeros((4, 3))
y = np.array([0, 1, 0, 1])

classifier = DropoutMLPClassifier((16,), dropout=0.5, scoring="average_precision")
assert_type(classifier.fit(X, y, callbacks=[LossPrinter()]), DropoutMLPClassifier)
assert_type(classifier.partial_fit(X, y), DropoutMLPClassifier)
assert_type(classifier.fit(X, y).predict_proba(X), NDArray[Any])
DropoutMLPClassifier(dropuot=0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
DropoutMLPClassifier(dropout="half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

regressor = DropoutMLPRegressor(loss="quantile", quantile=(0.1, 0.9)).fit(X, X[:, 0])
assert_type(regressor, DropoutMLPRegressor)
assert_type(regressor.predict(X), NDArray[Any])
assert_type(regressor.predict(X, return_std=True), tuple[NDArray[Any], NDArray[Any]])
regressor.predict(X, with_std=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

Network([3, 2], dropuot=0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

assert_type(load("model.cdrop"), Any)
assert_type(load("model.cdrop", DropoutMLPClassifier), DropoutMLPClassifier)
assert_type(load("model.cdrop", as_network=True), Network)
