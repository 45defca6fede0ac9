"""The network of a saved estimator, without the estimator: no scikit-learn is needed to predict with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop import storage
from cdrop._checks import truth_value
from cdrop._parts import decode
from cdrop.network import Network

__all__ = ["network_of"]


def network_of(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Network:
    """Return the network of an estimator's file, with the labels of its classes and the shape of its predictions.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the estimator is not fitted, has one class alone, or the file holds no such things.
    """
    if "network" not in settings:
        raise ValueError("its estimator is not fitted; expected a fitted one for as_network=True")
    prefix = "network."
    own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
    net = Network._from_parts(settings["network"], own)
    storage.check_same(net, settings["network"], own)
    fitted = dict(settings["fitted"])
    several = "classes_" in fitted and truth_value("_multilabel", fitted["_multilabel"])
    if "classes_" in fitted and not several:
        net._set_classes(_classes(decode("classes_", fitted["classes_"])))
    net._one_column = net.units[-1] == 1 and not several
    return net


def _classes(classes: Any) -> NDArray[Any]:
    if np.shape(classes) == (1,):
        raise ValueError(
            f"its estimator has the one class {classes.tolist()[0]!r}, which it predicts always; expected two or "
            "more for as_network=True"
        )
    return classes  # type: ignore[no-any-return]
