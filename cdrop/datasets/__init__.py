"""Data for the comparison: MNIST or another folder of IDX files, and digits that are drawn."""

from cdrop.datasets.digits import drawn_digits, make_digits
from cdrop.datasets.mnist import (
    MIRRORS,
    DataError,
    DataNotFoundError,
    Dataset,
    Features,
    cache_folder,
    load_folder,
    load_mnist,
    read_idx,
)

__all__ = [
    "MIRRORS",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Features",
    "cache_folder",
    "drawn_digits",
    "load_folder",
    "load_mnist",
    "make_digits",
    "read_idx",
]
