"""The parameter `scoring`: what early stopping maximizes on the validation rows."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names

from cdrop.network import Evaluation

__all__ = ["ValidationScorer", "checked_scoring"]

Scoring = str | Callable[..., Any] | None
_EXPECTED = (
    'expected None, "loss", a name in sklearn.metrics.get_scorer_names(), or a callable '
    "scorer(estimator, X, y) that returns a number"
)


def checked_scoring(scoring: Any) -> Scoring:
    """Return `scoring`; raise unless it is None, "loss", the name of a scorer, or a callable."""
    if scoring is None:
        return None
    if isinstance(scoring, str):
        if scoring != "loss" and scoring not in get_scorer_names():
            raise ValueError(f"scoring is {scoring!r}; {_EXPECTED}")
        return scoring
    if not callable(scoring) or isinstance(scoring, type):
        raise TypeError(f"scoring is {scoring!r}; {_EXPECTED}")
    return scoring  # type: ignore[no-any-return]


class ValidationScorer:
    """Scores validation rows by a scorer, or by the negative loss.

    Parameters
    ----------
    estimator : estimator
        Whose parameter `scoring` is not None.
    x : ndarray or sparse matrix
        Checked rows.
    y : ndarray
        Targets as users know them.
    weight : ndarray or None
        Weights of the rows, passed to the scorer as `sample_weight`, as HistGradientBoosting does.

    Raises
    ------
    TypeError, ValueError
        If the parameter is not a scorer, or one that takes no `sample_weight` where there are weights.
    """

    def __init__(self, estimator: Any, x: Any, y: Any, weight: Any) -> None:
        scoring = estimator.scoring
        if isinstance(x, np.ndarray):  # it may be the user's own
            x = x.view()
            x.flags.writeable = False
        self.name = scoring if isinstance(scoring, str) else _name(scoring)
        self._rows, self._weights = (x, y), {} if weight is None else {"sample_weight": weight}
        self._scorer: Any = None
        if scoring != "loss":
            self._scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
            self._check(estimator)

    def _check(self, estimator: Any) -> None:
        """Raise for a function of sklearn.metrics, which is not a scorer, and for a scorer that takes no weights."""
        try:
            check_scoring(estimator, self._scorer)
        except ValueError as error:
            raise ValueError(f"scoring is {self._scorer!r}; {_EXPECTED} ({error})") from error
        try:
            signature = inspect.signature(self._scorer)
        except (TypeError, ValueError):
            return  # unknown for some compiled functions
        for arguments, what in (({}, "X, y"), (self._weights, "X, y, sample_weight")):
            try:
                signature.bind(estimator, *self._rows, **arguments)
            except TypeError:
                raise TypeError(
                    f"scoring is {self._scorer!r}, which takes {signature}; expected (estimator, {what}), as there are "
                    f"{'' if arguments else 'no '}weights of validation rows"
                ) from None

    def try_out(self, estimator: Any, seen: Evaluation) -> None:
        """Score an untrained estimator, so that a scorer that cannot be used fails before anything has changed."""
        with warnings.catch_warnings(action="ignore"):  # metrics may be undefined so early
            self(estimator, seen)

    def __call__(self, estimator: Any, seen: Evaluation) -> float:
        """Return the score of the validation rows, whose loss has been computed; NaN if that is not finite."""
        if self._scorer is None:
            return -seen.loss
        if not math.isfinite(seen.loss):
            return math.nan
        # Rows are arrays by now, so the names of features would only cause warnings.
        model = object.__new__(type(estimator))
        model.__dict__ = {k: v for k, v in vars(estimator).items() if k != "feature_names_in_"}
        try:
            value = self._scorer(model, *self._rows, **self._weights)
        except Exception as error:
            error.add_note(f"The error was raised by scoring={self.name}, on the validation rows.")
            raise
        return self._number(value)

    def _number(self, value: Any) -> float:
        number = (
            value.item()
            if isinstance(value, (np.generic, np.ndarray)) and value.size == 1
            else value
        )
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"scoring is {self.name}, which returned {value!r}; expected a number")
        return float(number)


def _name(scorer: Any) -> str:
    """Return a name that is the same in every process, for checkpoints."""
    name = getattr(scorer, "__qualname__", None)
    if isinstance(name, str):
        return f"{scorer.__module__}.{name}"
    text = repr(scorer)
    return type(scorer).__qualname__ if " at 0x" in text else text
