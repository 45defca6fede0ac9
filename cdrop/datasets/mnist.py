"""MNIST and its kin: IDX files, checksums, the cache directory and the mirrors.

Design
------
Nothing a file says is believed before it is checked. A header's sizes are compared with what the
file can hold before memory is taken; unpacking stops one byte after what the header promised;
MNIST's bytes are hashed after unpacking, on every load, because mirrors compress differently.

A download is bounded as a whole. Time-outs of sockets are not enough: they bound one read each, so
a server that sends a byte now and then holds a reader for hours, and looking up a name has no
time-out at all. So the download runs in a separate thread into memory, and the caller waits only
as long as its `_Patience` lasts.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import importlib.util
import io
import math
import numbers
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import truth_value, whole_number
from cdrop._console import is_terminal
from cdrop._files import sweep, write_atomically
from cdrop.datasets.dataset import (
    MOST_BYTES,
    MOST_RATIO,
    DataError,
    DataNotFoundError,
    Dataset,
    split,
)

__all__ = [
    "MIRRORS",
    "cache_folder",
    "is_idx_name",
    "load_folder",
    "load_mnist",
    "read_idx",
]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


class _Known(NamedTuple):
    """What a file of MNIST must be: its number of dimensions, and its unpacked bytes' SHA-256."""

    ndim: int
    sha256: str


_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
_FILES: dict[str, _Known] = {
    _TRAIN_IMAGES: _Known(3, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    _TRAIN_LABELS: _Known(1, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    _TEST_IMAGES: _Known(3, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    _TEST_LABELS: _Known(1, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}

_UBYTE = 0x08  # IDX's code for unsigned bytes
_MOST_DIMENSIONS = 32  # fewer than NumPy's 64, more than any data set's
_BLOCK = 1 << 20  # bytes unpacked at a time: memory grows with what is really there
_SLOWEST = 32 * 1024  # bytes a second: a server that sends less than this counts as silent
_SILENT = "no answer, or next to none"
_LARGEST_DOWNLOAD = 64 << 20  # bytes: the largest MNIST file has 47 MB unpacked


# --- IDX files ---


class _Idx(NamedTuple):
    """An IDX file's array, and the SHA-256 of its unpacked bytes."""

    array: NDArray[np.uint8]
    sha256: str


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or compressed by gzip.

    Parameters
    ----------
    path : str or path-like
        The file; its first bytes, not its name, decide whether it is compressed.

    Returns
    -------
    ndarray of uint8
        In the shape that the file's header states.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is truncated, corrupt, longer than its header says, larger than 1 GiB unpacked,
        or no IDX file of unsigned bytes. Sizes are checked before memory is taken.

    References
    ----------
    LeCun, Cortes, Burges: The MNIST database of handwritten digits, section "The IDX file format".
    """
    return _read_file(Path(path)).array


def _read_file(path: Path, ndim: int | None = None) -> _Idx:
    """Read and check one file."""
    if not os.path.isfile(path):
        raise DataNotFoundError(f"{path}: expected a file, found none")
    try:
        with path.open("rb") as stream:
            return _read_stream(stream, os.fstat(stream.fileno()).st_size, str(path), ndim)
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, found: {error}") from error


def _read_stream(stream: BinaryIO, size: int, where: str, ndim: int | None) -> _Idx:
    """Read IDX from a seekable stream of `size` bytes, compressed or not."""
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not packed:
        return _read_plain(stream, where, ndim, lambda need: need == size, f"{size} bytes")
    # gzip checks its own checksum when its end is reached, which `_read_plain` makes sure of.
    may_hold = f"a compressed file of {size} bytes, which cannot unpack to that"
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            return _read_plain(
                unpacked, where, ndim, lambda need: need <= size * MOST_RATIO, may_hold
            )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: expected a whole gzip file, found: {error}") from error


def _read_plain(
    stream: Any, where: str, ndim: int | None, fits: Callable[[int], bool], found: str
) -> _Idx:
    """Read unpacked IDX: `fits` returns whether the file can hold a number of bytes, `found` what it is."""
    header, shape = _read_header(stream, where, ndim)
    count = math.prod(shape)
    need = len(header) + count
    promise = f"{need} bytes for the shape {shape} in its header"
    # A dimension of 0 must not hide others that no array can have.
    if max(need, math.prod(max(size, 1) for size in shape)) > MOST_BYTES:
        raise DataError(f"{where}: expected at most {MOST_BYTES} bytes unpacked, found {promise}")
    if not fits(need):
        raise DataError(f"{where}: expected {promise}, found {found}")
    body = bytearray()
    while len(body) < count and (block := stream.read(min(_BLOCK, count - len(body)))):
        body += block
    if len(body) < count:
        raise DataError(f"{where}: expected {promise}, found {len(header) + len(body)} (truncated)")
    if stream.read(1):
        raise DataError(f"{where}: expected {promise}, found more bytes after them")
    digest = hashlib.sha256(header)
    digest.update(body)
    return _Idx(np.frombuffer(body, np.uint8).reshape(shape), digest.hexdigest())


def _read_header(stream: Any, where: str, ndim: int | None) -> tuple[bytes, tuple[int, ...]]:
    """Return an IDX header's bytes and the shape it states.

    The header is 0, 0, a type code, the number of dimensions, each dimension as big-endian uint32.
    """
    magic = stream.read(4)
    legal = range(1, _MOST_DIMENSIONS + 1) if ndim is None else (ndim,)
    wanted = f"00 00 08 {ndim:02x}" if ndim else f"00 00 08 and 1 to {_MOST_DIMENSIONS} dimensions"
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _UBYTE]) or magic[3] not in legal:
        raise DataError(
            f"{where}: expected an IDX file of unsigned bytes, which begins with {wanted}, "
            f"found {magic.hex(' ') or 'an empty file'}"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(
            f"{where}: expected {4 * magic[3]} bytes of sizes in the header, "
            f"found {len(sizes)} (truncated)"
        )
    return magic + sizes, tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


# --- directories ---


def is_idx_name(name: str) -> bool:
    """Return whether a directory of IDX files may have a file of this name."""
    return name.lower().removesuffix(".gz") in _FILES


def _find(directory: Path, stem: str) -> Path | None:
    """Return the plain or compressed file of that name, if the directory has one."""
    both = (directory / stem, directory / f"{stem}.gz")
    # os.path.isfile, unlike Path.is_file, also says no where it may not look.
    return next((path for path in both if os.path.isfile(path)), None)


def _has_any(directory: Path) -> bool:
    """Return whether any of the four files is there."""
    return any(_find(directory, stem) for stem in _FILES)


def _read_four(directory: Path) -> dict[str, _Idx]:
    """Read all four files of a directory."""
    if not _has_any(directory):
        raise DataNotFoundError(
            f"{directory}: expected the files {', '.join(_FILES)} (each plain or .gz), "
            "found none of them"
        )
    parts = {}
    for stem, known in _FILES.items():
        path = _find(directory, stem)
        if path is None:
            raise DataError(
                f"{directory}: expected the file {stem} or {stem}.gz too, found neither"
            )
        parts[stem] = _read_file(path, known.ndim)
    return parts


def _verify(idx: _Idx, stem: str, where: str) -> None:
    """Raise DataError unless the bytes are those of MNIST."""
    if idx.sha256 != _FILES[stem].sha256:
        raise DataError(
            f"{where}: expected MNIST's {stem}, whose unpacked bytes have the SHA-256 "
            f"{_FILES[stem].sha256}, found {idx.sha256}"
        )


def _assemble(name: str, source: str, parts: Mapping[str, _Idx], validation: int) -> Dataset:
    """Build the `Dataset` from the four files."""
    train = parts[_TRAIN_IMAGES].array, parts[_TRAIN_LABELS].array
    test = parts[_TEST_IMAGES].array, parts[_TEST_LABELS].array
    return split(name, source, train, test, validation)


def load_folder(
    folder: str | os.PathLike[str], *, name: str | None = None, validation: int = 5000
) -> Dataset:
    """Load any data set in MNIST's four files (Fashion-MNIST, KMNIST, your own variant).

    Headers, sizes and labels are checked; checksums are not.

    Parameters
    ----------
    folder : str or path-like
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte``
        and ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``.
    name : str, optional
        Name of the result; by default made from the directory's.
    validation : int, default 5000
        How many of the first training images are held out for validation.

    Returns
    -------
    Dataset
        Images of any size, as they are in the files.

    Raises
    ------
    DataNotFoundError
        If the directory has none of the files.
    DataError
        If some are missing or damaged, or the four do not fit together.
    TypeError, ValueError
        If `validation` is not an integer, or out of range; if `name` is not a string, or is "MNIST".
    """
    place = Path(folder)
    whole_number("validation", validation, 0, 2**62)
    if not isinstance(name, str | None):
        raise TypeError(f"name must be a string or None, got {name!r}")
    if name == "MNIST":  # reports trust it
        raise ValueError("name must not be 'MNIST', which only checksums give: see load_mnist")
    parts = _read_four(place)
    if name is None:
        name = f"{place.resolve().name or place} (IDX directory, not MNIST)"
    return _assemble(name, f"the directory {place}", parts, validation)


def _load_named(directory: Path, validation: int) -> Dataset:
    """Load the directory that the user named: MNIST if its images are, else whatever it holds.

    If one of the image files is MNIST's, the other files must be too. A damaged MNIST is therefore
    noticed, not taken for another data set; only sets with MNIST's own images and other labels are
    refused, and `load_folder` takes those.
    """
    inner = directory / "mnist"
    place = inner if _has_any(inner) and not _has_any(directory) else directory
    parts = _read_four(place)
    images = (_TRAIN_IMAGES, _TEST_IMAGES)
    if not any(parts[stem].sha256 == _FILES[stem].sha256 for stem in images):
        name = f"{place.resolve().name} (IDX directory, not MNIST)"
        return _assemble(name, f"the directory {place}", parts, validation)
    return _load_verified(place, parts, validation)


def _load_verified(
    place: Path, parts: Mapping[str, _Idx], validation: int, how: str = ""
) -> Dataset:
    """Return MNIST from the four files of a directory; raise DataError if they are not MNIST."""
    for stem, idx in parts.items():
        _verify(idx, stem, str(_find(place, stem)))
    return _assemble("MNIST", f"the directory {place}{how}", parts, validation)


# --- the cache ---


def cache_folder() -> Path:
    """Return the directory where downloads are kept (it need not exist yet).

    Returns
    -------
    pathlib.Path
        ``CDROP_CACHE`` if that is set; else ``cdrop`` in ``XDG_CACHE_HOME`` (if that is an absolute
        path) or in the platform's directory: ``~/Library/Caches``, ``%LOCALAPPDATA%``, ``~/.cache``.

    Raises
    ------
    DataNotFoundError
        If none of these is set and the user has no home directory.

    References
    ----------
    freedesktop.org: XDG Base Directory Specification 0.8 (relative paths must be ignored).
    """
    own = os.environ.get("CDROP_CACHE")
    if own:
        return Path(own)
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "cdrop"
    local = os.environ.get("LOCALAPPDATA")
    if sys.platform == "win32" and local:
        return Path(local) / "cdrop" / "Cache"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise DataNotFoundError("no home directory to keep data in: set CDROP_CACHE") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "cdrop"


def _keep(directory: Path, stem: str, content: bytes) -> None:
    """Put a verified download into the cache, in place of what was there.

    A cache that cannot be written (full, read-only) costs the next run a download, not this one its
    data.
    """
    packed = content[:2] == b"\x1f\x8b"
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(
            directory / (f"{stem}.gz" if packed else stem), lambda stream: stream.write(content)
        )
        if packed:  # `_find` prefers the plain file: a damaged one must not hide the new one
            (directory / stem).unlink(missing_ok=True)


# --- the mirrors ---


class _Patience:
    """How long a mirror may still be silent.

    Starts at `allowance` seconds and runs down with time; every byte received winds it up again by
    1 / _SLOWEST seconds, up to `allowance`. Silence is thus given up after `allowance` seconds, a
    trickle below `_SLOWEST` a little later, and a whole download of b bytes after at most
    allowance + b / _SLOWEST seconds, while an honest slow line is not cut off.
    """

    def __init__(self, allowance: float) -> None:
        self._allowance = self._left = allowance
        self._seen = time.monotonic()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to count: the time since the last count was spent here, not by the mirror."""
        with self._lock:
            self._seen = time.monotonic()

    def left(self, received: int = 0) -> float:
        """Return the seconds left, after `received` more bytes."""
        with self._lock:
            now = time.monotonic()
            self._left -= now - self._seen
            self._seen = now
            if self._left > 0:  # too late is too late, whatever arrives now
                self._left = min(self._allowance, self._left + received / _SLOWEST)
            return max(0.0, self._left)


class _Sink:
    """Where pooch writes: memory, bounded in size, and closed when patience ends."""

    def __init__(self, patience: _Patience) -> None:
        self.content = bytearray()
        self._patience = patience

    def write(self, block: bytes) -> int:
        if self._patience.left(len(block)) <= 0:
            raise TimeoutError(_SILENT)  # ends the thread if it was abandoned
        if len(self.content) + len(block) > _LARGEST_DOWNLOAD:
            raise DataError(f"expected at most {_LARGEST_DOWNLOAD} bytes, found more")
        self.content += block
        return len(block)

    def flush(self) -> None:
        """Do nothing; pooch calls it."""


def _start_download(
    url: str, sink: _Sink, timeout: float, pooch: Any, progress: bool
) -> tuple[threading.Thread, list[BaseException]]:
    """Begin a download in a thread; return it, and where it will put what goes wrong."""
    answers: list[Any] = []
    errors: list[BaseException] = []
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        timeout=timeout,
        hooks={"response": lambda answer, *_, **__: answers.append(answer)},
    )

    def work() -> None:
        try:
            downloader(url, sink, None)
        except BaseException as error:
            errors.append(error)
        finally:
            for answer in answers:  # pooch leaves the connection open when something goes wrong
                answer.close()

    # A daemon: a server's trickle must not keep Python from ending.
    thread = threading.Thread(target=work, name="cdrop-download", daemon=True)
    thread.start()
    return thread, errors


def _download(url: str, patience: _Patience, pooch: Any, progress: bool) -> bytes:
    """Download one file into memory, or raise what went wrong; TimeoutError when patience ends."""
    patience.start()
    sink = _Sink(patience)
    # Where the download's own time-out and ours race, ours must win and name the cause.
    thread, errors = _start_download(url, sink, patience.left() + 0.1, pooch, progress)
    while thread.is_alive() and (left := patience.left()) > 0:
        thread.join(left)
    if thread.is_alive():
        raise TimeoutError(_SILENT)
    if errors:
        raise errors[0]
    return bytes(sink.content)


def _fetch(
    stem: str, mirror: str, patience: _Patience, pooch: Any, progress: bool
) -> tuple[_Idx, bytes]:
    """Download and check one of MNIST's files; return it unpacked, and the bytes as they came."""
    url = f"{mirror.rstrip('/')}/{stem}.gz"
    content = _download(url, patience, pooch, progress)
    idx = _read_stream(io.BytesIO(content), len(content), url, _FILES[stem].ndim)
    _verify(idx, stem, url)
    return idx, content


def _fetch_all(
    stems: Sequence[str],
    cache: Path,
    mirrors: Sequence[str],
    *,
    timeout: float,
    progress: bool,
    tried: list[str],
) -> tuple[dict[str, _Idx], str]:
    """Download files into the cache, continuing with the next mirror where one fails.

    Silent mirrors together take `timeout` seconds: each gets its share of what is left. Returns the
    files and the mirrors that gave them; appends to `tried` why others did not.
    """
    try:
        # requests is what pooch downloads with; it would import it later, on the mirror's time.
        importlib.import_module("requests")
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        _give_up([*tried, f"the mirrors: {error}; pip install 'cdrop[data]'"], cache)
    progress = progress and is_terminal(sys.stderr) and importlib.util.find_spec("tqdm") is not None
    got: dict[str, _Idx] = {}
    givers: dict[str, None] = {}  # a set in order
    for number, mirror in enumerate(mirrors):
        share = timeout / (len(mirrors) - number)
        patience = _Patience(share)
        try:
            for stem in (s for s in stems if s not in got):
                got[stem], content = _fetch(stem, mirror, patience, pooch, progress)
                givers[mirror] = None
                _keep(cache, stem, content)
            break
        except Exception as error:  # whatever pooch, requests and gzip may raise
            tried.append(f"{mirror}: {_in_short(error)}")
            timeout -= share - patience.left()
    if len(got) < len(stems):
        _give_up(tried, cache)
    return got, " and ".join(givers)


def _in_short(error: Exception) -> str:
    """Return the first line of an error, and not too much of it."""
    # requests wraps the reason of a failed connection in what it tried to do.
    inner = getattr(error.args[0] if error.args else None, "reason", None) or error
    text = (str(inner).splitlines() or [""])[0] or type(inner).__name__
    return f"{text[:300]}..." if len(text) > 300 else text


def _give_up(tried: Sequence[str], cache: Path) -> NoReturn:
    """Raise DataNotFoundError with all that was tried, and what the reader can do."""
    lines = "".join(f"\n  {line}" for line in tried)
    files = ", ".join(f"{stem}.gz" for stem in _FILES)
    raise DataNotFoundError(
        f"MNIST was not found. Tried:{lines}\n"
        f"Put its files ({files}) into {cache}, or into a directory mnist/ and set CDROP_DATA to the "
        "directory around that, or pass it as `folder`; or let cdrop download them "
        "(pip install 'cdrop[data]', and a network)."
    )


# --- MNIST ---


def _check_timeout(timeout: float) -> float:
    """Return `timeout` as a float, more than 0 and at most a day."""
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise TypeError(f"timeout must be a number of seconds, got {timeout!r}")
    if not 0 < timeout <= 86_400:
        raise ValueError(f"timeout must be more than 0 and at most 86400 seconds, got {timeout}")
    return float(timeout)


def _check_mirrors(mirrors: str | Sequence[str]) -> tuple[str, ...]:
    """Return addresses as a tuple."""
    given = (mirrors,) if isinstance(mirrors, str) else mirrors
    if not isinstance(given, Sequence) or not all(isinstance(mirror, str) for mirror in given):
        raise TypeError(f"mirrors must be an address or a sequence of them, got {mirrors!r}")
    return tuple(given)


def _from_environment(validation: int, tried: list[str]) -> Dataset | None:
    """Load from the directory mnist/ in CDROP_DATA, if that has any of the files."""
    named = os.environ.get("CDROP_DATA")
    if not named:
        tried.append("CDROP_DATA: not set")
        return None
    place = Path(named) / "mnist"
    if not _has_any(place):
        tried.append(f"{place} (CDROP_DATA): none of the files")
        return None
    return _load_verified(place, _read_four(place), validation, " (CDROP_DATA)")


def _from_cache(cache: Path, tried: list[str]) -> tuple[dict[str, _Idx], DataError | None]:
    """Return the good files of the cache, and what is wrong with a damaged one."""
    parts: dict[str, _Idx] = {}
    damage = None
    for stem, known in _FILES.items():
        for name in (stem, f"{stem}.gz"):  # whichever a killed download was writing
            sweep(cache / name)
        path = _find(cache, stem)
        if path is None:
            continue
        try:
            idx = _read_file(path, known.ndim)
            _verify(idx, stem, str(path))
            parts[stem] = idx
        except DataError as error:
            damage = error
            tried.append(str(error))
    tried.append(f"{cache} (cache): {len(parts)} of the {len(_FILES)} files")
    return parts, damage


def load_mnist(
    folder: str | os.PathLike[str] | None = None,
    *,
    validation: int = 5000,
    download: bool = True,
    timeout: float = 5.0,
    progress: bool = False,
    mirrors: str | Sequence[str] = MIRRORS,
) -> Dataset:
    """Load MNIST, from this machine if it is there, else from a mirror.

    Asked in this order: `folder`, and nothing else if it is given; the directory ``mnist`` in the
    directory that the environment variable ``CDROP_DATA`` names; the cache (see `cache_folder`); the
    mirrors, from which the files go into the cache. Every load verifies the SHA-256 of the unpacked
    bytes; a damaged file in the cache is downloaded again.

    Parameters
    ----------
    folder : str or path-like, optional
        A directory with the four files, plain or ``.gz``, or with such a directory ``mnist`` in it. It
        may hold another data set in the same files (Fashion-MNIST, KMNIST): that is checked like
        `load_folder` does, and `Dataset.name` says that it is not MNIST.
    validation : int, default 5000
        How many of the first training images are held out for validation; the rest, the last
        55,000, are for training.
    download : bool, default True
        Whether the mirrors may be asked. Needs pooch: ``pip install 'cdrop[data]'``.
    timeout : float, default 5.0
        Seconds after which a silent network is given up: all mirrors together, connecting included.
        A mirror slower than 32 KiB a second counts as silent.
    progress : bool, default False
        Whether to show a progress bar, where tqdm is installed and stderr is a terminal.
    mirrors : str or sequence of str, optional
        Addresses of the directories to download from, in order.

    Returns
    -------
    Dataset
        For MNIST 55,000, 5,000 and 10,000 images of 28 x 28.

    Raises
    ------
    DataNotFoundError
        If no place has the data (and, for downloads, what went wrong with each mirror).
    DataError
        If a file is incomplete, damaged or foreign, with its name, what was expected and what was
        found.
    TypeError, ValueError
        If another argument is unfit.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition.
    Proceedings of the IEEE 86(11), 1998.

    Examples
    --------
    >>> from cdrop.datasets import load_mnist
    >>> mnist = load_mnist()  # doctest: +SKIP
    >>> mnist.X_train.shape  # doctest: +SKIP
    (55000, 28, 28)
    """
    validation = whole_number("validation", validation, 0, 2**62)
    timeout, mirrors = _check_timeout(timeout), _check_mirrors(mirrors)
    download, progress = truth_value("download", download), truth_value("progress", progress)
    if folder is not None:
        return _load_named(Path(folder), validation)
    tried: list[str] = []
    if (data := _from_environment(validation, tried)) is not None:
        return data
    cache = cache_folder() / "mnist"
    parts, damage = _from_cache(cache, tried)
    source = f"the cache directory {cache}"
    missing = [stem for stem in _FILES if stem not in parts]
    if missing and not download:
        if damage is not None:
            raise DataError(f"{damage}. Delete that file, or allow the download") from damage
        _give_up([*tried, "the mirrors: not asked, download=False"], cache)
    if missing:
        got, givers = _fetch_all(
            missing, cache, mirrors, timeout=timeout, progress=progress, tried=tried
        )
        parts |= got
        source = f"downloaded from {givers}"
    return _assemble("MNIST", source, parts, validation)
