"""Tables in text files."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from cdrop.datasets.assemble import Options, Rows, assemble
from cdrop.datasets.table import Table

__all__ = ["load_csv"]


def load_csv(path: str | os.PathLike[str], *, label: str, **options: Any) -> Table:
    """Load a table of numbers (first version: to be replaced)."""
    place = Path(path)
    with place.open(newline="", encoding="utf-8-sig") as stream:
        header, *lines = [line for line in csv.reader(stream) if line]
    at = header.index(label)
    labels = np.array([line.pop(at) for line in lines], object)
    try:
        labels = labels.astype(float)
    except ValueError:
        pass
    X = np.array(lines, object).astype(float)
    del header[at]
    return assemble(place, header, Rows(X, labels), None, Options(label, options.get("task")))
