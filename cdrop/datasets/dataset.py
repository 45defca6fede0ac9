"""`Dataset`: rows with a fixed split, their preparation for a network, and stratified draws of rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cdrop._checks import truth_value, whole_number

if TYPE_CHECKING:
    from cdrop.datasets.table import Table

__all__ = [
    "DRAWING",
    "MOST_BYTES",
    "MOST_CLASSES",
    "MOST_COLUMNS",
    "MOST_RATIO",
    "MOST_ROWS",
    "SPLITTING",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Features",
    "in_shares",
    "split",
    "split_rows",
]

MOST_BYTES = 1 << 30  # of one unpacked file: EMNIST by class, MNIST's largest relative, has 0.55 GB
MOST_RATIO = 1032  # deflate's limit: 258 bytes from 2 bits (zlib's technical notes)
MOST_ROWS = 16 << 20  # each takes some memory, however few bytes it has in the file
MOST_COLUMNS = (
    1 << 17
)  # of a text file: each takes up to 5 KiB, however few bytes it has in the file
MOST_CLASSES = 100_000  # each takes a name, and an output
SPLITTING, DRAWING = 1, 2  # purposes of random orders: one seed gives unrelated ones


class DataError(ValueError):
    """Data that is there but not what it should be: truncated, corrupt, foreign, inconsistent."""


class DataNotFoundError(DataError):
    """Data that none of the places asked could supply."""


@dataclass(frozen=True, eq=False)
class Features:
    """A `Dataset` as a network takes it.

    Attributes
    ----------
    X_train, X_val, X_test : ndarray of float32 or float64, shape (n, height * width) or (n, features)
        Pixels / 255, minus `mean`; of a table (numbers - `mean`) / `std`.
    y_train, y_val, y_test : ndarray of int64, shape (n,)
        Labels, shared with the `Dataset`.
    mean : float or ndarray of float64, shape (features,)
        What was subtracted: for images one scalar, the mean of pixel / 255 over every pixel of the training images;
        for a table the mean of each column over the training rows.
    std : ndarray of float64, shape (features,), or None
        Standard deviation of each column of a table over the training rows, infinite where a column is constant,
        which so becomes 0. None for images.
    """

    X_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.int64] = field(repr=False)
    X_val: NDArray[Any] = field(repr=False)
    y_val: NDArray[np.int64] = field(repr=False)
    X_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[np.int64] = field(repr=False)
    mean: float | NDArray[np.float64]
    std: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images or a table of numbers, with labels, split for training, validation and testing.

    Attributes
    ----------
    name : str
        What the data is: "MNIST" if and only if the checksums say so; of a `subset`, how many rows were drawn, too.
    source : str
        Where it came from, in words.
    X_train, X_val, X_test : ndarray
        Raw images, uint8 of shape (n, height, width), or a table, float32 or float64 of shape (n, features).
    y_train, y_val, y_test : ndarray of int64, shape (n,)
        Labels, the numbers of the classes.
    classes : tuple of str
        The name of each label.
    drawn_from : str or None
        Name of the data set whose training rows a `subset` was drawn from; None for what is no subset.
    """

    name: str
    source: str
    X_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.int64] = field(repr=False)
    X_val: NDArray[Any] = field(repr=False)
    y_val: NDArray[np.int64] = field(repr=False)
    X_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    drawn_from: str | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes: one more than the largest label there can be."""
        return len(self.classes)

    @property
    def has_images(self) -> bool:
        """Whether these are images, and no table."""
        return self.X_train.dtype == np.uint8

    @property
    def row_name(self) -> str:
        """What one of `X_train` is called, "image" or "row"."""
        return "image" if self.has_images else "row"

    @property
    def is_mnist(self) -> bool:
        """Whether these are MNIST's images, all of them or a subset."""
        return (self.drawn_from or self.name) == "MNIST"

    def describe(self) -> dict[str, Any]:
        """Return name, source, fingerprint and sizes as plain values for JSON.

        ``sha256`` is taken over the rows and then the labels (as little-endian numbers) of training, validation and
        test in turn, so it is the same wherever the data came from; and then over the names of the classes, where
        they are more than numbers.
        """
        digest = hashlib.sha256()
        for part in ("train", "val", "test"):
            rows = getattr(self, f"X_{part}")
            digest.update(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).data)
            digest.update(np.ascontiguousarray(getattr(self, f"y_{part}"), dtype="<i8").data)
        if self.classes != tuple(map(str, range(self.n_classes))):
            digest.update(json.dumps(self.classes).encode())
        return {
            "name": self.name,
            "source": self.source,
            "sha256": digest.hexdigest(),
            "is_mnist": self.is_mnist,
            "row": self.row_name,
            "train": len(self.y_train),
            "validation": len(self.y_val),
            "test": len(self.y_test),
        }

    def to_features(self, dtype: DTypeLike = "float32") -> Features:
        """Prepare the rows for a network: images as the article does, a table by standardizing its columns.

        Images are flattened, divided by 255, and one scalar is subtracted: the mean over all pixels of
        the images in `X_train` (for MNIST the last 55,000 training images: neither the 5,000 for
        validation nor the test images), one number for every pixel. It is computed from an exact sum
        of integers. Of a table, each column has the mean of the training rows subtracted and is divided
        by their standard deviation (divisor n), computed in float64; one that is constant there becomes 0.

        Parameters
        ----------
        dtype : {"float32", "float64"}, default "float32"
            Type of the result.

        Returns
        -------
        Features
            New arrays; the labels are shared.

        Raises
        ------
        TypeError, ValueError
            If `dtype` is neither float32 nor float64.
        DataError
            If a column of a table cannot be standardized, because its numbers are too large.

        Examples
        --------
        >>> from cdrop.datasets.dataset import split
        >>> import numpy as np
        >>> images, labels = np.full((4, 2, 2), 51, np.uint8), np.array([0, 1, 0, 1])
        >>> tiny = split("tiny", "made here", (images, labels), (images, labels), validation=1)
        >>> features = tiny.to_features()
        >>> features.X_train.shape, features.mean
        ((3, 4), 0.2)
        """
        try:
            kind = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
        if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype must be float32 or float64, got {kind}")
        from cdrop.datasets.transform import array_transformer

        scaler = array_transformer(self.X_train, kind).fit(self.X_train)
        train, val, test = map(scaler.transform, (self.X_train, self.X_val, self.X_test))
        y_train, y_val, y_test = self.y_train, self.y_val, self.y_test
        std = getattr(scaler, "std_", None)
        return Features(train, y_train, val, y_val, test, y_test, scaler.mean_, std)

    def pooled(self) -> Table:
        """Return all rows as one table without a split: training, validation, then test rows.

        Returns
        -------
        Table
            New arrays. The task is classification.

        Examples
        --------
        >>> from cdrop.datasets import load
        >>> table = load("digits").pooled()
        >>> table.X.shape, table.task
        ((70000, 28, 28), 'classification')
        """
        from cdrop.datasets.table import Table

        return Table(
            self.name,
            self.source,
            np.concatenate([self.X_train, self.X_val, self.X_test]),
            np.concatenate([self.y_train, self.y_val, self.y_test]),
            task="classification",
            classes=self.classes,
        )

    def subset(self, train_size: int, seed: int = 0) -> Dataset:
        """Draw some of the training rows, each class with its share; validation and test rows stay as they are.

        A class has its share to the nearest row (Sainte-Laguë's rule), and at least one row. A larger draw with the
        same seed contains a smaller one.

        Parameters
        ----------
        train_size : int
            How many rows, from one for each class to all. All of them are the data set itself.
        seed : int, default 0
            Which rows, from 0 to 2**64 - 1.

        Returns
        -------
        Dataset
            Its name says how many rows were drawn; they are in the order that they had.

        Raises
        ------
        TypeError, ValueError
            If an argument is not an integer, or out of range.

        Examples
        --------
        >>> from cdrop.datasets import make_digits
        >>> from cdrop.datasets.dataset import split
        >>> X, y = make_digits(1000)
        >>> digits = split("digits (not MNIST)", "drawn here", (X[:800], y[:800]), (X[800:], y[800:]), validation=100)
        >>> small = digits.subset(50)
        >>> small.name, len(small.X_train), len(small.X_test)
        ('digits, 50 training images (not MNIST)', 50, 200)
        """
        rows = len(self.y_train)
        train_size = whole_number("train_size", train_size, len(np.unique(self.y_train)), rows + 1)
        seed = whole_number("seed", seed, 0, 2**64)
        if train_size == rows:
            return self
        drawn = np.sort(in_shares(self.y_train, seed, DRAWING)[:train_size])
        whole = self.drawn_from or self.name
        return replace(
            self,
            name=_name_subset(whole, f"{train_size} training {self.row_name}s"),
            X_train=self.X_train[drawn],
            y_train=self.y_train[drawn],
            drawn_from=whole,
        )


_Pair = tuple[NDArray[np.uint8], NDArray[Any]]


def split(name: str, source: str, train: _Pair, test: _Pair, validation: int) -> Dataset:
    """Build a `Dataset` of views of images; the first `validation` training images are held out.

    Raises DataError if images, uint8 of shape (n, height, width), and integer labels do not fit together.
    """
    _check_pairs(source, train, test)
    validation = whole_number("validation", validation, 0, len(train[0]))
    images, labels = train[0], train[1].astype(np.int64)
    return Dataset(
        name,
        source,
        X_train=images[validation:],
        y_train=labels[validation:],
        X_val=images[:validation],
        y_val=labels[:validation],
        X_test=test[0],
        y_test=test[1].astype(np.int64),
        classes=tuple(map(str, range(int(labels.max()) + 1))),
    )


def _check_pairs(source: str, train: _Pair, test: _Pair) -> None:
    """Raise DataError unless images and labels of both parts fit together."""
    for part, (images, labels) in (("training", train), ("test", test)):
        if len(images) != len(labels):
            raise DataError(
                f"{source}: expected as many {part} labels as images, "
                f"found {len(labels)} labels and {len(images)} images"
            )
        if images.size == 0:
            raise DataError(f"{source}: expected {part} images, found shape {images.shape}")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{source}: expected test images as large as the training images, "
            f"{train[0].shape[1:]}, found {test[0].shape[1:]}"
        )
    if test[1].max() > train[1].max():
        raise DataError(
            f"{source}: expected test labels up to {train[1].max()}, the largest training label, "
            f"found {test[1].max()}"
        )


def in_shares(labels: NDArray[np.int64], seed: int, purpose: int) -> NDArray[np.intp]:
    """Return all rows in a random order of which any beginning has each class's share of rows.

    The order is a function of the arguments alone: every version of NumPy has the same raw words of Philox. Row k
    (from 0) of a class of n comes at (k + 1/2) / n: the divisors of Sainte-Laguë. Largest remainders would give nearly
    the same shares, but may take a row from a class when the draw grows, so that one would not contain the other. The
    first row of each class comes before all second ones.
    """
    words = np.random.Philox(key=np.array([seed, purpose], np.uint64)).random_raw(len(labels))
    by_class = np.lexsort((words, labels))
    counts = np.bincount(labels)
    sizes = np.repeat(counts, counts)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = (within + 0.5) / sizes - (within == 0)
    # Classes of one size come at the same places: chance decides which is first.
    return by_class[np.lexsort((words[by_class], at))]


def split_rows(
    y: NDArray[Any], seed: int, testing: int, validation: int, *, stratify: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Draw test and validation rows; the rest are for training.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Labels, int64 from 0; or targets of regression.
    seed : int
        Between 0 and 2**64 - 1. The draw is a function of `y`, the seed and the two counts alone.
    testing, validation : int
        Number of test and validation rows, together at most n - 1.
    stratify : bool
        Whether each class has its share of each part.

    Returns
    -------
    train, val, test : ndarray of intp
        Row numbers in ascending order. Every row is in exactly one of them.

    Raises
    ------
    TypeError, ValueError
        If a count or the seed is not an integer in range.

    Examples
    --------
    >>> train, val, test = split_rows(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0, 2, 2, stratify=True)
    >>> len(train), len(val), len(test)
    (4, 2, 2)
    """
    n = len(y)
    seed = whole_number("seed", seed, 0, 2**64)
    testing = whole_number("testing", testing, 0, n)
    validation = whole_number("validation", validation, 0, n - testing)
    stratify = truth_value("stratify", stratify)
    order = in_shares(y if stratify else np.zeros(n, np.int64), seed, SPLITTING)
    cut = n - testing - validation
    train, val, test = map(np.sort, np.split(order, [cut, cut + validation]))
    return train, val, test


def _name_subset(whole: str, drawn: str) -> str:
    """Return the name of a subset; what a name has in brackets at its end stays there."""
    head, bracket, tail = whole.rpartition(" (") if whole.endswith(")") else (whole, "", "")
    return f"{head}, {drawn}{bracket}{tail}"
