"""Output files: checked before the work whether they can be written, and complete or absent after it."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_writable", "sweep", "write_atomically"]

_TOKEN = re.compile(r"[0-9a-f]{16}\.tmp")
_LOSSES = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # of a sync that was tried and failed


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless `write_atomically` would be able to write `path`.

    Parameters
    ----------
    path : path
        The file to be written later; an existing one is left as it is.

    Raises
    ------
    OSError
        If its directory does not exist or is not writable, or if `path` is not a regular file.
    """
    target = _resolve(path)
    temporary, stream = _create_beside(target)
    stream.close()
    temporary.unlink()


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: afterwards it is complete or unchanged, whatever happens.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced, a symbolic link is followed.
    write : callable
        Receives the binary stream to write to.

    Raises
    ------
    OSError
        If the file cannot be written. An existing file is still there, unless only the directory could not be synced:
        then the new file has replaced it, and a power cut may undo that.

    Notes
    -----
    The bytes go to a temporary file in the same directory, which is synced and then renamed. It
    is removed on every error, including Ctrl-C; one that a killed process left is removed by the next write of the same
    file, or by `sweep`.
    """
    target = _resolve(path)
    sweep(target)
    temporary, stream = _create_beside(target)
    try:
        with (
            stream
        ):  # open, and so locked, until it has its name: no sweep may take it for abandoned
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            if sys.platform == "win32":
                stream.close()  # which renames no open file
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(target.parent)


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers of `path` that were killed; those of living ones stay.

    Parameters
    ----------
    path : path
        The file that was to be written. A directory that cannot be read or changed is left as it is.
    """
    if sys.platform == "win32":
        return  # no lock tells there whether a writer lives
    target = Path(os.path.realpath(path))
    prefix = _prefix(target)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(prefix) and _TOKEN.fullmatch(name, len(prefix)):
                _remove_abandoned(entry)


def _remove_abandoned(entry: os.DirEntry[str]) -> None:
    """Remove a temporary file that no process holds: the system drops a lock when its holder ends, however it does."""
    with suppress(OSError):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "r+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


def _resolve(path: str | os.PathLike[str]) -> Path:
    """Return the file behind `path`, once it is known to be one that may be replaced."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a directory, not a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no directory {target.parent}")
    if target.exists():
        if not target.is_file():
            raise OSError(f"{path} is not a regular file")
        if not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    return target


def _prefix(target: Path) -> str:
    return f".{target.name[:32]}."


def _create_beside(target: Path) -> tuple[Path, BinaryIO]:
    """Create and lock a new file in the directory of `target`, with the permissions of any new file."""
    while True:
        temporary = target.with_name(f"{_prefix(target)}{os.urandom(8).hex()}.tmp")
        try:
            stream = temporary.open("xb")
            if _hold(stream):
                return temporary, stream
        except OSError as error:
            with suppress(OSError):  # it may have been created all the same
                temporary.unlink()
            raise type(error)(f"cannot write into {target.parent}: {error.strerror}") from error


def _hold(stream: BinaryIO) -> bool:
    """Lock a new file until it is closed; close it and return False if a sweep has met it first and removed it."""
    if sys.platform == "win32":
        return True
    with suppress(
        OSError
    ):  # some network file systems have no locks, and then nothing sweeps there
        fcntl.flock(stream, fcntl.LOCK_EX)
    held = False
    try:
        held = os.fstat(stream.fileno()).st_nlink > 0
    finally:
        if not held:
            stream.close()
    return held


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` last through a power cut, where the system can."""
    # Windows cannot open a directory, some network file systems cannot sync one: the file is whole
    # and in its place already, so neither is worth failing for. A disk that fails is.
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _LOSSES:
            raise
