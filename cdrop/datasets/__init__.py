"""Data: MNIST and other IDX files, drawn digits, and your own tables."""

from cdrop.datasets.dataset import DataError, DataNotFoundError, Dataset, Features, split_rows
from cdrop.datasets.digits import drawn_digits, make_digits
from cdrop.datasets.frames import from_frame
from cdrop.datasets.mnist import MIRRORS, cache_folder, load_folder, load_mnist, read_idx
from cdrop.datasets.npz import load_npz
from cdrop.datasets.sources import load
from cdrop.datasets.table import Column, Table, encode_labels
from cdrop.datasets.tables import load_csv
from cdrop.datasets.transform import ImageScaler, Standardizer, TableEncoder, Transformer

__all__ = [
    "MIRRORS",
    "Column",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Features",
    "ImageScaler",
    "Standardizer",
    "Table",
    "TableEncoder",
    "Transformer",
    "cache_folder",
    "drawn_digits",
    "encode_labels",
    "from_frame",
    "load",
    "load_csv",
    "load_folder",
    "load_mnist",
    "load_npz",
    "make_digits",
    "read_idx",
    "split_rows",
]
