"""Data for the comparison: MNIST or other IDX files, digits that are drawn, and files of your own."""

from cdrop.datasets.dataset import DataError, DataNotFoundError, Dataset, Features
from cdrop.datasets.digits import drawn_digits, make_digits
from cdrop.datasets.mnist import MIRRORS, cache_folder, load_folder, load_mnist, read_idx
from cdrop.datasets.sources import load
from cdrop.datasets.tables import load_csv, load_npz

__all__ = [
    "MIRRORS",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Features",
    "cache_folder",
    "drawn_digits",
    "load",
    "load_csv",
    "load_folder",
    "load_mnist",
    "load_npz",
    "make_digits",
    "read_idx",
]
