"""Transformers: fitted on training rows, they turn raw rows into finite numbers for a network."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cdrop.datasets.dataset import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ImageScaler", "Standardizer", "TableEncoder", "Transformer", "array_transformer"]

_MOST_CATEGORIES = 64  # of one column; beyond, the rarest share one
_RARE = 5  # training rows: a value with fewer shares a column with other rare ones
_PARTS = ("year", "month", "day", "day_of_week", "hour")


class Transformer(Protocol):
    """What an experiment needs to prepare rows; scikit-learn's transformers have it."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Learn from the training rows; return self."""

    def transform(self, X: Any) -> NDArray[Any]:
        """Return finite numbers, one row for each row of `X`."""


class Standardizer:
    """Center each column of numbers and divide it by its standard deviation.

    Missing cells (NaN) take the median of the training rows. Each column with a missing cell there
    adds a column, 1 where the cell is missing and 0 elsewhere, which is standardized too.

    Parameters
    ----------
    dtype : {"float32", "float64"}, default "float32"
        Type of the result. Arithmetic is in float64.
    names : sequence of str, optional
        Names of the columns; by default their numbers.

    Attributes
    ----------
    mean_, std_ : ndarray of float64
        Mean and standard deviation (divisor n) of each column of the result over the training
        rows. The deviation is infinite where a column is constant, which becomes 0.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.datasets import Standardizer
    >>> Standardizer().fit([[1.0], [3.0]]).transform([[2.0], [3.0]]).tolist()
    [[0.0], [1.0]]
    """

    def __init__(self, dtype: DTypeLike = "float32", names: Sequence[str] | None = None) -> None:
        self.dtype = dtype
        self.names = names

    def __repr__(self) -> str:
        """Return the call that makes it, with the first of its names."""
        shown = [f"dtype={self.dtype!r}"] * (self.dtype != "float32")
        if self.names is not None:
            shown.append(f"names={reprlib.repr(self.names)}")
        return f"Standardizer({', '.join(shown)})"

    def fit(self, X: Any, y: Any = None) -> Standardizer:
        """Learn medians, means and deviations.

        Parameters
        ----------
        X : array-like of numbers, shape (n, features)
            The training rows.
        y : object, optional
            Not used.

        Returns
        -------
        Standardizer
            This object.
        """
        X = np.asarray(X)
        missing = np.isnan(X)
        self.flags_ = np.flatnonzero(missing.any(axis=0))
        self.median_ = np.zeros(X.shape[1])
        for column in self.flags_:
            there = X[~missing[:, column], column]
            self.median_[column] = np.median(there) if len(there) else 0.0
        filled = self._filled(X)
        with np.errstate(over="ignore", invalid="ignore"):  # `transform` raises
            self.mean_ = filled.mean(axis=0, dtype=np.float64)
            self.std_ = filled.std(axis=0, dtype=np.float64)
        self._fit = np.isfinite(self.mean_) & np.isfinite(self.std_)
        # Sums of equal numbers are rounded, so that their deviation need not be 0.
        self.std_[(filled == filled[0]).all(axis=0) | (self.std_ == 0)] = np.inf
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return standardized rows.

        Parameters
        ----------
        X : array-like of numbers, shape (n, features)
            Any rows with the columns of the training rows.

        Returns
        -------
        ndarray of `dtype`, shape (n, features + columns with missing cells)
            Finite numbers.

        Raises
        ------
        DataError
            If a column's numbers are too large to be standardized.
        """
        X = np.asarray(X)
        with np.errstate(over="ignore", invalid="ignore"):
            # Subtracted in float64: float32 would lose what distinguishes large numbers.
            wide = self._filled(X).astype(np.float64)
            rows: NDArray[Any] = ((wide - self.mean_) / self.std_).astype(self.dtype)
        fit = np.isfinite(rows).all(axis=0) & self._fit
        if not fit.all():
            name = self.get_feature_names_out()[fit.argmin()]
            raise DataError(
                f"column {name} cannot be standardized in {np.dtype(self.dtype)}; expected smaller numbers"
            )
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the result's columns."""
        names = list(self.names or map(str, range(len(self.median_))))
        flags = [f"{names[column]} is missing" for column in self.flags_]
        return np.array([*names, *flags], object)

    def _filled(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the rows with medians in missing cells, and the indicators; `X` if no cell is."""
        missing = np.isnan(X)
        if not missing.any() and not len(self.flags_):
            return X
        return np.hstack([np.where(missing, self.median_, X), missing[:, self.flags_]])


class ImageScaler:
    """Flatten images, divide them by 255 and subtract one scalar: the mean of all training pixels.

    Parameters
    ----------
    dtype : {"float32", "float64"}, default "float32"
        Type of the result.

    Attributes
    ----------
    mean_ : float
        Mean of pixel / 255 over the training images, from an exact sum of integers.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop.datasets import ImageScaler
    >>> images = np.full((4, 2, 2), 51, np.uint8)
    >>> ImageScaler().fit(images).mean_
    0.2
    """

    def __init__(self, dtype: DTypeLike = "float32") -> None:
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"ImageScaler({'' if self.dtype == 'float32' else f'dtype={self.dtype!r}'})"

    def fit(self, X: Any, y: Any = None) -> ImageScaler:
        """Learn the mean of `X`, ndarray of uint8 of shape (n, height, width); return self."""
        self.mean_ = int(X.sum(dtype=np.uint64)) / X.size / 255
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return an ndarray of `dtype`, shape (n, height * width)."""
        flat: NDArray[Any] = X.reshape(len(X), math.prod(X.shape[1:])).astype(self.dtype)
        flat /= 255
        flat -= self.mean_  # rounded to the array's type
        return flat


class TableEncoder:
    """Turn a frame with text, booleans and dates into numbers.

    Numbers are standardized, and missing ones take the median of the training rows, with a column
    that marks them. Text and booleans become a column of 0 and 1 for each value (one column where
    there are two values); values in fewer
    than 5 training rows share one, and so do those beyond the 64 most frequent. An unknown value
    counts as rare, a missing one is its own value. Dates become days, and the parts (year,
    month, day, day of the week, hour) that vary over the training rows. Needs the extra ``table``.

    Parameters
    ----------
    kinds : mapping of str to {"number", "text", "boolean", "date"}
        What each column is.

    Examples
    --------
    >>> import pandas as pd
    >>> from cdrop.datasets import TableEncoder
    >>> frame = pd.DataFrame({"size": [1.0, 3.0] * 9, "color": ["red", "blue", "green"] * 6})
    >>> encoder = TableEncoder({"size": "number", "color": "text"}).fit(frame)
    >>> encoder.get_feature_names_out().tolist()
    ['size', 'color_blue', 'color_green', 'color_red']
    >>> encoder.transform(frame[:2]).tolist()
    [[-1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds

    def __repr__(self) -> str:
        """Return the number of columns of each kind: their names may be long."""
        counts = Counter(self.kinds.values()).items()
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts)
        return f"<TableEncoder: {len(self.kinds)} columns ({kinds})>"

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        """Learn from the training rows `X`, a pandas.DataFrame; return self."""
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        plain = self._plain(X)
        numbers = [name for name in plain if plain[name].dtype.kind == "f"]
        numbers = [name for name in numbers if name in self.kinds or plain[name].nunique() > 1]
        values = [name for name in plain if name in self.kinds and name not in numbers]
        fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        one_hot = OneHotEncoder(
            drop="if_binary",
            handle_unknown="infrequent_if_exist",
            min_frequency=_RARE,
            max_categories=_MOST_CATEGORIES,
            sparse_output=False,
        )
        self.encoder_ = ColumnTransformer(
            [
                ("numbers", make_pipeline(fill, StandardScaler()), numbers),
                ("values", one_hot, values),
            ],
            verbose_feature_names_out=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder_.fit(plain)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return an ndarray of float32, finite, a row for each of `X`, a pandas.DataFrame."""
        with warnings.catch_warnings():  # an unknown value is no reason to warn
            warnings.simplefilter("ignore")
            rows: NDArray[Any] = np.asarray(self.encoder_.transform(self._plain(X)), np.float32)
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the result's columns."""
        names: NDArray[np.object_] = self.encoder_.get_feature_names_out()
        return names

    def _plain(self, X: Any) -> Any:
        """Return a frame of floats, and of text without missing cells."""
        import pandas as pd

        plain: dict[str, Any] = {}
        for name, kind in self.kinds.items():
            if kind == "number":
                plain[name] = X[name].astype(np.float64)
            elif kind == "date":
                plain |= _date_parts(name, X[name])
            else:
                plain[name] = X[name].astype(object).where(X[name].notna(), "missing").map(str)
        return pd.DataFrame(plain, index=X.index)


def _date_parts(name: str, dates: Any) -> dict[str, Any]:
    """Return days since 1970 and the parts of dates, as floats; NaN where a date is missing."""
    dates = dates.dt.tz_localize(None)  # of local time, in which hours and weekdays mean something
    days = dates.astype("datetime64[s]").astype("int64").where(dates.notna()) / 86_400
    attributes = (part.replace("weekday", "day_of_week") for part in _PARTS)  # since pandas 4
    parts = {
        p: getattr(dates.dt, a).astype(np.float64) for p, a in zip(_PARTS, attributes, strict=True)
    }
    return {f"{name} (days)": days, **{f"{name} ({part})": v for part, v in parts.items()}}


def array_transformer(
    X: NDArray[Any], dtype: DTypeLike = "float32", names: Sequence[str] | None = None
) -> Any:
    """Return the unfitted transformer of images or of a table of numbers."""
    return ImageScaler(dtype) if X.dtype == np.uint8 else Standardizer(dtype, names)
