"""Model files: everything comes back, and nothing that is not right is believed."""

import copy
import math
import os
import pickle
import random
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import ACTIVATIONS, LOSSES, OPTIMIZERS, digest, problem, run_python
from hypothesis import given
from hypothesis import strategies as st
from model_files import OPENING, check_killed, forged, kill_while_saving, parts, sign

import cdrop
from cdrop import Network, load, storage
from cdrop.storage import ModelFileError

pytest.importorskip("safetensors")


def trained(units=(6, 9, 8, 3), optimizer="rmsprop", iterations=7, rows=40, **settings):
    net = Network(list(units), **{"seed": 6, **settings})
    x, y = problem(net.units, net.loss, rows=rows, dtype=net.dtype)
    net.fit(x, y, optimizer=optimizer, batch_size=8, iterations=iterations)
    return net


def saved(net, path):
    net.save(path)
    return load(path)


def refuses(path, content, match=None):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def small():
    """Return a small file's bytes: a network that has trained, with a background."""
    net = trained((2, 2, 2), iterations=3, rows=9, dropout=0.5)
    net.fit(np.ones((3, 2)), [0, 1, 0], epochs=2)
    return bytes(storage._packed("Network", *net._to_parts()))


# ---- What comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loaded_network_resumes_as_if_it_had_never_stopped(tmp_path, optimizer, dtype):
    net = trained(optimizer=optimizer, dropout=[0.5, 0.2], input_dropout=0.1, dtype=dtype)
    x, y = problem(net.units, dtype=dtype)
    net.fit(x, y, optimizer=optimizer, batch_size=8, epochs=1)
    other = saved(net, tmp_path / "m")
    assert digest(other) == digest(net)
    for n in (net, other):
        n.fit(x, y, optimizer=optimizer, batch_size=8, epochs=2)
        n.fit(x, y, optimizer=optimizer, batch_size=8, iterations=7, max_norm=1.0)
    assert net.history.iterations == 7 + 5 + 10 + 7
    assert digest(other) == digest(net)
    np.testing.assert_array_equal(other.predict_proba(x), net.predict_proba(x))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_settings_come_back(tmp_path, activation, loss, dtype):
    settings = {
        "units": [3, 5, 4, 2],
        "dropout": [0.3, 0.1],
        "input_dropout": 0.7,
        "activation": activation,
        "loss": loss,
        "initializer": "glorot",
        "scaling": "test",
        "seed": 2**64 - 1,
        "dtype": dtype,
        "threads": 3,
    }
    net = Network(**settings)
    other = saved(net, tmp_path / "m")
    state, given = other.state_dict(), net.state_dict()
    for name in ("settings", "optimizer", "updates", "epoch", "losses", "background"):
        assert state[name] == given[name]
    assert {**state["settings"], "threads": other.threads} == settings
    assert digest(other) == digest(net)


def test_training_stopped_at_any_step_resumes(tmp_path):
    whole = trained(iterations=12, dropout=0.5)
    x, y = problem(whole.units)
    for stop in range(13):
        net = saved(trained(iterations=stop, dropout=0.5), tmp_path / "m")
        net.fit(x, y, batch_size=8, iterations=12 - stop)
        assert digest(net) == digest(whole), stop


def test_a_file_resumes_to_the_same_on_every_path_and_number_of_threads(tmp_path, on_each_path):
    net = trained(dropout=0.5, threads=2)
    x, y = problem(net.units)
    net.save(tmp_path / "m")
    net.fit(x, y, batch_size=8, iterations=9)
    expected = digest(net), net.predict_proba(x).tobytes()

    def resumed():
        results = set()
        for threads in (1, 2, 3, None):
            other = load(tmp_path / "m")
            other.threads = threads
            other.fit(x, y, batch_size=8, iterations=9)
            results.add((digest(other), other.predict_proba(x).tobytes()))
        return results

    assert all(results == {expected} for results in on_each_path(resumed).values())


def test_background_and_interruption_come_back(tmp_path):
    net = Network([2, 4, 2])
    net.fit(np.array([[0.5, 0.5], [0.5, 1.0], [0.5, 0.5]]), [0, 1, 0], iterations=2)
    assert net.state_dict()["background"].any()
    net.history.interrupted = True
    other = saved(net, tmp_path / "m")
    np.testing.assert_array_equal(other.state_dict()["background"], net.state_dict()["background"])
    assert other.history == net.history


def test_a_network_that_diverged_comes_back_bit_for_bit(tmp_path):
    net = Network([2, 2], loss="squared_error")
    state = net.state_dict()
    odd = np.array([[np.nan, -np.inf], [-0.0, 1e-45]], np.float32)
    odd.view(np.uint32)[0, 0] |= 0x80001234  # sign and payload of the NaN
    state["arrays"]["weight.0"] = odd
    state["losses"] = [math.inf, math.nan, 5e-324]
    net.load_state_dict(state)
    assert digest(saved(net, tmp_path / "m")) == digest(net)


def test_paths_may_be_bytes(tmp_path):
    net = Network([2, 3])
    net.save(os.fsencode(tmp_path / "m"))
    assert digest(load(os.fsencode(tmp_path / "m"))) == digest(net)
    (tmp_path / "bad").write_bytes(b"x" * 200)
    with pytest.raises(ModelFileError, match=r"^/.*bad is not a cdrop model"):
        load(os.fsencode(tmp_path / "bad"))


def test_a_caller_near_the_end_of_the_stack_does_not_make_a_file_bad(tmp_path):
    Network([2, 3]).save(tmp_path / "m")

    def deeper(n):
        return load(tmp_path / "m") if n == 0 else deeper(n - 1)

    limit, seen = sys.getrecursionlimit(), set()
    for depth in range(limit - 150, limit):
        try:
            deeper(depth)
            seen.add("loaded")
        except RecursionError:
            seen.add("RecursionError")
    assert "RecursionError" in seen


def test_settings_that_are_nested_too_deep_are_refused(tmp_path, small):
    about, arrays = parts(small)
    del about["sha256"]
    about["settings"]["threads"] = nested = []
    for _ in range(99):
        nested.append([])
        nested = nested[0]
    (tmp_path / "m").write_bytes(forged(about, arrays))
    with pytest.raises(ModelFileError, match="nested more than 100 deep"):
        load(tmp_path / "m")
    about["settings"]["threads"] = "[" * 200  # a string
    (tmp_path / "m").write_bytes(forged(about, arrays))
    with pytest.raises(ModelFileError, match="threads is"):
        load(tmp_path / "m")


IMPORTED_TWICE = """
import importlib.machinery, sys
from cdrop import Network

class Finder(importlib.machinery.PathFinder):
    within = False

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("safetensors._safetensors_rust", "safetensors.numpy") and not cls.within:
            cls.within = True
            try:
                Network([2, 3]).save("m")
                print("saved")
            except RuntimeError as error:
                print(str(error)[:32])
            cls.within = False
        return None

sys.meta_path.insert(0, Finder)
Network([2, 3]).save("m")
print("saved")
"""


def test_a_handler_within_the_first_import_of_safetensors_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = run_python(IMPORTED_TWICE)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == "safetensors is being imported by"
    assert lines[-1] == "saved"


def test_counters_at_their_last_value_train_and_load_again(tmp_path):
    x, y = problem([6, 3])
    net = Network([6, 3], dropout=(), seed=1)
    state = net.state_dict()
    net.load_state_dict({**state, "updates": 2**62 - 1, "epoch": 2**62 - 1})
    net.fit(x, y, optimizer="adam", epochs=2)
    net.save(tmp_path / "m")
    assert digest(load(tmp_path / "m")) == digest(net)
    assert load(tmp_path / "m").state_dict()["epoch"] == 2**62 - 1


def test_a_network_whose_history_was_replaced_loads_again(tmp_path):
    x, y = problem([6, 3])
    net = Network([6, 3])
    net.fit(x, y, epochs=3)
    net.history = cdrop.History()
    net.save(tmp_path / "m")
    assert digest(load(tmp_path / "m")) == digest(net)


def test_an_epoch_counts_with_its_first_step(tmp_path):
    x, y = problem([6, 3])
    net, straight = (Network([6, 3], dropout=(), seed=1) for _ in range(2))
    weights = net.coefs_
    net.set_weights([weights[0] * np.nan], net.intercepts_)
    with pytest.raises(FloatingPointError):
        net.fit(x, y, epochs=1)
    assert net.state_dict()["epoch"] == 0
    net.set_weights(weights, net.intercepts_)
    for n in (net, straight):
        n.fit(x, y, batch_size=8, epochs=2)
    assert digest(net) == digest(straight)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    net = trained()
    copies = [net, saved(net, tmp_path / "m"), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for i, n in enumerate(copies):
        n.save(tmp_path / f"{i}")
    assert len({(tmp_path / f"{i}").read_bytes() for i in range(4)}) == 1


def test_the_file_is_what_its_description_says(tmp_path):
    from safetensors import safe_open

    net = trained()
    net.save(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    assert content[8:].startswith(OPENING)
    assert sign(content) == content
    with safe_open(tmp_path / "m", "np") as file:
        assert list(file.metadata()) == ["cdrop"]
        np.testing.assert_array_equal(file.get_tensor("weight.1"), net.coefs_[1])
        assert file.get_tensor("losses").tolist() == net.history.loss
    about, arrays = parts(content)
    assert list(about) == ["sha256", "format", "cdrop", "kind", "settings"]
    assert (about["format"], about["cdrop"], about["kind"]) == (1, cdrop.__version__, "Network")
    assert forged({n: v for n, v in about.items() if n != "sha256"}, arrays)  # it can be read


def test_the_recorded_file_loads_and_is_written_again(tmp_path):
    """Files of the first release are a promise; tests/data/make_model_file.py has made this one."""
    path = Path(__file__).parent / "data" / "model.safetensors"
    net = load(path)
    assert (net.units, net.seed, net.history.iterations) == ((2, 3, 2), 7, 4)
    net.save(tmp_path / "m")
    (old, arrays), (new, same) = (parts(p.read_bytes()) for p in (path, tmp_path / "m"))
    assert (new["format"], new["settings"], same) == (old["format"], old["settings"], arrays)


def test_arrays_are_written_in_order_whatever_their_memory():
    array = np.arange(6.0).reshape(2, 3)
    files = {
        bytes(storage._packed("Network", {}, {"a": a}))
        for a in (array, np.asfortranarray(array), array.astype(">f8"), array[::-1].copy()[::-1])
    }
    assert len(files) == 1


# ---- Where it can be written and read ----------------------------------------------------------


def test_a_save_replaces_and_a_failed_one_does_not(tmp_path, monkeypatch):
    path, nets = tmp_path / "m", [trained(seed=1), trained(seed=2)]
    nets[0].save(path)
    nets[1].save(str(path))
    assert digest(load(str(path))) == digest(nets[1])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        nets[0].save(path)
    assert digest(load(path)) == digest(nets[1])
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_save_left_goes_with_the_next_load(tmp_path):
    net = trained()
    net.save(tmp_path / "m")
    (tmp_path / ".m.0123456789abcdef.cdrop-tmp").write_bytes(b"half")
    load(tmp_path / "m")
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]


@pytest.mark.posix
def test_other_models_and_paths_are_refused(tmp_path, monkeypatch):
    class Mine(Network):
        pass

    for model in (Mine([2, 2]), object(), None, Network):
        with pytest.raises(TypeError, match="model is"):
            storage.save(model, tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        trained().save(tmp_path / "absent" / "m")
    for path in (3, None, [], object()):
        with pytest.raises(TypeError):
            load(path)
        with pytest.raises(TypeError):
            Network([2, 2]).save(path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ModelFileError, match="is not a file"):
            load(path)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_missing_safetensors_is_reported(tmp_path, monkeypatch):
    net = trained()
    net.save(tmp_path / "m")
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (net.save, load):
        with pytest.raises(ImportError, match=r"pip install 'cdrop\[io\]'"):
            call(tmp_path / "m")


def test_a_safetensors_that_writes_otherwise_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.save", lambda arrays, metadata: b"\0" * 200)
    with pytest.raises(RuntimeError, match="begins its files in another way"):
        trained().save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


# ---- Accidents ---------------------------------------------------------------------------------


def test_a_changed_bit_of_every_byte_is_noticed(tmp_path, small):
    for i in range(len(small)):
        for bit in range(8) if i < 16 else (i % 8,):  # all of the length and the first words
            changed = bytearray(small)
            changed[i] ^= 1 << bit
            refuses(tmp_path / "m", changed)


def test_every_truncation_is_noticed(tmp_path, small):
    refuses(tmp_path / "m", b"", "is empty")
    for length in range(1, len(small)):
        refuses(tmp_path / "m", small[:length])
    refuses(tmp_path / "m", small + b"\0", "damaged")


def test_every_change_of_several_bytes_is_noticed(tmp_path, small):
    draw = random.Random(0)
    for _ in range(3000):
        changed = bytearray(small)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(len(small))] = draw.randrange(256)
        if changed != small:
            refuses(tmp_path / "m", changed)


def test_foreign_files_are_refused(tmp_path):
    import safetensors.numpy

    arrays = {"weight.0": np.ones((2, 2), np.float32)}
    np.savez(tmp_path / "a.npz", **arrays)
    for content in (
        (tmp_path / "a.npz").read_bytes(),
        pickle.dumps(Network([2, 2])),
        safetensors.numpy.save(arrays),
        safetensors.numpy.save(arrays, {"format": "np"}),
        b"{}",
        bytes(1000),
        b"\xff" * 1000,
        OPENING * 20,
    ):
        refuses(tmp_path / "m", content, "is not a cdrop model file")


# ---- Attacks: the digest is right --------------------------------------------------------------

NUMBERS = [None, -1, 1.5, "1", [], {}, True, math.nan, math.inf, 2**64, 10**400]
TEXTS = [None, 1, "", "nonsense", [], {}, ["relu"]]
RATES = [None, "0", -0.1, 1.0, 1, math.nan, math.inf, 10**400, {}]
# The path of a member within the metadata, and values it must not have.
HOSTILE = {
    ("format",): [None, 0, -1, 1.0, "1", True, [], 2, 10**30],
    ("kind",): [None, 1, "", "network", "os", "Engine", "History", [], {}, ["Network"]],
    ("settings",): [None, 1, "", [], {}, [["settings", {}]]],
    ("settings", "settings"): [None, 1, "x", [], {}, {"units": [2, 2]}],
    ("settings", "settings", "units"): [
        *(None, 2, "22", [], [2], [2, 2], [2, 0, 2], [2, -2, 2], [2, 2.0, 2], [2, "2", 2]),
        *([2, True, 2], [2, None, 2], [2, [2], 2], [2, 3, 2], [3, 2, 2], [2, 2, 2, 2], {"0": 2}),
        *([2**31] * 3, [2, 2**31, 2], [2**64, 2, 2], [10**400, 2, 2], [1] * 10**5, math.nan),
    ],
    ("settings", "settings", "dropout"): [
        *([rate] for rate in RATES),
        *RATES,
        [],
        [0.5, 0.5],
        0.25,
    ],
    ("settings", "settings", "input_dropout"): [*RATES, [0.5], []],
    ("settings", "settings", "activation"): TEXTS,
    ("settings", "settings", "loss"): TEXTS,
    ("settings", "settings", "initializer"): TEXTS,
    ("settings", "settings", "scaling"): TEXTS,
    ("settings", "settings", "seed"): NUMBERS,
    ("settings", "settings", "dtype"): [*TEXTS, "float64", "float16", "int32", "f4,f4", "O", "S5"],
    ("settings", "optimizer"): [1, "rmsprop", [], {}, {"name": "rmsprop"}, {"rho": 0.9}],
    ("settings", "optimizer", "name"): [*TEXTS, "Optimizer", "adam", "__init__"],
    ("settings", "optimizer", "rho"): [
        None,
        "0.9",
        -0.1,
        1.0,
        math.nan,
        math.inf,
        True,
        [],
        10**400,
    ],
    ("settings", "optimizer", "epsilon"): [
        None,
        "1",
        0,
        -1.0,
        math.nan,
        math.inf,
        True,
        [],
        10**400,
    ],
    ("settings", "updates"): NUMBERS,
    ("settings", "epoch"): NUMBERS,
    ("settings", "schedule"): ["step", [], {}, {"name": "step"}, {"name": "step", "state": [1.0]}],
    ("settings", "interrupted"): [None, 0, 1, "false", [], {}],
    ("settings", "threads"): [0, *(n for n in NUMBERS if n is not None)],
}


def hostile():
    for where, values in HOSTILE.items():
        yield pytest.param(where, ..., id=f"{'-'.join(where)}-missing")
        for i, value in enumerate(values):
            yield pytest.param(where, value, id=f"{'-'.join(where)}-{i}")
    for where in ((), ("settings",), ("settings", "settings"), ("settings", "optimizer")):
        for name in ("extra", "threads", "self", "__class__", "arrays", "losses"):
            if where != ("settings",) or name != "threads":
                yield pytest.param((*where, name), 1, id=f"{'-'.join(where)}-extra-{name}")


@pytest.mark.parametrize(("where", "value"), list(hostile()))
def test_hostile_settings_are_refused(tmp_path, small, where, value):
    about, arrays = parts(small)
    member = about
    for name in where[:-1]:
        member = member[name]
    if value is ...:
        del member[where[-1]]
    else:
        member[where[-1]] = value
    refuses(tmp_path / "m", forged(about, arrays), "holds no model that can be used")


def test_a_dtype_that_numpy_lacks_says_so(tmp_path, small):
    about, arrays = parts(small)
    arrays["losses"][0] = "BF16"
    arrays["losses"][1] = [len(arrays["losses"][2]) // 2]
    refuses(tmp_path / "m", forged(about, arrays), "its arrays cannot be read")


def test_a_newer_file_says_so(tmp_path, small):
    arrays = parts(small)[1]
    newer = {"format": 2, "cdrop": "9.1", "other": []}
    refuses(
        tmp_path / "m", forged(newer, arrays), r"newer cdrop \(9.1\): its format is 2, .* up to 1"
    )


def hostile_arrays(arrays):
    """Yield arrays with one fault each."""
    for name, (dtype, shape, content) in arrays.items():
        other = "F64" if dtype == "F32" else "F32"
        size = 8 if dtype == "F64" else 4
        swaps = [
            [other, [len(content) // (12 - size)], content],
            ["I32" if size == 4 else "I64", shape, content],
            ["BF16", [len(content) // 2], content],
            ["F8_E4M3", [len(content)], content],
            [dtype, [*shape, 1], content],
            [dtype, [len(content) // size + 1], content + bytes(size)],
            [dtype, [0], b""],
            [dtype, [2**62, 2**62], content],
            [dtype, [2**64 - 1, 0], b""],
        ]
        swaps = [s for s in swaps if s != [dtype, shape, content]]  # curves without epochs
        if name == "losses":  # any number of them is right, and they may be none
            swaps = [s for s in swaps if s[1] not in ([0], [len(content) // size + 1])]
        yield from ({**arrays, name: swap} for swap in swaps)
        if name != "background":
            yield {n: a for n, a in arrays.items() if n != name}
        yield {**{n: a for n, a in arrays.items() if n != name}, f"{name} ": arrays[name]}
    yield {**arrays, "extra": ["F32", [1], bytes(4)]}
    yield {**arrays, "empty": ["F32", [0], b""]}
    yield {**arrays, "background": ["F32", [2], struct.pack("<2f", math.nan, 1)]}
    yield {}


def test_hostile_arrays_are_refused(tmp_path, small):
    about, arrays = parts(small)
    count = 0
    for bad in hostile_arrays(arrays):
        refuses(tmp_path / "m", forged(about, bad), "holds no model that can be used")
        count += 1
    assert count > 100


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"null}}",
        b'"}}' + b"x" * 40,
        b'\\"}"}}',
        b"[" * 10**6,
        b'\\"' + b"[" * 10**6,
        b'\\"' + b'{\\"a\\":' * 10**5 + b'"}}',
        b'\\", \\"format\\": ' + b"[" * 10**5 + b'"}}',
        b'\\", \\"format\\": ' + b"9" * 10**5 + b'}"}}',
        b"\xff\xfe" * 50,
        b'\\"}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}',
        b'\\"}"},"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'\\"}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'\\"}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}',
    ],
)
@pytest.mark.parametrize("length", [None, 0, 1, 100, 2**31, 2**63, 2**64 - 1])
def test_hostile_headers_are_refused(tmp_path, header, length):
    text = OPENING + b"0" * 64 + header
    length = len(text) if length is None else length
    refuses(
        tmp_path / "m",
        sign(struct.pack("<Q", length) + text),
        "holds no model that can be used",
    )


@pytest.mark.linux
def test_a_small_file_takes_little_memory_whatever_it_claims(tmp_path, small):
    about, arrays = parts(small)
    for i, units in enumerate(([2**20, 2**12, 2], [2, 2**31, 2], [1] * 10**5, [2**31, 2**31])):
        about["settings"]["settings"].update(units=units, dropout=[0.5] * (len(units) - 2))
        (tmp_path / f"{i}").write_bytes(forged(about, arrays))
    process = run_python(
        "import resource, safetensors.numpy\n"
        "from cdrop import load\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 2**26,) * 2)\n"
        "for i in range(4):\n"
        f"    try: load({str(tmp_path)!r} + f'/{{i}}')\n"
        "    except ValueError as error: print(type(error).__name__)\n"
    )
    assert process.stdout.split() == ["ModelFileError"] * 4, process.stderr


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["relu", "adam", "tanh", "float64", 0.5, 2, 1]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(sorted(HOSTILE)), json_values), min_size=1, max_size=3))
def test_what_an_attacker_writes_is_refused_or_right(tmp_path, small, changes):
    """With the digest right a file may hold another good model, but then it must work and say the same of itself."""
    about, arrays = parts(small)
    for where, value in changes:
        member = about
        for name in where[:-1]:
            member = member.get(name) if isinstance(member, dict) else None
        if isinstance(member, dict):
            member[where[-1]] = value
    path = tmp_path / "m"
    path.write_bytes(forged(about, arrays))
    try:
        net = load(path)
    except ModelFileError:
        return
    net.save(path)
    assert parts(path.read_bytes())[0]["settings"] == about["settings"]
    net.predict(np.eye(2))


WATCHED = """
import pathlib, pickle, sys
from cdrop import load
path, bad = map(pathlib.Path, {paths!r})
model = load(path)  # imports what it needs
events = set()
sys.addaudithook(lambda event, arguments: events.add(event))
load(path)
try:
    load(bad)
except ValueError:
    print(*sorted(events))
events.clear()
pickle.loads(pickle.dumps(model))
print(*sorted(events))
"""


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("kind", ["Network", "DropoutMLPClassifier"])
def test_a_load_opens_the_file_and_runs_and_asks_nothing(kind, tmp_path):
    """No pickle, eval, import, process or socket: Python reports each."""
    model, x, y = trained(), *problem([6, 3])
    if kind != "Network":
        pytest.importorskip("sklearn")
        model = getattr(cdrop, kind)(hidden_layer_sizes=(4,), max_iter=2, random_state=1).fit(x, y)
    path, bad = tmp_path / "m", tmp_path / "bad"
    model.save(path)
    bad.write_bytes(sign(path.read_bytes()[:-1]))
    process = run_python(WATCHED.format(paths=[str(path), str(bad)]))
    assert process.returncode == 0, process.stderr
    loaded, unpickled = process.stdout.splitlines()
    assert set(loaded.split()) <= {"open", "os.scandir", "builtins.id", "object.__getattr__"}
    assert "pickle.find_class" in unpickled


# ---- Killed ------------------------------------------------------------------------------------


@pytest.mark.posix
def test_a_kill_while_saving_loses_nothing(tmp_path):
    draw = random.Random(0)
    for _ in range(5):
        check_killed(tmp_path / "m", kill_while_saving(tmp_path / "m", 0.05 * draw.random()))
        (tmp_path / "m").unlink()


@pytest.mark.posix
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path, net = tmp_path / "m", trained()
    net.save(path)
    process = run_python(
        "import resource\n"
        "from cdrop import Network\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        f"Network([100, 100]).save({str(path)!r})\n"
    )
    assert "OSError" in process.stderr
    assert digest(load(path)) == digest(net)
    assert os.listdir(tmp_path) == ["m"]


def test_loading_takes_three_times_the_arrays_next_to_the_network(tmp_path):
    path = tmp_path / "m"
    Network([300, 700, 700, 32]).save(path)
    load(path)
    tracemalloc.start()  # which sees NumPy's arrays, not the network's own memory
    try:
        load(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_an_error_names_some_of_what_differs(tmp_path):
    path = tmp_path / "m"
    Network([2, 2]).save(path)
    about, arrays = parts(path.read_bytes())
    arrays |= {f"more{i}" + 99 * "x": ["F32", [0], b""] for i in range(1000)}
    path.write_bytes(forged(about, arrays))
    with pytest.raises(ModelFileError, match=r"has other 'more0x+', 'more1.*, \.\.\.$") as caught:
        load(path)
    assert len(str(caught.value)) < 600
