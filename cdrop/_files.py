"""Files on the way out: refused before the work when they cannot be written, whole or absent after it."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_writable", "write_atomically"]


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless `write_atomically` would be able to write `path`.

    Parameters
    ----------
    path : path
        The file to be written later; an existing one is left as it is.

    Raises
    ------
    OSError
        If its folder is absent or closed to us, or if `path` is anything but a regular file.
    """
    target = _resolve(path)
    temporary, stream = _create_beside(target)
    stream.close()
    temporary.unlink()


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is either there in full or not at all, whatever happens meanwhile.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced, a symbolic link is followed.
    write : callable
        Receives the binary stream to write to.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before is still there.

    Notes
    -----
    The bytes go to a new file in the same folder, reach the disk, and then take the name. The
    temporary file is removed on every error, including Ctrl-C.
    """
    target = _resolve(path)
    temporary, stream = _create_beside(target)
    try:
        with stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _resolve(path: str | os.PathLike[str]) -> Path:
    """Return the file behind `path`, once it is known to be one that may be replaced."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    if target.exists():
        if not target.is_file():
            raise OSError(f"{path} is not a regular file")
        if not os.access(target, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    return target


def _create_beside(target: Path) -> tuple[Path, BinaryIO]:
    """Create a new file in the folder of `target`, with the rights any new file would get."""
    temporary = target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}.tmp")
    try:
        return temporary, temporary.open("xb")
    except OSError as error:
        raise type(error)(f"cannot write into {target.parent}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    # Windows cannot open a folder, some network file systems cannot sync one: the file is whole
    # and in its place already, so neither is worth failing for.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
