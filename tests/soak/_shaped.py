"""Files shaped to take memory when they are read, for the campaign `shapes`: how each is written, and its promise."""

import bz2
import gzip
import json
import lzma
import warnings
import zipfile

import numpy as np
from model_files import forged, parts

from cdrop import DropoutMLPClassifier, Network, datasets, load

SHAPES = {}
MIB = 2**20


def shape(kind, read, **options):
    """Register a function that writes a file: what SECURITY.md promises for it, and how it is read."""

    def register(write):
        SHAPES[write.__name__] = (kind, write, lambda path: read(path, **options))
        return write

    return register


# ---- Model files -------------------------------------------------------------------------------


def save(path, units, **settings):
    Network(units, **settings).save(path)


@shape("network", load)
def ordinary(path):
    save(path, [784, 1024, 1024, 10])


@shape("network", load)
def of_doubles(path):
    save(path, [300, 700, 700, 32], dtype="float64")


@shape("network", load)
def sixteen_outputs(path):
    save(path, [2**18, 16])


@shape("narrow", load)
def one_output(path):
    save(path, [2**20, 1])


@shape("narrow", load)
def one_input(path):
    save(path, [1, 2**20])


@shape("narrow", load)
def one_input_and_output(path):
    save(path, [1, 2**19, 1])


@shape("narrow", load)
def seventeen_inputs(path):
    save(path, [17, 2**17])


@shape("narrow", load)
def layers_of_one(path):
    save(path, [1] * 3000)


@shape("narrow", load)
def double_layers_of_one(path):
    save(path, [1] * 3000, dtype="float64")


@shape("narrow", load)
def layers_of_two(path):
    save(path, [2] * 2000, dropout=0.5)


@shape("narrow", load)
def layers_of_17(path):
    save(path, [17] * 2000)


def write_forged(path, about, arrays):
    """Write a model file with its digest right, and with no blank in its settings."""
    about = {name: value for name, value in about.items() if name != "sha256"}
    start, end = '{"sha256": "' + "0" * 64 + '",', json.dumps(about, separators=(",", ":"))[1:]
    path.write_bytes(forged(about, arrays, start + end))


def changed(path, change, model=None):
    """Write a model whose settings and arrays are changed by a function, with its digest right."""
    (model or Network([2, 2])).save(path)
    about, arrays = parts(path.read_bytes())
    change(about["settings"], arrays)
    write_forged(path, about, arrays)


@shape("model", load)
def losses(path):
    def change(settings, arrays):
        arrays["losses"] = ["F64", [2**20], np.ones(2**20).tobytes()]

    changed(path, change)


@shape("model", load)
def curves(path):
    def change(settings, arrays):
        for name in ("epoch_loss", "validation_loss", "validation_score"):
            arrays[f"curve.{name}"] = ["F64", [2**19], np.arange(2.0**19).tobytes()]

    changed(path, change)


@shape("model", load)
def units_without_arrays(path):
    changed(path, lambda settings, _: settings["settings"].update(units=[1] * 3 * 10**5))


@shape("model", load)
def huge_units(path):
    changed(path, lambda settings, _: settings["settings"].update(units=[10**6, 10**6]))


@shape("model", load)
def rates_of_dropout(path):
    changed(path, lambda settings, _: settings["settings"].update(dropout=[0.5] * 3 * 10**5))


@shape("model", load)
def names_of_arrays(path):
    def change(settings, arrays):
        arrays.update({f"a{i}": ["F32", [0], b""] for i in range(3 * 10**4)})

    changed(path, change)


@shape("model", load)
def length_of_the_header(path):
    Network([2, 2]).save(path)
    path.write_bytes(b"\xff" * 7 + b"\x0f" + path.read_bytes()[8:])


@shape("model", load)
def broken_end(path):
    save(path, [784, 1024, 1024, 10])
    path.write_bytes(path.read_bytes()[:-1])


def checkpoint(path, change):
    net = Network([2, 2])
    net.fit(np.eye(2), [0, 1], iterations=2, checkpoint=path)
    about, arrays = parts(path.read_bytes())
    change(about["settings"], arrays)
    write_forged(path, about, arrays)


@shape("network", load)
def checkpoint_of_a_network(path):
    net = Network([784, 1024, 1024, 10])
    net.fit(np.ones((2, 784)), [0, 1], iterations=1, checkpoint=path)


@shape("model", load)
def checkpoint_of_lists(path):
    checkpoint(path, lambda settings, _: settings.update(callbacks={"a": [[]] * 3 * 10**5}))


@shape("model", load)
def checkpoint_of_arrays(path):
    def change(settings, arrays):
        names = [f"callbacks.{i}" for i in range(10**4)]
        arrays.update({name: ["U8", [1], b"0"] for name in names})
        settings["callbacks"] = {"a": [{"__array__": name} for name in names]}

    checkpoint(path, change)


def estimator(path, change):
    X = np.random.default_rng(0).normal(size=(60, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model = DropoutMLPClassifier((4,), max_iter=1).fit(X, np.arange(60) % 2)
    changed(path, lambda settings, _: change(settings), model)


def parameter(path, value, name="class_weight"):
    estimator(path, lambda settings: settings["parameters"].update({name: value}))


@shape("model", load)
def lists(path):
    parameter(path, [[]] * 3 * 10**5)


@shape("model", load)
def lists_next_to_an_emoji(path):
    parameter(path, ["\U0001f600", *[[]] * 3 * 10**5])


@shape("model", load)
def tuples(path):
    parameter(path, [{"tuple": []}] * 10**5)


@shape("model", load)
def empty_dicts(path):
    parameter(path, [{"dict": []}] * 10**5)


@shape("model", load)
def dicts(path):
    parameter(path, {"dict": [[i, 0] for i in range(10**5)]})


@shape("model", load)
def numbers(path):
    parameter(path, [0.5] * 3 * 10**5)


@shape("model", load)
def text_of_four_bytes(path):
    parameter(path, "\U0001f600" * 10**6)


@shape("model", load)
def texts_of_four_bytes(path):
    parameter(path, [chr(0x1F600 + i % 64) for i in range(3 * 10**5)])


@shape("model", load)
def padded_texts(path):
    parameter(path, {"array": ["str", ["a" * 63, *[""] * 4 * 10**5]]})


@shape("model", load)
def padded_classes(path):
    def change(settings):
        settings["fitted"]["classes_"] = {"array": ["str", ["a" * 63, *[""] * 4 * 10**5]]}

    estimator(path, change)


@shape("model", load)
def arrays_of_nothing(path):
    parameter(path, [{"array": ["bool", []]}] * 5 * 10**4)


@shape("model", load)
def small_array_of_large_numbers(path):
    parameter(path, {"array": ["float64", [0] * 3 * 10**5]})


@shape("model", load)
def endless_range(path):
    parameter(path, {"range": [0, 10**12, 1]}, "hidden_layer_sizes")


@shape("model", load)
def nested_lists(path):
    def change(settings):
        for _ in range(900):
            settings["parameters"]["class_weight"] = [settings["parameters"]["class_weight"]]

    estimator(path, change)


@shape("model", load)
def generators(path):
    words = {"array": ["uint32", [0] * 624]}
    state = {"RandomState": {"tuple": ["MT19937", words, 624, 0, 0.0]}}
    parameter(path, [state] * 1000)


# ---- Arrays and images -------------------------------------------------------------------------


def idx(shape, compress=gzip.compress):
    head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    return compress(head + bytes(int(np.prod(shape))))


def read_idx(path):
    return datasets.read_idx(path)


@shape("images", read_idx)
def idx_images(path):
    path.write_bytes(idx((2**17, 28, 28), bytes))


@shape("images", read_idx)
def idx_bomb(path):
    path.write_bytes(idx((2**17, 28, 28)))


@shape("refused", read_idx)
def idx_header(path):
    path.write_bytes(gzip.compress(idx((2, 2), bytes)[:4] + b"\xff" * 8 + bytes(10**6)))


@shape("refused", read_idx)
def idx_tail(path):
    path.write_bytes(gzip.compress(idx((2, 2), bytes) + bytes(2**28)))


def npz(path, X, y):
    np.savez_compressed(path, X=X, y=y)


TWO = np.arange(1000) % 2


@shape("refused", datasets.load_npz)
def npz_bomb(path):
    npz(path, np.zeros((1000, 10**6), "u1"), TWO)


@shape("arrays", datasets.load_npz)
def npz_bytes(path):
    npz(path, np.zeros((1000, 10**5), "u1"), TWO)


@shape("arrays", datasets.load_npz)
def npz_wide(path):
    npz(path, np.arange(5 * 10**5, dtype="f4").reshape(10, 5 * 10**4), [0, 1] * 5)


@shape("refused", datasets.load_npz)
def npz_millions_of_columns(path):
    npz(path, np.zeros((2, 10**7), "u1"), [0, 1])


@shape("arrays", datasets.load_npz)
def npz_narrow(path):
    npz(path, np.arange(2 * 10**6, dtype="f4")[:, None], np.arange(2 * 10**6) % 2)


@shape("arrays", datasets.load_npz)
def npz_images(path):
    npz(path, np.zeros((2**17, 28, 28), "u1"), np.arange(2**17) % 10)


@shape("arrays", datasets.load_npz)
def npz_many_numbers(path):
    npz(path, np.arange(10**6, dtype="f4")[:, None] % 7, np.arange(10**6, dtype="i4"))


@shape("arrays", datasets.load_npz, task="classification")
def npz_many_labels(path):
    npz(path, np.arange(10**6, dtype="f4")[:, None] % 7, np.arange(10**6, dtype="i4"))


@shape("arrays", datasets.load_npz, task="classification")
def npz_most_labels(path):
    y = np.arange(4 * 10**5, dtype="i4") % 10**5
    npz(path, np.arange(4 * 10**5, dtype="f4")[:, None] % 7, y)


@shape("arrays", datasets.load_npz)
def npz_padded_labels(path):
    y = np.array(["a", "b"], "U1000")[np.arange(3 * 10**4) % 2]
    npz(path, np.arange(3.0 * 10**4)[:, None] % 7, y)


@shape("arrays", datasets.load_npz)
def npz_short_labels(path):
    npz(path, np.arange(10.0**6)[:, None] % 7, np.array(["a", "b"])[np.arange(10**6) % 2])


@shape("arrays", datasets.load_npz)
def npz_padding_validation_rows(path):
    X, y = np.arange(10.0**6)[:, None] % 7, np.array(["a", "b"])[np.arange(10**6) % 2]
    other = np.array(["a", "b" * 10**4])
    np.savez_compressed(path, X=X, y=y, X_val=np.eye(2)[:, :1], y_val=other)


@shape("arrays", datasets.load_npz)
def npz_many_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(5 * 10**4):
            archive.writestr(f"{i}.npy", b"")


# ---- Tables ------------------------------------------------------------------------------------


def table(path, row, rows, head="", compress=None):
    """Write a header and the same row that often, or those that a function returns."""
    opened = {None: open, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[compress]
    with opened(path, "wb") as stream:
        stream.write(head.encode())
        if callable(row):
            stream.write("".join(map(row, range(rows))).encode())
        else:
            block = row.encode() * max(1, min(rows, MIB // len(row)))
            for _ in range(rows * len(row.encode()) // len(block)):
                stream.write(block)


def read_table(path, **options):
    return datasets.load_csv(path, label="last", **options)


@shape("numbers", read_table)
def digits(path):
    table(path, "0,1\n3,0\n", 10**6, "a,b\n")


@shape("numbers", read_table)
def empty_cells(path):
    table(path, "," * 100 + "1\n" + "1," * 100 + "0\n", 2 * 10**4, "a," * 100 + "b\n")


@shape("numbers", read_table)
def eleven_columns(path):
    table(path, "1.5," * 10 + "1\n" + "2.5," * 10 + "0\n", 10**5, "a," * 10 + "b\n")


@shape("cells", read_table)
def texts(path):
    table(path, lambda i: f"{i % 7},{i:x},{'ab'[i % 2]}\n", 3 * 10**5, "n,t,y\n")


@shape("cells", read_table)
def two_texts(path):
    table(path, "0,a\n1,b\n", 10**6, "a,b\n")


@shape("cells", read_table)
def padded_codes(path):
    table(path, "0,01\n1,02\n", 10**6, "a,b\n")


@shape("cells", read_table, categories=["a", "b"])
def cells_by_option(path):
    table(path, "0,1,a\n1,2,b\n", 3 * 10**5, "a,b,c\n")


@shape("cells", read_table)
def emoji(path):
    table(path, "0," + "\U0001f600" * 10**5 + "\n1,b\n", 200, "a,b\n", "gz")


@shape("cells", read_table)
def one_long_label(path):
    def row(i):
        return f"{i % 7},{'ab'[i % 2]}\n" if i else "0," + "c" * MIB + "\n"

    table(path, row, 3 * 10**5, "a,b\n")


@shape("cells", read_table)
def many_labels(path):
    table(path, lambda i: f"{i % 7},{i:x}x\n", 2 * 10**5, "a,b\n")


@shape("cells", read_table)
def dates(path):
    table(path, lambda i: f"2{i % 900 + 100}-01-0{i % 9 + 1},{i % 2}\n", 2 * 10**5, "a,b\n")


@shape("cells", read_table)
def quotes(path):
    table(path, '"a""b",x\n"c,d",y\n', 10**6, "a,b\n")


@shape("cells", read_table)
def open_quote(path):
    table(path, '0,"a\n', 3 * 10**6, "a,b\n")


@shape("cells", read_table)
def latin(path):
    table(path, "0,a\n1,b\n", 10**6, "a,b\n")
    with path.open("ab") as stream:
        stream.write(b"0,\xe9\n")


@shape("cells", read_table, encoding="utf-16")
def wide_encoding(path):
    path.write_bytes(("a,b\n" + "0,a\n1,b\n" * 10**6).encode("utf-16"))


@shape("wide", read_table)
def most_columns(path):
    path.write_text("," * 130_000 + "y\n" + "0," * 130_000 + "1\n" + "1," * 130_000 + "0\n")


@shape("wide", read_table)
def many_columns(path):
    table(path, "0," * 9_000 + "1\n" + "1," * 9_000 + "0\n", 2, "," * 9_000 + "y\n")


@shape("wide", read_table)
def many_columns_of_text(path):
    table(path, "a," * 9_000 + "1\n" + "b," * 9_000 + "0\n", 2, "," * 9_000 + "y\n")


@shape("wide", read_table)
def columns_of_arabic_digits(path):
    zero, one = "\u0660," * 9_000, "\u0661," * 9_000
    table(path, f"{zero}1\n{one}0\n", 2, "a," * 9_000 + "y\n")


@shape("wide", read_table)
def header_of_millions_of_columns(path):
    table(path, "1,2\n", 3, "a," * 7_000_000 + "y\n")


@shape("wide", read_table)
def millions_of_columns(path):
    table(path, "1," * 7_000_000 + "2\n", 3, "a," * 7_000_000 + "y\n")


@shape("refused", read_table)
def one_line(path):
    table(path, "a" * MIB, 64, "a,b\n")


@shape("refused", read_table)
def gzip_bomb(path):
    table(path, "0,a\n1,b\n", 18 * MIB, "a,b\n", "gz")


@shape("refused", read_table)
def four_bytes_above_1_gib(path):
    table(path, "0," + "\U0001f600" * 120_000 + "\n", 2400, "a,b\n", "gz")


@shape("refused", read_table)
def bzip_bomb(path):
    table(path, "0" * MIB, 64, "a,b\n", "bz2")


@shape("refused", read_table)
def xz_bomb(path):
    table(path, "0" * MIB, 64, "a,b\n", "xz")


@shape("refused", read_table)
def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", "0" * 2**28)


@shape("refused", read_table)
def empty_lines(path):
    table(path, "\n", 17 * MIB, "a,b\n")


@shape("refused", read_table)
def codes_above_256_mib(path):
    table(path, "0," + "0" * 60 + "\n1,b\n", 5 * MIB, "a,b\n", "gz")
