"""The regressor."""

from __future__ import annotations

from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array

from cdrop._checks import as_array, check_unmasked, real_numbers, row_weights, truth_value
from cdrop.estimators.base import BaseDropoutMLP, named
from cdrop.uncertainty import RegressionUncertainty

__all__ = ["DropoutMLPRegressor"]


class DropoutMLPRegressor(RegressorMixin, BaseDropoutMLP):  # type: ignore[misc]
    """Multilayer perceptron with dropout, for one target or several.

    Parameters
    ----------
    hidden_layer_sizes, activation, dropout, ..., interrupt
        Those of `DropoutMLPClassifier`, without `class_weight`. Nothing is stratified.

    Attributes
    ----------
    n_features_in_, network_, loss_curve_, ..., learning_rate_
        Those of `DropoutMLPClassifier`, without `classes_`. Losses are half the squared error, summed over the targets;
        scores are R^2.

    Raises
    ------
    TypeError, ValueError
        By `fit`, if a parameter is not as above.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from cdrop import DropoutMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = DropoutMLPRegressor(dropout=0.1, solver="adamw", random_state=0, early_stopping=True)
    >>> net.fit(scale(X), scale(y)).score(scale(X), scale(y)) > 0.3
    True
    """

    _numeric = True

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Make one pass over the rows, going on from where the last call ended.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as above; with ``early_stopping=True``.
        """
        self._partial_fit(X, y, sample_weight, None)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> NDArray[Any]: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def predict(
        self, X: Any, return_std: bool = False
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
        """Predict targets, without dropout.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        return_std : bool, default False
            Whether to return the standard deviation of predictions under dropout masks too, that of
            `predict_uncertainty` with its defaults. As in scikit-learn's GaussianProcessRegressor; a Pipeline passes it
            on.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
            Float32 if trained on it, else float64. With `return_std`, this and an array of the same shape and dtype.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, or `X` too large for outputs that are finite; with `return_std`, if all dropout
            rates are 0.
        """
        with_std = truth_value("return_std", return_std)
        y = _one_column_flat(np.concatenate(list(self._outputs(X))))
        return (y, self.predict_uncertainty(X).std) if with_std else y

    def predict_uncertainty(
        self, X: Any, mc_samples: int = 50, *, seed: int | None = None, samples: bool = False
    ) -> RegressionUncertainty:
        """Predict under many masks of dropout, and tell how far the predictions agree.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        mc_samples : int, default 50
            How many masks to draw for each row.
        seed : int, optional
            Of the masks. Default: the network's, so that two calls agree.
        samples : bool, default False
            Whether to return the prediction under each mask too, as the attribute `samples`, of shape
            (mc_samples, n_samples) or (mc_samples, n_samples, n_outputs); its memory is that of so many numbers.
            ``quantile(q)`` of the result returns quantiles of them.

        Returns
        -------
        cdrop.uncertainty.RegressionUncertainty
            Mean and standard deviation, of the shape that `predict` gives.

        Raises
        ------
        ValueError
            If all dropout rates are 0: all masks would agree, right or wrong. If `X` is too large for outputs that are
            finite.
        MemoryError
            If `samples` need more memory than is free.
        """
        x = self._checked_finite(X)
        told = self.network_.predict_uncertainty(x, mc_samples, seed=seed, samples=samples)
        assert isinstance(told, RegressionUncertainty)
        mean, std = self._finite(told.mean), self._finite(told.std)
        drawn = None if told.samples is None else _one_column_flat(told.samples)
        return RegressionUncertainty(_one_column_flat(mean), _one_column_flat(std), drawn)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return R^2, the mean of those of all targets.

        Parameters
        ----------
        X : {array_like, sparse matrix}, shape (n_samples, n_features)
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
            True targets.
        sample_weight : array_like, shape (n_samples,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid.
        """
        predicted = self.predict(X)
        check_unmasked("y", y)
        given = self._label_array("y", y)
        with named("y"):
            given = check_array(given, ensure_2d=False, dtype=None)
        exact = np.dtype(np.float32 if given.dtype == np.float32 else np.float64)
        targets, found = self._encoded("y", given, exact), predicted.reshape(len(predicted), -1)
        if targets.shape != found.shape:
            raise ValueError(f"y has shape {given.shape}; expected {predicted.shape}")
        weight = row_weights("sample_weight", sample_weight, len(predicted))
        return float(r2_score(targets, found, sample_weight=weight))

    def _label_array(self, name: str, y: Any) -> Any:
        """Return targets that were lists or objects as numbers."""
        if isinstance(y, (list, tuple)):
            y = as_array(name, y)
        if isinstance(getattr(y, "dtype", None), np.dtype) and y.dtype == object:
            with named(name):
                y = np.asarray(y).astype(np.float64)
        return y

    def _learn(self, *about: Any) -> None:
        """There are no classes."""

    def _encoded(self, name: str, y: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if y.dtype == object:
            with named(name):
                y = y.astype(np.float64)
        return real_numbers(name, y.reshape(len(y), -1), dtype)

    def _decoded(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return the targets that `_encoded` was given."""
        return _one_column_flat(targets)

    def _class_weights(self, *about: Any) -> None:
        return None

    def _loss(self) -> str:
        return "squared_error"

    def _width(self, targets: NDArray[Any]) -> int:
        return int(targets.shape[1])

    def _guess_score(self, *about: Any) -> float:
        return 0.0

    def _enough(self, targets: NDArray[Any]) -> float:
        """Return the loss of predictions that are off by a fifth."""
        return float(0.02 * np.square(targets, dtype=np.float64).mean(axis=0).sum())

    def _strata(self, targets: NDArray[Any]) -> None:
        return None

    def __sklearn_tags__(self) -> Any:
        """Several outputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _one_column_flat(outputs: NDArray[Any]) -> NDArray[Any]:
    return outputs[..., 0] if outputs.shape[-1] == 1 else outputs
