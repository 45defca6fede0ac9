"""Dropout training on CPUs that touches only the living units."""

from cdrop import callbacks, convert, datasets, kernels, optimizers, reference, storage
from cdrop._kernels import get_num_threads, set_num_threads
from cdrop.network import History, Network, make_network
from cdrop.storage import load
from cdrop.threads import install as _install_threads

__version__ = "0.1.0"
__all__ = [
    "History",
    "Network",
    "callbacks",
    "convert",
    "datasets",
    "get_num_threads",
    "kernels",
    "load",
    "make_network",
    "optimizers",
    "reference",
    "set_num_threads",
    "storage",
]

_install_threads()
