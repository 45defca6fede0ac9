"""Model files: the complete model in one safetensors file, verified by SHA-256 on load.

Needs safetensors: ``pip install 'cdrop[io]'``.

Design
------
A file is an ordinary safetensors file: a length, a header of JSON, the arrays' bytes. The header's metadata has one
entry, ``cdrop``: JSON with the file's SHA-256, the number of the format, cdrop's version, the kind of the model and its
settings. The digest comes first in it, so that every model file begins identically and the 64 hex digits are at a fixed
position, found without parsing. It is computed over the whole file, with these digits as zeros. One entry, because
safetensors writes several in random order: the same model gives the same bytes.

The digest detects accidents, not attacks: anyone who can change a file can also change its digest. So nothing in a file
can run code, memory is taken in proportion to the size of the file, and a model checks each setting and array as it
checks its arguments. Then the model is taken apart again, and the result must equal the file: nothing in a file is
ignored, and nothing that it lacks is made up.

A class that can be stored is listed in ``_KINDS``, with its module, and has

- ``_to_parts(self) -> tuple[dict, dict[str, ndarray]]``: settings that JSON can carry (plain dicts with str keys,
  lists, str, int, float, bool, None; no NumPy scalars) and arrays of numbers or bools;
- ``_from_parts(cls, settings, arrays)``, a class method: the model again, whose ``_to_parts`` returns the same. Its
  arguments come from a file and may be anything of these types: what does not fit raises TypeError, ValueError or,
  where something is missing, KeyError, before a setting can cause memory to be taken.

Strings, such as the names of classes, belong in the settings; a vector of numbers that grows, such as losses, is an
array. Numbers, including infinite ones and NaN, are restored bit for bit.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import choice, truth_value, whole_number
from cdrop._files import sweep, write_atomically
from cdrop._version import __version__

if TYPE_CHECKING:
    from cdrop.network import Network

__all__ = ["ModelFileError", "load", "save"]

File = str | os.PathLike[str] | BinaryIO  # to save to or load from

_FORMAT = 1  # one more with every change that an older cdrop would misread
_Model = TypeVar("_Model")
_KINDS = {
    "Network": "cdrop.network",
    "Checkpoint": "cdrop.checkpoints",
    "DropoutMLPClassifier": "cdrop.estimators",
    "DropoutMLPRegressor": "cdrop.estimators",
}
_MEMBERS = ("sha256", "format", "cdrop", "kind", "settings")
_LENGTH = 8  # bytes before the header, which say how long it is
_OPENING = rb'{"__metadata__":{"cdrop":"{\"sha256\": \"'
_DIGITS = slice(_LENGTH + len(_OPENING), _LENGTH + len(_OPENING) + 64)
_NO_DIGITS = b"0" * 64
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
_DEEPEST = 100
_AT_ONCE = 2**24  # bytes of a stream
_ESTIMATORS = ("DropoutMLPClassifier", "DropoutMLPRegressor")
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)  # of JSON: strings and brackets


class ModelFileError(ValueError):
    """An existing file that cannot be loaded: damaged, truncated, not a model, or written by a newer cdrop."""


def save(model: Any, path: File) -> None:
    """Write a model to one file, atomically; ``model.save(path)`` does the same.

    Parameters
    ----------
    model : Network or estimator of cdrop
    path : path or binary file object
        An existing file is replaced. To a file object, such as a ``io.BytesIO`` or a file of `zipfile`, the bytes are
        written where it stands; it need not be seekable, and is not closed.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError, ValueError
        If `model` is of another class (subclasses are not accepted), or `path` is neither a path nor a file object open
        for writing bytes.
    OSError
        If the file cannot be written. An existing file is still there.

    Examples
    --------
    >>> from cdrop import Network, load
    >>> Network([4, 8, 3], dropout=0.5).save("model.safetensors")
    >>> load("model.safetensors")
    Network([4, 8, 3], dropout=0.5)
    """
    kind = type(model).__name__
    if _KINDS.get(kind) != type(model).__module__:
        raise TypeError(f"model is {model!r}; expected one of {', '.join(_KINDS)}, no subclass")
    if _is_stream(path, "write"):
        _check_mode(path, "wb")
        _write_stream(path, _packed(kind, *model._to_parts()))
        return
    text = _checked_path(path)
    if text.endswith(_SEPARATORS) or os.path.isdir(text):
        inside = os.path.join(text, "model.safetensors")
        raise IsADirectoryError(
            f"path is {path!r}, a directory; expected a file, such as {inside!r}"
        )
    content = _packed(kind, *model._to_parts())
    write_atomically(text, lambda stream: stream.write(content))


@overload
def load(path: File, expected: type[_Model], *, as_network: Literal[False] = False) -> _Model: ...
@overload
def load(path: File, expected: None = None, *, as_network: Literal[True]) -> Network: ...
@overload
def load(path: File, expected: None = None, *, as_network: bool = False) -> Any: ...
def load(path: File, expected: type | None = None, *, as_network: bool = False) -> Any:
    """Load a model that `save` wrote. Its predictions and further training are the same, byte for byte.

    Parameters
    ----------
    path : path or binary file object
        A file object is read from where it stands to its end; it need not be seekable, and is not closed.
    expected : type, optional
        Class that the model must have, such as ``DropoutMLPClassifier``. Type checkers and editors then know what
        `load` returns, and a file that holds another model is an error. Default: any model. Not together with
        `as_network`.
    as_network : bool, default False
        Return only the network of an estimator (or of a checkpoint), for which scikit-learn is not imported. `predict`
        returns numbers of classes: ``net.classes_[net.predict(X)]`` are the labels. `predict_proba` of two classes is
        the probability of the second. Several labels and numbers are predicted as by the estimator, except that
        quantiles stay unsorted where it has ``sort_quantiles=True``.

    Returns
    -------
    Network, estimator of cdrop, or Checkpoint
        As saved, or as ``Network.fit(checkpoint=...)`` wrote it. The weights of a model that diverged may be NaN or
        infinite.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError, ValueError
        If `path` is neither a path nor a file object open for reading bytes; if `expected` is not a class of models.
    ModelFileError
        If the file is damaged, truncated, not a model, or written by a newer cdrop; if it holds another model than
        `expected`; with `as_network`, if the estimator is not fitted or has one class alone. It is a ValueError.
    OSError
        If the file does not exist or cannot be read.

    Notes
    -----
    Nothing in a file can run code: one of unknown origin costs at most memory in proportion to its size. Temporary
    files that a killed `save` to this path left are removed.
    """
    alone = truth_value("as_network", as_network)
    _check_expected(expected, alone)
    is_stream = _is_stream(path, "read")
    if is_stream:
        _check_mode(path, "rb")
    name = _name_of(path) if is_stream else _checked_path(path)
    try:
        about, arrays = _unpacked(_read_stream(path, name) if is_stream else _read(name))
        kind = _check_about(about)
        if expected is not None and not issubclass(class_of(kind), expected):
            raise ModelFileError(f"{name} holds a {kind}; expected a {expected.__name__}")
        if alone and kind in _ESTIMATORS:
            from cdrop._alone import network_of

            return network_of(about["settings"], arrays)
        made, settings = class_of(kind), about["settings"]
        if hasattr(made, "_completed"):  # a file of an earlier version may lack parameters
            settings = made._completed(settings)
        model = made._from_parts(settings, arrays)
        check_same(model, settings, arrays)
    except ModelFileError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise ModelFileError(f"{name} holds no model that can be used: {lacks}{error}") from error
    return model.network if alone and kind == "Checkpoint" else model


def _check_expected(expected: Any, as_network: bool) -> None:
    """Validate the class that `load` is to return."""
    if expected is None:
        return
    bases = expected.__mro__ if isinstance(expected, type) else ()
    if not any(base.__name__ in _KINDS for base in bases):
        raise TypeError(
            f"expected is {expected!r}; expected None or a class of models: {', '.join(_KINDS)}"
        )
    if as_network:
        raise ValueError("expected and as_network=True are both given; expected one of them")


def class_of(kind: str) -> Any:
    """Import the class that a file of this kind holds, by name: its module may import this one."""
    return getattr(importlib.import_module(_KINDS[kind]), kind)


def _packed(
    kind: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> bytearray:
    about = dict(zip(_MEMBERS, ("0" * 64, _FORMAT, __version__, kind, settings), strict=True))
    text = json.dumps(about)
    _check_depth(text)
    # safetensors writes the memory of an array, in whatever order it lies there.
    in_order = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    content = bytearray(_safetensors().numpy.save(in_order, {"cdrop": text}))
    if not content.startswith(_OPENING, _LENGTH):
        raise RuntimeError("safetensors begins its files in another way than it did; nothing saved")
    content[_DIGITS] = _digest(content)
    return content


def _checked_path(path: Any) -> str:
    """Return a path as text; raise where it is none, or names no file."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"path is {path!r}; expected a str, bytes or os.PathLike, or a binary file object"
        ) from None
    if not text or "\0" in text:
        raise ValueError(f"path is {path!r}; expected the name of a file")
    return text


def _is_stream(path: Any, method: str) -> bool:
    return not isinstance(path, (str, bytes, os.PathLike)) and callable(getattr(path, method, None))


def _check_mode(stream: Any, mode: str) -> None:
    """Raise unless a stream is open, and reads or writes bytes."""
    try:
        if isinstance(stream, io.TextIOBase):
            raise TypeError
        nothing = stream.write(b"") if mode == "wb" else stream.read(0)
        if isinstance(nothing, str):
            raise TypeError
    except TypeError:
        raise TypeError(
            f"path is {stream!r}, which is in text mode; expected a binary file object, as of open(..., {mode!r})"
        ) from None
    except ValueError as error:  # closed, or open for the other direction
        raise ValueError(
            f"path is {stream!r}; expected a file object that is open, as of open(..., {mode!r}): {error}"
        ) from None


def _name_of(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) and name else f"the file object {stream!r}"


def _write_stream(stream: Any, content: bytearray) -> None:
    at = 0
    while at < len(content):
        piece = bytes(content[at : at + _AT_ONCE])
        written = stream.write(piece)
        if written is None and isinstance(stream, io.RawIOBase):
            raise BlockingIOError(f"path is {stream!r}, which takes no more bytes now")
        at += written if isinstance(written, int) else len(piece)


def _pieces(stream: Any) -> Iterator[bytes]:
    """Yield what a stream has left; a raw one may return less than it is asked for."""
    while piece := stream.read(_AT_ONCE):
        yield piece
    if piece is None:
        raise BlockingIOError(f"path is {stream!r}, which has no more bytes yet")


def _read(path: str) -> bytes:
    """Return the content of a file that has its own digest."""
    if os.path.exists(path) and not os.path.isfile(path):
        # Reading a pipe would wait for its other end.
        raise ModelFileError(f"path is {path!r}, which is not a file; expected a model file")
    sweep(path)
    with open(path, "rb") as stream:
        opening, size = stream.read(_DIGITS.stop), os.fstat(stream.fileno()).st_size
        _check_opening(opening, path)
        stream.seek(0)
        content = stream.read(size)  # it may grow meanwhile, but memory is for what was there
    return _checked_content(content, path)


def _read_stream(stream: Any, name: str) -> bytes:
    """Return what a stream has from where it stands, which begins and ends as a file that has its own digest."""
    content = bytearray()
    for piece in _pieces(stream):
        content += piece
        if len(content) >= _DIGITS.stop:
            _check_opening(bytes(content[: _DIGITS.stop]), name)
    _check_opening(bytes(content[: _DIGITS.stop]), name)
    return _checked_content(bytes(content), name)


def _check_opening(opening: bytes, name: str) -> None:
    if not opening:
        raise ModelFileError(f"{name} is empty")
    if len(opening) < _DIGITS.stop or not opening.startswith(_OPENING, _LENGTH):
        raise ModelFileError(f"{name} is not a cdrop model file (unrecognized header)")


def _checked_content(content: bytes, name: str) -> bytes:
    if content[_DIGITS] != _digest(content):
        raise ModelFileError(f"{name} is damaged: its SHA-256 is not the one written in it")
    return content


def _digest(content: bytes | bytearray) -> bytes:
    """Return the hex digits of the SHA-256 over the content with its own digits zeroed."""
    view = memoryview(content)
    sha = hashlib.sha256(view[: _DIGITS.start])
    sha.update(_NO_DIGITS)
    sha.update(view[_DIGITS.stop :])
    return sha.hexdigest().encode()


def _unpacked(content: bytes) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return what the header says of the model, and the arrays; safetensors checks that they fill the file exactly."""
    safetensors = _safetensors()
    try:
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, LookupError) as error:  # a dtype that NumPy lacks
        raise ValueError(f"its arrays cannot be read: {error}") from error
    header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
    text = header["__metadata__"]["cdrop"]
    _check_depth(text)
    return json.loads(text), arrays


def _check_depth(text: str) -> None:
    """Raise if JSON is nested so deep that Python's stack might be too small to read it, wherever that is done."""
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _DEEPEST:
            raise ValueError(f"its settings are nested more than {_DEEPEST} deep")


def _check_about(about: Any) -> str:
    """Return the kind of a model that this cdrop can read."""
    if not isinstance(about, dict):
        raise TypeError("it says nothing of its model")
    number = whole_number("its format", about.get("format"), 1, 2**62)
    if number > _FORMAT:
        raise ValueError(
            f"it was written by a newer cdrop ({about.get('cdrop')}): its format is {number}, and this cdrop reads "
            f"up to {_FORMAT}"
        )
    if set(about) != set(_MEMBERS):
        raise ValueError(f"it has the members {sorted(about)}; expected {sorted(_MEMBERS)}")
    if not isinstance(about["settings"], dict):
        raise TypeError(f"its settings are {about['settings']!r}; expected an object")
    return choice("its kind", about["kind"], tuple(_KINDS))


def check_same(model: Any, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise unless the model, taken apart again, gives what it was made from, bit for bit."""
    again, its_arrays = model._to_parts()
    differ = {name for name, _ in _texts(settings).items() ^ _texts(again).items()}
    differ |= arrays.keys() ^ its_arrays.keys()
    differ |= {name for name in arrays.keys() - differ if not _same(arrays[name], its_arrays[name])}
    if differ:
        some = [repr(name[:50]) for name in sorted(differ)[:5]]
        raise ValueError(
            f"a model made from it has other {', '.join(some)}{', ...' * (len(differ) > 5)}"
        )


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays have the same dtype, shape and bytes."""
    same = one.dtype.str == other.dtype.str and one.shape == other.shape
    return same and one.tobytes() == other.tobytes()


def _safetensors() -> Any:
    try:
        import safetensors.numpy

        complete = hasattr(safetensors, "SafetensorError") and hasattr(safetensors.numpy, "load")
    except (ImportError, AttributeError) as error:
        if sys.modules.get("safetensors") is None:
            raise ImportError(
                "model files need safetensors: pip install 'cdrop[io]'", name="safetensors"
            ) from error
        complete = False
    if not complete:
        raise RuntimeError(
            "safetensors is being imported by what this signal handler or finalizer interrupts; expected this call "
            "after it, or `import safetensors.numpy` at the beginning of the program"
        )
    return safetensors
