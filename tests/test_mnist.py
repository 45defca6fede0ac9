"""MNIST: IDX files, checksums, directories, the cache, and mirrors that fail in every way we thought of."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import struct
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdrop.datasets import (
    DataError,
    DataNotFoundError,
    cache_folder,
    load_folder,
    load_mnist,
    mnist,
    read_idx,
)

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = STEMS = tuple(mnist._FILES)


def idx(array, dims=None):
    """Return the bytes of an IDX file, with a header of our choice."""
    dims = array.shape if dims is None else dims
    return struct.pack(f">BBBB{len(dims)}I", 0, 0, 8, len(dims), *dims) + array.tobytes()


def make_set(seed, train=30, test=10, side=4):
    """Return four small IDX files that fit together, as stem -> bytes."""
    g = np.random.default_rng(seed)
    images = g.integers(0, 256, (train + test, side, side), np.uint8)
    labels = (np.arange(train + test) % 5).astype(np.uint8)
    arrays = (images[:train], labels[:train], images[train:], labels[train:])
    return {stem: idx(array) for stem, array in zip(STEMS, arrays, strict=True)}


SMALL, OTHER = make_set(seed=1), make_set(seed=2)


def fill(directory, files, pack=True):
    """Write a set into a directory, compressed or plain."""
    directory.mkdir(parents=True, exist_ok=True)
    for stem, content in files.items():
        (directory / (f"{stem}.gz" if pack else stem)).write_bytes(
            gzip.compress(content) if pack else content
        )
    return directory


def flip(content, at=-1):
    """Return the bytes with one of them changed."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


@pytest.fixture
def small(monkeypatch):
    """Make SMALL what the checksums take for MNIST."""
    known = {
        stem: known._replace(sha256=hashlib.sha256(SMALL[stem]).hexdigest())
        for stem, known in mnist._FILES.items()
    }
    monkeypatch.setattr(mnist, "_FILES", known)
    return SMALL


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Take away the user's data and cache; return the (empty) cache directory in their place."""
    for name in ("CDROP_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("CDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist"


# --- IDX files ---


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(0,), (7,), (2, 3), (2, 3, 4), (0, 28, 28), (1,) * 32])
def test_idx_round_trip(tmp_path, pack, shape):
    array = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    path = tmp_path / "any name"
    path.write_bytes(pack(idx(array)))
    read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_idx_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "_BLOCK", 5)
    array = np.arange(64, dtype=np.uint8).reshape(4, 16)
    (tmp_path / "x").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), array)


def test_two_gzip_members_are_one_file(tmp_path):
    content = idx(np.arange(64, dtype=np.uint8))
    (tmp_path / "x").write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), np.arange(64))


IMAGES = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
GOOD = idx(IMAGES)
BROKEN = {
    "empty": (b"", "an empty file"),
    "short magic": (GOOD[:3], "found 00 00 08"),
    "text": (b"<html>not found</html>", "found 3c 68 74 6d"),
    "first byte": (b"\x01" + GOOD[1:], "found 01 00 08 03"),
    "floats": (GOOD[:2] + b"\x0d" + GOOD[3:], "found 00 00 0d 03"),
    "labels": (idx(np.zeros(3, np.uint8)), "begins with 00 00 08 03, found 00 00 08 01"),
    "no sizes": (GOOD[:9], "expected 12 bytes of sizes in the header, found 5 (truncated)"),
    "truncated": (GOOD[:-1], "expected 64 bytes for the shape (3, 4, 4) in its header"),
    "trailing byte": (GOOD + b"\0", "expected 64 bytes for the shape (3, 4, 4) in its header"),
    "huge sizes": (idx(IMAGES, (2**32 - 1,) * 3), "at most 1073741824 bytes unpacked"),
    "sizes that wrap to 64 bits": (idx(IMAGES, (2**31, 2**31, 4)), "bytes unpacked"),
    "zero hides huge": (idx(IMAGES[:0], (0, 2**32 - 1, 2**32 - 1)), "bytes unpacked"),
    "1 GB claimed": (idx(IMAGES, (1000, 1000, 1000)), "expected 1000000016 bytes"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_idx_is_a_clear_error_before_memory_is_taken(tmp_path, case, pack):
    content, message = BROKEN[case]
    path = fill(tmp_path / "set", SMALL, pack=False) / TRAIN_IMAGES
    path.write_bytes(pack(content))
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            load_folder(tmp_path / "set", validation=0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: expected")
    assert message in str(caught.value)
    assert ", found" in str(caught.value)


PACKED = gzip.compress(GOOD, mtime=0)
BROKEN_GZIP = {
    "truncated": PACKED[:-12],
    "no checksum": PACKED[:-8],
    "wrong checksum": flip(PACKED, -8),
    "wrong length": flip(PACKED),
    "garbage after it": PACKED + b"garbage",
    "magic alone": PACKED[:2],
    "unknown method": flip(PACKED, 2),
    "damaged inside": PACKED[:14] + b"\xff" * 8 + PACKED[22:],
}


@pytest.mark.parametrize("case", BROKEN_GZIP)
def test_broken_gzip_is_a_clear_error(tmp_path, case):
    path = tmp_path / "x.gz"
    path.write_bytes(BROKEN_GZIP[case])
    with pytest.raises(DataError, match=r"x\.gz: expected .*, found"):
        read_idx(path)


def test_bomb_is_not_unpacked(tmp_path):
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as stream:
        stream.write(GOOD)
        for _ in range(64):
            stream.write(bytes(1 << 20))
    (tmp_path / "bomb").write_bytes(bomb.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more bytes after"):
            read_idx(tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(st.data())
def test_changed_bytes_never_raise_anything_else(data):
    content = bytearray(data.draw(st.sampled_from([GOOD, PACKED])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content)[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(DataError):
        read = mnist._read_stream(io.BytesIO(content), len(content), "here", None)
        assert read.array.size <= len(GOOD)


def test_what_is_not_a_file_is_not_found(tmp_path):
    with pytest.raises(DataNotFoundError, match="expected a file, found none"):
        read_idx(tmp_path)
    with pytest.raises(DataNotFoundError, match="expected a file, found none"):
        read_idx(tmp_path / "missing")


def test_unreadable_file_is_a_clear_error(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").write_bytes(GOOD)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match="expected a readable file"):
        read_idx(tmp_path / "x")


# --- directories and the split ---


@pytest.mark.parametrize("pack", [True, False])
def test_directory_of_mnist_is_split(tmp_path, small, pack):
    data = load_mnist(fill(tmp_path / "a", small, pack), validation=8)
    images, labels = read_idx(next(tmp_path.glob(f"a/{TRAIN_IMAGES}*"))), np.arange(30) % 5
    assert data.name == "MNIST"
    assert str(tmp_path / "a") in data.source
    np.testing.assert_array_equal(data.X_val, images[:8])
    np.testing.assert_array_equal(data.y_val, labels[:8])
    np.testing.assert_array_equal(data.X_train, images[8:])
    np.testing.assert_array_equal(data.y_train, labels[8:])
    assert data.X_test.shape == (10, 4, 4)
    assert data.X_train.dtype == np.uint8
    assert {data.y_train.dtype, data.y_val.dtype, data.y_test.dtype} == {np.dtype(np.int64)}
    assert data.n_classes == 5


def test_validation_may_be_empty(tmp_path, small):
    data = load_mnist(fill(tmp_path, small), validation=0)
    assert len(data.X_val) == len(data.y_val) == 0
    assert data.to_features().X_val.shape == (0, 16)


def test_directory_may_hold_a_directory_mnist(tmp_path, small):
    fill(tmp_path / "mnist", small)
    assert load_mnist(tmp_path, validation=3).name == "MNIST"


def test_another_set_is_taken_and_says_so(tmp_path, small):
    data = load_mnist(fill(tmp_path / "fashion", OTHER), validation=3)
    assert data.name == "fashion (IDX directory, not MNIST)"
    labels_only = OTHER | {TRAIN_LABELS: small[TRAIN_LABELS]}
    assert "not MNIST" in load_mnist(fill(tmp_path / "b", labels_only), validation=3).name
    assert load_folder(tmp_path / "fashion", name="F", validation=3).name == "F"


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("pack", [True, False])
def test_damaged_mnist_is_not_taken_for_another_set(tmp_path, small, stem, pack):
    fill(tmp_path, small | {stem: flip(small[stem])}, pack)
    with pytest.raises(DataError, match=f"{stem}.*: expected MNIST's {stem}.*SHA-256.*found"):
        load_mnist(tmp_path, validation=3)


@pytest.mark.parametrize("stem", STEMS)
def test_missing_file_is_named(tmp_path, small, stem):
    fill(tmp_path, {s: c for s, c in small.items() if s != stem})
    with pytest.raises(DataError, match=f"expected the file {stem} or {stem}.gz"):
        load_mnist(tmp_path, validation=3)


def test_empty_and_missing_directories_are_not_found(tmp_path):
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataNotFoundError, match="found none of them"):
            load_mnist(directory)
        with pytest.raises(DataNotFoundError, match="found none of them"):
            load_folder(directory)


MISFITS = {
    "fewer labels": ({TRAIN_LABELS: idx(np.zeros(29, np.uint8))}, "29 labels and 30 images"),
    "more test labels": ({TEST_LABELS: idx(np.zeros(11, np.uint8))}, "11 labels and 10 images"),
    "other size": ({TEST_IMAGES: idx(np.zeros((10, 4, 5), np.uint8))}, r"\(4, 4\), found \(4, 5\)"),
    "unknown label": ({TEST_LABELS: idx(np.full(10, 9, np.uint8))}, "labels up to 4, .* found 9"),
    "no test images": (
        {TEST_IMAGES: idx(np.zeros((0, 4, 4), np.uint8)), TEST_LABELS: idx(np.zeros(0, np.uint8))},
        r"expected test images, found shape \(0, 4, 4\)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_files_that_do_not_fit_together_are_refused(tmp_path, case):
    files, message = MISFITS[case]
    fill(tmp_path, OTHER | files)
    with pytest.raises(DataError, match=message):
        load_mnist(tmp_path, validation=3)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"validation": -1}, ValueError),
        ({"validation": 30}, ValueError),
        ({"validation": 2.0}, TypeError),
        ({"validation": True}, TypeError),
        ({"validation": np.True_}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "5"}, TypeError),
    ],
)
def test_unfit_arguments_are_refused(tmp_path, bad, error):
    fill(tmp_path, OTHER)
    with pytest.raises(error, match=next(iter(bad))):
        load_mnist(tmp_path, **{"validation": 3} | bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_are_the_articles(tmp_path, dtype):
    data = load_folder(fill(tmp_path, OTHER), validation=8)
    features = data.to_features(dtype)
    mean = data.X_train.astype(float).mean() / 255  # of the images that train, and no others
    assert features.mean == pytest.approx(mean, rel=1e-14)
    for part in ("train", "val", "test"):
        images, values = getattr(data, f"X_{part}"), getattr(features, f"X_{part}")
        assert values.dtype == dtype
        assert values.shape == (len(images), 16)
        expected = images.reshape(len(images), 16) / 255 - mean
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6 if dtype == "float32" else 0)
        assert getattr(features, f"y_{part}") is getattr(data, f"y_{part}")


@pytest.mark.parametrize("dtype", ["int64", "float16", "complex64"])
def test_features_of_other_types_are_refused(tmp_path, dtype):
    data = load_folder(fill(tmp_path, OTHER), validation=8)
    with pytest.raises(ValueError, match=f"dtype must be float32 or float64, got {dtype}"):
        data.to_features(dtype)


# --- the order of sources, and the cache ---


def test_environment_comes_before_the_cache(tmp_path, small, alone, monkeypatch):
    fill(alone, small)
    assert "cache" in load_mnist(validation=3, mirrors=()).source
    monkeypatch.setenv("CDROP_DATA", str(tmp_path))
    assert "cache" in load_mnist(validation=3, mirrors=()).source  # it has no directory mnist
    fill(tmp_path / "mnist", small)
    assert "CDROP_DATA" in load_mnist(validation=3, mirrors=()).source
    fill(tmp_path / "own", OTHER)
    assert "own" in load_mnist(tmp_path / "own", validation=3).source


def test_environment_must_hold_mnist_itself(tmp_path, small, alone, monkeypatch):
    monkeypatch.setenv("CDROP_DATA", str(tmp_path))
    fill(tmp_path / "mnist", OTHER)
    with pytest.raises(DataError, match="expected MNIST's") as caught:
        load_mnist(validation=3)
    assert not isinstance(caught.value, DataNotFoundError)
    (tmp_path / "mnist" / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(DataError, match="too, found neither") as caught:
        load_mnist(validation=3)
    assert not isinstance(caught.value, DataNotFoundError)


def test_what_was_tried_and_what_to_do_is_reported(tmp_path, small, alone, monkeypatch):
    monkeypatch.setenv("CDROP_DATA", str(tmp_path))
    with pytest.raises(DataNotFoundError) as caught:
        load_mnist(download=False)
    for part in ("CDROP_DATA", str(alone), "download=False", "pip install 'cdrop[data]'"):
        assert part in str(caught.value)


def test_damaged_cache_without_download_is_an_error(small, alone):
    fill(alone, small | {TEST_LABELS: flip(small[TEST_LABELS])})
    with pytest.raises(DataError, match=f"{TEST_LABELS}.*expected MNIST's.*Delete that file"):
        load_mnist(validation=3, download=False)


def test_missing_pooch_is_named_with_its_extra(small, alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataNotFoundError, match=r"pip install 'cdrop\[data\]'"):
        load_mnist(validation=3)
    fill(alone, small)
    assert load_mnist(validation=3).name == "MNIST"  # needs no pooch


def test_cache_directory_follows_the_platform(monkeypatch, tmp_path, alone):
    assert cache_folder() == alone.parent
    monkeypatch.delenv("CDROP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cdrop"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, expected in {"linux": ".cache/cdrop", "darwin": "Library/Caches/cdrop"}.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / expected
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "cdrop" / "Cache"


def test_no_home_is_a_clear_error(monkeypatch, alone):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CDROP_CACHE")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(DataNotFoundError, match="set CDROP_CACHE"):
        load_mnist()


def test_what_a_killed_download_left_is_removed(small, alone):
    fill(alone, small)
    for name in ("t10k-labels-idx1-ubyte", "train-images-idx3-ubyte.gz"):
        (alone / f".{name}.0123456789abcdef.cdrop-tmp").write_bytes(b"half a file")
    load_mnist(validation=3)
    assert list(alone.glob(".*")) == []


# --- mirrors ---


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves SMALL; the first part of the path says how: /lies/train-images-idx3-ubyte.gz."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        _, manner, name = self.path.split("/")
        self.server.asked[manner] += 1
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may go
            getattr(self, manner)(gzip.compress(SMALL[name.removesuffix(".gz")], mtime=0))

    def head(self, length, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def wait(self, seconds=30.0):
        return self.server.closing.wait(seconds)

    def right(self, content):
        self.head(len(content))
        self.wfile.write(content)

    def plain(self, content):
        self.right(gzip.decompress(content))

    def encoded(self, content):
        self.head(len(content), Content_Encoding="gzip")
        self.wfile.write(content)

    def missing(self, content):
        self.head(0, status=404)

    def truncates(self, content):
        self.head(len(content))
        self.wfile.write(content[:-9])

    def shortens(self, content):
        self.right(content[:-9])

    def lies(self, content):
        self.right(gzip.compress(flip(gzip.decompress(content))))

    def greets(self, content):
        self.right(b"<html>Log in to the hotel's network</html>")

    def bombs(self, content):
        self.right(gzip.compress(gzip.decompress(content) + bytes(1 << 20)))

    def floods(self, content):
        self.head(1 << 40)
        while not self.wait(0):
            self.wfile.write(bytes(1 << 16))

    def silent(self, content):
        self.wait()

    def stalls(self, content):
        self.head(len(content))
        self.wfile.write(content[:20])
        self.wait()

    def trickles(self, content):
        self.head(1 << 20)
        while not self.wait(0.02):
            self.wfile.write(b"\x1f")

    def trickles_headers(self, content):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Filler: ")
        while not self.wait(0.02):
            self.wfile.write(b"x")


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.closing = threading.Event()
    server.asked = Counter()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
    for worker in threading.enumerate():  # given up, and ended by the server's end
        if worker.name == "cdrop-download":
            worker.join(10)
            assert not worker.is_alive()


@pytest.fixture
def mirror(server, small, alone):
    """Return a function from a manner to its address."""
    pytest.importorskip("pooch")
    server.asked.clear()
    return lambda manner: f"http://127.0.0.1:{server.server_port}/{manner}/"


def closed_port():
    """Return an address where nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), Mirror) as server:
        return f"http://127.0.0.1:{server.server_port}/right/"


@pytest.mark.parametrize("manner", ["right", "plain", "encoded"])
def test_download_is_kept(mirror, server, alone, manner):
    data = load_mnist(validation=3, mirrors=[mirror(manner)])
    assert data.name == "MNIST"
    assert mirror(manner) in data.source
    suffix = ".gz" if manner == "right" else ""
    assert sorted(p.name for p in alone.iterdir()) == sorted(stem + suffix for stem in STEMS)
    again = load_mnist(validation=3, mirrors=[mirror(manner)])
    assert "cache" in again.source
    np.testing.assert_array_equal(data.X_train, again.X_train)
    assert server.asked == {manner: 4}


BAD = {
    "missing": "404",
    "truncates": "",
    "shortens": "expected a whole gzip file, found",
    "lies": "expected MNIST's train-images-idx3-ubyte",
    "greets": "expected an IDX file",
    "bombs": "found more bytes after them",
    "silent": "no answer",
    "stalls": "no answer",
    "trickles": "no answer",
    "trickles_headers": "no answer",
}


@pytest.mark.parametrize("manner", BAD)
def test_bad_mirror_is_named_and_the_next_one_asked(mirror, server, alone, manner):
    # Only silence takes the whole time-out, so only then does it have to be short.
    short, long = (0.3, 2.0) if BAD[manner] == "no answer" else (5.0, 5.0)
    start = time.monotonic()
    with pytest.raises(DataNotFoundError) as caught:
        load_mnist(validation=3, mirrors=mirror(manner), timeout=short)
    assert time.monotonic() - start < 2
    assert f"{mirror(manner)}: " in str(caught.value)
    assert BAD[manner] in str(caught.value)
    assert not alone.exists()
    data = load_mnist(validation=3, mirrors=[mirror(manner), mirror("right")], timeout=long)
    assert data.source == f"downloaded from {mirror('right')}"
    assert server.asked == {manner: 2, "right": 4}


def test_mirror_that_nobody_serves(mirror):
    data = load_mnist(validation=3, mirrors=[closed_port(), mirror("right")])
    assert data.source == f"downloaded from {mirror('right')}"


@pytest.mark.parametrize("manner", ["silent", "stalls", "trickles", "trickles_headers"])
def test_silent_mirrors_share_the_timeout(mirror, manner):
    start = time.monotonic()
    with pytest.raises(DataNotFoundError):
        load_mnist(validation=3, mirrors=[mirror(manner)] * 4, timeout=1.2)
    assert 1.1 < time.monotonic() - start < 2


def test_endless_download_is_cut(mirror, monkeypatch):
    monkeypatch.setattr(mnist, "_LARGEST_DOWNLOAD", 1 << 20)
    with pytest.raises(DataNotFoundError, match="expected at most 1048576 bytes, found more"):
        load_mnist(validation=3, mirrors=mirror("floods"))


def test_only_what_is_missing_or_damaged_is_downloaded(mirror, server, small, alone):
    fill(alone, {TRAIN_IMAGES: small[TRAIN_IMAGES], TRAIN_LABELS: small[TRAIN_LABELS]})
    fill(alone, {TEST_IMAGES: flip(small[TEST_IMAGES])}, pack=False)
    assert load_mnist(validation=3, mirrors=mirror("right")).name == "MNIST"
    assert server.asked == {"right": 2}
    assert "cache" in load_mnist(validation=3, mirrors=()).source


def test_damaged_cache_is_reported_when_the_mirrors_fail_too(mirror, small, alone):
    fill(alone, small | {TEST_LABELS: flip(small[TEST_LABELS])})
    with pytest.raises(DataNotFoundError, match=f"{TEST_LABELS}.gz: expected MNIST's"):
        load_mnist(validation=3, mirrors=mirror("missing"))
    assert (alone / f"{TRAIN_IMAGES}.gz").exists()


def test_cache_that_cannot_be_written_costs_only_the_next_download(mirror, alone):
    alone.parent.write_bytes(b"a file where the cache's directory should be")
    assert load_mnist(validation=3, mirrors=mirror("right")).name == "MNIST"


def test_slow_but_honest_mirror_is_waited_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    patience = mnist._Patience(2.5)
    for _ in range(1000):  # 40 KB a second, for 100 seconds
        now[0] += 0.1
        assert patience.left(4096) > 2.3
    for _ in range(40):  # then 1 KB a second
        now[0] += 0.1
        patience.left(100)
    assert patience.left() == 0
    assert patience.left(1 << 20) == 0


# --- the real files ---


@pytest.fixture(scope="module")
def real():
    if not (directory := os.environ.get("CDROP_DATA")):
        pytest.skip("CDROP_DATA is not set: no real MNIST here")
    return Path(directory) / "mnist"


@pytest.mark.mnist
def test_real_mnist(real):
    data = load_mnist(download=False)
    assert data.name == "MNIST"
    assert "CDROP_DATA" in data.source
    assert data.X_train.shape == (55_000, 28, 28)
    assert data.X_val.shape == (5000, 28, 28)
    assert data.X_test.shape == (10_000, 28, 28)
    assert data.y_val[:5].tolist() == [5, 0, 4, 1, 9]  # the first of the training images
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(np.concatenate([data.y_val, data.y_train]))[1] == 6742
    features = data.to_features()
    assert features.mean == pytest.approx(0.1307003, abs=1e-7)
    assert abs(features.X_train.mean(dtype=np.float64)) < 1e-6
    assert abs(features.X_test.mean(dtype=np.float64)) > 1e-3  # the test images have no say in it


@pytest.mark.mnist
def test_real_mnist_by_name_and_damaged(real, tmp_path):
    assert load_mnist(real).name == "MNIST"
    content = {stem: gzip.decompress((real / f"{stem}.gz").read_bytes()) for stem in STEMS}
    fill(tmp_path, content | {TEST_LABELS: flip(content[TEST_LABELS])}, pack=False)
    with pytest.raises(DataError, match="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48"):
        load_mnist(tmp_path)
