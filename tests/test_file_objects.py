"""Saving to and loading from file objects, paths that name no file, and networks without their estimator."""

import io
import os
import pickle
import re
import tempfile
import zipfile

import numpy as np
import pytest
from conftest import digest, problem, run_python
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification

import cdrop
from cdrop import DropoutMLPClassifier, DropoutMLPRegressor, Network, storage

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def net():
    net = Network([4, 8, 3], dropout=0.5, seed=2)
    net.fit(*problem([4, 3]), iterations=3)
    return net


@pytest.fixture(scope="module")
def content(net):
    stream = io.BytesIO()
    net.save(stream)
    return stream.getvalue()


class Slow(io.RawIOBase):
    """A pipe of three bytes at a time; it cannot seek."""

    def __init__(self, content=b""):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, room):
        piece = self.content.read(min(3, len(room)))
        room[: len(piece)] = piece
        return len(piece)

    def write(self, piece):
        return self.content.write(bytes(piece[:100]))


def same(one, other):
    return digest(one) == digest(other)


def test_a_file_object_gets_the_bytes_of_a_file(net, content, tmp_path):
    net.save(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == content
    with open(tmp_path / "net", "rb") as stream:
        assert same(cdrop.load(stream), net)
        assert not stream.closed
    assert same(cdrop.load(io.BytesIO(content)), net)


def test_streams_that_cannot_seek_are_written_and_read(net, content):
    slow = Slow()
    net.save(slow)
    assert slow.content.getvalue() == content
    assert same(cdrop.load(Slow(content)), net)


def test_a_stream_is_read_from_where_it_stands(net, content, tmp_path):
    stream = io.BytesIO(b"before" + content)
    stream.seek(6)
    assert same(cdrop.load(stream), net)
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive, archive.open("net", "w") as file:
        net.save(file)
    with zipfile.ZipFile(tmp_path / "models.zip") as archive, archive.open("net") as file:
        assert same(cdrop.load(file), net)
    with tempfile.TemporaryFile() as file:
        net.save(file)
        file.seek(0)
        assert same(cdrop.load(file), net)


def test_streams_are_checked_as_files_are(content):
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    for bad, says in (
        (b"", "is empty"),
        (content[:50], "unrecognized header"),
        (b"x" * 500, "unrecognized header"),
        (content[:-1], "is damaged"),
        (content + b"x", "is damaged"),
        (bytes(changed), "is damaged"),
    ):
        with pytest.raises(storage.ModelFileError, match=says):
            cdrop.load(io.BytesIO(bad))


class Endless(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, room):
        room[:] = bytes(len(room))
        return len(room)


def test_a_stream_without_end_is_refused_at_its_beginning():
    with pytest.raises(storage.ModelFileError, match="unrecognized header"):
        cdrop.load(Endless())


def test_text_mode_and_closed_files_are_refused(net, tmp_path):
    path = tmp_path / "net"
    net.save(path)
    before = path.read_bytes()
    for mode in ("r", "r+"):
        with open(path, mode, encoding="latin-1") as stream:
            with pytest.raises(
                TypeError, match=r"^path is .* in text mode; expected a binary file"
            ):
                net.save(stream)
            with pytest.raises(TypeError, match=r"text mode; expected .*open\(\.\.\., 'rb'\)"):
                cdrop.load(stream)
    with pytest.raises(TypeError, match="text mode"):
        net.save(io.StringIO())
    with tempfile.NamedTemporaryFile("w+") as stream, pytest.raises(TypeError, match="text mode"):
        net.save(stream)
    with open(path, "rb") as stream, pytest.raises(ValueError, match="^path is .* that is open"):
        net.save(stream)
    with (
        open(tmp_path / "new", "wb") as stream,
        pytest.raises(ValueError, match="^path is .* open"),
    ):
        cdrop.load(stream)
    closed = io.BytesIO()
    closed.close()
    for call in (net.save, cdrop.load):
        with pytest.raises(ValueError, match="^path is .*closed file"):
            call(closed)
    assert path.read_bytes() == before


def test_paths_that_name_no_file_are_refused(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("", b"", "a\0b"):
        for call in (net.save, cdrop.load):
            with pytest.raises(ValueError, match=r"^path is .*; expected the name of a file"):
                call(path)
    for path in (5, None, True, 1.5, [], {}, object()):
        for call in (net.save, cdrop.load):
            with pytest.raises(
                TypeError, match=f"^path is {re.escape(repr(path))}; expected a str"
            ):
                call(path)
    os.mkdir("there")
    for path in ("there", "there/", "new/", ".", tmp_path):
        with pytest.raises(IsADirectoryError, match=r"^path is .*, a directory; expected a file,"):
            net.save(path)
    for path in ("there", "there/"):
        with pytest.raises(storage.ModelFileError, match="^path is .* is not a file; expected a m"):
            cdrop.load(path)
    assert os.listdir() == ["there"]


# ---- Without the estimator ---------------------------------------------------------------------------------------


def fitted(task):
    x, y = load_iris(return_X_y=True)
    settings = {"hidden_layer_sizes": 6, "dropout": 0.2, "max_iter": 3, "random_state": 0}
    if task == "several":
        x, y = make_multilabel_classification(60, n_classes=3, random_state=0)
    elif task == "text":
        y = np.array(["one", "two", "three"])[y]
    elif task == "two":
        y = np.array(["no", "yes"])[(y > 1).astype(int)]
    if task in ("number", "numbers", "poisson", "quantiles"):
        x, y = load_diabetes(return_X_y=True)
        y = np.stack([y, -y], axis=1) if task == "numbers" else y
        if task == "poisson":
            settings["loss"] = "poisson"
        elif task == "quantiles":
            settings |= {"loss": "quantile", "quantile": [0.1, 0.9]}
        return DropoutMLPRegressor(**settings).fit(x, y), x
    return DropoutMLPClassifier(**settings).fit(x, y), x


TASKS = ["three", "two", "text", "several", "number", "numbers", "poisson", "quantiles"]


@pytest.mark.parametrize("task", TASKS)
def test_a_network_alone_predicts_what_its_estimator_does(task, tmp_path):
    model, x = fitted(task)
    model.save(tmp_path / "model")
    net = cdrop.load(tmp_path / "model", as_network=True)
    assert type(net) is Network
    predicted = net.predict(x)
    if task in ("three", "two", "text"):
        assert np.array_equal(net.classes_, model.classes_)
        predicted = net.classes_[predicted]
    else:
        assert net.classes_ is None
    assert np.array_equal(predicted, model.predict(x))
    if task == "two":
        assert np.array_equal(net.predict_proba(x), model.predict_proba(x)[:, 1])
    elif isinstance(model, DropoutMLPClassifier):
        assert np.array_equal(net.predict_proba(x), model.predict_proba(x))
    net.save(tmp_path / "net")
    for again in (cdrop.load(tmp_path / "net"), pickle.loads(pickle.dumps(net))):
        assert same(again, net)
        assert np.array_equal(again.predict(x), net.predict(x))
        assert (again.classes_ is None) == (net.classes_ is None)
        assert net.classes_ is None or np.array_equal(again.classes_, net.classes_)


@pytest.mark.linux
def test_a_network_alone_needs_no_scikit_learn_and_little_memory(tmp_path):
    model, _ = fitted("text")
    path = str(tmp_path / "model")
    model.save(path)
    said = run_python(
        "import sys; sys.modules['sklearn'] = None; import cdrop;"
        f"net = cdrop.load({path!r}, as_network=True);"
        "print(net.classes_[net.predict([[5.0, 3.5, 1.4, 0.2]])][0]);"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
    ).stdout.split()
    assert said[0] in ("one", "two", "three")
    assert int(said[1]) < 45_000


def test_estimators_without_such_a_network_are_refused(tmp_path):
    DropoutMLPClassifier().save(tmp_path / "model")
    with pytest.raises(storage.ModelFileError, match="not fitted; expected a fitted one"):
        cdrop.load(tmp_path / "model", as_network=True)
    DropoutMLPClassifier(4, max_iter=1).fit([[1.0], [2.0]], ["a", "a"]).save(tmp_path / "model")
    with pytest.raises(storage.ModelFileError, match="one class 'a', which it predicts always"):
        cdrop.load(tmp_path / "model", as_network=True)


def test_networks_and_checkpoints_are_loaded_as_networks(net, tmp_path):
    net.save(tmp_path / "net")
    assert same(cdrop.load(tmp_path / "net", as_network=True), net)
    other = Network([4, 3])
    other.fit(*problem([4, 3]), iterations=2, checkpoint=tmp_path / "run")
    assert same(cdrop.load(tmp_path / "run", as_network=True), other)


def test_a_model_of_the_expected_class_is_returned_and_another_refused(net, tmp_path):
    net.save(tmp_path / "net")
    assert same(cdrop.load(tmp_path / "net", Network), net)
    with pytest.raises(
        storage.ModelFileError, match="net holds a Network; expected a DropoutMLPClassifier"
    ):
        cdrop.load(tmp_path / "net", DropoutMLPClassifier)
    with pytest.raises(ValueError, match="expected one of them"):
        cdrop.load(tmp_path / "net", Network, as_network=True)


# ---- Other rates of dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [{"dropout": 0.1}, {"input_dropout": 0.3}, {}], ids=str)
def test_a_state_continues_with_other_rates(net, rates):
    x, y = problem([4, 3])
    other = Network([4, 8, 3], **rates, seed=2)
    other.load_state_dict(net.state_dict())
    assert (other.dropout, other.input_dropout) == (
        (rates.get("dropout", 0.0),),
        rates.get("input_dropout", 0.0),
    )
    state, was = other.state_dict(), net.state_dict()
    for name, array in was["arrays"].items():
        assert np.array_equal(state["arrays"][name], array)
    assert state["optimizer"] == was["optimizer"]
    assert state["updates"] == was["updates"] == 3
    assert other.fit(x, y, iterations=1).iterations == 4


def test_a_state_of_other_shapes_or_with_bad_rates_is_refused(net):
    state = net.state_dict()
    for bad in ({"units": [4, 9, 3]}, {"seed": 3}, {"dropout": [1.0]}, {"dropout": None}):
        with pytest.raises((TypeError, ValueError), match="the state's"):
            net.load_state_dict({**state, "settings": {**state["settings"], **bad}})
    with pytest.raises(ValueError, match=r"the state's units is \[4, 8, 3\]; expected \[4, 9, 3\]"):
        Network([4, 9, 3], seed=2).load_state_dict(state)
    assert same(net, net)
