"""Output files: checked before the work whether they can be written, and complete or absent after it."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_writable", "named", "sweep", "write_atomically"]

_SUFFIX = ".cdrop-tmp"
_TOKEN = re.compile(r"[0-9a-f]{16}" + re.escape(_SUFFIX))
_TRIES = 100  # new names, where other processes lock each new file before its writer can
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
    The bytes go to a temporary file in the same directory, which is synced and then renamed. From the beginning it has
    the permissions of the file that it will replace. It is removed on every error, including Ctrl-C; one that a killed
    process left is removed by the next write of the same file, or by `sweep`.
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
            temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise
    sync_directory(target.parent)


def named(error: OSError, path: str | os.PathLike[str]) -> OSError:
    """Return an error of a file, with its path where it names none: those of full disks do not."""
    if error.errno is None or error.filename is not None:
        return error
    return OSError(error.errno, error.strerror, os.fsdecode(path))


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers of `path` that were killed; those of living ones stay.

    Parameters
    ----------
    path : path
        The file that was to be written. A directory that cannot be read or changed is left as it is.
    """
    if sys.platform == "win32":
        return  # no lock shows there whether a writer is alive
    target = Path(os.path.realpath(os.fsdecode(path)))
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
    target = Path(os.path.realpath(os.fsdecode(path)))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a directory, not a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no directory {target.parent}")
    if target.exists():
        if not target.is_file():
            raise OSError(f"{path} is not a regular file")
        if not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    elif target.is_symlink():
        raise OSError(f"{path} is a link that leads to itself")
    return target


def _prefix(target: Path) -> str:
    return f".{target.name[:32]}."


def _create_beside(target: Path) -> tuple[Path, BinaryIO]:
    """Create and lock a new file in the directory of `target`, with the permissions of `target` or of any new file."""
    try:
        for _ in range(_TRIES):
            temporary = target.with_name(f"{_prefix(target)}{os.urandom(8).hex()}{_SUFFIX}")
            stream = _create(temporary, target)
            if stream is not None:
                return temporary, stream
    except OSError as error:
        raise type(error)(f"cannot write into {target.parent}: {error.strerror}") from error
    raise BlockingIOError(
        f"cannot write into {target.parent}: another process locks each new file there"
    )


def _create(temporary: Path, target: Path) -> BinaryIO | None:
    """Create and lock a new file; remove it and return None if another process has locked it first."""
    held, stream = False, None
    try:
        stream = open(temporary, "xb", opener=partial(_open_like, target))  # noqa: SIM115
        held = _hold(stream)
    finally:
        if not held:
            if stream is not None:
                stream.close()
            with suppress(OSError):  # it may have been created all the same, or a sweep was faster
                temporary.unlink()
    return stream if held else None


def _open_like(target: Path, name: str, flags: int) -> int:
    """Open a new file that never has more permissions than `target`, if there is one: what is written may be secret."""
    try:
        there = os.stat(target)
    except OSError:
        return os.open(name, flags, 0o666)
    descriptor = os.open(name, flags, stat.S_IMODE(there.st_mode) & 0o600)
    try:
        if sys.platform != "win32":
            _give_permissions(descriptor, there)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _give_permissions(descriptor: int, there: os.stat_result) -> None:
    """Give a new file the owner, group and mode of another, as far as this user may."""
    mode = stat.S_IMODE(there.st_mode)
    for owner in (there.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, there.st_gid)
            break
    else:  # another group must not get the rights of the right one
        mode &= ~0o070 | mode << 3
    os.fchmod(descriptor, mode)


def _hold(stream: BinaryIO) -> bool:
    """Lock a new file until it is closed, without waiting; return False if another process, as a sweep, has it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks, and then nothing sweeps there
        pass
    return os.fstat(stream.fileno()).st_nlink > 0


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
