"""Dropout training on CPUs that touches only the living units."""

from typing import Any

from cdrop import (
    callbacks,
    convert,
    datasets,
    kernels,
    optimizers,
    reference,
    schedules,
    storage,
)
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

# Imported, with scikit-learn, when they are asked for.
_ESTIMATORS = ("DropoutMLPClassifier", "DropoutMLPRegressor")

_install_threads()


def __getattr__(name: str) -> Any:
    if name not in _ESTIMATORS:
        raise AttributeError(f"module 'cdrop' has no attribute {name!r}")
    from cdrop import estimators

    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ESTIMATORS])
