"""The rows of each minibatch, from cdrop's own keyed streams: the same on every machine and with every NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cdrop._kernels import first_words, random_words

__all__ = ["cut", "drawn", "epoch", "fixed", "in_order"]

_PURPOSE = 2  # of the generator's streams: batch order
_AT_ONCE = 1024  # draws that are made together: one alone costs as much as a tenth of a small step
_OF_EPOCHS = 1  # their layer number; 0 is the one shuffle and the draws of `drawn`


def _shuffled(n: int, seed: int, step: int, layer: int) -> NDArray[np.int64]:
    """Sorting random 64-bit keys shuffles; a stable sort decides ties (2**-64 n**2 / 2 rare) identically everywhere."""
    keys = random_words(n, seed, step, _PURPOSE, layer, 0)
    low = np.uint64((1 << n.bit_length()) - 1)
    # The number of its row takes the place of a key's low bits: NumPy sorts numbers several times faster than indices.
    both = np.sort(keys & ~low | np.arange(n, dtype=np.uint64))
    high = both & ~low
    if (high[1:] == high[:-1]).any():  # the low bits, or the stable order, decide
        return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    return (both & low).astype(np.int64)


def fixed(n: int, seed: int) -> NDArray[np.int64]:
    """Return the one shuffle of n rows that the article cuts into fixed minibatches."""
    return _shuffled(n, seed, 0, 0)


def drawn(count: int, seed: int, done: int, total: int) -> Iterator[int]:
    """Draws of fixed minibatches with replacement, as in the article.

    Parameters
    ----------
    count : int
        Number of minibatches.
    seed : int
    done : int
        Iterations before the first one of this call: draw t depends on the seed and t alone.
    total : int
        Number of draws.

    Yields
    ------
    int
        Number of a minibatch.
    """
    for step in range(done + 1, done + total + 1, _AT_ONCE):
        for word in first_words(
            min(_AT_ONCE, done + total + 1 - step), seed, step, _PURPOSE
        ).tolist():
            yield (word >> 32) * count >> 32  # biased by less than count / 2**32


def in_order(n: int) -> NDArray[np.int64]:
    """Return the numbers of n rows, unshuffled."""
    return np.arange(n, dtype=np.int64)


def epoch(n: int, seed: int, number: int) -> NDArray[np.int64]:
    """Return the order of n rows in one pass over all of them.

    Parameters
    ----------
    n, seed : int
    number : int
        Which pass over the life of the network, from 1.
    """
    return _shuffled(n, seed, number, _OF_EPOCHS)


def cut(order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Cut row numbers into minibatches; the last one may be smaller."""
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
