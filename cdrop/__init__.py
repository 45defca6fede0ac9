"""Dropout training on CPUs that touches only the living units."""

from cdrop import callbacks, datasets, kernels, optimizers, reference
from cdrop._kernels import get_num_threads, set_num_threads
from cdrop.network import History, Network, make_network
from cdrop.subnetworks import Subnetworks
from cdrop.threads import install as _install_threads
from cdrop.uncertainty import ClassificationUncertainty, RegressionUncertainty

__version__ = "0.1.0"
__all__ = [
    "ClassificationUncertainty",
    "History",
    "Network",
    "RegressionUncertainty",
    "Subnetworks",
    "callbacks",
    "datasets",
    "get_num_threads",
    "kernels",
    "make_network",
    "optimizers",
    "reference",
    "set_num_threads",
]

_install_threads()
