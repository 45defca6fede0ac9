"""Checkpoints of fits: whatever stops a fit, it resumes to the same bytes; no other file is touched."""

import copy
import functools
import os
import random
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import digest, problem, run_python, whole_state
from killed_fits import (
    Best,
    Fit,
    Lost,
    Victims,
    careless_losses,
    check_kept,
    kill_fit,
)
from model_files import forged, parts

import cdrop
from cdrop import Network, load, storage
from cdrop.callbacks import Callback, EpochPrinter, LossPrinter, ProgressBar, Validation
from cdrop.checkpoints import Checkpoint
from cdrop.optimizers import Momentum, Optimizer
from cdrop.schedules import Schedule
from cdrop.storage import ModelFileError

pytest.importorskip("safetensors")
KINDS = ("iterations", "epochs")
STEPS = {"iterations": 50, "epochs": 7 * 12}


class Break(Callback):
    """Ends a fit by an error in step `at`."""

    def __init__(self, at):
        self.at = at

    def on_iteration(self, net, iteration, loss):
        if iteration == self.at:
            raise RuntimeError("broken off")

    def state_dict(self):
        return None


def broken(kind, path, at, every=5, **options):
    """A fit that is broken off in step `at`."""
    fit = Fit(kind, **options)
    with pytest.raises(RuntimeError, match="broken off"):
        fit.run(Break(at), checkpoint=path, checkpoint_every=every)
    return fit


# ---- Resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_stopped_at_any_step_ends_with_the_same_bytes(tmp_path, kind):
    expected = Fit(kind).run()
    assert expected[1].iterations > 40
    for at in range(1, expected[1].iterations, 9):
        path = tmp_path / f"{at}"
        broken(kind, path, at, every=3)
        assert load(path).network.history.iterations == (at - 1) // 3 * 3
        if at % 2:  # and once more, on the way
            broken(kind, path, at + 1, every=1)
            assert load(path).network.history.iterations == at
        assert Fit(kind).run(checkpoint=path) == expected, at
        assert load(path).place.finished
        assert Fit(kind).run(checkpoint=path) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_it_resumes_to_the_same_on_every_path_and_number_of_threads(tmp_path, kind, on_each_path):
    expected = Fit(kind).run()
    broken(kind, tmp_path / "run", 23, threads=2)
    content = (tmp_path / "run").read_bytes()

    def resumed():
        results = []
        for threads in (1, 2, 3):
            (tmp_path / "run").write_bytes(content)
            results.append(Fit(kind, threads).run(checkpoint=tmp_path / "run"))
        return results

    assert all(results == [expected] * 3 for results in on_each_path(resumed).values())


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "squared_error"])
def test_every_kind_of_rows_resumes(tmp_path, loss):
    sparse = pytest.importorskip("scipy.sparse")
    x, y = problem([6, 9, 3], loss)
    for number, given in enumerate((x, x.astype("float64"), sparse.csr_array(x), x.tolist())):
        arguments = {"X": given, "y": y, "sample_weight": np.arange(40) + 1.0, "batch_size": 8}
        nets = [Network([6, 9, 3], dropout=0.5, input_dropout=0.1, loss=loss) for _ in range(3)]
        nets[0].fit(**arguments, epochs=4)
        path = tmp_path / f"{number}"
        with pytest.raises(RuntimeError, match="broken off"):
            nets[1].fit(
                **arguments, epochs=4, checkpoint=path, checkpoint_every=3, callbacks=[Break(11)]
            )
        nets[2].fit(**arguments, epochs=4, checkpoint=path)
        assert digest(nets[2]) == digest(nets[0])
        assert nets[2].history.epoch_loss == nets[0].history.epoch_loss


def test_several_fits_of_one_script_resume_each_from_its_file(tmp_path):
    x, y = problem([6, 9, 3])

    def script(*callbacks, kept=True):
        net = Network([6, 9, 3], dropout=0.5)
        for number, optimizer in enumerate(("adam", "sgd", "sgd")):
            path = {"checkpoint": tmp_path / f"{number}", "checkpoint_every": 4} if kept else {}
            net.fit(x, y, optimizer=optimizer, batch_size=8, epochs=3, callbacks=callbacks, **path)
        return digest(net)

    expected = script(kept=False)
    for at in (3, 20, 40):
        with pytest.raises(RuntimeError, match="broken off"):
            script(Break(at))
    assert script() == expected
    assert script() == expected


def test_the_same_call_on_the_same_network_resumes_after_an_error(tmp_path):
    """In a notebook nothing is made again; what the network has done since the checkpoint is done again."""
    expected = Fit("epochs").run()
    fit = broken("epochs", tmp_path / "run", 3)
    for at in (17, 40):
        with pytest.raises(RuntimeError, match="broken off"):
            fit.run(Break(at), checkpoint=tmp_path / "run", checkpoint_every=7)
    assert fit.run(checkpoint=tmp_path / "run") == expected
    with pytest.warns(UserWarning, match="no step is made"):
        assert fit.run(checkpoint=tmp_path / "run") == expected


def test_the_network_in_the_file_resumes_too(tmp_path):
    x, y = problem([6, 9, 3])
    net, whole = Network([6, 9, 3], dropout=0.5), Network([6, 9, 3], dropout=0.5)
    whole.fit(x, y, iterations=20)
    with pytest.raises(RuntimeError, match="broken off"):
        net.fit(
            x, y, iterations=20, checkpoint=tmp_path / "run", checkpoint_every=6,
            callbacks=[Break(15)],
        )  # fmt: skip
    for more in ({"iterations": 8}, {"iterations": 20, "checkpoint": tmp_path / "run"}):
        found = load(tmp_path / "run").network
        found.fit(x, y, **more)
        assert digest(found) == digest(whole)


def test_callbacks_are_notified_what_is_left(tmp_path):
    class Recorder(Callback):
        def __init__(self):
            self.calls = []

        def on_fit_begin(self, net, total):
            self.calls.append((net.history.iterations, total))

        def on_fit_end(self, net):
            self.calls.append("end")

        def state_dict(self):
            return None

    for kind in KINDS:
        path, listener = tmp_path / kind, Recorder()
        broken(kind, path, 33, every=10)
        Fit(kind).run(listener, checkpoint=path)
        Fit(kind).run(listener, checkpoint=path)
        done = Fit(kind).run()[1].iterations
        assert listener.calls == [(30, STEPS[kind] - 30), "end", (done, 0), "end"]


# ---- Ctrl-C, full disks, numbers that are not finite -------------------------------------------


@pytest.mark.posix
def test_ctrl_c_loses_nothing(tmp_path):
    process = run_python(f"""
import os, signal, warnings
from killed_fits import Fit
from cdrop.callbacks import Callback
signal.signal(signal.SIGINT, signal.default_int_handler)
warnings.filterwarnings("ignore", "Training interrupted")
class Press(Callback):
    def on_iteration(self, net, iteration, loss):
        for _ in range((iteration == 13) + 2 * (iteration == 29)):
            os.kill(os.getpid(), signal.SIGINT)
    def state_dict(self): return None
path, expected = {str(tmp_path / "run")!r}, Fit("epochs").run()
fit = Fit("epochs")
fit.run(Press(), checkpoint=path, checkpoint_every=10)
print(fit.net.history.interrupted, fit.net.history.iterations)
try: Fit("epochs").run(Press(), checkpoint=path, checkpoint_every=10)  # pressed twice
except KeyboardInterrupt: print("raised")
assert Fit("epochs").run(checkpoint=path) == fit.run(checkpoint=path) == expected
""")
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["True", "13", "raised"]


def test_a_full_disk_ends_the_fit_and_leaves_the_checkpoint(tmp_path, monkeypatch):
    expected, fit, path = Fit("iterations").run(), Fit("iterations"), tmp_path / "run"
    synced = []

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 6:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            fit.run(checkpoint=path, checkpoint_every=5)
    assert load(path).network.history.iterations == 10
    assert os.listdir(tmp_path) == ["run"]
    assert fit.run(checkpoint=path) == expected


def test_a_divergence_leaves_the_last_checkpoint(tmp_path):
    x, y = problem([6, 9, 3], "squared_error")
    settings = {"optimizer": "sgd", "learning_rate": 30.0, "iterations": 100}
    for _ in range(2):
        net = Network([6, 9, 3], loss="squared_error")
        with pytest.raises(FloatingPointError, match=r"step (\d+)\b.* layer \d of 2") as caught:
            net.fit(x, y, **settings, checkpoint=tmp_path / "run", checkpoint_every=2)
        found = load(tmp_path / "run").network
        step = int(str(caught.value).split("step ")[1].split()[0])
        assert found.history.iterations == (step - 1) // 2 * 2 > 0
        assert all(np.isfinite(array).all() for array in found.state_dict()["arrays"].values())


# ---- Estimators --------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_estimator_resumes_too(tmp_path, early_stopping, monkeypatch):
    pytest.importorskip("sklearn")
    from cdrop import DropoutMLPClassifier

    x, y = problem([6, 3], rows=90)
    settings = {"early_stopping": early_stopping, "n_iter_no_change": 4, "tol": 1e-2}
    settings |= {"dropout": 0.2, "max_iter": 300, "learning_rate_init": 0.01}
    end_epoch = DropoutMLPClassifier._end_epoch

    def fitted(**kept):
        model = DropoutMLPClassifier((9,), random_state=3, **settings).fit(x, y, **kept)
        model.save(tmp_path / "model")
        return (tmp_path / "model").read_bytes(), model.n_iter_

    whole, epochs = fitted()
    assert 5 < epochs < 300
    for number in (3, epochs):  # the best weights are known, and what has been waited for

        def broken_off(self, epoch, options, number=number):
            if epoch.number == number:
                raise RuntimeError("broken off")
            return end_epoch(self, epoch, options)

        with monkeypatch.context() as patch:
            patch.setattr(DropoutMLPClassifier, "_end_epoch", broken_off)
            with pytest.raises(RuntimeError, match="broken off"):
                fitted(checkpoint=tmp_path / f"{number}", checkpoint_every=1)
        assert load(tmp_path / f"{number}").network.history.epoch_loss != []
        assert fitted(checkpoint=tmp_path / f"{number}") == (whole, epochs)
        assert fitted(checkpoint=tmp_path / f"{number}") == (whole, epochs)
    with pytest.raises(ValueError, match="random_state is None"):
        DropoutMLPClassifier().fit(x, y, checkpoint=tmp_path / "other")


# ---- Other fits --------------------------------------------------------------------------------

OTHERS = {
    "batch_size": 9,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "l2": 0.1,
    "share_l2": True,
    "max_norm": 2.0,
    "shuffle": False,
    "X": problem([6, 3], rows=70, seed=1)[0],
    "y": problem([6, 3], rows=70, seed=1)[1],
    "sample_weight": np.ones(70),
    "rows": np.arange(49),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OTHERS, "length", "validation", "version"])
def test_another_call_is_refused_and_named(tmp_path, kind, name, monkeypatch):
    path = tmp_path / "run"
    broken(kind, path, 12)
    before = path.read_bytes()
    change = {name: OTHERS[name]} if name in OTHERS else {}
    if name == "length":
        name, change = kind, {kind: 60}
    elif name == "validation" and kind == "epochs":
        change = {name: problem([6, 3])}
    elif name == "version":
        name = "cdrop"
        monkeypatch.setattr(cdrop.checkpoints, "__version__", "99.0")
    elif not change:
        return
    fit = Fit(kind, **change)
    fresh = digest(fit.net)
    with pytest.raises(ValueError, match=f"is of a fit with another {name}") as caught:
        fit.run(checkpoint=path)
    assert str(path) in str(caught.value)
    assert (path.read_bytes(), digest(fit.net)) == (before, fresh)


def test_a_ramp_resumes_and_another_one_is_refused(tmp_path):
    rule, path = Momentum(ramp=20), tmp_path / "run"
    expected = Fit("iterations", optimizer=rule).run()
    broken("iterations", path, 12, optimizer=rule)
    for other in (Momentum(), Momentum(ramp=21), Momentum(start=0.6, ramp=20)):
        with pytest.raises(ValueError, match="is of a fit with another optimizer"):
            Fit("iterations", optimizer=other).run(checkpoint=path)
    assert Fit("iterations", optimizer=rule).run(checkpoint=path) == expected


def test_another_network_is_refused(tmp_path):
    path, x, y = tmp_path / "run", *problem([6, 20, 3])
    broken("iterations", path, 12)
    before = path.read_bytes()
    fits = [Fit("iterations") for _ in range(5)]
    fits[0].net = Network([6, 20, 3], dropout=0.5, seed=5)
    fits[1].net = Network([6, 20, 3], dropout=0.4, seed=4)
    fits[2].net.train_step(x, y)
    for fit in fits[3:]:
        with pytest.raises(RuntimeError, match="broken off"):
            fit.run(Break(14), checkpoint=path, checkpoint_every=10**6)  # it resumes at 10
    fits[3].net.train_step(x, y)
    fits[4].net.set_weights(fits[4].net.coefs_, fits[4].net.intercepts_)
    assert path.read_bytes() == before
    named = r" \(seed 4, and here 5\);", r" \(dropout \(0.5,\), and here \(0.4,\)\);", *3 * [";"]
    for number, fit in enumerate(fits):
        state = digest(fit.net)
        message = f"began with network in another state{named[number]}"
        with pytest.raises(ValueError, match=message):
            fit.run(checkpoint=path)
        assert (path.read_bytes(), digest(fit.net)) == (before, state), number


def test_other_callbacks_are_refused_and_printers_are_free(tmp_path):
    path = tmp_path / "run"
    broken("iterations", path, 12)
    before = path.read_bytes()
    for watching in ([], [Best()], [Best(), Validation([[0] * 6], [0], 5)], [Break(1), Heir(1)]):
        fit = Fit("iterations")
        fit.watching = watching
        with pytest.raises(ValueError, match="began with callbacks in another state"):
            fit.net.fit(**fit.arguments, callbacks=watching, checkpoint=path)
        assert path.read_bytes() == before
    broken("epochs", tmp_path / "other", 12)
    fit = Fit("epochs")
    fit.watching[0] = Callback()  # Best has nothing to remember before a fit, but then
    with pytest.raises(ValueError, match="is of a fit with a callback Best"):
        fit.net.fit(**fit.arguments, callbacks=fit.watching, checkpoint=tmp_path / "other")
    shown = [Callback(), LossPrinter(10**6), EpochPrinter(), ProgressBar()]
    assert Fit("iterations").run(*shown, checkpoint=path) == Fit("iterations").run()


class Heir(Callback):
    def __init__(self, value):
        self.value = value


def test_a_callback_may_remember_numbers_strings_arrays_and_what_holds_them(tmp_path):
    value = {
        "a": [1, 2.5, "x", None, True, float("inf"), np.float32(0.1), np.int64(3)],
        "b": {"c": np.arange(6.0).reshape(2, 3), "d": [np.array([True]), np.zeros((0, 2), "i4")]},
    }
    x, y = problem([6, 3])
    for path in ("first", "second"):
        Network([6, 3]).fit(
            x, y, iterations=3, callbacks=[Heir(value), Heir(1)], checkpoint=tmp_path / path
        )
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    heirs = [Heir(value), Heir(1)]
    Network([6, 3]).fit(x, y, iterations=3, callbacks=heirs, checkpoint=tmp_path / "first")
    assert heirs[0].value is not value
    np.testing.assert_equal(heirs[0].value, value)
    assert heirs[0].value["b"]["d"][1].dtype == np.int32
    assert heirs[1].value == 1


@pytest.mark.parametrize(
    "value", [(1, 2), {1: 2}, object(), print, {"__array__": 1}, np.array("s")]
)
def test_what_a_callback_cannot_be_given_back_is_refused_at_once(tmp_path, value):
    net, (x, y) = Network([6, 3]), problem([6, 3])
    for held in (value, [value], {"a": [value]}):
        with pytest.raises(TypeError, match="callbacks: Heir remembers"):
            net.fit(x, y, iterations=3, callbacks=[Heir(held)], checkpoint=tmp_path / "run")
    assert (os.listdir(tmp_path), net.history.iterations) == ([], 0)


def test_a_callback_that_has_no_state_is_refused(tmp_path):
    class Duck:
        on_fit_begin = on_iteration = on_epoch_end = on_fit_end = lambda *_: None

    net, (x, y) = Network([6, 3]), problem([6, 3])
    with pytest.raises(TypeError, match=r"callbacks\[0\] is .*state_dict"):
        net.fit(x, y, iterations=3, callbacks=[Duck()], checkpoint=tmp_path / "run")
    net.fit(x, y, iterations=3, callbacks=[Duck()])


@dataclass(frozen=True)
class Mine(Schedule):
    pass


@dataclass(frozen=True)
class Own(Optimizer):
    pass


def test_classes_of_the_users_own_are_refused_before_a_file_is_written(tmp_path):
    """A file of theirs was written once, and could not be read."""
    x, y = problem([6, 3])
    for name, made in (("learning_rate", Mine(0.1)), ("optimizer", Own())):
        net = Network([6, 3])
        with pytest.raises(TypeError, match=f"{name} is .*expected one of cdrop"):
            net.fit(x, y, epochs=2, checkpoint=tmp_path / "run", **{name: made})
        assert net.history.iterations == 0
    net.fit(x, y, epochs=2, learning_rate=Mine(0.1))
    with pytest.raises(TypeError, match="learning_rate is Mine"):
        net.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


# ---- Wrong arguments and files -----------------------------------------------------------------


def test_wrong_arguments_change_nothing(tmp_path, monkeypatch):
    net, (x, y) = Network([6, 3]), problem([6, 3])
    before = digest(net)
    (tmp_path / "directory").mkdir()
    for settings, error, message in (
        ({"checkpoint": 3}, TypeError, "checkpoint is 3; expected a path"),
        ({"checkpoint_every": 5}, ValueError, "checkpoint_every is 5 without checkpoint"),
        ({"checkpoint": tmp_path / "m", "checkpoint_every": 0}, ValueError, "checkpoint_every is"),
        ({"checkpoint": tmp_path / "m", "checkpoint_every": 1.5}, TypeError, "checkpoint_every is"),
        ({"checkpoint": tmp_path / "a" / "m"}, FileNotFoundError, "there is no directory"),
        ({"checkpoint": tmp_path / "directory"}, IsADirectoryError, "is a directory"),
    ):
        with pytest.raises(error, match=message):
            net.fit(x, y, iterations=2, **settings)
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'cdrop\[io\]'"):
        net.fit(x, y, iterations=2, checkpoint=tmp_path / "m")
    assert (digest(net), os.listdir(tmp_path)) == (before, ["directory"])


def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path):
    path, net, (x, y) = tmp_path / "m", Network([6, 3]), problem([6, 3])
    net.fit(x, y, iterations=5, checkpoint=path)
    whole = path.read_bytes()
    net.save(path)
    saved = path.read_bytes()
    for content, message in (
        (saved, "where a Network is saved"),
        (b"", "checkpoint: .* is empty"),
        (b"notes\n" * 100, "checkpoint: .* is not a cdrop model file"),
        (whole[:-1], "checkpoint: .* is damaged"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "checkpoint: .* is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            Network([6, 3]).fit(x, y, iterations=5, checkpoint=path)
        assert path.read_bytes() == content


def test_hostile_checkpoints_are_refused(tmp_path):
    """With a right digest: what a member must not be."""
    path = tmp_path / "run"
    broken("epochs", path, 12)
    about, arrays = parts(path.read_bytes())
    del about["sha256"]
    assert isinstance(load(path), Checkpoint)
    for where, values in {
        ("place",): [None, [], {}, {"epochs": 1}],
        ("place", "epochs"): [None, -1, 1.5, "1", True, 2**64],
        ("place", "steps"): [None, -1, 1.5, 11, 2**64],
        ("place", "total"): [None, 1, "1", []],
        ("place", "finished"): [None, 0, "no"],
        ("run",): [None, [], {}, 1],
        ("run", "arguments"): [None, [], 1],
        ("callbacks",): [
            None,
            {},
            1,
            [],
            {"Best": {"__array__": "weight.0"}},
            {"Best": {"__array__": []}},
            {"Best": [1]},
        ],
        ("network",): [None, {}, [], 1],
        ("network", "settings"): [None, {}],
    }.items():
        for value in values:
            changed = copy.deepcopy(about)
            member = changed["settings"]
            for name in where[:-1]:
                member = member[name]
            member[where[-1]] = value
            path.write_bytes(forged(changed, arrays))
            with pytest.raises(ModelFileError, match="holds no model"):
                load(path)
    for bad in ({**arrays, "extra": ["F32", [1], bytes(4)]}, {}):
        path.write_bytes(forged(about, bad))
        with pytest.raises(ModelFileError, match="holds no model"):
            load(path)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"epochs": 12}, {"epochs": 2**53}),
        ({"epochs": 12}, {"epochs": 12, "steps": 1}),
        ({"epochs": 12}, {"epochs": 0, "steps": 8}),
        ({"iterations": 50}, {"epochs": 1}),
        ({"iterations": 9}, {"steps": 10}),
    ],
)
def test_a_place_that_the_fit_does_not_reach_is_refused(tmp_path, options, place):
    path, kind = tmp_path / "run", next(iter(options))
    broken(kind, path, 12)
    about, arrays = parts(path.read_bytes())
    del about["sha256"]
    about["settings"]["place"] |= place
    about["settings"]["run"]["arguments"] |= options
    path.write_bytes(forged(about, arrays))
    fit = Fit(kind, **options)
    before = whole_state(fit.net)
    with pytest.raises(ValueError, match="whose place is .* expected one within the"):
        fit.run(checkpoint=path)
    assert whole_state(fit.net) == before


# ---- Kills -------------------------------------------------------------------------------------


@pytest.mark.posix
def test_kills_lose_nothing_and_a_careless_writer_is_caught(tmp_path):
    kills, draw = 0, random.Random(0)
    expected = {kind: Fit(kind).run() for kind in KINDS}
    with Victims() as victims:
        while kills < 20:
            kind = draw.choice(KINDS)
            kills += kill_fit(victims, tmp_path, draw, kind, expected[kind])[0]
        kill = functools.partial(kill_fit, kind="epochs")
        assert careless_losses(victims, tmp_path, kill, expected["epochs"], 5) > 0


def test_what_is_lost_is_reported(tmp_path):
    """The check behind the trials, without kills: a file that is cut, behind, or continued from elsewhere."""
    path = tmp_path / "run"
    with pytest.raises(Lost, match="there is no checkpoint"):
        check_kept(path, 5)
    broken("iterations", path, 12)
    check_kept(path, 10)
    with pytest.raises(Lost, match="of step 10, behind 15"):
        check_kept(path, 15)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Lost, match="damaged"):
        check_kept(path, 0)
    with pytest.raises(storage.ModelFileError):
        Fit("iterations").run(checkpoint=path)


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    class Moves(Callback):
        def on_fit_begin(self, net, total):
            os.chdir(tmp_path / "elsewhere")

        def state_dict(self):
            return None

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    x, y = problem([6, 3])
    Network([6, 3]).fit(x, y, iterations=3, callbacks=[Moves()], checkpoint="run")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert load(tmp_path / "run").place.finished


def test_a_state_that_a_callback_refuses_changes_nothing(tmp_path):
    class Refuses(Callback):
        def __init__(self):
            self.refuses = self.ended = False

        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            if self.refuses:
                raise ValueError("not this one")

        def on_fit_end(self, net):
            self.ended = True

    path, last = tmp_path / "run", Refuses()
    with pytest.raises(RuntimeError, match="broken off"):
        Fit("epochs").run(last, Break(12), checkpoint=path, checkpoint_every=5)
    fit = Fit("epochs")
    before, history = whole_state(fit.net), fit.net.history
    at_first = [{"best": np.inf, "waited": 0, "weights": []}]  # as its on_fit_begin leaves it
    at_first += [{"every": 4, "iterations": [], "scores": []}, None]
    last.refuses, last.ended = True, False
    with pytest.raises(ValueError, match="not this one"):
        fit.run(last, checkpoint=path)
    assert last.ended
    assert whole_state(fit.net) == before
    assert fit.net.history is history
    assert [callback.state_dict() for callback in fit.watching] == at_first
    last.refuses = False
    assert fit.run(last, checkpoint=path) == Fit("epochs").run()


def test_a_state_that_is_nested_too_deep_is_refused_before_the_first_step(tmp_path):
    class Deep(Callback):
        def __init__(self, depth):
            self.state = []
            for _ in range(depth):
                self.state = [self.state]

    x, y = problem([6, 3])
    net = Network([6, 3])
    with pytest.raises(TypeError, match="Deep remembers lists or dicts in more than 80 others"):
        net.fit(x, y, iterations=3, callbacks=[Deep(300)], checkpoint=tmp_path / "run")
    assert net.history.iterations == 0
    net.fit(x, y, iterations=3, callbacks=[Deep(79)], checkpoint=tmp_path / "run")
    assert load(tmp_path / "run").place.finished


def test_a_callbacks_state_must_be_a_dict(tmp_path):
    class Lists(Callback):
        def state_dict(self):
            return [1]

    x, y = problem([6, 3])
    net = Network([6, 3])
    with pytest.raises(
        TypeError, match=r"callbacks: the state_dict of Lists returns \[1\]; expected a dict"
    ):
        net.fit(x, y, iterations=3, callbacks=[Lists()], checkpoint=tmp_path / "run")
    assert net.history.iterations == 0
    net.fit(x, y, iterations=3, callbacks=[Lists()])


def test_a_state_that_cannot_be_kept_any_more_is_no_mistake_of_an_argument(tmp_path):
    class Changes(Callback):
        def on_iteration(self, net, iteration, loss):
            self.last = (iteration, loss)

    x, y = problem([6, 3])
    net = Network([6, 3])
    with pytest.raises(RuntimeError, match="no checkpoint at step 2: callbacks: Changes remembers"):
        net.fit(
            x,
            y,
            iterations=3,
            callbacks=[Changes()],
            checkpoint=tmp_path / "run",
            checkpoint_every=2,
        )


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"every": 0, "iterations": [], "scores": []},
        {"every": 2, "iterations": "ab", "scores": []},
        {"every": 2, "iterations": [2], "scores": ["a"]},
        {"every": 2, "iterations": [2.0], "scores": [0.5]},
    ],
    ids=str,
)
def test_a_validation_refuses_what_it_cannot_have_remembered(state):
    validation = Validation([[0.0]], [0], every=3)
    with pytest.raises((TypeError, ValueError), match="every|Validation remembers"):
        validation.load_state_dict(state)
    assert validation.state_dict() == {"every": 3, "iterations": [], "scores": []}


def test_a_fit_that_was_finished_before_says_that_it_makes_no_step(tmp_path, recwarn):
    """A loop with one path trained in its first pass alone, without a word."""
    path, x, y = tmp_path / "run", np.eye(4), np.arange(4)
    net = Network([4, 8, 4])
    net.fit(x, y, epochs=1, checkpoint=path)
    Network([4, 8, 4]).fit(x, y, epochs=1, checkpoint=path)  # a program that was started again
    assert not recwarn.list
    with pytest.warns(UserWarning, match="no step is made; expected another path") as seen:
        net.fit(x, y, epochs=1, checkpoint=path)
    assert seen[0].filename == __file__
    assert net.history.iterations == 1
