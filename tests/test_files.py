"""Files are whole or absent, and nothing else is left behind."""

import errno
import os
import threading
from pathlib import Path

import pytest

from cdrop import _files
from cdrop._files import check_writable, sweep, write_atomically

try:
    import fcntl
except ImportError:
    fcntl = None  # Windows; the tests that use it are marked

TOKEN = "0123456789abcdef"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def half(stream):
        stream.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path):
    def full(stream):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*result\.json'") as caught:
        write_atomically(tmp_path / "result.json", full)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.mark.posix
def test_a_write_replaces_follows_links_and_keeps_rights(tmp_path):
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(link, lambda stream: stream.write(b"new"))
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "real.json"]


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o604])
def test_a_temporary_file_never_has_more_rights_than_the_file_it_replaces(
    tmp_path, monkeypatch, mode
):
    path, seen, create = tmp_path / "secret", [], os.open
    path.write_text("old")
    path.chmod(mode)

    def watched(name, *arguments, **options):
        descriptor = create(name, *arguments, **options)
        if str(name).endswith("-tmp"):
            seen.append(os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    write_atomically(path, lambda stream: seen.append(os.fstat(stream.fileno()).st_mode & 0o777))
    assert seen == [mode & 0o600, mode]  # as created, and when the first byte is written
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.posix
def test_the_rights_of_a_group_are_not_given_to_another(tmp_path, monkeypatch):
    path = tmp_path / "result"
    path.write_text("old")
    path.chmod(0o664)

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.posix
def test_a_lock_that_another_process_holds_is_not_waited_for(tmp_path, monkeypatch):
    def held(stream, operation):
        assert operation & fcntl.LOCK_NB
        raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")

    monkeypatch.setattr(_files.fcntl, "flock", held)
    with pytest.raises(BlockingIOError, match="another process locks each new file there"):
        write_atomically(tmp_path / "result", lambda stream: stream.write(b"new"))
    assert list(tmp_path.iterdir()) == []


def test_names_may_be_bytes(tmp_path):
    path = tmp_path / "result"
    write_atomically(os.fsencode(path), lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new"


def test_check_writable_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "new.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        check_writable(tmp_path / "absent" / "new.json")
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failing_system_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / "result"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, lambda stream: stream.write(b"after"))
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert path.read_bytes() == b"before"


@pytest.mark.linux
def test_a_file_that_cannot_be_looked_at_goes(tmp_path, monkeypatch):
    look = os.fstat

    def fail_on_new_files(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".cdrop-tmp"):
            raise OSError(errno.EIO, "Input/output error")
        return look(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail_on_new_files)
        with pytest.raises(OSError, match="cannot write into .*: Input/output error"):
            write_atomically(tmp_path / "result", lambda stream: stream.write(b"after"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.linux
@pytest.mark.parametrize(("code", "raised"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_directory_that_cannot_be_synced_raises_only_if_the_disk_fails(
    tmp_path, monkeypatch, code, raised
):
    sync = os.fsync

    def fail_on_directories(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_directories)
    path = tmp_path / "result"
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomically(path, lambda stream: stream.write(b"after"))
    else:
        write_atomically(path, lambda stream: stream.write(b"after"))
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


# ---- What killed writers leave -----------------------------------------------------------------


def left_behind(directory, name):
    path = directory / f".{name}.{TOKEN}.cdrop-tmp"
    path.write_bytes(b"half a file")
    return path


def test_the_next_write_and_a_sweep_remove_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "a[1]*.json"  # no pattern may be made of a name
    left_behind(tmp_path, path.name)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert list(tmp_path.iterdir()) == [path]
    left_behind(tmp_path, path.name)
    sweep(path)
    assert list(tmp_path.iterdir()) == [path]
    sweep(tmp_path / "absent" / "file")


@pytest.mark.posix
def test_a_sweep_leaves_other_files_alone(tmp_path):
    for name in (
        "a",
        f".b.{TOKEN}.cdrop-tmp",
        f".a.{TOKEN}.cdrop-tmp2",
        f".a.{TOKEN}0.cdrop-tmp",
        f".a.{TOKEN}.tmp",
    ):
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / f".a.{TOKEN}.cdrop-tmp").mkdir()
    (tmp_path / f".a.{TOKEN[::-1]}.cdrop-tmp").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / ".a.0000000000000000.cdrop-tmp")  # opening it would hang
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == before


def test_a_living_writer_keeps_its_file(tmp_path):
    path = tmp_path / "result"

    def write(stream):
        stream.write(b"new")
        sweep(path)
        write_atomically(path, lambda other: other.write(b"other"))

    write_atomically(path, write)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_keeps_its_file_until_it_has_its_name(tmp_path, monkeypatch):
    path, replace = tmp_path / "result", os.replace

    def sweep_first(*names):
        sweep(path)
        replace(*names)

    monkeypatch.setattr(os, "replace", sweep_first)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new"


@pytest.mark.posix
def test_a_writer_swept_before_it_could_lock_begins_again(tmp_path, monkeypatch):
    path, lock, swept = tmp_path / "result", fcntl.flock, []

    def late(stream, operation):
        if operation == fcntl.LOCK_EX | fcntl.LOCK_NB and not swept:
            swept.extend(tmp_path.iterdir())
            sweep(path)
        lock(stream, operation)

    monkeypatch.setattr(_files.fcntl, "flock", late)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert len(swept) == 1
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"new"


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path, faults = tmp_path / "result", []
    contents = [bytes([i]) * 5000 for i in range(4)]

    def write(content):
        try:
            for _ in range(50):
                write_atomically(path, lambda stream: stream.write(content))
                assert Path(path).read_bytes() in contents
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert list(tmp_path.iterdir()) == [path]
