"""Data of one's own: .npz and .csv files, what standardising does, draws of training rows, and the one door."""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import tracemalloc
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from comparisons import small_dataset, write_idx_folder
from hypothesis import given
from hypothesis import strategies as st

from cdrop.datasets import DataError, DataNotFoundError, load, load_csv, load_npz, sources, tables
from cdrop.datasets.dataset import in_shares
from cdrop.experiments.compare import describe_data

FINGERPRINT = "5ff2076b7ccfec67deaa08a47ecc96031b55897350d41d3d01c3b33941cb2283"
PREPARED = "1b10822846c0a7314aa796db59acba19935f40b4ba892d2297bca66cdf713320"
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


def table(path, header=("a", "b", "kind", "c", "d"), rows=None):
    """Write a .csv file with the kinds in its middle; return the path."""
    if rows is None:
        rows = [[*x[:2], kind, *x[2:]] for x, kind in zip(TABLE.tolist(), KINDS, strict=True)]
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def same(one, other):
    """Tell whether two data sets hold the same."""
    return describe_data(one)["sha256"] == describe_data(other)["sha256"]


def taken(function):
    """Return what a function raises, and the most memory that it took."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            function()
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- .npz --------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keras", [False, True])
def test_npz_with_parts(tmp_path, save, keras):
    arrays = {key.lower() if keras else key: value for key, value in PARTS.items()}
    data = load_npz(npz(tmp_path / "own.npz", save, **arrays))
    assert (data.name, data.classes) == ("own.npz", ("ash", "elm", "oak"))
    assert data.n_classes == 3
    assert not data.has_images
    np.testing.assert_array_equal(data.X_train, TABLE[:40])
    np.testing.assert_array_equal(data.X_test, TABLE[40:])
    np.testing.assert_array_equal(np.array(data.classes)[data.y_train], KINDS[:40])
    np.testing.assert_array_equal(np.array(data.classes)[data.y_test], KINDS[40:])
    assert data.X_val.shape == (0, 4)
    assert {y.dtype.name for y in (data.y_train, data.y_val, data.y_test)} == {"int64"}


def test_npz_with_a_validation_part(tmp_path):
    path = npz(tmp_path / "own.npz", **PARTS, X_val=TABLE[:5], y_val=KINDS[:5])
    data = load_npz(path)
    np.testing.assert_array_equal(data.X_val, TABLE[:5])
    np.testing.assert_array_equal(np.array(data.classes)[data.y_val], KINDS[:5])
    with pytest.raises(ValueError, match="validation is 3; expected None: .*own.npz has val rows"):
        load_npz(path, validation=3)
    with pytest.raises(ValueError, match=r"test_share is 0\.5; expected None: .* has test rows"):
        load_npz(path, test_share=0.5)


@pytest.mark.parametrize("keys", [("X", "y"), ("x", "y"), ("X_train", "y_train")])
def test_one_part_is_set_apart_each_class_with_its_share(tmp_path, keys):
    path = npz(tmp_path / "a.npz", **dict(zip(keys, (TABLE, KINDS), strict=True)), else_=np.eye(2))
    data = load_npz(path, test_share=0.25, validation=9)
    for part, rows in (("train", 36), ("val", 9), ("test", 15)):
        assert np.bincount(getattr(data, f"y_{part}")).tolist() == [rows // 3] * 3
        assert getattr(data, f"X_{part}").shape == (rows, 4)
    together = np.concatenate([data.X_train, data.X_val, data.X_test])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(TABLE, axis=0))
    for X, y in ((data.X_train, data.y_train), (data.X_test, data.y_test)):
        at = [np.flatnonzero((row == TABLE).all(axis=1))[0] for row in X]
        assert at == sorted(at)  # the order of the file
        np.testing.assert_array_equal(np.array(data.classes)[y], KINDS[at])
    assert same(data, load_npz(path, test_share=0.25, validation=9, seed=0))
    assert not same(data, load_npz(path, test_share=0.25, validation=9, seed=1))
    assert len(load_npz(path).y_test) == 12


def test_which_rows_are_set_apart_is_on_record(tmp_path):
    labels = np.arange(20) % 2
    path = npz(tmp_path / "a.npz", X=np.arange(20.0)[:, None], y=labels)
    assert load_npz(path, seed=7).X_test.ravel().tolist() == [7, 10, 14, 19]


def test_validation_rows_come_from_the_training_rows(tmp_path):
    data = load_npz(npz(tmp_path / "a.npz", **PARTS), validation=10)
    assert [len(y) for y in (data.y_train, data.y_val, data.y_test)] == [30, 10, 20]
    np.testing.assert_array_equal(data.X_test, TABLE[40:])


def test_images_of_an_npz(tmp_path):
    data = load_npz(npz(tmp_path / "a.npz", X=IMAGES, y=np.arange(60) % 3))
    assert data.has_images
    assert data.X_train.shape == (48, 3, 5)
    assert data.X_train.dtype == np.uint8
    assert data.classes == ("0", "1", "2")
    features = data.to_features()
    np.testing.assert_allclose(
        features.X_test, data.X_test.reshape(12, 15) / 255 - features.mean, atol=1e-6
    )
    assert features.std is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *[(kind, "float32") for kind in ("?", "i1", "u1", "i2", "u2", "f2", "f4", ">f4")],
        *[(kind, "float64") for kind in ("i4", "u8", "f8", ">f8", np.longdouble)],
    ],
)
def test_tables_keep_every_number(tmp_path, kind, expected):
    rows = (np.arange(60).reshape(20, 3) % 2).astype(kind)
    data = load_npz(npz(tmp_path / "a.npz", X=rows[:, ::-1], y=np.arange(20) % 2))
    assert data.X_train.dtype == expected
    assert data.X_train.flags.c_contiguous
    assert set(np.unique(data.X_train)) == {0, 1}


def test_arrays_in_fortrans_order(tmp_path):
    path = npz(tmp_path / "a.npz", **{k: np.asfortranarray(v) for k, v in PARTS.items()})
    np.testing.assert_array_equal(load_npz(path).X_train, TABLE[:40])


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([7, -1, 100], ("-1", "7", "100"), [1, 0, 2]),
        ([2.0, 10.0, 1.0], ("1", "2", "10"), [1, 2, 0]),
        (["2", "10", "1"], ("1", "2", "10"), [1, 2, 0]),
        (["2", "10", "x"], ("10", "2", "x"), [1, 0, 2]),
        ([True, False], ("False", "True"), [1, 0]),
        ([[1], [0]], ("0", "1"), [1, 0]),
        (np.array([2**63 + 1, 2**63], np.uint64), (str(2**63), str(2**63 + 1)), [1, 0]),
    ],
)
def test_classes_are_numbered_in_order(tmp_path, labels, classes, numbers):
    labels, X = np.concatenate([np.array(labels)] * 8), np.arange(8.0 * len(numbers))[:, None]
    data = load_npz(npz(tmp_path / "a.npz", X=X, y=labels))
    assert data.classes == classes
    at = data.X_train[:, 0].astype(int)
    np.testing.assert_array_equal(data.y_train, np.array(numbers)[at % len(numbers)])


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
    "NaN": ({"X_train": np.where(np.eye(40, 4, -3), np.nan, TABLE[:40])}, ": X_train[3, 0] is nan"),
    "infinite": ({"X_test": TABLE[40:] * np.inf}, ": X_test[0, 0] is"),
    "too large": ({"X_train": np.full((40, 4), np.longdouble("1e4000"))}, ": X_train[0, 0] is inf"),
    "fewer labels": ({"y_train": KINDS[:39]}, ": y_train: expected shape (40,), .*, found (39,)"),
    "one-hot": ({"y_train": np.eye(40)}, ": y_train: expected shape (40,), .*, found (40, 40)"),
    "unknown": ({"y_test": np.full(20, "fir")}, ": y_test: expected labels that the training rows"),
    "measured": (
        {"y_train": TABLE[:40, 0], "y_test": TABLE[40:, 0]},
        ": y_train: expected whole numbers or text, the names of classes, found",
    ),
    "NaN as label": ({"y_train": np.full(40, np.nan), "y_test": np.ones(20)}, "found 'nan'"),
    "one class": (
        {"y_train": np.ones(40), "y_test": np.ones(20)},
        ": y_train: expected labels of at least 2 classes, found '1'",
    ),
    "other width": ({"X_test": TABLE[40:, :3]}, "expected test rows like the training rows"),
    "tables and images": ({"X_test": IMAGES[:20]}, "expected test rows like the training rows"),
    "part of the validation": ({"X_val": TABLE}, ": expected an array y_val, found"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_arrays_that_do_not_fit_are_told(tmp_path, case):
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
    "no array": (b"<html>not found</html>", "expected a whole .npz file, found"),
    "nested": (member("(" * 5000), "expected a whole .npz file, found"),
    "an expression": (member("__import__('os').abort()"), "expected a whole .npz file, found"),
    "empty": (b"", "expected a whole .npz file, found"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_are_told_before_memory_is_taken(tmp_path, case):
    content, message = HOSTILE[case]
    path = archive(tmp_path / "a.npz", X=content, y=member((4,), "<i8", body=bytes(32)))
    error, memory = taken(lambda: load_npz(path))
    assert error.startswith(f"{path}: ")
    assert message in error
    assert memory < 1 << 22  # Python's parser takes half of it


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
    monkeypatch.setattr(tables, "MOST_BYTES", needed)
    assert len(load_npz(path).y_train) == 40
    monkeypatch.setattr(tables, "MOST_BYTES", needed - 1)
    with pytest.raises(DataError, match=f"y_test: expected at most {needed - 1} bytes of arrays"):
        load_npz(path)


def test_rows_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_ROWS", 60)
    with pytest.raises(DataError, match=r"a\.csv: line 61: expected .* and 60 lines, found more"):
        load_csv(table(tmp_path / "a.csv"), label="kind")
    path = npz(tmp_path / "a.npz", X=TABLE, y=KINDS)
    assert len(load_npz(path).y_train) == 48
    monkeypatch.setattr(tables, "_MOST_ROWS", 59)
    with pytest.raises(DataError, match="X: expected at most 59 rows, found"):
        load_npz(path)


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
    with pytest.raises(DataError, match="expected a whole .npz file, found: Bad CRC-32"):
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
        assert len(load_npz(path).X_train) == 10


# ---- .csv --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_csv(tmp_path, packed):
    path = table(tmp_path / "trees.csv")
    if packed:
        path = tmp_path / "trees.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "trees.csv").read_bytes()))
    data = load_csv(path, label="kind", validation=6)
    assert data.name == path.name
    assert data.classes == ("ash", "elm", "oak")
    assert [len(y) for y in (data.y_train, data.y_val, data.y_test)] == [42, 6, 12]
    assert data.X_train.dtype == np.float64
    arrays = load_npz(npz(tmp_path / "a.npz", X=TABLE, y=KINDS), validation=6)
    assert same(data, arrays)  # every bit of each number, and the same rows


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffkind,a\n" + "x,1\ny,2\n" * 5,
        '"a", "kind"\r\n' + '"1","x"\r\n2, y \r\n' * 5,
        "a,kind\r" + "1,x\r2,y\r" * 5,
        "\na , kind\n\n" + "1.0e0,x\n\n +2 ,y\n" * 5 + "\n  \n",
    ],
)
def test_csv_as_programs_write_it(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    data = load_csv(tmp_path / "a.csv", label="kind")
    assert data.classes == ("x", "y")
    np.testing.assert_array_equal(data.X_train[:, 0], data.y_train + 1)


def test_labels_of_a_csv_may_be_numbers(tmp_path):
    rows = [[i, 9 + i % 3] for i in range(30)] + [[30, "9.0"]]
    data = load_csv(table(tmp_path / "a.csv", ("a", "y"), rows), label="y")
    assert data.classes == ("9", "10", "11")


NO_TABLES = {
    "empty": ("", ": expected the names of the columns, one of them 'y' .*, found none"),
    "no label": ("a,b\n1,2\n", ": line 1: expected the names .*'y'.*, found 'a', 'b'"),
    "two labels": ("y,a,y\n1,2,3\n", ": line 1: expected the names"),
    "label alone": ("y\n1\n2\n", ": line 1: expected the names"),
    "header alone": ("a,y\n", ": expected rows below the names of the columns, found none"),
    "text": ("a,y\n1,0\n\nx,1\n", ": line 4, column 'a': expected a finite number, found 'x'"),
    "no number": ("a,b,y\n1,,0\n", ": line 2, column 'b': expected a finite number, found ''"),
    "NaN": ("a,y\n1,0\nnan,1\n", ": line 3, column 'a': expected a finite number, found 'nan'"),
    "infinite": ("a,y\n1e999,0\n", ": line 2, column 'a': expected a finite number"),
    "no name": ("a,y\n1, \n", ": line 2, column 'y': expected a label, found none"),
    "short row": ("a,b,y\n1,0\n", ": line 2: expected 3 values, as many as names, found 2"),
    "long row": ("a,y\n1,0,2\n", ": line 2: expected 2 values, as many as names, found 3"),
    "a quote": ('a,y\n1,0\n2,"0\n3,1\n', ": line 3: expected values between commas, found"),
    "after a quote": ('a,y\n"1"2,0\n', ": line 2: expected values between commas, found"),
    "measured": ("a,y\n1,0.5\n2,0.25\n", ", column 'y': expected whole numbers or text"),
    "one class": ("a,y\n1,0\n2,0\n", ", column 'y': expected labels of at least 2 classes"),
    "few rows": ("a,y\n1,0\n2,1\n", ": expected at least 3 rows, 1 for testing .*, found 2"),
    "a long value": (f"a,y\n{'1' * 200_000},0\n", ": line 2: expected values between commas"),
    "Latin-1": ("a,y\n1,Bär\n".encode("latin-1"), ": expected a readable .csv file in UTF-8"),
    "truncated": (gzip.compress(b"a,y\n1,0\n2,1\n")[:-9], ": expected a readable .csv file"),
    "damaged": (gzip.compress(b"a,y\n1,0\n")[:10] + b"\xff" * 30, ": expected a readable .csv"),
    "wrong checksum": (gzip.compress(b"a,y\n1,0\n")[:-8] + bytes(8), ": expected a readable .csv"),
}


@pytest.mark.parametrize("case", NO_TABLES)
def test_what_is_no_table_is_told(tmp_path, case):
    content, message = NO_TABLES[case]
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        load_csv(path, label="y")
    assert str(caught.value).startswith(str(path))
    for piece in message.split(".*"):
        assert piece in str(caught.value)


def test_finite_numbers_may_have_an_infinite_sum(tmp_path):
    rows = [[1e308, 1e308, i % 2] for i in range(10)]
    data = load_csv(table(tmp_path / "a.csv", ("a", "b", "y"), rows), label="y")
    assert (data.X_train == 1e308).all()


def test_csv_bombs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LONGEST_LINE", 1 << 16)
    long = tmp_path / "long.csv"
    long.write_bytes(gzip.compress(b"a,y\n" + b"1" * (1 << 24), 1))
    error, memory = taken(lambda: load_csv(long, label="y"))
    assert "line 2: expected at most 65536 characters in a line" in error
    assert memory < 1 << 20
    monkeypatch.setattr(tables, "MOST_BYTES", 1000)
    many = tmp_path / "many.csv"
    many.write_bytes(gzip.compress(b"a,y\n" + b"1,0\n" * 10_000, 1))
    error, _ = taken(lambda: load_csv(many, label="y"))
    assert "line 251: expected at most" in error
    assert "1000 in all" in error


def test_a_long_label_costs_its_length_once(tmp_path):
    rows = [[i, "x" * 100_000 if i == 5 else i % 2] for i in range(2000)]
    path = table(tmp_path / "a.csv", ("a", "y"), rows)
    tracemalloc.start()
    try:
        assert load_csv(path, label="y").n_classes == 3
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_raise_anything_else(tmp_path, content, packed):
    path = tmp_path / "a.csv"
    content = b"a,y\n1,0\n2,1\n3,0\n" + content
    path.write_bytes(gzip.compress(content) if packed else content)
    with contextlib.suppress(DataError):
        assert load_csv(path, label="y").X_train.shape[1] == 1


# ---- Which rows --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**64 - 1))
def test_every_beginning_has_each_class_share(sizes, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = in_shares(labels, seed, 1)
    assert sorted(order) == list(range(len(labels)))
    drawn = np.bincount(labels[order[: len(sizes)]])
    assert (drawn == 1).all()
    for label in labels[order[len(sizes) :]]:  # Sainte-Lague: to whom a row is due most
        due = [Fraction(size, 2 * int(seats) + 1) for size, seats in zip(sizes, drawn, strict=True)]
        assert due[label] == max(
            d for d, n, size in zip(due, drawn, sizes, strict=True) if n < size
        )
        drawn[label] += 1


def test_classes_of_one_size_differ_by_one_row_and_chance_says_where():
    labels = np.arange(1000) % 10
    more = set()
    for seed in range(20):
        drawn = np.bincount(labels[in_shares(labels, seed, 1)[:105]])
        assert sorted(drawn) == [10] * 5 + [11] * 5
        more |= set(np.flatnonzero(drawn == 11))
    assert more == set(range(10))


def test_subset():
    data = small_dataset("MNIST", train=300)
    drawn = data.subset(100)
    assert drawn.name == "MNIST, 100 training images"
    assert drawn.is_mnist
    assert drawn.drawn_from == "MNIST"
    share = np.bincount(data.y_train) / 3
    assert (np.abs(np.bincount(drawn.y_train) - share) < 1).all()
    assert drawn.X_test is data.X_test
    assert drawn.X_val is data.X_val
    assert drawn.classes == data.classes
    at = [np.flatnonzero((data.X_train == image).all(axis=(1, 2)))[0] for image in drawn.X_train]
    assert at == sorted(set(at))
    np.testing.assert_array_equal(drawn.y_train, data.y_train[at])
    assert same(drawn, data.subset(100))
    assert not same(drawn, data.subset(100, seed=1))
    assert data.subset(300) is data
    assert drawn.subset(50).name == "MNIST, 50 training images"


def test_small_subsets_are_in_the_large_ones():
    data = small_dataset(train=300)
    sizes = (5, 10, 11, 50, 51, 52, 53, 200, 299)
    draws = [{image.tobytes() for image in data.subset(n, seed=3).X_train} for n in sizes]
    assert [len(draw) for draw in draws] == list(sizes)
    assert all(small <= large for small, large in itertools.pairwise(draws))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drawn digits (not MNIST)", "drawn digits, 20 training images (not MNIST)"),
        ("a (b) (IDX folder, not MNIST)", "a (b), 20 training images (IDX folder, not MNIST)"),
        ("a (1).npz", "a (1).npz, 20 training images"),
    ],
)
def test_names_of_subsets(name, expected):
    data = small_dataset(name).subset(20)
    assert data.name == expected
    assert not data.is_mnist


def test_subset_of_a_table_is_standardised_by_itself(tmp_path):
    data = load_npz(npz(tmp_path / "a.npz", **PARTS)).subset(10)
    assert data.name == "a.npz, 10 training rows"
    np.testing.assert_allclose(data.to_features("float64").X_train.mean(axis=0), 0, atol=1e-12)


# ---- Features, fingerprints --------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_columns_are_standardised_by_the_training_rows(tmp_path, dtype, tolerance):
    data = load_npz(npz(tmp_path / "a.npz", **PARTS), validation=10)
    features = data.to_features(dtype)
    mean, std = data.X_train.mean(axis=0), data.X_train.std(axis=0)
    np.testing.assert_allclose(features.mean, mean)
    np.testing.assert_allclose(features.std, std)
    for part in ("train", "val", "test"):
        values = getattr(features, f"X_{part}")
        assert values.dtype == dtype
        expected = (getattr(data, f"X_{part}") - mean) / std
        np.testing.assert_allclose(values, expected, atol=tolerance)
        assert getattr(features, f"y_{part}") is getattr(data, f"y_{part}")


@pytest.mark.parametrize("values", [[0.0], [0.1], [1e16], [5e-324], [0.0, 5e-324]])
def test_a_constant_column_becomes_0(tmp_path, values):
    rows = TABLE.copy()
    rows[:, 1] = np.resize(values, 60)  # squares of the last ones are 0
    rows[50, 1] = 7  # a test row: training knows nothing of it
    arrays = {"X_train": rows[:40], "X_test": rows[40:]}
    data = load_npz(npz(tmp_path / "a.npz", **(PARTS | arrays)))
    features = data.to_features()
    for values in (features.X_train, features.X_test):
        assert (values[:, 1] == 0).all()
        assert (values[:, 0] != 0).all()


@pytest.mark.parametrize(("large", "less", "kind"), [(2**24 - 1, 1, "f4"), (2**52, 2, "f8")])
def test_small_differences_of_large_numbers_are_kept(tmp_path, large, less, kind):
    rows = (large - np.arange(20.0) % 2 * less).astype(kind)[:, None]
    data = load_npz(npz(tmp_path / "a.npz", X=rows, y=np.arange(20) % 2))
    np.testing.assert_array_equal(data.to_features().X_train[:, 0], 1 - 2.0 * data.y_train)


@pytest.mark.parametrize("value", [1e308, 1e200])
@pytest.mark.parametrize("part", ["X_train", "X_test"])
def test_numbers_too_large_to_standardise_are_told(tmp_path, value, part):
    arrays = {key: array.copy() for key, array in PARTS.items()}
    arrays[part][:9, 2] = value * (-1) ** np.arange(9)
    data = load_npz(npz(tmp_path / "a.npz", **arrays))
    with pytest.raises(DataError, match=r"column 2 of a\.npz cannot be standardised in float32"):
        data.to_features()


def test_images_are_prepared_and_hashed_as_ever():
    data = small_dataset()
    assert describe_data(data)["sha256"] == FINGERPRINT
    features = data.to_features()
    rows = b"".join(x.tobytes() for x in (features.X_train, features.X_val, features.X_test))
    assert hashlib.sha256(rows).hexdigest() == PREPARED


def test_fingerprints_tell_tables_apart(tmp_path):
    def fingerprint(X, y):
        return describe_data(load_npz(npz(tmp_path / "a.npz", X=X, y=y)))["sha256"]

    numbers = np.arange(60) % 3
    prints = {
        fingerprint(TABLE, KINDS),
        fingerprint(TABLE, numbers),
        fingerprint(TABLE + np.eye(60, 4) * 1e-9, KINDS),
        fingerprint(TABLE.astype("f4"), KINDS),
        fingerprint(IMAGES, KINDS),
        fingerprint(IMAGES, numbers),
    }
    assert len(prints) == 6
    assert fingerprint(TABLE.astype(">f8"), KINDS) == fingerprint(TABLE, KINDS)


# ---- The one door ------------------------------------------------------------------------------


def test_load_asks_the_loader_of_each_source(tmp_path, monkeypatch):
    asked = []
    for name in ("load_mnist", "drawn_digits", "load_npz", "load_csv"):
        monkeypatch.setattr(
            sources, name, lambda *a, name=name, **options: asked.append((name, a, options))
        )
    monkeypatch.chdir(tmp_path)
    for source in ("mnist", "digits", tmp_path, str(tmp_path), "a.npz", "A.NPZ"):
        load(source)
    load("a.csv", label="y")
    load("a.csv.gz", label="y", validation=3, test_share=0.1, seed=4)
    load("digits", validation=7, seed=2)
    load("mnist", validation=0, progress=True)
    held, free = {"validation": 5000, "progress": False}, {"validation": None, "test_share": None}
    assert asked == [
        ("load_mnist", (None,), held),
        ("drawn_digits", (0,), {"validation": 5000}),
        ("load_mnist", (tmp_path,), held),
        ("load_mnist", (str(tmp_path),), held),
        ("load_npz", ("a.npz",), {**free, "seed": 0}),
        ("load_npz", ("A.NPZ",), {**free, "seed": 0}),
        ("load_csv", ("a.csv",), {"label": "y", "validation": 0, "seed": 0}),
        (
            "load_csv",
            ("a.csv.gz",),
            {"label": "y", "validation": 3, "test_share": 0.1, "seed": 4},
        ),
        ("drawn_digits", (2,), {"validation": 7}),
        ("load_mnist", (None,), {"validation": 0, "progress": True}),
    ]


def test_load_reads_each_kind_of_file(tmp_path):
    assert load(write_idx_folder(tmp_path)).X_train.shape == (400, 28, 28)
    assert load(table(tmp_path / "a.csv"), label="kind").n_classes == 3
    assert load(str(npz(tmp_path / "a.npz", **PARTS))).n_classes == 3


@pytest.mark.parametrize("name", ["none.npz", "none.csv", "none", "some.txt", "MNIST"])
def test_what_is_not_there_or_no_data_is_told(tmp_path, name):
    (tmp_path / "some.txt").write_text("a,y")
    with pytest.raises(DataNotFoundError, match=f"{name}: expected .*, found"):
        load(tmp_path / name, label="y" if name.endswith("csv") else None)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a.csv", {}, "label is None; expected the name of the column of a.csv"),
        ("a.npz", {"label": "y"}, "label is 'y'; expected None: only a .csv file"),
        ("mnist", {"label": "y"}, "label is 'y'; expected None: only a .csv file"),
        ("digits", {"test_share": 0.5}, r"test_share is 0\.5; expected None: digits has test rows"),
    ],
)
def test_arguments_without_a_meaning_are_told(source, options, message):
    with pytest.raises(ValueError, match=message):
        load(source, **options)
