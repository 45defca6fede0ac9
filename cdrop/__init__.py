"""Dropout training on CPUs that touches only the living units."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdrop import _startup as _startup
from cdrop import callbacks, kernels, optimizers, schedules, storage
from cdrop._threads import get_num_threads, set_num_threads
from cdrop._version import __version__ as __version__
from cdrop.network import Evaluation, History, Network, make_network
from cdrop.storage import load
from cdrop.subnetworks import Subnetworks
from cdrop.uncertainty import ClassificationUncertainty, RegressionUncertainty

if TYPE_CHECKING:  # what `__getattr__` imports on first use, for editors and type checkers
    from cdrop import convert, datasets, experiments, plotting, reference
    from cdrop import estimators as estimators
    from cdrop.estimators import DropoutMLPClassifier as DropoutMLPClassifier
    from cdrop.estimators import DropoutMLPRegressor as DropoutMLPRegressor

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
    "experiments",
    "get_num_threads",
    "kernels",
    "load",
    "make_network",
    "optimizers",
    "plotting",
    "reference",
    "schedules",
    "set_num_threads",
    "storage",
]

# Imported on first use, because training does not need them. The estimators are not in `__all__`: importing them needs
# scikit-learn, and `from cdrop import *` must work without it.
_MODULES = ("convert", "datasets", "estimators", "experiments", "plotting", "reference")
_ESTIMATORS = ("DropoutMLPClassifier", "DropoutMLPRegressor")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"cdrop.{name}")
    if name in _ESTIMATORS:
        return getattr(import_module("cdrop.estimators"), name)
    raise AttributeError(f"module 'cdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_ESTIMATORS])
