"""Arrays in .npz files."""

import contextlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdrop.datasets.npz as npz_module
from cdrop.datasets import DataError, load_npz

RNG = np.random.default_rng(2)
KINDS = np.array(["oak", "ash", "elm"])[np.arange(60) % 3]
TABLE = np.random.default_rng(0).standard_normal((60, 4)) * [1, 10, 0.1, 1000] + [0, 5, -1, 1e6]
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 3, 5), np.uint8)
PARTS = {
    "X_train": TABLE[:40],
    "y_train": KINDS[:40],
    "X_test": TABLE[40:],
    "y_test": KINDS[40:],
}


def npz(path, save=np.savez_compressed, **arrays):
    """Write arrays; return the path."""
    save(path, **arrays)
    return path


def taken(function):
    """Return what a function raises, and the most memory that it took."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            function()
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keras", [False, True])
def test_training_and_test_rows(tmp_path, save, keras):
    arrays = {key.lower() if keras else key: value for key, value in PARTS.items()}
    table = load_npz(npz(tmp_path / "own.npz", save, **arrays))
    assert (table.name, table.classes) == ("own.npz", ("ash", "elm", "oak"))
    assert not table.has_images
    np.testing.assert_array_equal(table.X, TABLE[:40])
    np.testing.assert_array_equal(np.array(table.classes)[table.y], KINDS[:40])
    np.testing.assert_array_equal(table.test[0], TABLE[40:])
    np.testing.assert_array_equal(np.array(table.classes)[table.test[1]], KINDS[40:])
    assert table.describe()["test"] == 20


def test_validation_rows_are_appended(tmp_path):
    path = npz(tmp_path / "own.npz", **PARTS, X_val=TABLE[:5], y_val=KINDS[:5])
    table = load_npz(path)
    np.testing.assert_array_equal(table.X, np.concatenate([TABLE[:40], TABLE[:5]]))
    np.testing.assert_array_equal(
        np.array(table.classes)[table.y], np.concatenate([KINDS[:40], KINDS[:5]])
    )


def test_test_rows_of_another_file(tmp_path):
    path = npz(tmp_path / "a.npz", X=TABLE[:40], y=KINDS[:40])
    other = npz(tmp_path / "b.npz", X=TABLE[40:], y=KINDS[40:])
    np.testing.assert_array_equal(load_npz(path, test=other).test[0], TABLE[40:])
    with pytest.raises(
        ValueError, match="test is .*b.npz'; expected None: .* has its own test rows"
    ):
        load_npz(npz(tmp_path / "c.npz", **PARTS), test=other)
    narrow = npz(tmp_path / "d.npz", X=TABLE[40:, :3], y=KINDS[40:])
    with pytest.raises(DataError, match="expected test rows like the training rows"):
        load_npz(path, test=narrow)


def test_images(tmp_path):
    table = load_npz(npz(tmp_path / "a.npz", X=IMAGES, y=np.arange(60) % 3))
    assert table.has_images
    assert table.row_name == "image"
    np.testing.assert_array_equal(table.X, IMAGES)
    rows = table.transformer().fit(IMAGES[:40]).transform(IMAGES[40:])
    expected = IMAGES[40:].reshape(20, 15) / 255 - IMAGES[:40].mean() / 255
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_missing_infinite_and_constant_cells_are_counted(tmp_path):
    rows = np.hstack([TABLE, np.full((60, 1), 7.0), np.arange(60.0)[::-1, None]])
    rows[3, 0], rows[4, 1] = np.nan, np.inf
    table = load_npz(npz(tmp_path / "a.npz", X=rows, y=KINDS))
    assert table.X.shape == (60, 4)
    assert np.isnan(table.X).sum() == 2
    assert table.facts()["left out"] == "4 (constant), 5 (numbers the rows)"
    assert table.facts()["cells"].startswith("2 missing (0 1, 1 1)")
    assert "1 infinite, taken as missing" in table.facts()["cells"]


def test_rows_without_label_are_left_out(tmp_path):
    labels = np.arange(60) % 3.0
    labels[[5, 7]] = np.nan
    table = load_npz(npz(tmp_path / "a.npz", X=TABLE, y=labels))
    np.testing.assert_array_equal(table.X, np.delete(TABLE, [5, 7], axis=0))
    assert table.classes == ("0", "1", "2")
    assert table.facts()["rows"] == "2 of 60 without label, left out"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *[(kind, "float32") for kind in ("?", "i1", "u1", "i2", "u2", "f2", "f4", ">f4")],
        *[(kind, "float64") for kind in ("i4", "u8", "f8", ">f8", np.longdouble)],
    ],
)
def test_tables_keep_every_number(tmp_path, kind, expected):
    rows = (np.arange(60).reshape(20, 3) % 2).astype(kind)
    table = load_npz(npz(tmp_path / "a.npz", X=rows[:, ::-1], y=np.arange(20) % 2))
    assert table.X.dtype == expected
    assert table.X.flags.c_contiguous
    assert set(np.unique(table.X)) == {0, 1}


def test_arrays_in_fortrans_order(tmp_path):
    path = npz(tmp_path / "a.npz", **{k: np.asfortranarray(v) for k, v in PARTS.items()})
    np.testing.assert_array_equal(load_npz(path).X, TABLE[:40])


OBJECTS = np.array([{}] * 40, object)
MISFITS = {
    "no y": ({"y_train": None}, ": expected an array y_train or y, found 'X_train', 'X_test'"),
    "no X": (
        {"X_train": None},
        ": expected an array X_train or x_train or X or x, found 'y_train'",
    ),
    "no test labels": ({"y_test": None}, ": expected an array y_test, found"),
    "no test rows": ({"X_test": None}, ": expected an array X_test or x_test, found"),
    "objects": ({"y_train": OBJECTS}, ": y_train: expected numbers or text, found Python objects"),
    "text rows": ({"X_train": KINDS[:40]}, ": X_train: expected numbers of shape (rows, features)"),
    "flat rows": (
        {"X_train": TABLE[:40, 0]},
        ": X_train: expected numbers .* float64 of shape (40,)",
    ),
    "float images": ({"X_train": IMAGES / 255}, ": X_train: expected numbers .*, or images, uint8"),
    "complex": ({"X_train": TABLE[:40] * 1j}, ": X_train: expected real numbers or text"),
    "bytes": ({"y_train": KINDS[:40].astype("S")}, ": y_train: expected real numbers or text"),
    "records": ({"y_train": np.zeros(40, "i4,i4")}, ": y_train: expected real numbers or text"),
    "dates": ({"X_train": np.zeros((40, 4), "M8[s]")}, ": X_train: expected real numbers or text"),
    "empty": ({"X_train": TABLE[:0], "y_train": KINDS[:0]}, ": X_train: expected numbers"),
    "no images": ({"X_train": IMAGES[:0], "y_train": KINDS[:0]}, ": X_train: expected numbers"),
    "no columns": ({"X_train": TABLE[:40, :0]}, ": X_train: expected numbers of shape"),
    "no numbers": ({"X_train": np.full((40, 4), np.nan)}, ": expected columns .*'0': empty"),
    "fewer labels": ({"y_train": KINDS[:39]}, ": y_train: expected shape (40,), .*, found (39,)"),
    "one-hot": ({"y_train": np.eye(40)}, ": y_train: expected shape (40,), .*, found (40, 40)"),
    "unknown": (
        {"y_test": np.full(20, "fir")},
        "label 'y': has test labels 'fir'; expected labels",
    ),
    "one class": (
        {"y_train": np.ones(40), "y_test": np.ones(20)},
        "label 'y': has '1.0' in each row; expected at least 2 distinct labels",
    ),
    "other width": ({"X_test": TABLE[40:, :3]}, "expected test rows like the training rows"),
    "tables and images": ({"X_test": IMAGES[:20]}, "expected test rows like the training rows"),
    "part of the validation": ({"X_val": TABLE}, ": expected an array y_val, found"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_unfit_arrays_are_refused(tmp_path, case):
    changed, message = MISFITS[case]
    arrays = {key: value for key, value in (PARTS | changed).items() if value is not None}
    path = npz(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load_npz(path)
    assert str(caught.value).startswith(f"{path}: ")
    for piece in message.split(".*"):
        assert piece in str(caught.value)


def member(shape, kind="<f8", body=b"", head=b"\x93NUMPY\x01\x00"):
    """Return an array in NumPy's format, with a header of our choice."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return head + len(header).to_bytes(2, "little") + header + body


def archive(path, method=zipfile.ZIP_DEFLATED, **members):
    """Write a .npz file of members as they are."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


HOSTILE = {
    "huge sizes": (member((2**40, 2**20)), "expected at most 1073741824 bytes"),
    "sizes that wrap to 64 bits": (member((2**31, 2**31, 4)), "expected at most"),
    "zero hides huge": (member((0, 2**60)), "expected at most"),
    "a gigabyte claimed": (member((2**20, 128)), f"expected {2**30 + 128} bytes"),
    "truncated": (member((4, 1), body=bytes(24)), "expected 160 bytes"),
    "trailing": (member((4, 1), body=bytes(40)), "expected 160 bytes"),
    "negative sizes": (member((-2, -3), body=bytes(48)), "expected real numbers or text"),
    "text without letters": (member((2**60,), "<U0"), "expected real numbers or text"),
    "pickled": (member((1,), "|O", body=b"cos\nsystem\n(S'true'\ntR."), "Python objects"),
    "a long header": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\x3f" + bytes(1 << 26),
        "expected NumPy's format 1.0, found 2.0",
    ),
    "no array": (b"<html>not found</html>", "expected a complete .npz file, found"),
    "nested": (member("(" * 5000), "expected a complete .npz file, found"),
    "an expression": (member("__import__('os').abort()"), "expected a complete .npz file, found"),
    "empty": (b"", "expected a complete .npz file, found"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_are_refused_before_memory_is_allocated(tmp_path, case):
    content, message = HOSTILE[case]
    path = archive(tmp_path / "a.npz", X=content, y=member((4,), "<i8", body=bytes(32)))
    error, memory = taken(lambda: load_npz(path))
    assert error.startswith(f"{path}: ")
    assert message in error
    assert memory < 1 << 22  # Python's parser takes half of it


@pytest.mark.parametrize("code", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("order", "<>")
def test_labels_that_are_not_unicode_text_are_refused(tmp_path, code, order):
    labels = np.array([65, code, 0x10FFFF, 0xE000], f"{order}u4")
    y = member((4,), f"{order}U1", body=labels.tobytes())
    path = archive(tmp_path / "a.npz", X=member((4, 1), body=np.arange(4.0).tobytes()), y=y)
    with pytest.raises(DataError, match=rf": y: expected Unicode text, found the code {code:#x}$"):
        load_npz(path)


def test_an_array_that_says_it_is_larger_than_the_file_can_hold(tmp_path):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        file.writestr("X.npy", member((2**20, 100)))
    forged = body.getvalue()
    size = len(member((2**20, 100)))
    claim = (size + 2**20 * 800).to_bytes(4, "little")
    for before in (b"PK\x03\x04", b"PK\x01\x02"):  # both say how long the member is
        at = forged.index(size.to_bytes(4, "little") * 2, forged.index(before)) + 4
        forged = forged[:at] + claim + forged[at + 4 :]
    (tmp_path / "a.npz").write_bytes(forged)
    error, memory = taken(lambda: load_npz(tmp_path / "a.npz"))
    assert f"expected {size + 2**20 * 800} bytes" in error
    assert memory < 1 << 20


def test_all_arrays_together_are_bounded(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", **PARTS)
    needed = sum(array.nbytes for array in PARTS.values())
    monkeypatch.setattr(npz_module, "MOST_BYTES", needed)
    assert len(load_npz(path).y) == 40
    monkeypatch.setattr(npz_module, "MOST_BYTES", needed - 1)
    with pytest.raises(DataError, match=f"y_test: expected at most {needed - 1} bytes of arrays"):
        load_npz(path)


def test_rows_are_bounded(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", X=TABLE, y=KINDS)
    monkeypatch.setattr(npz_module, "MOST_ROWS", 60)
    assert len(load_npz(path).y) == 60
    monkeypatch.setattr(npz_module, "MOST_ROWS", 59)
    with pytest.raises(DataError, match="X: expected at most 59 rows, found"):
        load_npz(path)


def test_columns_are_bounded(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", X=TABLE, y=KINDS)
    monkeypatch.setattr(npz_module, "_MOST_COLUMNS", 4)
    assert len(load_npz(path).y) == 60
    monkeypatch.setattr(npz_module, "_MOST_COLUMNS", 3)
    with pytest.raises(DataError, match="X: expected at most 3 columns, found"):
        load_npz(path)
    monkeypatch.undo()
    wide = npz(tmp_path / "wide.npz", X=np.zeros((2, 2**21), np.uint8), y=[0, 1])
    with pytest.raises(DataError, match="expected at most 1048576 columns, found"):
        load_npz(wide)


def test_other_methods_of_zip_are_refused(tmp_path):
    path = archive(tmp_path / "a.npz", zipfile.ZIP_LZMA, X=member((1, 1), body=bytes(8)))
    with pytest.raises(DataError, match="X: expected it stored or deflated, found zip's method 14"):
        load_npz(path)


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = npz(tmp_path / "a.npz", np.savez, **PARTS)
    content = bytearray(path.read_bytes())
    at = content.index(TABLE[39].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected a complete .npz file, found: Bad CRC-32"):
        load_npz(path)


SMALL = io.BytesIO()
np.savez_compressed(SMALL, X=TABLE[:12], y=KINDS[:12])


@given(st.data())
def test_changed_bytes_of_an_npz_never_raise_anything_else(tmp_path, data):
    content = bytearray(SMALL.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.npz"
    path.write_bytes(bytes(content)[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DataError):
        assert len(load_npz(path).X) == 12


def test_a_small_file_does_not_become_a_large_table(tmp_path):
    path = tmp_path / "bomb.npz"
    X = np.zeros((300, 1_000_000), np.uint8)  # 0.3 MiB in the file, and 1.1 GiB as floats
    np.savez_compressed(path, X=X, y=np.arange(300) % 2)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(DataError, match="expected at most 1073741824 bytes of arrays in a file"):
        load_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_arrays_of_one_part_are_not_copied(tmp_path):
    path = tmp_path / "one.npz"
    np.savez(path, X=np.random.default_rng(0).normal(size=(20_000, 100)), y=np.arange(20_000) % 2)
    load_npz(path)
    tracemalloc.start()
    table = load_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 1.5 * table.X.nbytes
    tracemalloc.stop()


@pytest.mark.parametrize("part", ["val", "test"])
def test_integers_of_other_types_are_not_merged_by_joining_them(tmp_path, part):
    ids = 2**62 + np.arange(60) % 3
    arrays = {f"X_{part}": TABLE, f"y_{part}": ids.astype("u8")}
    table = load_npz(npz(tmp_path / "own.npz", X_train=TABLE, y_train=ids, **arrays))
    assert table.classes == tuple(map(str, 2**62 + np.arange(3)))
    y = table.y[60:] if part == "val" else table.test[1]
    assert (y == np.arange(60) % 3).all()


@pytest.mark.parametrize("part", ["val", "test"])
def test_text_next_to_numbers_is_refused(tmp_path, part):
    labels = np.arange(60) % 3
    arrays = {f"X_{part}": TABLE, f"y_{part}": labels.astype(str)}
    path = npz(tmp_path / "own.npz", X_train=TABLE, y_train=labels, **arrays)
    with pytest.raises(DataError, match=r"text such as '0', and .* has numbers such as 0"):
        load_npz(path)


@pytest.mark.parametrize("part", ["val", "test"])
def test_one_long_label_of_other_rows_does_not_pad_all(tmp_path, part):
    labels = np.array(["a", "b"])[np.arange(20_000) % 2]
    other = np.array(["a", "b" * 2**14 if part == "val" else "b"], f"U{2**14}")
    arrays = {f"X_{part}": np.eye(2), f"y_{part}": other}
    path = npz(tmp_path / "own.npz", X_train=RNG.normal(size=(20_000, 2)), y_train=labels, **arrays)
    tracemalloc.start()
    try:
        assert len(load_npz(path).classes) == (3 if part == "val" else 2)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
