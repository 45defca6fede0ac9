"""Tables in text files and frames, what becomes of their columns, and the draws of rows."""

import bz2
import contextlib
import gzip
import hashlib
import itertools
import json
import lzma
import sys
import tracemalloc
import zipfile
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from comparisons import small_dataset, write_idx_directory
from hypothesis import given
from hypothesis import strategies as st

from cdrop.datasets import (
    DataError,
    DataNotFoundError,
    ImageScaler,
    Standardizer,
    TableEncoder,
    assemble,
    encode_labels,
    from_frame,
    load,
    load_csv,
    sources,
    split_rows,
    tables,
)
from cdrop.datasets.dataset import in_shares

PREPARED = "1b10822846c0a7314aa796db59acba19935f40b4ba892d2297bca66cdf713320"
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((200, 2)).round(3)


def write(path, text, encoding="utf-8"):
    """Write text as it is; return the path."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def read(tmp_path, text, label="kind", **options):
    """Load a table of text."""
    return load_csv(write(tmp_path / "a.csv", text), label=label, **options)


def lines(header, *rows, times=1):
    """Return a table as text."""
    return "\n".join([header, *list(rows) * times]) + "\n"


@pytest.fixture(params=["cells", "pandas", "numpy"])
def way(request, monkeypatch):
    """Read small tables cell by cell, or as large ones are, with or without pandas."""
    if request.param != "cells":
        monkeypatch.setattr(tables, "_LARGE", -1)
    if request.param == "numpy":
        for module in (tables, assemble):
            monkeypatch.setattr(module, "has_extra", lambda: False)
    return request.param


# ---- What was read wrong once: shared/faults ---------------------------------------------------


@pytest.mark.parametrize("mark", ["", "NA", "N/A", "NaN", "null", "None", "?", "missing!"])
def test_rows_without_label_are_left_out_and_counted(tmp_path, way, mark):
    text = lines("x,y,kind", "5.1,3.5,a", f"4.9,3.0,{mark}", "7.0,3.2,b", times=4)
    table = read(tmp_path, text, missing=["missing!"])
    assert table.classes == ("a", "b")
    assert table.X[:2].tolist() == [[5.1, 3.5], [7.0, 3.2]]
    assert table.facts()["rows"] == f"4 of 12 without label ({mark!r}), left out"


def test_text_is_a_feature(tmp_path):
    table = read(tmp_path, lines("x,color,kind", "5.1,blue,a", "4.9,red,a", "5,red,b", times=5))
    assert table.X["color"].tolist()[:3] == ["blue", "red", "red"]
    assert table.facts()["columns"] == "1 number (x), 1 of text (color 2); none left out"
    rows = table.transformer().fit(table.X).transform(table.X)
    np.testing.assert_allclose(rows[:3, 1], [0, 1, 1])


def test_missing_cells_take_the_median_and_are_marked(tmp_path, way):
    text = lines("x,y,kind", "5.1,3.5,a", "4.9,1.0,b", "5.5,,a", "7.0,2.0,b", times=3)
    table = read(tmp_path, text)
    rows = table.transformer().fit(table.X[:4]).transform(table.X[:4])
    assert rows.shape == (4, 3)
    assert rows[2, 1] == pytest.approx((2.0 - 8.5 / 4) / np.std([3.5, 1, 2, 2]))
    np.testing.assert_array_equal(rows[:, 2] > 0, [False, False, True, False])
    assert table.facts()["cells"].startswith("3 missing (y 3)")


@pytest.mark.parametrize("sep", [",", ";", "\t", "|", " ", "  "])
@pytest.mark.parametrize("quote", ["", '"'])
def test_separators_are_found(tmp_path, sep, quote):
    rows = [["x", "long name", "kind"], ["5.1", "3.5", "a"], ["4.9", "3", "b"], ["1", "2", "b"]]
    rows[0][1] = "y" if sep == " " and not quote else rows[0][1]
    text = "\n".join(sep.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    table = read(tmp_path, text)
    assert table.X.tolist() == [[5.1, 3.5], [4.9, 3.0], [1.0, 2.0]]
    assert [column.name for column in table.columns] == rows[0][:2]


def test_a_decimal_comma_is_found(tmp_path, way):
    table = read(tmp_path, lines("x;y;kind", "5,1;3,5;a", "4,9;3,0;b", times=3))
    assert table.X[0].tolist() == [5.1, 3.5]
    if way == "numpy":
        return  # what follows has text
    thousands = read(tmp_path, lines("x\ty\tkind", "1,200\t1\ta", "1,300\t2\tb", times=3))
    assert thousands.columns[0].kind == "text"  # not guessed
    given = read(tmp_path, lines("x\ty\tkind", "1,200\t1\ta", "3\t2\tb", times=3), decimal=",")
    assert given.X[0].tolist() == [1.2, 1.0]


@pytest.mark.parametrize("name", ["", "rownames", "id", "index", "Unnamed: 0", "n"])
@pytest.mark.parametrize("start", [0, 1])
def test_row_numbers_are_no_feature(tmp_path, way, name, start):
    order = RNG.permutation(200) if name == "n" else range(200)
    rows = [f"{i + start},{u},{v},{'ab'[i // 100]}" for i, (u, v) in zip(order, NOISE, strict=True)]
    table = read(tmp_path, lines(f"{name},u,v,kind", *rows))
    np.testing.assert_array_equal(table.X, NOISE)
    assert table.facts()["left out"] == f"{name or 'unnamed 0'} (numbers the rows)"
    if way != "numpy":
        kept = read(tmp_path, lines(f"{name or 'id'},u,v,kind", *rows), categories=[name or "id"])
        assert kept.columns[0].used


def test_a_first_line_of_numbers_is_a_row(tmp_path, way):
    text = lines("5.1,3.5,0", "4.9,3.0,0", "7.0,3.2,1", "6.1,2.0,1", "5.9,3.0,1")
    with pytest.raises(
        DataError, match=r"the first line has '0', but looks like a row.*--no-header"
    ):
        read(tmp_path, text, label="0")
    for label in ("last", "2", 2, -1):
        table = read(tmp_path, text, label=label)
        assert table.y.tolist() == [0, 0, 1, 1, 1]
        assert table.X[0].tolist() == [5.1, 3.5]
    assert table.facts()["header"] == "none found; columns are numbered from 0"
    assert read(tmp_path, text, label="0", header=False).y[0] == 5.1


def test_a_first_line_of_names_is_a_header(tmp_path):
    assert read(tmp_path, lines("0,1,2,3", "5,3,1,7", "6,4,2,8"), label="3").y.tolist() == [0, 1]
    years = lines("country,1990,1991,kind", "x,5,3,a", "y,6,4,b", "x,2,3,a", "y,1,1,b", times=3)
    assert read(tmp_path, years).columns[1].name == "1990"
    text = lines("p,x", "e,y", "p,y", "e,x", times=3)
    assert len(read(tmp_path, text, label="last").y) == 10  # its values come again below it
    with pytest.raises(DataError, match="the first line has 'p', but looks like a row"):
        read(tmp_path, text, label="p")


@pytest.mark.posix
def test_test_rows_are_not_the_training_rows(tmp_path):
    """Every score would be one of rows trained on, without a word."""
    path = write(tmp_path / "a.csv", lines("x,y,kind", "1,2,a", "3,4,b", "5,7,a", times=5))
    link = tmp_path / "b.csv"
    link.symlink_to(path)
    for other in (path, link):
        with pytest.raises(ValueError, match="the file of the training rows itself; expected a"):
            load(path, label="kind", test=other)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_may_have_names_of_several_lines(tmp_path, way, end):
    """As spreadsheets write them. The rest of such a name was read as a row."""
    rows = [f"{a},{b},{'ab'[i % 2]}" for i, (a, b) in enumerate(NOISE[:40])]
    text = lines('"x\n(in\n\nmm)",y,"kind\nof it"', *rows).replace("\n", end)
    table = read(tmp_path, text, label="last")
    assert table.X.shape == (40, 2)
    assert np.array_equal(table.X, NOISE[:40])
    assert table.classes == ("a", "b")


def test_integers_with_many_values_are_quantities(tmp_path, way):
    rows = [
        f"{a},{b},{price}"
        for (a, b), price in zip(NOISE, [i % 10 * 7 for i in range(20)], strict=False)
    ]
    table = read(tmp_path, lines("x,y,price", *rows), label="price")
    assert table.task == "regression"
    assert table.y[:3].tolist() == [0.0, 7.0, 14.0]
    assert "price has 10 distinct integers, taken as a quantity" in table.facts()["task"]
    assert (
        read(tmp_path, lines("x,y,price", *rows), label="price", task="classification").n_classes
        == 10
    )


@pytest.mark.parametrize("code", ["1_1", "\u0663", "\uff10", "0x1F", "1 000", "1,0"])
def test_what_only_python_takes_for_a_number_is_text(tmp_path, code):
    table = read(tmp_path, lines("x,code,kind", f'5,"{code}",a', "4,7,b", "6,8,b", times=3))
    assert table.X["code"][0] == code
    assert table.columns[1].kind == "text"


@pytest.mark.parametrize("as_label", [False, True])
def test_codes_with_leading_zeros_are_text(tmp_path, way, as_label):
    if as_label:
        table = read(tmp_path, lines("x,kind", "5,007", "4,7", "6,12", times=3))
        assert table.classes == ("007", "12", "7")
    elif way != "numpy":
        table = read(tmp_path, lines("x,code,kind", "5,007,a", "4,7,b", "6,12,b", times=3))
        assert table.X["code"].tolist()[:3] == ["007", "7", "12"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_encodings_are_found(tmp_path, encoding):
    mark = "\x81" if encoding == "latin-1" else "€" if encoding == "cp1252" else "✓"
    text = lines("größe,kind", f"5.5,{mark}", "4,b", "5.7,b", times=3)
    table = load_csv(write(tmp_path / "a.csv", text, encoding), label="kind")
    assert table.columns[0].name == "größe"
    assert set(table.classes) == {mark, "b"}
    noted = table.facts().get("encoding")
    assert noted == (
        f"not UTF-8, read as {encoding}" if encoding in ("cp1252", "latin-1") else None
    )


def test_an_encoding_may_be_named(tmp_path):
    path = write(tmp_path / "a.csv", lines("größe,kind", "5.5,a", "4,b"), "cp850")
    assert load_csv(path, label="kind", encoding="cp850").columns[0].name == "größe"
    with pytest.raises(ValueError, match="encoding is 'klingon'; expected one that Python knows"):
        load_csv(path, label="kind", encoding="klingon")


def test_comment_lines_and_trailing_separators(tmp_path, way):
    text = "# from the lab\n\n" + lines("x,y,kind", "5.1,3.5,a,", "4.9,3.0,b,", times=3)
    assert read(tmp_path, text).X[0].tolist() == [5.1, 3.5]
    text = lines("x,y,kind,", "5.1,3.5,a,", "4.9,3.0,b,", times=3)
    assert read(tmp_path, text).X[0].tolist() == [5.1, 3.5]
    text = "# x y kind\n" + "5.1 3.5 0\n4.9 3.0 1\n6 1 1\n"
    assert [column.name for column in read(tmp_path, text).columns] == ["x", "y"]


def test_classes_that_differ_only_in_case_are_named(tmp_path):
    table = read(tmp_path, lines("x,kind", "1.5,a", "2,A", "3,b", "4,b", times=3))
    assert table.classes == ("A", "a", "b")
    assert table.facts()["classes"].startswith("'A', 'a' differ only in case")


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        ([1, 2, 3, 1], "classification", ("1", "2", "3")),
        ([1000, 2000, 1000], "classification", ("1000", "2000")),
        ([2.0, 10.0, 1.0], "classification", ("1", "2", "10")),
        (["2", "10", "1"], "classification", ("1", "2", "10")),
        (["2", "10", "x"], "classification", ("10", "2", "x")),
        (["007", "7", "8"], "classification", ("007", "7", "8")),
        ([True, False], "classification", ("False", "True")),
        (np.array([[1], [0]]), "classification", ("0", "1")),
        (np.array(["b", "a"], object), "classification", ("a", "b")),
        (np.array([2**63 + 1, 2**63], np.uint64), "classification", (str(2**63), str(2**63 + 1))),
        (np.array([2**63 + 1, 2**63], object), "classification", (str(2**63), str(2**63 + 1))),
        ([2**62, 2**62 + 1, 2**62], "classification", (str(2**62), str(2**62 + 1))),
        ([2**63, np.int64(1)], "classification", ("1", str(2**63))),
        (pd.Series(["b", "a"], dtype="category"), "classification", ("a", "b")),
        (list(range(26)) * 800, "classification", tuple(map(str, range(26)))),
        ([0.5, 1.0], "regression", ()),
        (range(1900, 1950), "regression", ()),
    ],
)
def test_labels_of_any_kind(labels, task, classes):
    found, y, names = encode_labels(labels)
    assert (found, names) == (task, classes)
    assert y.dtype == (np.int64 if classes else np.float64)
    texts = [str(v) for v in np.asarray(labels).ravel().tolist()]
    if classes:
        assert [float(n) if n[0].isdigit() and n[:1] != "0" else n for n in np.array(names)[y]] == [
            float(t) if t[0].isdigit() and t[:1] != "0" else t for t in texts
        ]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([1.0, np.nan], {}, "y has 1 missing labels, such as None; expected none"),
        (np.array([1.0, np.nan]), {}, "y has 1 missing labels; expected none"),
        (["a", None], {}, "y has 1 missing labels"),
        (np.array(["a", pd.NA], object), {}, "y has 1 missing labels"),
        ([1.0, np.inf], {}, "y has 1 infinite labels"),
        ([1, 1], {}, "y has '1' in each row; expected at least 2 distinct"),
        ([], {}, r"y has shape \(0,\); expected"),
        (np.eye(2), {}, "y has shape"),
        ([2**64, 1], {}, "y has labels between 1 and 18446744073709551616; expected integers"),
        (["a", "b"], {"task": "regression"}, "y has labels like 'a'; expected numbers"),
        ([0, 1], {"task": "ranking"}, "task is 'ranking'"),
    ],
)
def test_unfit_labels_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        encode_labels(labels, **options)


def test_text_next_to_numbers_is_refused():
    for labels in ([1, "1"], np.array([1, "1"], object), [True, "yes"]):
        with pytest.raises(TypeError, match="y has text such as .* and numbers such as"):
            encode_labels(labels)


def test_one_long_label_does_not_pad_the_others():
    labels = np.array(["a", "b"] * 20_000 + ["c" * 2**14], object)
    tracemalloc.start()
    try:
        task, y, classes = encode_labels(labels)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (task, len(classes), np.bincount(y).tolist()) == (
        "classification",
        3,
        [20_000] * 2 + [1],
    )
    assert most < 100 * len(labels)


# ---- Files as programs write them --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffkind,a\n" + "x,1.5\ny,2\n" * 5,
        '"a", "kind"\r\n' + '"1.5","x"\r\n2, y \r\n' * 5,
        "a,kind\r" + "1.5,x\r2,y\r" * 5,
        "\na , kind\n\n" + "1.5e0,x\n\n +2 ,y\n" * 5 + "\n  \n",
    ],
)
def test_csv_as_programs_write_it(tmp_path, way, text):
    table = read(tmp_path, text)
    assert table.classes == ("x", "y")
    np.testing.assert_array_equal(table.X[:, 0], [1.5, 2] * 5)


def test_row_names_of_r_have_no_name(tmp_path):
    text = 'a b kind\n"r 1" 1.5 2 x\n"r 2" 2 3 y\n"r 3" 5 1 x\n'
    table = read(tmp_path, text)
    assert table.X["a"].tolist() == [1.5, 2, 5]
    assert table.columns[0].name == "unnamed 0"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, None])
def test_compressed_files(tmp_path, pack):
    text = lines("x,kind", "5.5,a", "4,b", times=3).encode()
    if pack is None:
        with zipfile.ZipFile(tmp_path / "a.csv", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.csv", text)
    else:
        write(tmp_path / "a.csv", pack(text))
    assert load(tmp_path / "a.csv", label="kind").X.ravel().tolist() == [5.5, 4] * 3


def test_an_archive_of_two_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(DataError, match="expected one file in the archive, found 2"):
        load(tmp_path / "a.csv", label="kind")


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=30),
    st.sampled_from([";", ",", "\t"]),
)
def test_every_way_gives_the_bits_that_were_written(tmp_path_factory, values, sep):
    path = tmp_path_factory.mktemp("bits") / "a.csv"
    rows = [f"{value!r}{sep}{i % 3 + 0.5}{sep}{'ab'[i % 2]}" for i, value in enumerate(values)]
    write(path, "\n".join([f"x{sep}z{sep}kind", *rows]))
    with pytest.MonkeyPatch.context() as patch:
        for large in (1 << 20, -1):
            patch.setattr(tables, "_LARGE", large)
            for extra in (True, False):
                patch.setattr(tables, "has_extra", lambda extra=extra: extra)
                found = tables.read_text(path, assemble.Options(label="kind"))
                assert found.pick("x").values.tobytes() == np.array(values).tobytes()
                assert found.pick("kind").objects().tolist() == list("ab" * 15)[: len(values)]


def test_large_tables_are_read_as_arrays(tmp_path, monkeypatch):
    rows = [f"{u},{v},{'ab'[i % 2]},{i % 7}" for i, (u, v) in enumerate(NOISE)]
    path = write(tmp_path / "a.csv", lines("u,v,letter,y", *rows))
    expected = load_csv(path, label="y")
    monkeypatch.setattr(tables, "_LARGE", -1)
    monkeypatch.setattr(tables, "_read_cells", None)
    found = load_csv(path, label="y")
    pd.testing.assert_frame_equal(found.X, expected.X)
    assert found.describe() == expected.describe()


@pytest.mark.parametrize("last", ["7,oops,a", "7", "7,1,a,9", ",,", "7,1,?"])
def test_what_the_first_lines_do_not_show_is_read_cell_by_cell(tmp_path, monkeypatch, last):
    monkeypatch.setattr(tables, "_LARGE", -1)
    text = lines("x,y,kind", "5.5,1,a", "4,2,b", times=300) + last + "\n"
    if len(last.split(",")) != 3:
        with pytest.raises(DataError, match=r"line 602: expected 3 values between ','"):
            read(tmp_path, text)
        return
    table = read(tmp_path, text)
    assert len(table.y) == 600 + (last[-1] == "a")
    assert table.columns[1].kind == ("text" if "oops" in last else "number")


NO_TABLES = {
    "empty": ("", ": expected a table, found no lines"),
    "header alone": ("a,y\n", ": expected rows below the names of the columns, found none"),
    "no label": ("a,b\n1,2\n", ": label is 'y'; expected a column among 'a', 'b', a number from 0"),
    "near": ("a,yy\n1,2\n3,4\n", "did you mean 'yy'?"),
    "label alone": ("y\n1\n2\n", ": expected columns other than the label 'y'"),
    "constant": ("a,b,y\n1,,0\n1,,1\n", "found 'a': constant; 'b': empty"),
    "short row": ("a,b,y\n1,0\n2,3\n", ": line 2: expected 3 values between ',', .*, found 2"),
    "long row": ("a,y\n1,0\n1,0\n1,0,2,4\n", ": line 4: expected 2 values .*, found 4"),
    "a quote": ('a,y\n1,0\n2,"0\n3,1\n', ": line 3: expected values and closed quotes, found"),
    "after a quote": ('a,y\n1,0\n"1"2,0\n', ": line 3: expected values and closed quotes"),
    "one class": ("a,y\n1,0\n2,0\n", ": label 'y': has '0.0' in each row; expected at least 2"),
    "date": ("a,y\n1,2020-01-01\n2,2020-01-02\n", "'y' is a column of dates; expected classes"),
    "a long value": (f"a,y\n{'1' * 200_000},0\n", "found: field larger"),
    "truncated": (gzip.compress(b"a,y\n1,0\n2,1\n")[:-9], ": expected a readable text file"),
    "damaged": (gzip.compress(b"a,y\n1,0\n")[:10] + b"\xff" * 30, ": expected a readable text"),
    "wrong checksum": (gzip.compress(b"a,y\n1,0\n")[:-8] + bytes(8), ": expected a readable"),
}


@pytest.mark.parametrize("case", NO_TABLES)
def test_what_is_not_a_table_is_refused(tmp_path, case):
    content, message = NO_TABLES[case]
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError) as caught:
        load_csv(path, label="y")
    assert str(caught.value).startswith(str(path))
    for piece in message.split(".*"):
        assert piece in str(caught.value)


def test_bombs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LONGEST_LINE", 1 << 17)
    path = write(tmp_path / "long.csv", gzip.compress(b"a,y\n" + b"1," * (1 << 23), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="line 2: expected at most 131072 bytes in a line"):
            load_csv(path, label="y")
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(tables, "MOST_BYTES", 1000)
    path = write(tmp_path / "many.csv", gzip.compress(b"a,y\n" + b"1,0\n" * 10_000, 1))
    with pytest.raises(DataError, match="1000 in all"):
        load_csv(path, label="y")
    monkeypatch.setattr(tables, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(tables, "MOST_ROWS", 60)
    with pytest.raises(DataError, match="and 60 lines, found more"):
        load_csv(path, label="y")


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_raise_anything_else(tmp_path_factory, content, packed):
    content = b"a,y\n1.5,0\n2,1\n3,0\n" + content
    path = tmp_path_factory.mktemp("bytes") / "a.csv"
    write(path, gzip.compress(content) if packed else content)
    with contextlib.suppress(DataError):
        assert len(load_csv(path, label="y").columns) == 1


# ---- Columns -----------------------------------------------------------------------------------


def test_columns_that_cannot_help_are_left_out_and_named(tmp_path):
    rows = [
        f'{u},{v},name {i},1,,"${i + 1},200",{"ab"[i % 2]}' for i, (u, v) in enumerate(NOISE[:40])
    ]
    table = read(tmp_path, lines("u,v,name,one,nothing,price,kind", *rows))
    np.testing.assert_array_equal(table.X, NOISE[:40])
    assert table.facts()["columns"] == "2 numbers (u, v); 4 left out"
    assert table.facts()["left out"] == (
        "name (text, 40 values in 40 rows), one (constant), nothing (empty), "
        "price (text like '$1,200' instead of plain numbers, as 1200)"
    )


def test_dropped_group_and_time_columns(tmp_path):
    rows = [
        f"{u},{v},p{i % 5},2020-01-{i % 28 + 1:02},{'ab'[i % 2]}" for i, (u, v) in enumerate(NOISE)
    ]
    text = lines("u,v,patient,day,kind", *rows)
    table = read(tmp_path, text, drop=["u"], group="patient", time="day")
    assert table.X.shape == (200, 1)
    np.testing.assert_array_equal(table.groups, np.arange(200) % 5)
    np.testing.assert_array_equal(np.diff(table.times[:3]), [86400, 86400])
    assert table.facts()["left out"] == "u (dropped), patient (used as group), day (used as time)"
    with pytest.raises(
        DataError, match="drop is 'uu'; expected a column among .* did you mean 'u'"
    ):
        read(tmp_path, text, drop="uu")
    with pytest.raises(
        DataError, match="time 'patient' is text like 'p0'; expected numbers or dates"
    ):
        read(tmp_path, text, time="patient")


def test_codes_named_as_categories_are_text(tmp_path):
    text = lines("zip,x,kind", "10,1.5,a", "20,2,b", "10,3,b", times=5)
    table = read(tmp_path, text, categories=["zip"])
    assert table.columns[0].kind == "text"
    rows = table.transformer().fit(table.X).transform(table.X)
    assert rows[:3, 1].tolist() == [0, 1, 0]


def test_dates_become_parts(tmp_path):
    days = pd.date_range("2021-12-30", periods=60).strftime("%d.%m.%Y")
    rows = [f"{day},{'ab'[i % 2]},{NOISE[i, 0]}" for i, day in enumerate(days)]
    table = read(tmp_path, lines("day,kind,x", *rows))
    assert table.columns[0].kind == "date"
    assert table.X["day"][2] == pd.Timestamp("2022-01-01")
    encoder = table.transformer().fit(table.X)
    names = encoder.get_feature_names_out().tolist()
    assert names[:5] == [
        "day (days)",
        "day (year)",
        "day (month)",
        "day (day)",
        "day (day_of_week)",
    ]
    assert np.isfinite(encoder.transform(table.X)).all()


def test_infinite_cells_count_as_missing(tmp_path, way):
    table = read(tmp_path, lines("x,y,kind", "inf,1,a", "1e999,2,b", "3,3,a", "4,4,b", times=3))
    assert np.isnan(table.X[:2, 0]).all()
    assert "6 infinite, taken as missing" in table.facts()["cells"]


def test_a_dash_among_numbers_is_a_missing_cell_but_may_be_a_class(tmp_path):
    table = read(tmp_path, lines("x,kind", "1,+", "-,-", "3,+", "2,-", times=3))
    assert table.classes == ("+", "-")
    assert table.columns[0].missing == 3


def test_a_feature_that_gives_the_answer_away_is_named(tmp_path, way):
    rows = [f"{u},{i % 3},{i % 3 + 10}" for i, (u, _) in enumerate(NOISE)]
    table = read(tmp_path, lines("u,code,kind", *rows))
    assert table.facts()["warning"] == "'code' determines kind: is it known before kind?"
    rows = [f"{u},{3 * v + 1},{v}" for u, v in NOISE]
    assert "'twice'" in read(tmp_path, lines("u,twice,kind", *rows)).facts()["warning"]


def test_doubled_names_are_numbered(tmp_path):
    table = read(tmp_path, lines("x,x,kind", "1.5,2,a", "2,7,b", times=3))
    assert [column.name for column in table.columns] == ["x", "x.1"]
    assert table.facts()["names"].startswith("'x' more than once")


def test_small_classes_are_named(tmp_path):
    table = read(
        tmp_path, lines("x,kind", *[f"{i},a" for i in range(9)], "7,rare", "8,b", "9,b", "6,b")
    )
    assert table.facts()["classes"] == "fewer than 3 rows in rare 1"


def test_all_unfit_columns_are_named_without_the_extra(tmp_path, monkeypatch):
    for module in (tables, assemble):
        monkeypatch.setattr(module, "has_extra", lambda: False)
    text = lines("x,color,ok,kind", "1.5,red,yes,a", "2,blue,no,b", "3,red,no,b", times=3)
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert "columns 'color', 'ok' are not numbers" in str(caught.value)
    assert 'pip install "cdrop[table]", or leave them out' in str(caught.value)
    assert str(caught.value).endswith("--drop color,ok)")
    assert read(tmp_path, text, drop=["color", "ok"]).X.shape == (9, 1)


def test_numbers_need_numpy_alone(tmp_path):
    write(tmp_path / "a.csv", lines("x;y;kind", "5,1;3,5;a", "4,9;;b", times=20))
    code = (
        "import sys; sys.modules |= dict.fromkeys(['pandas', 'sklearn', 'scipy']); "
        "from cdrop.datasets import load_csv; t = load_csv('a.csv', label='kind'); "
        "print(t.transformer().fit(t.X).transform(t.X).shape)"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(40, 3)\n"


# ---- Rows of a second file, frames, other files ------------------------------------------------


def test_rows_of_a_test_file(tmp_path):
    path = write(tmp_path / "train.csv", lines("x,c,kind", "1.5,red,a", "2,blue,b", times=5))
    test = write(tmp_path / "test.csv", lines("kind,c,x,more", "b,green,3,1", "a,red,4,2"))
    table = load(path, label="kind", test=test)
    assert table.test[0]["x"].tolist() == [3, 4]
    assert table.test[1].tolist() == [1, 0]
    rows = table.transformer().fit(table.X).transform(table.test[0])
    assert np.isfinite(rows).all()
    write(test, lines("kind,c,x", "z,red,1"))
    with pytest.raises(DataError, match="test labels 'z'; expected labels of the other rows"):
        load(path, label="kind", test=test)
    write(test, lines("kind,c,x", "a,red,tall", "b,red,1"))
    with pytest.raises(DataError, match="column 'x' has 'tall'; expected a number"):
        load(path, label="kind", test=test)
    write(test, lines("kind,x", "a,1", "b,2"))
    with pytest.raises(DataError, match="test rows have no column 'c'"):
        load(path, label="kind", test=test)


FRAME = pd.DataFrame(
    {
        "size": [1.5, None, 3.0, 2.0] * 5,
        "n": pd.array([1, 2, None, 2] * 5, dtype="Int64"),
        "color": pd.Categorical(["red", None, "blue", "red"] * 5),
        "ok": [True, False, True, True] * 5,
        "when": pd.date_range("2020-01-01", periods=20),
        "kind": ["oak", "elm", "NA", "oak"] * 5,
    }
)


def test_a_frame_is_read_as_the_file_with_its_cells(tmp_path):
    table = from_frame(FRAME, "kind")
    assert [column.kind for column in table.columns] == [
        "number",
        "number",
        "text",
        "boolean",
        "date",
    ]
    assert len(table.y) == 15
    path = tmp_path / "a.csv"
    FRAME.to_csv(path, index=False)
    from_file = load(path, label="kind")
    assert table.columns == from_file.columns
    a, b = (t.transformer().fit(t.X).transform(t.X) for t in (table, from_file))
    np.testing.assert_array_equal(a, b)
    assert table.describe()["sha256"] == from_file.describe()["sha256"]


def test_unfit_frames_are_refused():
    with pytest.raises(TypeError, match="frame is ndarray; expected a DataFrame"):
        from_frame(np.eye(3), "kind")
    with pytest.raises(DataError, match="column 'x' has values like .*; expected numbers, text"):
        from_frame(pd.DataFrame({"x": [[1], [2]], "y": [0, 1]}), "y")
    with pytest.raises(DataError, match="expected 1 to 16777216 rows"):
        from_frame(FRAME[:0], "kind")


def test_other_files(tmp_path):
    expected = from_frame(FRAME[["size", "color", "kind"]], "kind").describe()["sha256"]
    FRAME[["size", "color", "kind"]].to_json(tmp_path / "a.json", orient="records")
    FRAME[["size", "color", "kind"]].to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    pytest.importorskip("openpyxl")
    FRAME[["size", "color", "kind"]].to_excel(tmp_path / "a.xlsx", index=False)
    rows = [
        f"{'?' if s != s else s},{c if c == c else '?'},{k}"
        for s, c, k in FRAME[["size", "color", "kind"]].astype(object).values
    ]
    header = "@relation t\n@attribute size numeric\n@attribute color {red,blue}\n@attribute kind {oak,elm,NA}\n@data"
    write(tmp_path / "a.arff", lines(header, *rows))
    for name in ("a.json", "a.jsonl", "a.xlsx", "a.arff"):
        assert load(tmp_path / name, label="kind").describe()["sha256"] == expected, name


def test_damaged_and_unsupported_files_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.xlsx", b"PK\x03\x04 no workbook")
    with pytest.raises(DataError, match=r"a\.xlsx: "):
        load(tmp_path / "a.xlsx", label="y")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(tmp_path / "a.parquet", b"PAR1")
    with pytest.raises(DataError, match=r'pip install "cdrop\[table\]" pyarrow'):
        load(tmp_path / "a.parquet", label="y")


# ---- Transformers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_columns_are_standardized_by_the_training_rows(dtype, tolerance):
    scaler = Standardizer(dtype).fit(NOISE[:100])
    rows = scaler.transform(NOISE[100:])
    assert rows.dtype == dtype
    expected = (NOISE[100:] - NOISE[:100].mean(axis=0)) / NOISE[:100].std(axis=0)
    np.testing.assert_allclose(rows, expected, atol=tolerance)


@pytest.mark.parametrize("values", [[0.0], [0.1], [1e16], [5e-324], [0.0, 5e-324]])
def test_a_constant_column_becomes_0(values):
    rows = np.column_stack([NOISE[:60, 0], np.resize(values, 60)])  # squares of the last are 0
    scaler = Standardizer().fit(rows)
    rows[50, 1] = 7  # training knows nothing of it
    assert (scaler.transform(rows)[:, 1] == 0).all()
    assert (scaler.transform(rows)[:, 0] != 0).all()


@pytest.mark.parametrize(("large", "less", "kind"), [(2**24 - 1, 1, "f4"), (2**52, 2, "f8")])
def test_small_differences_of_large_numbers_are_kept(large, less, kind):
    rows = (large - np.arange(20.0) % 2 * less).astype(kind)[:, None]
    expected = 1 - 2.0 * (np.arange(20) % 2)
    np.testing.assert_array_equal(Standardizer().fit(rows).transform(rows)[:, 0], expected)


@pytest.mark.parametrize("value", [1e308, 1e200])
def test_numbers_too_large_to_standardize_are_refused(value):
    rows = NOISE.copy()
    rows[:9, 1] = value * (-1) ** np.arange(9)
    for fitted in (rows, NOISE):
        with pytest.raises(DataError, match="column b cannot be standardized in float32"):
            Standardizer(names=["a", "b"]).fit(fitted).transform(rows)


def test_a_column_without_training_cells_becomes_0():
    rows = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0]])
    assert Standardizer().fit(rows[:2]).transform(rows).tolist()[0] == [-1.0, 0.0, 0.0]


def test_rare_unknown_and_missing_texts():
    frame = pd.DataFrame({"c": ["a"] * 9 + ["b"] * 8 + ["x", "y", "z"] + [None] * 6})
    encoder = TableEncoder({"c": "text"}).fit(frame)
    assert encoder.get_feature_names_out().tolist() == [
        "c_a",
        "c_b",
        "c_missing",
        "c_infrequent_sklearn",
    ]
    rows = encoder.transform(pd.DataFrame({"c": ["a", None, "x", "never seen"]}))
    assert rows.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_all_is_fitted_on_training_rows_alone():
    frame = pd.DataFrame({"x": [1.0, 3.0, np.nan, 2.0] * 5, "c": ["a", "b"] * 10})
    other = pd.DataFrame({"x": [1e6, np.nan], "c": ["new", "a"]})
    encoder = TableEncoder({"x": "number", "c": "text"}).fit(frame)
    before = encoder.transform(frame)
    encoder.transform(other)
    np.testing.assert_array_equal(encoder.transform(frame), before)
    assert (
        encoder.transform(other)[1, 0] == encoder.transform(frame)[2, 0]
    )  # the median of training


def test_a_pooled_dataset_is_prepared_as_the_article_does():
    data = small_dataset()
    table, features = data.pooled(), data.to_features()
    scaler = table.transformer().fit(table.X[:300])
    np.testing.assert_array_equal(scaler.transform(table.X[320:]), features.X_test)
    assert isinstance(scaler, ImageScaler)
    assert scaler.mean_ == features.mean
    np.testing.assert_array_equal(table.y[300:320], data.y_val)
    assert json.dumps(table.describe())


def test_images_are_prepared_as_ever():
    features = small_dataset().to_features()
    rows = b"".join(x.tobytes() for x in (features.X_train, features.X_val, features.X_test))
    assert hashlib.sha256(rows).hexdigest() == PREPARED


def test_fingerprints_differ_between_tables(tmp_path):
    def fingerprint(frame, label="kind"):
        return from_frame(frame, label).describe()["sha256"]

    changed = FRAME.assign(size=FRAME["size"] + 1e-12)
    prints = {fingerprint(FRAME), fingerprint(changed), fingerprint(FRAME, "ok")}
    prints |= {fingerprint(FRAME.replace({"kind": {"oak": "fir"}})), fingerprint(FRAME[::-1])}
    assert len(prints) == 5


# ---- Which rows --------------------------------------------------------------------------------


def test_split_rows_is_on_record():
    y = np.arange(20) % 2
    train, val, test = split_rows(y, 7, 4, 0, stratify=True)
    assert test.tolist() == [7, 10, 14, 19]
    assert len(val) == 0
    assert sorted([*train, *test]) == list(range(20))
    train, val, test = split_rows(NOISE[:20, 0], 7, 4, 3, stratify=False)
    order = in_shares(np.zeros(20, int), 7, 1)
    assert [*train, *val, *test] == [
        *np.sort(order[:13]),
        *np.sort(order[13:16]),
        *np.sort(order[16:]),
    ]
    with pytest.raises(ValueError, match="validation is 17; expected"):
        split_rows(y, 7, 4, 17, stratify=True)


def same(one, other):
    """Return whether two data sets have the same training images."""
    return np.array_equal(one.X_train, other.X_train)


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
    sizes = (10, 11, 50, 51, 52, 53, 200, 299)
    draws = [{image.tobytes() for image in data.subset(n, seed=3).X_train} for n in sizes]
    assert [len(draw) for draw in draws] == list(sizes)
    assert all(small <= large for small, large in itertools.pairwise(draws))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drawn digits (not MNIST)", "drawn digits, 20 training images (not MNIST)"),
        (
            "a (b) (IDX directory, not MNIST)",
            "a (b), 20 training images (IDX directory, not MNIST)",
        ),
        ("a (1).npz", "a (1).npz, 20 training images"),
    ],
)
def test_names_of_subsets(name, expected):
    data = small_dataset(name).subset(20)
    assert data.name == expected
    assert not data.is_mnist


# ---- The one door ------------------------------------------------------------------------------


def test_load_calls_the_loader_of_each_source(tmp_path, monkeypatch):
    asked = []
    for name in ("load_mnist", "drawn_digits", "load_npz", "load_csv"):
        monkeypatch.setattr(
            sources, name, lambda *a, name=name, **options: asked.append((name, a, options))
        )
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", "x")
    for source in ("mnist", "digits", tmp_path, str(tmp_path), "a.npz", "A.NPZ"):
        load(source)
    load("digits", validation=7, seed=2)
    load("mnist", validation=0, progress=True)
    load("a.csv", label="y", drop=["z"], sep=";")
    held, free = {"validation": 5000, "progress": False}, {"task": None, "test": None}
    *others, (name, arguments, options) = asked
    assert others == [
        ("load_mnist", (None,), held),
        ("drawn_digits", (0,), {"validation": 5000}),
        ("load_mnist", (tmp_path,), held),
        ("load_mnist", (str(tmp_path),), held),
        ("load_npz", ("a.npz",), free),
        ("load_npz", ("A.NPZ",), free),
        ("drawn_digits", (2,), {"validation": 7}),
        ("load_mnist", (None,), {"validation": 0, "progress": True}),
    ]
    assert (name, arguments) == ("load_csv", ("a.csv",))
    assert (options["label"], options["drop"], options["sep"]) == ("y", ["z"], ";")


def test_load_reads_idx_files(tmp_path):
    assert load(write_idx_directory(tmp_path)).X_train.shape == (400, 28, 28)


@pytest.mark.parametrize("name", ["none.npz", "none.csv", "none", "none.xlsx", "MNIST"])
def test_what_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DataNotFoundError, match=f"{name}: expected .*, found"):
        load(tmp_path / name, label=None if name.endswith("npz") else "y")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a.csv", {}, r"label is None; expected the name of the column of .*a\.csv"),
        ("a.csv", {"label": "y", "validation": 5}, "validation is 5; expected None"),
        ("a.npz", {"label": "y"}, "label is 'y'; expected None: it has no meaning for .*npz"),
        ("mnist", {"drop": ["y"]}, r"drop is \['y'\]; expected \(\): it has no meaning for mnist"),
        ("digits", {"task": "regression"}, "task is 'regression'; expected None"),
        ("a.csv", {"label": "y", "sep": "ab"}, "sep is 'ab'; expected one character"),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path, source, options, message):
    write(tmp_path / "a.csv", lines("x,y", "1,2", "2,3"))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / source if "." in source else source, **options)


@pytest.mark.parametrize("option", [{"label": True}, {"label": 1.5}, {"label": "y", "drop": [1]}])
def test_options_of_another_type_are_refused(tmp_path, option):
    with pytest.raises(TypeError, match=f"{list(option)[-1]} is .*; expected"):
        load(write(tmp_path / "a.csv", lines("x,y", "1,2", "2,3")), **option)


# --- bounds of memory and exactness ---


def test_columns_are_bounded(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("," * 140_000 + "\n" + ("1," * 140_000 + "\n") * 3)
    with pytest.raises(DataError, match="expected at most 131072 columns in a text file, found"):
        load_csv(path, label="last")


@pytest.mark.parametrize("kind", [np.int32, str, object])
def test_classes_are_bounded(kind):
    labels = np.arange(100_001).astype(kind)
    with pytest.raises(
        ValueError, match=r"y has 100,001 distinct labels; expected at most 100,000"
    ):
        encode_labels(labels, None if kind is str else "classification")
    assert len(encode_labels(labels[1:], "classification")[2]) == 100_000


@pytest.mark.parametrize("rows", [90, 60_000])
def test_integers_that_floats_merge_are_no_classes(tmp_path, rows):
    path, ids = tmp_path / "ids.csv", ("9007199254740993", "9007199254740992", "3")
    path.write_text("a,id\n" + "".join(f"{i * 7 % 31},{ids[i % 3]}\n" for i in range(rows)))
    with pytest.raises(DataError, match=r"label 'id' has integers of 2\*\*53 and more, .*categor"):
        load_csv(path, label="id")
    assert load_csv(path, label="id", categories=["id"]).classes == tuple(sorted(ids, key=int))


@pytest.mark.parametrize(
    "cells",
    [
        ("007", "7", "12"),
        ("01", "1_0", "10"),
        ("\uff11", "1", "2"),
        ("1_000", "1", "2"),
        ("\u0661\u0662", "12", "2"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_codes_are_never_merged(tmp_path, way, cells, late):
    path, usual = (
        tmp_path / "codes.csv",
        [cell for cell in cells if cell in ("1", "2", "7", "12", "10")],
    )
    rows = [usual[i % len(usual)] if late and i < 600 else cells[i % 3] for i in range(900)]
    text = "".join(f"{i * 7 % 31},{cell}\n" for i, cell in enumerate(rows))
    path.write_text(f"a,code\n{text}", encoding="utf-8")
    table = load_csv(path, label="code")
    assert set(table.classes) == set(cells)
    assert [table.classes[y] for y in table.y] == rows


def test_numbers_are_compared_by_value(tmp_path, way):
    path = tmp_path / "numbers.csv"
    path.write_text(
        "a,y\n" + "".join(f"{i * 7 % 31},{('1', '1.0', '1e0', '2')[i % 4]}\n" for i in range(900))
    )
    table = load_csv(path, label="y")
    assert table.classes == ("1", "2")
    named = load_csv(path, label="y", categories=["y"])
    assert set(named.classes) == {"1", "1.0", "1e0", "2"}
