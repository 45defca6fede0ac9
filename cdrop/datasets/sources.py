"""The one door to all data: a word or a path says which loader is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cdrop._checks import truth_value
from cdrop.datasets.dataset import DataNotFoundError, Dataset
from cdrop.datasets.digits import drawn_digits
from cdrop.datasets.mnist import load_mnist
from cdrop.datasets.npz import load_npz
from cdrop.datasets.table import Table
from cdrop.datasets.tables import load_csv

__all__ = ["load"]

_EXPECTED = "expected 'mnist', 'digits', a folder of IDX files, or a file .npz, .csv or .csv.gz"
_VALIDATION = 5000  # images, as the article has it


def load(
    source: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    task: str | None = None,
    validation: int | None = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Dataset | Table:
    """Load any data that cdrop can read.

    Parameters
    ----------
    source : str or path-like
        ``"mnist"`` (`load_mnist`), ``"digits"`` (`drawn_digits`), a folder of IDX files (`load_mnist`), a file ``.npz``
        (`load_npz`), or ``.csv`` or ``.csv.gz`` (`load_csv`).
    label : str, optional
        Name of the column with the labels, which a .csv file needs and nothing else takes.
    validation : int, optional
        How many rows are set apart for validation: 5,000 by default of IDX files and drawn digits, none of other files.
    test_share : float, optional
        The share of the rows that is set apart for testing, where a file has no test rows of its own; 0.2 by default.
    seed : int, default 0
        Which rows of a file are set apart, or which digits are drawn. IDX files have a fixed order.
    progress : bool, default False
        Whether a download may show a progress bar.

    Returns
    -------
    Dataset

    Raises
    ------
    DataNotFoundError
        If `source` is none of these, or not there.
    DataError
        If it is damaged, or not what it should be.
    TypeError, ValueError
        If another argument is unfit, or has no meaning for this source.

    Examples
    --------
    >>> from cdrop.datasets import load
    >>> load("digits").name
    'drawn digits (not MNIST)'
    """
    progress = truth_value("progress", progress)
    kind = _kind(source)
    if kind == "csv":
        return load_csv(source, label=label, task=task, **options)
    if kind == "npz":
        return load_npz(source, task=task, test=options.get("test"))
    held = _VALIDATION if validation is None else validation
    if kind == "digits":
        return drawn_digits(seed, validation=held)
    return load_mnist(None if kind == "mnist" else source, validation=held, progress=progress)


def _kind(source: str | os.PathLike[str]) -> str:
    """Return what kind of source this is."""
    if source in ("mnist", "digits"):
        return str(source)
    path = Path(source)
    if os.path.isdir(path):
        return "folder"
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    if name.endswith(".npz"):
        return "npz"
    raise DataNotFoundError(
        f"{source}: {_EXPECTED}, found {'another file' if path.exists() else 'nothing of that name'}"
    )
