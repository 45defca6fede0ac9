"""What networks that train and test on the same arrays need to find out only once.

An experiment trains many networks on the same rows and evaluates them on the same test rows, again and again. Whether
all numbers are finite, and the lists of the inputs that differ from the background, do not depend on weights.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cdrop._features import Features, checked_rows
from cdrop._kernels import KeptBatches, Rows

if TYPE_CHECKING:
    from cdrop.network import Network

__all__ = ["PREDICTED_AT_ONCE", "SharedRows"]

PREDICTED_AT_ONCE = 256  # rows per list: as many as a prediction without lists works on
_USES = (
    2  # predictions of an array before its lists are made: one that is not repeated saves nothing
)


class _Key(NamedTuple):
    """What lists depend on, in addition to their rows."""

    dtype: np.dtype[Any]
    background: bytes

    @classmethod
    def of(cls, net: Network) -> _Key:
        return cls(net.dtype, b"" if net._background is None else net._background.tobytes())


@dataclass
class _Known:
    """A shared array, whether its numbers have been checked, and its lists for predictions."""

    array: weakref.ref[NDArray[Any]]
    checked: bool = False
    uses: int = 0
    lists: dict[_Key, KeptBatches] = field(default_factory=dict)


class _Cut(NamedTuple):
    """Lists of minibatches, and what they were made of."""

    array: weakref.ref[NDArray[Any]]
    order: NDArray[np.int64]
    size: int
    key: _Key
    lists: KeptBatches


class SharedRows:
    """Checks and lists of arrays that several networks use: those passed to `share`, until `forget`.

    A caller that shares an array promises not to change it. Arrays are recognized by identity and not kept alive.
    Of minibatches only the last lists are kept, so memory stays that of one fit, plus at most that of the test rows.
    Several threads may use an object at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, _Known] = {}
        self._cut: _Cut | None = None

    def share(self, matrix: Any) -> None:
        """Share an array; sparse matrices are ignored."""
        if not isinstance(matrix, np.ndarray) or self._find(matrix) is not None:
            return
        with self._lock:
            alive = {i: known for i, known in self._known.items() if known.array() is not None}
            self._known = {**alive, id(matrix): _Known(weakref.ref(matrix))}

    def forget(self) -> None:
        """Share nothing any more."""
        self._known, self._cut = {}, None

    def _find(self, matrix: Any) -> _Known | None:
        known = self._known.get(id(matrix))
        return known if known is not None and known.array() is matrix else None

    def has_checked(self, matrix: Any, dtype: np.dtype[Any]) -> bool:
        """Whether `checked` has returned this array as it is for this dtype."""
        known = self._find(matrix)
        return known is not None and known.checked and bool(matrix.dtype == dtype)

    def checked(self, name: str, matrix: Any, dtype: np.dtype[Any]) -> Features:
        """Return rows as `checked_rows` does; a shared array that needs no conversion is read once."""
        if self.has_checked(matrix, dtype):
            return matrix  # type: ignore[no-any-return]
        rows, known = checked_rows(name, matrix, dtype), self._find(matrix)
        if known is not None and rows is matrix:
            known.checked = True
        return rows

    def keep_rows(self, net: Network, data: Rows) -> None:
        """Give rows that are to be predicted the lists of their array, if it is shared and has any."""
        known = self._find(data.x)
        if known is None or net.input_dropout:
            return
        with self._lock:
            known.uses += 1
            key = _Key.of(net)
            if key not in known.lists and known.uses >= _USES:
                lists = net._engine.keep_batches(data, None, PREDICTED_AT_ONCE, net.threads or 0)
                known.lists = {key: lists}  # of one background, so that memory stays bounded
            data.kept = known.lists.get(key)

    def minibatches(
        self, net: Network, data: Rows, order: NDArray[np.int64], size: int
    ) -> KeptBatches:
        """Return the lists of fixed minibatches: the last ones if they are the same."""
        make, threads = net._engine.keep_batches, net.threads or 0
        if self._find(data.x) is None or net.input_dropout:
            return make(data, order, size, threads)
        with self._lock:
            key, cut = _Key.of(net), self._cut
            same = cut is not None and cut.array() is data.x and (cut.size, cut.key) == (size, key)
            if cut is None or not same or not np.array_equal(cut.order, order):
                self._cut = cut = None  # released before more memory is taken
                lists = make(data, order, size, threads)
                self._cut = cut = _Cut(weakref.ref(data.x), order, size, key, lists)
            return cut.lists
