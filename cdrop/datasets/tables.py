"""Tables in text files.

Design
------
The first lines decide the separator, the decimal point, whether there is a header, and the kind of
each column. One pass over the bytes then checks what a file of unknown origin may do: its size when
unpacked, the number and length of its lines, its encoding. Large tables of numbers are parsed by
pandas, or by `numpy.loadtxt` without it; everything that these refuse, and every small table, is
read cell by cell with the standard library, which knows each cell as it was written: a code 007 is
not 7. All of them round numbers exactly, so that a table has the same bits however it was read.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import lzma
import os
import re
import warnings
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cdrop.datasets.assemble import Options, Read, assemble, find, listed, unique
from cdrop.datasets.columns import (
    AMONG_NUMBERS,
    MISSING,
    Cells,
    drop_infinite,
    has_extra,
    is_number,
    number_cells,
    typed,
)
from cdrop.datasets.dataset import MOST_BYTES, MOST_COLUMNS, MOST_ROWS, DataError, DataNotFoundError
from cdrop.datasets.table import Table

__all__ = ["load_csv"]

_LONGEST_LINE = 16 << 20  # bytes: a row of a million numbers
_HEAD = 1 << 18  # bytes that are looked at first
_SAMPLE = 200  # lines
_BLOCK = 1 << 16  # bytes scanned at a time: they stay in the cache
_LARGE = 1 << 20  # bytes: larger tables of numbers are parsed as arrays
_MOST_EXACT = 1 << 28  # bytes: cell by cell, a table takes up to 40 times its size
# Where several fit, the first: a comma may be a decimal point or in a text. The last two stand for
# any white space, and for at least two blanks, as between columns of fixed width.
_SEPARATORS = ("\t", ";", "|", ",", " ", "  ")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    UnicodeError,
    csv.Error,
)


def load_csv(path: str | os.PathLike[str], *, label: str | int, **options: Any) -> Table:
    r"""Load a table from a text file.

    Parameters
    ----------
    path : str or path-like
        A table in lines, plain or compressed (gzip, bzip2, xz, or zip with one file).
    label : str or int
        Name of the column of labels; or its number from 0, or "last".
    **options
        The options of `load` for tables: ``task``, ``drop``, ``categories``, ``test``, ``group``,
        ``time``, ``sep``, ``decimal``, ``encoding``, ``missing`` and ``header``.

    Returns
    -------
    Table
        Its `notes` say what was left out. A table of numbers needs NumPy alone; one with text,
        booleans or dates needs the extra ``table``.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is not such a table, unpacks to more than 1 GiB, or has more than 16 million
        lines, one longer than 16 MiB, or more than 131,072 columns. The message names the line, or all unfit columns.
    TypeError, ValueError
        If an argument is unfit.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cdrop.datasets import load_csv
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "flowers.csv")
    ...     _ = path.write_text("length;width;kind\n" + "5,1;3,5;setosa\n7,0;3,2;versicolor\n" * 5)
    ...     table = load_csv(path, label="kind")
    >>> table.X[0].tolist(), table.classes
    ([5.1, 3.5], ('setosa', 'versicolor'))
    """
    return assemble(Path(path), Options(label=label, **options), read_text)


def read_text(path: Path, options: Options, like: Read | None = None) -> Read:
    """Read a text file; with `like`, with the kinds that the columns of another table have."""
    if not os.path.isfile(path):
        raise DataNotFoundError(f"{path}: expected a file, found none")
    try:
        return _read(path, options, like)
    except _FAULTS as error:
        raise DataError(f"{path}: expected a readable text file, found: {error}") from error


def _read(path: Path, options: Options, like: Read | None) -> Read:
    """Look at the head, scan the bytes, and read."""
    with _opened(path) as stream:
        head = stream.read(_HEAD)
    look = _look(path, head, options)
    size, look = _scan(path, look, options)
    if size > _LARGE and like is None and (read := _read_arrays(path, look, options)) is not None:
        return read
    if size > _MOST_EXACT:
        raise DataError(
            f"{path}: expected at most {_MOST_EXACT} bytes where columns are not plain numbers, found {size}: "
            'write it as .parquet or .npz, or pip install "cdrop[table]"'
        )
    return _read_cells(path, look, options, like)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file's bytes, unpacked; its first bytes say how it is compressed."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=raw)
        elif magic.startswith(b"BZh"):
            yield bz2.BZ2File(raw)
        elif magic == b"\xfd7zXZ\x00":
            yield lzma.LZMAFile(raw)  # noqa: SIM115
        elif magic.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(raw) as archive:
                members = [info for info in archive.infolist() if not info.is_dir()]
                if len(members) != 1:
                    raise DataError(
                        f"{path}: expected one file in the archive, found {len(members)}"
                    )
                with archive.open(members[0]) as member:
                    yield member
        else:
            yield raw


@contextmanager
def _below_header(path: Path, look: _Look, *, as_bytes: bool = False) -> Iterator[Any]:
    """Open a file below its header: as text, or UTF-8 as bytes, which pandas reads faster."""
    with _opened(path) as stream:
        if not as_bytes or look.encoding != "utf-8":
            stream = io.TextIOWrapper(stream, look.encoding)
        for _ in range(look.skip):
            stream.readline()
        yield stream


# --- the head ---


@dataclass(frozen=True)
class _Look:
    """What the first lines show."""

    encoding: str
    sep: str
    decimal: str
    names: list[str]
    skip: int  # lines before the first row
    width: int  # cells in a line; one more than names if each line ends in a separator
    kinds: list[str]
    notes: tuple[str, ...]
    spaced: bool = False  # whether blanks come after separators
    padded: bool = False  # whether some cell has leading zeros


def _look(path: Path, head: bytes, options: Options) -> _Look:
    """Find encoding, separator, header and kinds from the first bytes."""
    encoding = options.encoding or next((e for mark, e in _MARKS if head.startswith(mark)), "utf-8")
    try:
        text = head.decode(encoding, "replace")
    except LookupError:
        raise ValueError(
            f"encoding is {encoding!r}; expected one that Python knows, as 'latin-1'"
        ) from None
    lines = io.StringIO(text, newline=None).readlines()
    if len(head) == _HEAD and len(lines) > 1:
        lines.pop()  # cut off
    skip, comment = 0, ""
    while skip < len(lines) and (not lines[skip].strip() or lines[skip].lstrip().startswith("#")):
        comment = lines[skip].strip(" \t#\r\n") or comment
        skip += 1
    sample = [line for line in lines[skip : skip + _SAMPLE] if line.strip()]
    if not sample:
        raise DataError(f"{path}: expected a table, found no lines")
    sep = options.sep or _separator(sample)
    if len(sep) != 1 and sep != "  ":
        raise ValueError(
            f"sep is {sep!r}; expected one character (a space for any white space), or two spaces"
        )
    rows = _sampled(sample, sep)
    width = Counter(map(len, rows[1:] or rows)).most_common(1)[0][0]
    if width > MOST_COLUMNS:
        raise DataError(
            f"{path}: expected at most {MOST_COLUMNS} columns in a text file, found {width}; write it as .npz"
        )
    decimal = options.decimal or _decimal(rows, sep)
    header, names = _header(
        path, rows, width, decimal, options, comment and _sampled([comment], sep)[0]
    )
    if not width - 1 <= len(names) <= width:
        width = len(names)  # the first line that differs is an error
    trailing = width > 1 and not any(row[-1] for row in rows[header:] if len(row) == width)
    trailing = trailing and (len(names) < width or not names[-1])
    if len(names) < width - trailing:
        width, trailing = len(names), False
    names = names[: width - trailing]
    cells = list(itertools.zip_longest(*(row[:width] for row in rows[header:]), fillvalue=""))
    kinds = [_kind(column, decimal, options) for column in cells] or ["text"] * width
    notes = (
        []
        if header or names != list(map(str, range(len(names))))
        else ["header: none found; columns are numbered from 0"]
    )
    names, more = unique(names)
    skip += _lines_of_first(lines[skip:], sep) if header else 0
    spaced = any(f"{sep} " in line for line in sample)
    return _Look(encoding, sep, decimal, names, skip, width, kinds, tuple(notes + more), spaced)


def _separator(lines: list[str]) -> str:
    """Return the separator that cuts the most lines into equally many cells."""
    best, found = 0.0, " "
    for sep in _SEPARATORS:
        try:
            widths = Counter(map(len, _sampled(lines, sep)))
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0]
        share = count / widths.total()
        if width > 1 and share > best:
            best, found = share, sep
    return found


def _split(lines: Iterable[str], sep: str) -> Iterator[list[str]]:
    """Cut lines into cells."""
    if sep.isspace() and sep != "\t":
        gap, sep = (r"\s+", " ") if sep == " " else (r"\s\s+|\t", "\t")
        lines = (re.sub(gap, sep, line.strip()) for line in lines)
    return csv.reader(lines, delimiter=sep, skipinitialspace=True, strict=True)


def _sampled(lines: Sequence[str], sep: str) -> list[list[str]]:
    """Return the cells of the first lines; a quote that the last one opens is not closed there."""
    rows: list[list[str]] = []
    with_faults = _split(lines, sep)
    while True:
        try:
            rows.append([cell.strip() for cell in next(with_faults)])
        except StopIteration:
            return rows
        except csv.Error:
            if not rows:
                raise
            return rows


def _lines_of_first(lines: Sequence[str], sep: str) -> int:
    """Return how many lines the first row takes: a quoted cell, such as a name, may have several."""
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for taken, line in enumerate(lines, 1):  # noqa: B007
            yield line

    next(_split(counted(), sep))
    return taken


def _decimal(rows: list[list[str]], sep: str) -> str:
    """Return the decimal point: a comma if cells have one, and none has a point."""
    if sep == ",":
        return "."
    cells = [cell for row in rows[:50] for cell in row]
    commas = [cell for cell in cells if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell)]
    # 1,200 has a comma between thousands, in all but the countries that separate by semicolons.
    sure = sep == ";" or any(not re.fullmatch(r".*,[0-9]{3}", cell) for cell in commas)
    points = any(re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", cell) for cell in cells)
    return "," if commas and sure and not points else "."


def _header(
    path: Path, rows: list[list[str]], width: int, decimal: str, options: Options, comment: Any
) -> tuple[int, list[str]]:
    """Return how many lines the header takes, 0 or 1, and the names of the columns."""
    numbered = list(map(str, range(width)))
    if not options.header or _is_data(path, rows, decimal, options):
        if options.header and comment and len(comment) == width:
            return 0, comment
        return 0, numbered
    names = rows[0]
    if all(re.fullmatch(r"'.*'", name) for name in names):
        names = [name[1:-1] for name in names]
    if len(names) == width - 1 and _names_rows(rows[1:]):
        names = ["", *names]  # R's write.table gives row names no name
    return 1, names


def _names_rows(rows: list[list[str]]) -> bool:
    """Return whether the first cells are all different, and the last ones not all empty."""
    first = {row[0] for row in rows}
    return len(first) == len(rows) and any(row[-1] for row in rows)


def _is_data(path: Path, rows: list[list[str]], decimal: str, options: Options) -> bool:
    """Return whether the first line is a row, no header. An error if it could be either."""
    first, below = rows[0], rows[1:]
    gaps = MISSING | set(options.missing)
    if len(first) > 2 and first[first[0] == "" :] == list(
        map(str, range(len(first) - (first[0] == "")))
    ):
        return False  # the names that pandas gives
    named = numeric = again = 0
    for place, cell in enumerate(first):
        column = [row[place] for row in below if place < len(row) and row[place] not in gaps]
        numbers = bool(column) and all(is_number(other, decimal) for other in column)
        if is_number(cell, decimal):
            numeric += numbers or not column
        elif cell not in gaps:
            named += numbers
            again += cell in column
    if named or not (numeric or again):
        return False
    label = str(options.label)
    if label in first and (is_number(label) or not numeric):
        raise DataError(
            f"{path}: the first line has {label!r}, but looks like a row: {listed(first)}. If it is one, say "
            f"header=False (--no-header), and the label by its number from 0 to {len(first) - 1} or 'last'"
        )
    return label not in first


def _kind(column: Sequence[str], decimal: str, options: Options) -> str:
    """Return what the first cells of a column are: "number", "fraction", or "text"."""
    gaps = MISSING | AMONG_NUMBERS | set(options.missing)
    cells = [cell for cell in column if cell not in gaps]
    if not all(is_number(cell, decimal) for cell in cells):
        return "text"
    return "number" if all(cell.lstrip("+-").isdigit() for cell in cells) else "fraction"


# --- the bytes ---


def _scan(path: Path, look: _Look, options: Options) -> tuple[int, _Look]:
    """Check the bounds of a file and its encoding; return its size unpacked, and what is known now."""
    size = lines = line = 0
    decoder = codecs.getincrementaldecoder("utf-8")() if look.encoding == "utf-8" else None
    padded, before, notes = False, b"", list(look.notes)
    with _opened(path) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            lines += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # SIMD
            line = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else line + len(block)
            if line > _LONGEST_LINE or size > MOST_BYTES or lines > MOST_ROWS:
                raise DataError(
                    f"{path}: line {lines + 1}: expected at most {_LONGEST_LINE} bytes in a line, {MOST_BYTES} in all "
                    f"and {MOST_ROWS} lines, found more"
                )
            padded = padded or _has_padded(before + block, look.sep)
            before = block[-3:]
            if decoder is not None and not (block.isascii() and not decoder.getstate()[0]):
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    decoder = None
    encoding = look.encoding
    if decoder is None and encoding == "utf-8" and options.encoding is None:
        encoding = _single_byte(path)
        notes.append(f"encoding: not UTF-8, read as {encoding}")
        with _opened(path) as stream:
            look = _look(path, stream.read(_HEAD), replace(options, encoding=encoding))
    return size, replace(look, encoding=encoding, padded=padded, notes=tuple(notes))


def _single_byte(path: Path) -> str:
    """Return cp1252 if a file can be that, else latin-1, which any file can."""
    unused = (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")
    with _opened(path) as stream:
        while block := stream.read(_BLOCK):
            if any(byte in block for byte in unused):
                return "latin-1"
    return "cp1252"


def _has_padded(block: bytes, sep: str) -> bool:
    """Return whether a cell in a block begins with 0 and another digit."""
    codes = np.frombuffer(block, np.uint8)
    before = codes[:-2]
    here = codes[1:-1] == ord("0")
    here &= codes[2:] - np.uint8(ord("0")) < 10
    # Blanks, quotes and ends of lines come before the plus sign, which an exponent may have.
    here &= (before < ord("+")) | (before == ord(sep[0]))
    return bool(here.any())


# --- cell by cell ---


def _read_cells(path: Path, look: _Look, options: Options, like: Read | None) -> Read:
    """Read a table with the standard library; each cell is known as it was written."""
    # Of each column the distinct cells, and the place of each cell among them: rows of text would take far more.
    columns: list[tuple[dict[str, int], array[int]]] = [({}, array("q")) for _ in look.names]
    with _below_header(path, look) as text:
        for row in _checked(path, look, text):
            for (levels, places), cell in zip(columns, row, strict=False):
                places.append(levels.setdefault(cell.strip(), len(levels)))
    if not columns[0][1]:
        raise DataError(f"{path}: expected rows below the names of the columns, found none")
    forced = {find(look.names, name, "categories", path): "text" for name in options.categories}
    if like is not None:
        forced = dict.fromkeys(like.numbers, "number")
        forced |= {name: cells.kind for name, cells in like.others.items()}
    cells = {}
    for name, (levels, places) in zip(look.names, columns, strict=True):
        try:
            cells[name] = typed(
                list(levels),
                np.frombuffer(places, np.int64).astype(np.intp, copy=False),
                decimal=look.decimal,
                missing=options.missing,
                kind=forced.get(name),
            )
        except ValueError as error:
            raise DataError(f"{path}: column {name!r} has {error}") from error
    return Read.of(cells, look.notes)


def _checked(path: Path, look: _Look, text: TextIO) -> Iterator[list[str]]:
    """Yield the rows, each with a cell for each name."""
    reader = _split(text, look.sep)
    line = look.skip
    try:
        for row in reader:
            line = look.skip + reader.line_num  # type: ignore[attr-defined]
            if len(row) == look.width:
                yield row
            elif any(cell.strip() for cell in row):
                raise DataError(
                    f"{path}: line {line}: expected {look.width} values between {look.sep!r}, as in the other lines, "
                    f"found {len(row)}; another separator is named by sep (--sep)"
                )
    except csv.Error as error:  # of a quote that is not closed, only the end of the file is known
        raise DataError(
            f"{path}: line {line + 1}: expected values and closed quotes, found: {error}"
        ) from error


# --- large tables ---


def _read_arrays(path: Path, look: _Look, options: Options) -> Read | None:
    """Read a large table column by column, or return None if it must be read cell by cell."""
    if look.padded or options.categories or len(look.names) != look.width or len(look.sep) > 1:
        return None
    if any("\n" in name for name in look.names):
        return None  # lines of the header are counted as text, where a lone "\r" ends one
    label = find(look.names, "last" if options.label is None else options.label, "label", path)
    numbers = [n for n, kind in zip(look.names, look.kinds, strict=True) if kind != "text"]
    read = _read_pandas if has_extra() else _read_numpy
    try:
        return read(path, look, options, numbers, label)
    except (ValueError, UserWarning):  # the cells below the head are of another kind
        return None


def _read_pandas(
    path: Path, look: _Look, options: Options, numbers: list[str], label: str
) -> Read | None:
    """Read with pandas: numbers as such, everything else as categories."""
    import pandas as pd

    exact = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    with _below_header(path, look, as_bytes=True) as stream, warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = pd.read_csv(
            stream,
            sep=r"\s+" if look.sep == " " else look.sep,
            decimal=look.decimal,
            header=None,
            names=look.names,
            index_col=False,
            dtype={name: "category" for name in look.names if name not in numbers},
            na_values=[*MISSING, *options.missing],
            keep_default_na=False,
            skipinitialspace=look.spaced,
            **exact,
        )
    if any(frame[name].dtype.kind not in "iuf" for name in numbers):
        return None
    if frame[look.names[-1]].isna().any():
        return None  # a line may have been too short, which pandas does not say
    others = {}
    for name in look.names:
        if name not in numbers:
            values = frame.pop(name).cat
            levels = [str(level).strip() for level in values.categories]
            if len(set(levels)) < len(levels):
                return None
            others[name] = typed(levels, values.codes.to_numpy(np.intp), decimal=look.decimal)
    target = (
        {label: number_cells(frame.pop(label).to_numpy(np.float64, copy=True))}
        if label in numbers
        else {}
    )
    return _as_read(look, frame.to_numpy(np.float64), list(frame.columns), others, target)


def _version(text: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:2])


def _read_numpy(
    path: Path, look: _Look, options: Options, numbers: list[str], label: str
) -> Read | None:
    """Read with NumPy alone: numbers, and other columns by their distinct texts."""
    if look.decimal != ".":
        return None
    levels: dict[int, dict[str, int]] = {}
    converters: dict[int | str, Any] = {}
    for place, name in enumerate(look.names):
        if name not in numbers:
            seen = levels[place] = {}
            converters[place] = lambda cell, seen=seen: seen.setdefault(cell.strip(), len(seen))
    with _below_header(path, look) as text:
        X = np.loadtxt(
            text,
            delimiter=None if look.sep == " " else look.sep,
            converters=converters,
            comments=None,
            quotechar='"',
            ndmin=2,
            encoding=None,
        )
    if X.shape[1] != look.width:
        return None
    others = {
        look.names[place]: typed(list(seen), X[:, place].astype(np.intp), missing=options.missing)
        for place, seen in levels.items()
    }
    at = look.names.index(label)
    target = {label: number_cells(X[:, at].copy())} if label in numbers else {}
    rest = [n for n in numbers if n != label]
    return _as_read(look, np.delete(X, [*levels, at], axis=1), rest, others, target)


def _as_read(
    look: _Look,
    X: NDArray[Any],
    numbers: list[str],
    others: dict[str, Cells],
    target: dict[str, Cells],
) -> Read:
    """Return what was read. Columns that looked like text in the first lines may be numbers."""
    infinite = sum(cells.infinite for cells in target.values())
    infinite += drop_infinite(X)
    more = {name: cells for name, cells in others.items() if cells.kind == "number"}
    if more:
        X = np.column_stack([X, *(cells.values for cells in more.values())])
    rest = {name: cells for name, cells in (others | target).items() if name not in more}
    return Read(look.names, X, [*numbers, *more], rest, list(look.notes), infinite)
