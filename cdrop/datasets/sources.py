"""`load`: a word or a path decides which loader is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cdrop._checks import truth_value, whole_number
from cdrop.datasets.assemble import Options, assemble
from cdrop.datasets.dataset import DataNotFoundError, Dataset
from cdrop.datasets.digits import drawn_digits
from cdrop.datasets.frames import SUFFIXES, read_file
from cdrop.datasets.mnist import load_mnist
from cdrop.datasets.npz import load_npz
from cdrop.datasets.table import Table
from cdrop.datasets.tables import load_csv

__all__ = ["load"]

_VALIDATION = 5000  # images, as in the article
_DEFAULTS = Options()


def load(
    source: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    task: str | None = None,
    drop: Any = (),
    categories: Any = (),
    test: str | os.PathLike[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    missing: Any = (),
    header: bool = True,
    validation: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Dataset | Table:
    """Load any data that cdrop can read.

    Parameters
    ----------
    source : str or path-like
        ``"mnist"`` (`load_mnist`), ``"digits"`` (`drawn_digits`), a directory of IDX files
        (`load_mnist`), a file ``.npz`` (`load_npz`), or a table: a text file (`load_csv`),
        ``.xlsx``, ``.parquet``, ``.feather``, ``.json``, ``.jsonl`` or ``.arff``.
    label : str or int, optional
        Column of labels: its name, its number from 0, or "last". Tables need it.
    task : {"classification", "regression"}, optional
        What the labels are; found by `encode_labels` by default.
    drop : sequence of str, default ()
        Columns that are not features.
    categories : sequence of str, default ()
        Columns of numbers that are codes: each value is a category. Columns that would be left out
        are kept if named here.
    test : str or path-like, optional
        A file with the same columns, all rows of which are for testing only.
    group : str, optional
        Column whose equal values mark rows that belong on the same side of a split; not a feature.
    time : str, optional
        Column of numbers or dates that orders the rows; not a feature.
    sep, decimal, encoding : str, optional
        Of a text file: separator (a space for any white space), decimal point and encoding; found
        from the file by default.
    missing : sequence of str, default ()
        Texts that mark a missing cell, in addition to those of pandas (empty, NA, NaN, null, None,
        N/A and others) and ``?``; and ``-`` and ``.`` among numbers.
    header : bool, default True
        Whether the first line of a text file or spreadsheet may hold names. False: it is a row.
    validation : int, optional
        How many training rows of IDX files and drawn digits are held out for validation: 5,000 by
        default.
    seed : int, default 0
        Which digits are drawn.
    progress : bool, default False
        Whether a download may show a progress bar.

    Returns
    -------
    Dataset or Table
        A `Dataset` of IDX files and drawn digits, else a `Table`.

    Raises
    ------
    DataNotFoundError
        If `source` is none of these, or not there.
    DataError
        If it is damaged, or needs a library that is not installed.
    TypeError, ValueError
        If another argument is unfit, or has no meaning for this source.

    Examples
    --------
    >>> from cdrop.datasets import load
    >>> load("digits").name
    'drawn digits (not MNIST)'
    """
    given = locals()
    progress = truth_value("progress", progress)
    options = {name: given[name] for name in vars(_DEFAULTS)}
    Options(**options)
    seed = whole_number("seed", seed, 0, 2**64)
    if validation is not None:
        validation = whole_number("validation", validation, 0, 2**62)
    if test is not None:
        test = Path(test)
    kind = _kind(source)
    if kind in ("text", "frame"):
        _refuse(source, validation=validation)
        if label is None:
            raise ValueError(
                f"label is None; expected the name of the column of {source} with the labels"
            )
        if kind == "text":
            return load_csv(source, **options)
        return assemble(Path(source), Options(**options), read_file)
    fitting = ("task", "test") if kind == "npz" else ()
    unfit = {name for name in options if options[name] != getattr(_DEFAULTS, name)} - {*fitting}
    _refuse(source, **{name: options[name] for name in options if name in unfit})
    if kind == "npz":
        _refuse(source, validation=validation)
        return load_npz(source, task=task, test=test)
    held = _VALIDATION if validation is None else validation
    if kind == "digits":
        return drawn_digits(seed, validation=held)
    return load_mnist(None if kind == "mnist" else source, validation=held, progress=progress)


def _refuse(source: object, **options: Any) -> None:
    """Raise ValueError if an option is given that has no meaning for a source."""
    for name, value in options.items():
        if value is not None:
            default = getattr(_DEFAULTS, name, None)
            raise ValueError(
                f"{name} is {value!r}; expected {default!r}: it has no meaning for {source}"
            )


def _kind(source: str | os.PathLike[str]) -> str:
    """Return what kind of source this is."""
    if source in ("mnist", "digits"):
        return str(source)
    path = Path(source)
    if os.path.isdir(path):
        return "directory"
    if path.name.lower().endswith(".npz"):
        return "npz"
    if path.name.lower().endswith(SUFFIXES):
        return "frame"
    if not os.path.exists(path):
        raise DataNotFoundError(
            f"{source}: expected 'mnist', 'digits', a directory of IDX files, a file .npz, or a table, found nothing "
            "of that name"
        )
    return "text"
