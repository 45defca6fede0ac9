"""Model files: the complete model in one safetensors file, verified by SHA-256 on load.

Needs safetensors: ``pip install 'cdrop[io]'``.

Design
------
A file is an ordinary safetensors file: a length, a header of JSON, the arrays' bytes. The header's metadata has one
entry, ``cdrop``: JSON with the file's SHA-256, the number of the format, cdrop's version, the kind of the model and its
settings. The digest comes first in it, so that every model file begins identically and the 64 hex digits are at a fixed
position, found without parsing. It is computed over the whole file, with these digits as zeros. One entry, because
safetensors writes several in random order: the same model gives the same bytes.

The digest detects accidents, not attacks: whoever can change a file can also change its digest. So nothing in a file
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
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import choice, whole_number
from cdrop._files import sweep, write_atomically
from cdrop._version import __version__

__all__ = ["ModelFileError", "load", "save"]

_FORMAT = 1  # one more with every change that an older cdrop would misread
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
_DEEPEST = 100
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)  # of JSON: strings and brackets


class ModelFileError(ValueError):
    """An existing file that cannot be loaded: damaged, truncated, not a model, or written by a newer cdrop."""


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model to one file, atomically; ``model.save(path)`` does the same.

    Parameters
    ----------
    model : Network or estimator of cdrop
    path : path
        An existing file is replaced.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError
        If `model` is of another class; subclasses are not accepted.
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
    content = _packed(kind, *model._to_parts())
    write_atomically(path, lambda stream: stream.write(content))


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save` wrote. Its predictions and further training are the same, byte for byte.

    Parameters
    ----------
    path : path

    Returns
    -------
    Network, estimator of cdrop, or Checkpoint
        As saved, or as ``Network.fit(checkpoint=...)`` wrote it. The weights of a model that diverged may be NaN or
        infinite.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    ModelFileError
        If the file is damaged, truncated, not a model, or written by a newer cdrop. It is a ValueError.
    OSError
        If the file does not exist or cannot be read.

    Notes
    -----
    Nothing in a file can run code: one of unknown origin costs at most memory in proportion to its size. Temporary
    files that a killed `save` to this path left are removed.
    """
    path = os.fsdecode(path)
    try:
        about, arrays = _unpacked(_read(path))
        kind = _check_about(about)
        made, settings = class_of(kind), about["settings"]
        if hasattr(made, "_completed"):  # a file of an earlier version may lack parameters
            settings = made._completed(settings)
        model = made._from_parts(settings, arrays)
        _check_same(model, settings, arrays)
    except ModelFileError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise ModelFileError(f"{path} holds no model that can be used: {lacks}{error}") from error
    return model


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


def _read(path: str) -> bytes:
    """Return the content of a file that has its own digest."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ModelFileError(f"{path} is no file")  # reading a pipe would wait for its other end
    sweep(path)
    with open(path, "rb") as stream:
        opening, size = stream.read(_DIGITS.stop), os.fstat(stream.fileno()).st_size
        if not opening:
            raise ModelFileError(f"{path} is empty")
        if len(opening) < _DIGITS.stop or not opening.startswith(_OPENING, _LENGTH):
            raise ModelFileError(f"{path} is no model file of cdrop: it begins otherwise")
        stream.seek(0)
        content = stream.read(size)  # it may grow meanwhile, but memory is for what was there
    if content[_DIGITS] != _digest(content):
        raise ModelFileError(f"{path} is damaged: its SHA-256 is not the one written in it")
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


def _check_same(
    model: Any, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
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
    alike = one.dtype.str == other.dtype.str and one.shape == other.shape
    return alike and one.tobytes() == other.tobytes()


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
