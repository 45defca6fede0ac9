"""Checkpoints: files from which the same call of `Network.fit` resumes after a crash.

Resuming from a file
--------------------
A checkpoint is a file of `cdrop.storage`. It holds everything that `Network.save` writes, the place of the fit, the
state of its callbacks, and the arguments of the fit, with arrays as SHA-256. Batch order and masks are functions of the
seed and of counters, so it needs no generator state. Each checkpoint replaces the last one atomically and is on disk
before the next step begins.

The same seed gives the same weights, byte for byte. So a file whose fit began with the same network, data and arguments
leads to the same result as a new start, and resuming needs no switch. Any other file is refused: a fit overwrites
nothing but its own earlier checkpoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cdrop import storage
from cdrop._checks import truth_value, whole_number
from cdrop._features import SparseRows
from cdrop._files import check_writable
from cdrop._version import __version__

if TYPE_CHECKING:
    from cdrop._kernels import Fitting
    from cdrop.network import Network

__all__ = ["Checkpoint", "Keeper", "Place", "digest"]

_DEEPEST = 80  # fewer than `storage` takes: these are part of something
_EVERY = 1000  # steps, where the caller has not said
_ARRAYS = ("X", "y", "sample_weight", "rows", "validation")  # arguments known by their SHA-256
_ARRAY = "__array__"  # the member that stands for an array in what a callback remembers
_Arrays = dict[str, NDArray[Any]]


@dataclass
class Place:
    """Where a fit is.

    Attributes
    ----------
    epochs : int
        Whole passes of this fit; 0 in a fit by iterations.
    steps : int
        Updates since.
    total : float
        The sum of their losses, each times its rows.
    finished : bool
        Whether nothing is left to do.
    """

    epochs: int = 0
    steps: int = 0
    total: float = 0.0
    finished: bool = False


class Checkpoint:
    """A network in the middle of a fit or at its end: what `cdrop.load` reads from a file of ``fit(checkpoint=...)``.

    Attributes
    ----------
    network : Network
        As it was then: it predicts, and can be trained otherwise.
    place : Place
        How far the fit had come.
    run : dict
        What it was called with; arrays, and network and callbacks at its beginning, as SHA-256.

    Examples
    --------
    >>> import cdrop
    >>> net = cdrop.Network([2, 8, 2], seed=1)
    >>> history = net.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], iterations=30, checkpoint="run.cdrop")
    >>> found = cdrop.load("run.cdrop")
    >>> found
    <Checkpoint: Network([2, 8, 2], seed=1), 30 iterations, finished>
    >>> found.place.finished, found.network.history.iterations
    (True, 30)
    """

    def __init__(
        self, network: Network, place: Place, run: dict[str, Any], remembered: dict[str, Any]
    ) -> None:
        self.network = network
        self.place = place
        self.run = run
        self._remembered = remembered  # by callbacks: their names in `Keeper`, what is not empty

    def __repr__(self) -> str:
        """Return the network, and how far the fit had come, on one line."""
        place = self.place
        parts = [f"{place.epochs} epochs"] * (place.epochs > 0)
        if place.steps or not place.epochs:
            parts.append(f"{place.steps} iterations")
        state = "finished" if place.finished else "unfinished"
        return f"<Checkpoint: {self.network!r}, {' and '.join(parts)}, {state}>"

    def _to_parts(self) -> tuple[dict[str, Any], _Arrays]:
        """Give what `cdrop.storage` writes."""
        network, arrays = self.network._to_parts()
        settings = {
            "network": network,
            "place": dataclasses.asdict(self.place),
            "run": self.run,
            "callbacks": _without_arrays(self._remembered, arrays),
        }
        return settings, arrays

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: _Arrays) -> Checkpoint:
        """Take what `cdrop.storage` has read, which may be anything; see there."""
        arrays, run = dict(arrays), settings["run"]
        remembered = _with_arrays(settings["callbacks"], arrays)
        network = storage.class_of("Network")._from_parts(settings["network"], arrays)
        place = Place(**settings["place"])
        whole_number("its epochs", place.epochs, 0, 2**62)
        whole_number("its steps", place.steps, 0, network.history.iterations + 1)
        truth_value("finished", place.finished)
        if not isinstance(place.total, float):
            raise TypeError(f"its total is {place.total!r}; expected a float")
        if not isinstance(run["arguments"], dict) or not isinstance(remembered, dict):
            raise TypeError("its arguments or callbacks are not as a fit writes them")
        if not all(isinstance(state, dict) for state in remembered.values()):
            raise TypeError("the state of a callback is not a dict")
        return cls(network, place, run, remembered)


class Keeper:
    """Keeps one fit: finds its checkpoint, brings network and callbacks to where it was, and writes the later ones.

    Parameters
    ----------
    path : path
        Of the checkpoint, which need not be there.
    every : int or None
        Steps from one to the next, as the network counts them.
    net : Network
    callbacks : sequence of callbacks
    arguments : dict
        Of the fit, in values that JSON can carry; arrays as `digest` has them.

    Attributes
    ----------
    place : Place
        Where the fit is: that of the checkpoint, or the beginning.
    identity : str
        SHA-256 of what the fit began with.
    path, given : str
        The checkpoint's absolute path, and its path as the caller named it.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError, ValueError
        If an argument is invalid, or the file is damaged or of another fit.
    OSError
        If checkpoints cannot be written there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int | None,
        net: Network,
        callbacks: Sequence[Any],
        arguments: dict[str, Any],
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"checkpoint is {path!r}; expected a path")
        self.given = os.fspath(path)
        self.path = os.path.abspath(path)  # a callback or another thread may change the directory
        self.every = whole_number("checkpoint_every", _EVERY if every is None else every, 1, 2**62)
        storage._safetensors()
        check_writable(self.path)
        self._callbacks = _named(callbacks)
        self._run: dict[str, Any] = {
            "arguments": {"cdrop": __version__, **arguments},
            "network": _network_digest(net),
            "callbacks": digest(self._remembered()),
        }
        self.identity = digest(self._run)
        self._found = self._find(net)
        self._before: Any = (
            None  # of the network, while the callbacks may still refuse their states
        )
        self.place = Place() if self._found is None else self._found.place

    def _find(self, net: Network) -> Checkpoint | None:
        """Read the checkpoint that is there, if any, once it is known to be this fit's."""
        if not os.path.exists(self.path):
            return None
        try:
            found = storage.load(self.path)
        except storage.ModelFileError as error:
            raise storage.ModelFileError(f"checkpoint: {error}") from error
        if not isinstance(found, Checkpoint):
            raise ValueError(
                f"checkpoint is {self.given!r}, where a {type(found).__name__} is saved; expected a checkpoint, or no "
                "file yet"
            )
        self._take_over(net, found)
        return found

    def _take_over(self, net: Network, found: Checkpoint) -> None:
        """Raise unless the checkpoint is of this call, which may find things as that began or left them."""
        for name, value in self._run["arguments"].items():
            was = found.run["arguments"].get(name)
            if json.dumps(was, sort_keys=True) != json.dumps(value, sort_keys=True):
                values = "" if name in _ARRAYS else f" ({was!r}, and here {value!r})"
                raise self._other(f"with another {name}{values}")
        left = {"network": _network_digest(found.network), "callbacks": digest(found._remembered)}
        if net._under_way != digest(found.run):  # an error has not ended it in this process
            for name, after in left.items():
                if self._run[name] not in (found.run.get(name), after):
                    differs = _differences(found.network, net) if name == "network" else ""
                    raise self._other(f"that began with {name} in another state{differs}")
        for name in found._remembered:
            if name not in self._callbacks:
                raise self._other(f"with a callback {name}")
        left_here = found.run.get("network") != self._run["network"] == left["network"]
        if found.place.finished and left_here:  # not a program that was started again
            warnings.warn(
                f"checkpoint is {self.given!r}, which is of this call, made before and finished: no step is made; "
                "expected another path, to continue with a further fit",
                stacklevel=7,
            )
        self._run, self.identity = found.run, digest(found.run)

    def _other(self, what: str) -> ValueError:
        return ValueError(
            f"checkpoint is {self.given!r}, which is of a fit {what}; expected the same call on the same network, to "
            "resume that fit, or another path"
        )

    def restore_network(self, net: Network, fit: Fitting) -> None:
        """Restore the network, which a fit holds, from the checkpoint, if there is one."""
        if self._found is not None:
            self._before = net._snapshot()
            net._load(self._found.network.state_dict(), fit)

    def begin(self, net: Network, fit: Fitting) -> None:
        """Restore the callbacks, whose `on_fit_begin` has been called; or write the first checkpoint.

        Where a callback refuses its state, network and callbacks are as before.
        """
        if self._found is None:
            self.write(net)  # from now on the same call can resume after any error
            return
        undo: list[tuple[Any, Any]] = []
        try:
            for name, state in self._found._remembered.items():
                callback = self._callbacks[name]
                undo.append((callback, callback.state_dict()))
                callback.load_state_dict(state)
        except Exception:
            net._restore(self._before, fit)
            for callback, state in undo:
                with suppress(Exception):  # the error of above is the one to raise
                    callback.load_state_dict(state)
            raise
        self._found = self._before = None  # and their memory

    def after_step(self, net: Network) -> None:
        """Write a checkpoint after every step whose number is a multiple of `every`."""
        if net.history.iterations % self.every == 0:
            self.write(net)

    def write(self, net: Network) -> None:
        """Write a checkpoint to disk."""
        try:
            remembered = self._remembered()
        except (
            TypeError
        ) as error:  # no mistake of the call's arguments by now: the network has changed
            raise RuntimeError(f"no checkpoint at step {net.history.iterations}: {error}") from None
        storage.save(Checkpoint(net, self.place, self._run, remembered), self.path)

    def _remembered(self) -> dict[str, Any]:
        states = {name: _state_of(name, c) for name, c in self._callbacks.items()}
        return {name: state for name, state in states.items() if state}


def digest(value: Any) -> str:
    """Return the SHA-256 of arrays (dtype, shape, numbers), sparse rows, what JSON can carry, and lists and dicts."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, SparseRows):
        value = [value.data, value.indices, value.indptr]
    if isinstance(value, dict):
        value = [list(item) for item in sorted(value.items())]
    if isinstance(value, list):
        sha.update(b"[%d" % len(value))
        for item in value:
            _feed(sha, item)
    elif isinstance(value, np.ndarray):
        sha.update(f"{value.dtype.str}{value.shape}".encode())
        sha.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    else:
        sha.update(json.dumps(value).encode() + b";")


def _network_digest(net: Network) -> str:
    """Digest everything that training depends on, which excludes the number of threads and an interruption."""
    settings, arrays = net._to_parts()
    del settings["threads"], settings["interrupted"]
    return digest([settings, arrays])


def _differences(was: Network, net: Network) -> str:
    """Return the settings in which two networks differ, in parentheses; empty if only weights or counters differ."""
    old, new = was._to_parts()[0]["settings"], net._to_parts()[0]["settings"]
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    pairs = [f"{name} {getattr(was, name)!r}, and here {getattr(net, name)!r}" for name in changed]
    return f" ({'; '.join(pairs)})" if pairs else ""


def _named(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Return the callbacks that remember something or may, by class, and number where there are several of one."""
    named: dict[str, Any] = {}
    for i, callback in enumerate(callbacks):
        for method in ("state_dict", "load_state_dict"):
            if not callable(getattr(callback, method, None)):
                raise TypeError(
                    f"callbacks[{i}] is {callback!r}; expected, with checkpoint, one that has {method}, such as a "
                    "cdrop.callbacks.Callback"
                )
        if callback.state_dict() is not None:
            kind = type(callback).__name__
            number = 1 + sum(name.split()[0] == kind for name in named)
            named[kind if number == 1 else f"{kind} {number}"] = callback
    return named


def _state_of(name: str, callback: Any) -> Any:
    """Return what the callback of this name remembers, a dict that a file can hold or None."""
    state = callback.state_dict()
    if not isinstance(state, dict | None):
        raise TypeError(
            f"callbacks: the state_dict of {name} returns {state!r}; expected a dict or None"
        )
    return _plain(name, state)


def _plain(name: str, value: Any, depth: int = 0) -> Any:
    """Return what the callback of this name remembers, once it is known to come back from a file as it was."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (dict, list)) and depth > _DEEPEST:
        raise TypeError(
            f"callbacks: {name} remembers lists or dicts in more than {_DEEPEST} others"
        )
    if isinstance(value, dict) and _ARRAY not in value and all(isinstance(k, str) for k in value):
        return {key: _plain(name, item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(name, item, depth + 1) for item in value]
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8
    if numeric or value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"callbacks: {name} remembers {value!r}; expected what a checkpoint can hold (numbers, "
        "strings, arrays, and lists and dicts of these), or a state_dict and load_state_dict that do without it"
    )


def _without_arrays(value: Any, arrays: _Arrays) -> Any:
    """Return `value` with each array moved to `arrays`, under its own number."""
    if isinstance(value, np.ndarray):
        name = f"callbacks.{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {key: _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_arrays(item, arrays) for item in value]
    return value


def _with_arrays(value: Any, arrays: _Arrays) -> Any:
    """Undo `_without_arrays`."""
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays.pop(value[_ARRAY])
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value
