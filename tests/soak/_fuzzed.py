"""One fuzzing run, which fuzzing.py starts in a separate process: libFuzzer ends its process when it is done.

``python _fuzzed.py TARGET PLANT DIRECTORY FLAG...``: the corpus lies in DIRECTORY/corpus, and DIRECTORY/counts gets the
results. PLANT names a fault that the run must find, or is "none"; the flags are libFuzzer's.
"""

import atexit
import collections
import gzip
import io
import json
import math
import os
import random
import re
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import atheris
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["cdrop"]):
    from model_files import forged, parts, sign

    from cdrop import Network, load, network, storage
    from cdrop.callbacks import Callback, Validation
    from cdrop.datasets import (
        DataError,
        assemble,
        columns,
        load_csv,
        load_npz,
        mnist,
        npz,
        read_idx,
    )
    from cdrop.estimators import DropoutMLPClassifier, DropoutMLPRegressor

# Bytes that may be taken beyond what the process has when it has read good files.
MEMORY = 128 << 20
_, TARGET, PLANT, DIRECTORY, *FLAGS = sys.argv
INPUT = os.memfd_create("input")  # in memory: a disk would be the slowest part
PATH = Path(f"/proc/self/fd/{INPUT}")
COUNTS = collections.Counter()
CORPUS = {path.read_bytes() for path in (Path(DIRECTORY) / "corpus").iterdir()}


class WrongResult(Exception):
    """What was read is not what the file holds."""


# ---- Model files -------------------------------------------------------------------------------

WORDS = [
    *("relu", "adam", "step", "float64", "units", "array", "object", "Network", "", None, True),
    *([], {}, [1.0, 0.0], {"tuple": [0.5]}, {"dict": [["a", 1.0]]}, {"schedule": ["step", {}]}),
    *({"array": ["str", ["a", "bb"]]}, {"array": ["int8", [300]]}, {"RandomState": 1}),
]
NUMBERS = [0, 1, 2, -1, 0.5, 1e308, math.nan, math.inf, 2**31, 2**63, 10**400]


def members(value):
    """Yield each object or list of a value with each of its keys, at any depth."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from members(value[key])


def mutate_json(value, draw):
    """Change one member, somewhere in a value."""
    where, key = draw.choice(list(members(value)))
    old, roll = where[key], draw.random()
    if roll < 0.1:
        del where[key]
    elif roll < 0.2 and isinstance(where, dict):
        where[draw.choice(["x", "units", "name", "threads"])] = old
    elif roll < 0.5 and isinstance(old, (int, float)):
        where[key] = old + draw.choice([1, -1, 0.25])
    else:
        where[key] = draw.choice(WORDS + NUMBERS)


def mutate_array(arrays, draw):
    """Change an array's dtype, shape or length, or its numbers."""
    array, which = arrays[draw.choice(list(arrays))], draw.randrange(4)
    size = len(array[2])
    array[min(which, 2)] = (
        draw.choice(["F32", "F64", "I64", "BF16", "U8", "BOOL", "C64", "F4"]),
        [draw.choice([0, 1, 2, 3, 6, 2**31, 2**62]) for _ in range(draw.randrange(4))],
        array[2][: draw.randrange(40)],
        draw.choice([draw.randbytes(size), b"\xff" * size, bytes(size)]),
    )[which]


def attack(content, draw):
    """Return a file with another setting or array, and with the right digest."""
    about, arrays = parts(content)
    about.pop("sha256", None)
    if arrays and draw.random() < 0.3:
        mutate_array(arrays, draw)
    else:
        mutate_json(about, draw)
    return forged(about, arrays)


def signed(content, most, seed):
    """Mutate a model file by its parts or anywhere, and set its digest right."""
    draw, changed = random.Random(seed), None
    if draw.random() < 0.7:
        try:
            changed = attack(content, draw)
        except Exception:
            pass  # it is no longer a file that can be taken apart
    if changed is None:
        changed = sign(atheris.Mutate(content, most))
    return changed[:most]


def says(content):
    """What a file holds, as its description says: its kind, settings and arrays, not its version."""
    about, arrays = parts(content)
    return about["kind"], json.dumps(about["settings"], sort_keys=True), arrays


def reads_model(content):
    """Load; a model that comes of it must be what the file says, and work."""
    try:
        model = load(PATH)
    except storage.ModelFileError:
        return "refused"
    if sign(content) != content:
        raise WrongResult("a changed file was loaded")
    if says(storage._packed(type(model).__name__, *model._to_parts())) != says(content):
        raise WrongResult("a model was loaded that the file does not hold")
    try:
        works(model)
    except (TypeError, ValueError, FloatingPointError):
        return "loaded, and what it cannot do is an error"  # weights that are not finite, say
    if TARGET == "unsigned" and content not in CORPUS:
        return "loaded with a right digest, which libFuzzer took from where it is compared"
    return "loaded"


def works(model):
    """Predict and train with a model, on one thread and in silence."""
    model = getattr(model, "network", model)  # a checkpoint's
    if isinstance(model, Network):
        model.threads = 1
        x = np.zeros((2, model.units[0]))
        model.predict(x)
        y = [0, 0] if model.loss == "softmax_cross_entropy" else np.zeros((2, model.units[-1]))
        model.train_step(x, y)
        return
    model.set_params(n_jobs=1, verbose=False, max_iter=1)
    if not hasattr(model, "network_"):
        model.set_params(hidden_layer_sizes=(2,)).fit(np.eye(4), [0, 1, 0, 1])
    x = np.zeros((2, model.n_features_in_))
    model.partial_fit(x, model.predict(x))


class Mean(Callback):
    """Remembers an array."""

    def __init__(self):
        self.seen = np.zeros(3)

    def on_iteration(self, net, iteration, loss):
        self.seen[iteration % 3] = loss


def models():
    """Return small files of each kind of model."""
    x, numbers = np.eye(3)[[0, 1, 2, 0, 1, 2] * 2], np.arange(12) % 3
    words, quick = np.array(["a", "bb", "c"])[numbers], {"max_iter": 2, "random_state": 1}
    net = Network([3, 2, 3], dropout=0.5, seed=3, threads=1)
    net.fit(x, numbers, iterations=2, optimizer="adam")
    behind = Network([2, 2], loss="squared_error", dtype="float64")
    behind.fit(np.array([[0.5, 1], [0.5, 0.5], [0.5, 0.5]]), np.eye(3)[:, :2], epochs=2)
    path = Path(DIRECTORY) / "checkpoint"
    net.fit(
        x, numbers, iterations=3, callbacks=[Mean(), Validation(x, numbers, 2)], checkpoint=path
    )
    small = DropoutMLPClassifier((2,), dropout=0.5, **quick)
    stopping = {"early_stopping": True, "validation_fraction": 0.5, "learning_rate": "plateau"}
    made = [
        *(net, load(path), behind, Network([1, 1]), small),
        DropoutMLPRegressor(random_state=np.random.RandomState(1)),
        DropoutMLPClassifier((2,), solver="sgd", **quick, **stopping).fit(x, words),
        DropoutMLPClassifier((2,), **quick, class_weight={0: 1.0, 1: 2.5}).fit(x, numbers % 2),
        DropoutMLPRegressor((2,), dropout=(0.5,), **quick).fit(x, x[:, :2]),
    ]
    return [bytes(storage._packed(type(m).__name__, *m._to_parts())) for m in made]


# ---- IDX files ---------------------------------------------------------------------------------


def idx_files():
    """Return IDX files, plain and compressed, in one and in two members."""
    plain = [
        bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(range(24))
        for shape in ((24,), (2, 12), (2, 3, 4))
    ]
    packed = [gzip.compress(content, mtime=0) for content in plain]
    bomb = plain[0][:4] + struct.pack(">I", 1 << 20) + bytes(1 << 20)
    both = gzip.compress(plain[2][:20], mtime=0) + gzip.compress(plain[2][20:], mtime=0)
    return [*plain, *packed, both, gzip.compress(bomb, mtime=0)]


def repacked(content, most, seed):
    """Mutate an IDX file, and a compressed one inside or outside."""
    draw = random.Random(seed)
    if content[:2] == b"\x1f\x8b" and draw.random() < 0.7:
        try:
            inside = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            inside = content
        return gzip.compress(resized(inside, draw) or atheris.Mutate(inside, most), 9, mtime=0)
    return (resized(content, draw) or atheris.Mutate(content, most))[:most]


def resized(content, draw):
    """Return an IDX file with another size in its header, or None for one half of the draws."""
    if len(content) < 8 or draw.random() < 0.5:
        return None
    at = 4 + 4 * draw.randrange(max(1, min(content[3], len(content) // 4 - 1)))
    size = draw.choice([0, 1, 2, 3, 4, 6, 12, 24, 2**20, 2**24, 2**30, 2**31, 2**32 - 1])
    return content[:at] + struct.pack(">I", size) + content[at + 4 :]


def reads_idx(content):
    """Read; an array that comes of it must be what the file holds, by another reader."""
    try:
        array = read_idx(PATH)
    except DataError as error:
        assert str(PATH) in str(error)
        return "refused"
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    held = struct.unpack(f">{plain[3]}I", plain[4 : 4 + 4 * plain[3]])
    if (
        plain[:3] != b"\0\0\x08"
        or array.shape != held
        or array.tobytes() != plain[4 + 4 * plain[3] :]
    ):
        raise WrongResult("an array was read that the file does not hold")
    return "read"


# ---- Tables ------------------------------------------------------------------------------------


def table_files():
    """Return .npz files, stored and deflated, of a table and of images, and .csv files, plain and compressed."""
    x, y = np.arange(24.0).reshape(8, 3) / 7, np.arange(8) % 2
    made = []
    for write in (np.savez, np.savez_compressed):
        for arrays in (
            {"X": x, "y": y},
            {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4]},
            {"X": np.arange(96, dtype="u1").reshape(8, 4, 3), "y": y.astype("U2")},
        ):
            write(packed := io.BytesIO(), **arrays)
            made.append(packed.getvalue())
    text = "a,kind,b\n" + "".join(f"{i}.5,{'xy'[i % 2]},-{i}e-3\n" for i in range(8))
    quoted = 'a,"kind"\r\n' + "".join(f'"{i}",{i % 3}\r\n' for i in range(12))
    plain = [text.encode(), quoted.encode()]
    return made + plain + [gzip.compress(content, mtime=0) for content in plain]


CELLS = [b"", b"inf", b"-1e999", b"nan", b"?", b"-", b"007", b"1_1", b'"1', b"x", b"0,5", b"1e400"]


def rewritten(content, most, seed):
    """Mutate a table file: what is packed in it, whose checksums are then right, or the file itself."""
    draw = random.Random(seed)
    if draw.random() < 0.3:  # most files that libFuzzer keeps are broken: begin with a good one
        content = draw.choice(sorted(CORPUS))
    try:
        if draw.random() < 0.3:
            raise ValueError("the file itself")
        if content[:2] == b"PK":
            return rezipped(content, most, draw)
        if content[:2] == b"\x1f\x8b":
            return gzip.compress(retyped(gzip.decompress(content), most, draw), mtime=0)[:most]
        return retyped(content, most, draw)
    except Exception:
        pass  # it is no longer a file that can be taken apart
    return atheris.Mutate(content, most)


def retyped(content, most, draw):
    """Return a text with another cell in place of a number, or changed anywhere."""
    if draw.random() < 0.5:
        return atheris.Mutate(content, most)
    start, end = draw.choice([number.span() for number in re.finditer(rb"[0-9.]+", content)])
    return (content[:start] + draw.choice(CELLS) + content[end:])[:most]


def rezipped(content, most, draw):
    """Return an archive, a member of which has other bytes or another shape."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw.choice(list(members))
    number, nothing = struct.pack("<d", 4 / 7), struct.pack("<d", draw.choice([math.nan, math.inf]))
    swaps = [(b"(8,", b"(9,"), (b"(8,", b"(2305843009213693952,"), (b", 3)", b", 4)")]
    swaps += [(b"<f8", b"|O8"), (b"f8", b"f4"), (number, nothing)]
    changed = members[name].replace(*draw.choice(swaps))
    members[name] = changed if draw.random() < 0.3 else atheris.Mutate(members[name], most)
    with zipfile.ZipFile(packed := io.BytesIO(), "w", draw.choice([0, 8])) as archive:
        for member, held in members.items():
            archive.writestr(member, held)
    return packed.getvalue()[:most]


def arrays_of_rows():
    """Read the rows of each part of an archive; np.load would refuse one whose first bytes are no zip file's."""
    with zipfile.ZipFile(PATH) as archive:
        there = {name.removesuffix(".npy"): name for name in archive.namelist()}
        keys = [[key for key in names if key in there] for names, _ in npz._KEYS.values()]
        streams = [archive.open(there[some[0]]) for some in keys if some]
        return [np.lib.format.read_array(stream, allow_pickle=False) for stream in streams]


def reads_table(content):
    """Read; the result must be finite or missing, complete, and the numbers that another reader finds."""
    archive = content[:2] == b"PK"
    try:
        table = load_npz(PATH) if archive else load_csv(PATH, label="kind")
    except DataError as error:
        assert str(PATH) in str(error)
        return "refused"
    parts = [(table.X, table.y), *([table.test] if table.test else [])]
    for X, y in parts:
        if len(X) != len(y):
            raise WrongResult("a table has other rows than labels")
        if isinstance(X, np.ndarray) and np.isinf(X).any():
            raise WrongResult("an infinite number was read")
        if table.classes and (y.min() < 0 or y.max() >= len(table.classes)):
            raise WrongResult("a label is not a class")
    if archive and not table.notes:
        numbers = np.sort(np.concatenate([X.ravel() for X, _ in parts]).astype(float))
        found = np.sort(np.concatenate([array.ravel() for array in arrays_of_rows()]).astype(float))
        if not np.array_equal(numbers, found, equal_nan=True):  # test rows may have missing cells
            raise WrongResult("a table was read that the file does not hold")
    return "read"


# ---- Faults to be found -------------------------------------------------------------------------


def hang(about):
    while not isinstance(about["format"], int):
        pass
    return CHECK(about)


def crash(about):
    if not isinstance(about["format"], int):
        os.abort()
    return CHECK(about)


def take(shape):
    bytearray(min(math.prod(shape), 1 << 40))


def believe(*arguments):
    header, shape = READ_HEADER(*arguments)
    take(shape)
    return header, shape


def cut(stream, where, ndim, *_):
    content = stream.read()
    header, shape = READ_HEADER(io.BytesIO(content), where, ndim)
    content = content[: len(header) + math.prod(shape)]
    return READ_PLAIN(io.BytesIO(content), where, ndim, lambda need: True, "")


def promise(stream, where):
    shape, dtype = TABLE_HEADER(stream, where)
    take(shape)
    return shape, dtype


TABLE_HEADER = npz._read_header
CHECK, READ_HEADER, READ_PLAIN = storage._check_about, mnist._read_header, mnist._read_plain
PLANTS = {
    "digest not checked": (storage, "_read", lambda path: Path(path).read_bytes()),
    "model not compared": (storage, "check_same", lambda *_: None),
    "sizes believed": (network, "_check_sizes", lambda units, _: take(units)),
    "hang": (storage, "_check_about", hang),
    "crash": (storage, "_check_about", crash),
    "header believed": (mnist, "_read_header", believe),
    "rest not read": (mnist, "_read_plain", cut),
    "table header believed": (npz, "_read_header", promise),
    "arrays not checked": (assemble, "drop_infinite", lambda rows: 0),
    "cells not checked": (columns, "drop_infinite", lambda rows: 0),
}


# ---- The run -----------------------------------------------------------------------------------

READERS = {
    "unsigned": reads_model,
    "signed": reads_model,
    "idx": reads_idx,
    "tables": reads_table,
}
MUTATORS = {"signed": signed, "idx": repacked, "tables": rewritten}
GOOD = {"unsigned": models, "signed": models, "idx": idx_files, "tables": table_files}


def test_one(content):
    """Read one input."""
    os.ftruncate(INPUT, 0)
    os.pwrite(INPUT, content, 0)
    start = time.process_time()  # the machine may have other work; a hang is libFuzzer's to find
    result = READERS[TARGET](content)
    COUNTS["slowest"] = max(COUNTS["slowest"], time.process_time() - start)
    COUNTS[result] += 1
    COUNTS["changed"] += content not in CORPUS


def end():
    """Report what came of the inputs."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # libFuzzer's, which nobody catches from now on
    (Path(DIRECTORY) / "counts").write_text(json.dumps(COUNTS))


def main():
    """Fuzz."""
    warnings.simplefilter("ignore")
    if not CORPUS:
        for number, content in enumerate(GOOD[TARGET]()):
            (Path(DIRECTORY) / "corpus" / str(number)).write_bytes(content)
            CORPUS.add(content)
    for content in CORPUS:
        test_one(content)  # all is imported then
    COUNTS.clear()
    if PLANT != "none":
        setattr(*PLANTS[PLANT])
    atexit.register(end)
    options = {"custom_mutator": MUTATORS[TARGET]} if TARGET in MUTATORS else {}
    atheris.Setup([sys.argv[0], *FLAGS, f"{DIRECTORY}/corpus"], test_one, **options)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    atheris.Fuzz()


main()
