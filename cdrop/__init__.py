"""Dropout training on CPUs that touches only the living units."""

from importlib import import_module
from typing import Any

from cdrop import callbacks, kernels, optimizers, reference, schedules, storage
from cdrop._kernels import get_num_threads, set_num_threads
from cdrop.network import Evaluation, History, Network, make_network
from cdrop.storage import load
from cdrop.subnetworks import Subnetworks
from cdrop.threads import install as _install_threads
from cdrop.uncertainty import ClassificationUncertainty, RegressionUncertainty

__version__ = "0.1.0"
__all__ = [
    "ClassificationUncertainty",
    "Evaluation",
    "History",
    "Network",
    "RegressionUncertainty",
    "Subnetworks",
    "callbacks",
    "convert",
    "datasets",
    "get_num_threads",
    "kernels",
    "load",
    "make_network",
    "optimizers",
    "reference",
    "schedules",
    "set_num_threads",
    "storage",
]

# Imported when they are asked for: what training does not need, and the estimators, which need scikit-learn.
_MODULES = ("convert", "datasets")
_ESTIMATORS = ("DropoutMLPClassifier", "DropoutMLPRegressor")

_install_threads()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"cdrop.{name}")
    if name in _ESTIMATORS:
        return getattr(import_module("cdrop.estimators"), name)
    raise AttributeError(f"module 'cdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_ESTIMATORS])
