"""Thinned networks with fixed masks: drawn once, used in many calls, each extractable as a smaller network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdrop._checks import truth_value, whole_number
from cdrop.kernels import bernoulli_mask, unpack_mask
from cdrop.uncertainty import Uncertainty

if TYPE_CHECKING:
    from cdrop.network import Network

__all__ = ["Subnetworks"]

_PURPOSE = 5  # of the generator's streams: subnetworks


class Subnetworks:
    """Thinned networks of a network with dropout: fixed masks over its units. Made by `Network.subnetworks`.

    Only masks are kept, a bit a unit: predictions use the weights that the network has at the call. A network that is
    extracted has its own weights.

    Parameters
    ----------
    network : Network
        With a dropout rate above 0.
    count : int
    seed : int

    Attributes
    ----------
    masks : tuple of ndarray of uint64, shape (count, ceil(units / 64)), or None
        Of the input and of each hidden layer, packed as in `cdrop.kernels`: row i is of subnetwork i, 1 is kept.
        Read-only; None where nothing is dropped.

    References
    ----------
    Srivastava et al., "Dropout", JMLR 15 (2014), section 7.5: averages over sampled thinned networks. Gal and
    Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from cdrop import Network
    >>> subs = Network([2, 64, 3], dropout=0.5, seed=1).subnetworks(20)
    >>> X = np.array([[0.5, -1.0]])
    >>> len(subs), subs.predict_proba(X).shape
    (20, (1, 3))
    >>> subs[0]
    Network([2, 35, 3], seed=1)
    >>> mean = sum(net.predict_proba(X) for net in subs) / 20
    >>> bool(np.allclose(mean, subs.predict_proba(X)))
    True
    """

    def __init__(self, network: Network, count: int, seed: int) -> None:
        self._network = network
        self._count = count
        self._seed = seed
        self.masks = tuple(
            self._drawn(layer, width, keep)
            for layer, (width, keep) in enumerate(
                zip(network.units[:-1], network._keeps(), strict=True)
            )
        )

    def _drawn(self, layer: int, width: int, keep: float) -> NDArray[np.uint64] | None:
        if keep == 1:
            return None
        mask = bernoulli_mask(
            self._count, width, keep, seed=self._seed, layer=layer, purpose=_PURPOSE
        )
        mask.flags.writeable = False
        return mask

    def __len__(self) -> int:
        """Return the number of subnetworks."""
        return self._count

    def __repr__(self) -> str:
        """Return the call that draws them."""
        return f"{self._network!r}.subnetworks({self._count}, seed={self._seed})"

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict from the mean over the subnetworks.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])

        Returns
        -------
        ndarray
            Softmax: labels, int64, shape (n,). Sigmoid: 0 or 1 for each label, int64, shape (n, units[-1]). Losses of
            numbers: the mean of the predictions, shape (n, units[-1]).
        """
        mean, loss = self._mean(X), self._network.loss
        if loss == "softmax_cross_entropy":
            return np.asarray(mean.argmax(axis=1))
        return (mean > 0.5).astype(np.int64) if loss == "sigmoid_cross_entropy" else mean

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the mean of the subnetworks' probabilities.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])

        Returns
        -------
        ndarray of the network's dtype, shape (n, units[-1])

        Raises
        ------
        ValueError
            If the loss is one of numbers: `predict` has the mean of the predictions.
        """
        self._network._check_probabilities("predict_proba")
        return self._mean(X)

    def predict_uncertainty(self, X: ArrayLike, *, samples: bool = False) -> Uncertainty:
        """Measure how far the subnetworks agree, as `Network.predict_uncertainty` does; all rows see the same masks.

        Parameters
        ----------
        X : array_like or SciPy sparse matrix, shape (n, units[0])
        samples : bool, default False
            Whether to return the prediction of each subnetwork too; see `Network.predict_uncertainty`.

        Returns
        -------
        ClassificationUncertainty or RegressionUncertainty
        """
        wanted = truth_value("samples", samples)
        return self._network._uncertainty(X, self._count, self._seed, self.masks, wanted)

    def _mean(self, X: ArrayLike) -> NDArray[Any]:
        net = self._network
        return net._shaped(net._sampled(X, self._count, self._seed, ("mean",), self.masks)["mean"])

    def __getitem__(self, index: int) -> Network:
        """Extract a subnetwork; negative numbers count from the end."""
        at = whole_number("index", index, -(2**63), 2**63)
        if not -self._count <= at < self._count:
            raise IndexError(f"index is {at}; there are {self._count} subnetworks")
        return self.extract(at % self._count)

    def extract(self, index: int) -> Network:
        """Copy one subnetwork into a smaller network without dropout, whose optimizer has a fresh state.

        Parameters
        ----------
        index : int
            0 to below the number of subnetworks.

        Returns
        -------
        Network
            Its hidden layers have the kept units alone, whose outgoing weights bear the scale of training (1 / keep
            with scaling "train"). The input keeps its width: a dropped input's weights are 0. A hidden layer that keeps
            no unit gets one whose outgoing weights are 0. Predictions are those of the masked network to rounding.

        Raises
        ------
        TypeError, ValueError
            If `index` is invalid.
        """
        index = whole_number("index", index, 0, self._count)
        whole, kept = self._network, self._kept(index)
        units = [np.flatnonzero(layer) if layer.any() else np.array([0]) for layer in kept]
        units[0] = np.arange(whole.units[0])
        smaller = whole._resized([len(layer) for layer in units])
        smaller._one_column = whole._one_column
        for i, (keep, (weight, bias)) in enumerate(
            zip(whole._keeps(), whole._weights(), strict=True)
        ):
            scale = whole.dtype.type(1 / keep if whole.scaling == "train" else 1)
            factor = (kept[i] * scale)[units[i], None]
            smaller._engine.set(
                i, 0, weight[np.ix_(units[i], units[i + 1])] * factor, bias[units[i + 1]]
            )
        if whole._background is not None:
            smaller._set_background(whole._background.copy())
        return smaller

    def _kept(self, index: int) -> list[NDArray[np.bool_]]:
        """Which units of the input, the hidden layers and the output this subnetwork has."""
        kept = [np.ones(width, np.bool_) for width in self._network.units]
        for i, mask in enumerate(self.masks):
            if mask is not None:
                kept[i] = unpack_mask(mask[index : index + 1], len(kept[i]))[0]
        return kept
