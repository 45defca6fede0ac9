"""Callbacks: what they are called with, what they record, and that they change nothing."""

import io
import sys

import numpy as np
import pytest
from comparisons import small_dataset

from cdrop import Network
from cdrop.callbacks import Callback, EpochPrinter, LossPrinter, ProgressBar, Validation
from cdrop.schedules import Epoch


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self):
        return True


class Recorder(Callback):
    """Keeps what it is called with; asks to stop at iteration `stop`."""

    def __init__(self, stop=None):
        self.stop = stop
        self.events = []

    def on_fit_begin(self, net, total):
        self.events.append(("begin", total))

    def on_iteration(self, net, iteration, loss):
        self.events.append((iteration, loss))
        return iteration == self.stop

    def on_fit_end(self, net):
        self.events.append("end")


@pytest.fixture(scope="module")
def features():
    return small_dataset().to_features("float32")


def train(features, *callbacks, iterations=10):
    net = Network([784, 8, 10], dropout=0.5, seed=3)
    history = net.fit(
        features.X_train,
        features.y_train,
        batch_size=32,
        iterations=iterations,
        callbacks=callbacks,
    )
    return net, history


def test_fit_notifies_of_every_iteration_in_order(features):
    recorder = Recorder()
    _, history = train(features, recorder)
    expected = [("begin", 10), *enumerate(history.loss, start=1), "end"]
    assert recorder.events == expected


def test_true_ends_the_fit_after_the_iteration(features):
    recorder = Recorder(stop=4)
    _, history = train(features, recorder)
    assert len(history.loss) == 4
    assert recorder.events[-1] == "end"
    assert not history.interrupted


def test_a_plain_callback_does_nothing(features):
    _, history = train(features, Callback())
    assert len(history.loss) == 10


def test_callbacks_do_not_change_the_training(features):
    watchers = [
        Validation(features.X_val, features.y_val, every=3),
        LossPrinter(file=io.StringIO()),
    ]
    plain, watched = train(features)[0], train(features, *watchers)[0]
    for ours, theirs in zip(plain.coefs_, watched.coefs_, strict=True):
        assert np.array_equal(ours, theirs)


def test_loss_printer_prints_as_the_article_does(features):
    out = io.StringIO()
    _, history = train(features, LossPrinter(every=4, file=out))
    assert out.getvalue().splitlines() == [
        f"Iter-4 loss: {history.loss[3]:.4f}",
        f"Iter-8 loss: {history.loss[7]:.4f}",
    ]


def test_loss_printer_finds_standard_output_when_it_prints(capsys):
    printer = LossPrinter(every=1)
    printer.on_iteration(None, 1, 0.5)
    assert capsys.readouterr().out == "Iter-1 loss: 0.5000\n"


def test_validation_records_scores(features):
    validation = Validation(features.X_val, features.y_val, every=5)
    net, _ = train(features, validation)
    assert validation.iterations == [5, 10]
    assert validation.scores[-1] == net.score(features.X_val, features.y_val)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "3", None])
def test_every_must_be_a_positive_integer(bad):
    with pytest.raises((TypeError, ValueError), match="every is .*; expected an integer between 1"):
        LossPrinter(every=bad)
    with pytest.raises((TypeError, ValueError), match="every is .*; expected an integer between 1"):
        Validation([[0.0]], [0], every=bad)


def test_every_may_be_numpys_integer():
    assert LossPrinter(every=np.int64(5)).every == 5


def test_bar_is_silent_where_there_is_no_terminal(features):
    out = io.StringIO()
    train(features, ProgressBar(file=out))
    assert out.getvalue() == ""


def test_bar_is_silent_without_tqdm(features, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    out = Terminal()
    bar = ProgressBar(file=out)
    assert not bar.visible
    train(features, bar)
    assert out.getvalue() == ""


def test_bar_counts_to_the_end_of_each_fit(features):
    pytest.importorskip("tqdm")
    out = Terminal()
    bar = ProgressBar(file=out)
    train(features, bar)
    train(features, bar, iterations=7)
    assert "/10" in out.getvalue()
    assert "/7" in out.getvalue()


def test_bar_shows_loss_and_score_of_the_last_epoch():
    pytest.importorskip("tqdm")
    bar = ProgressBar(file=Terminal())
    bar.on_fit_begin(None, 10)
    bar.on_epoch_end(None, Epoch(3, 100, 0.25, 1e-3))
    assert bar._bar.postfix == "epoch=3, loss=0.25"
    bar.on_epoch_end(None, Epoch(4, 100, 0.125, 1e-3, 0.5, 0.75))
    assert bar._bar.postfix == "epoch=4, loss=0.125, score=0.7500"
    bar.close()


def test_epoch_printer_prints_as_scikit_learn_does(capsys):
    out = io.StringIO()
    for printer in (EpochPrinter(), EpochPrinter(file=out)):
        printer.on_epoch_end(None, Epoch(3, 100, 0.25, 1e-3))
        printer.on_epoch_end(None, Epoch(4, 100, 0.125, 1e-3, 0.5, 0.75))
    assert out.getvalue() == (
        "Iteration 3, loss = 0.25000000\n"
        "Iteration 4, loss = 0.12500000\nValidation score: 0.750000\n"
    )
    assert capsys.readouterr().out == out.getvalue()


def test_one_bar_over_several_fits(features):
    pytest.importorskip("tqdm")
    out = Terminal()
    bar = ProgressBar(file=out, total=20)
    train(features, bar)
    assert bar._bar.n == 10
    train(features, bar)
    assert bar._bar.n == 20
    bar.close()
    bar.close()
    assert "/20" in out.getvalue()
    assert "/10" not in out.getvalue()


@pytest.mark.parametrize("closed", [False, True])
def test_without_a_console_a_fit_prints_nothing(closed, monkeypatch):
    stream = io.StringIO()
    stream.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream if closed else None)
    net, (X, y) = Network([4, 3, 2]), (np.eye(4), [0, 1, 0, 1])
    shown = [LossPrinter(1), EpochPrinter(), ProgressBar()]
    net.fit(X, y, epochs=2, batch_size=2, callbacks=shown)
    assert net.history.iterations == 4
    assert not ProgressBar().visible


# ---- Answers, errors, signatures ---------------------------------------------------------------


@pytest.mark.parametrize("moment", ["on_iteration", "on_epoch_end"])
@pytest.mark.parametrize(
    ("answer", "stops"),
    [
        (True, True),
        (np.bool_(True), True),
        (False, False),
        (np.bool_(False), False),
        *[(answer, False) for answer in (None, 1, 0.5, "no", [0], ..., np.ones(3))],
    ],
    ids=str,
)
def test_only_true_stops_a_fit(features, moment, answer, stops):
    callback = Callback()
    setattr(callback, moment, lambda *arguments: answer)
    net = Network([784, 8, 10])
    net.fit(features.X_train, features.y_train, epochs=2, callbacks=[callback])
    steps = {"on_iteration": 1, "on_epoch_end": -(-len(features.X_train) // 256)}[moment]
    assert (net.history.iterations == steps) == stops
    assert (len(net.history.epoch_loss) == 2) == (not stops)


class Fails(Recorder):
    """Raises at one moment."""

    def __init__(self, moment, error):
        super().__init__()
        setattr(self, moment, self.fail)
        self.error = error

    def fail(self, *arguments):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("moment", ["on_fit_begin", "on_iteration", "on_fit_end"])
def test_each_begun_callback_is_notified_of_the_end(features, moment, error):
    before, after = Recorder(), Recorder()
    with pytest.raises(type(error)) as caught:
        train(features, before, Fails(moment, error), after)
    assert caught.value is error
    assert before.events[-1] == "end"
    assert after.events[-1:] == ([] if moment == "on_fit_begin" else ["end"])


def test_the_fits_own_error_is_raised_with_those_of_the_end_as_notes(features):
    own, late = RuntimeError("own"), ValueError("late")
    last = Recorder()
    callbacks = [Fails("on_fit_end", late), Fails("on_iteration", own), last]
    with pytest.raises(RuntimeError) as caught:
        train(features, *callbacks)
    assert caught.value is own
    assert [
        note.endswith("failed in on_fit_end: ValueError('late')") for note in own.__notes__
    ] == [True]
    assert last.events[-1] == "end"


def test_ctrl_c_at_the_end_is_not_hidden_by_an_error(features):
    callbacks = [
        Fails("on_fit_end", KeyboardInterrupt()),
        Fails("on_iteration", RuntimeError("own")),
    ]
    with pytest.raises(KeyboardInterrupt):
        train(features, *callbacks)


@pytest.mark.parametrize("moment", ["on_fit_begin", "on_iteration", "on_epoch_end", "on_fit_end"])
def test_a_callback_that_does_not_take_the_arguments_is_refused_at_once(features, moment):
    callback = Callback()
    setattr(callback, moment, lambda: None)
    net = Network([784, 8, 10])
    with pytest.raises(TypeError, match=rf"callbacks\[0\]\.{moment} takes \(\); expected \(net"):
        net.fit(features.X_train, features.y_train, epochs=1, callbacks=[callback])
    assert net.history.iterations == 0


def test_callbacks_may_take_any_arguments(features):
    callback, called = Callback(), []
    for moment in ("on_fit_begin", "on_iteration", "on_epoch_end", "on_fit_end"):
        setattr(callback, moment, lambda *arguments, moment=moment: called.append(moment))
    train(features, callback, iterations=1)
    assert called == ["on_fit_begin", "on_iteration", "on_fit_end"]


@pytest.mark.parametrize("given", [True, False], ids=["as file", "as sys.stderr"])
def test_a_stream_may_have_nothing_but_write(given, monkeypatch):
    """As the objects that pass lines on to a log, which programs put in place of the standard streams."""

    class Log:
        text = ""

        def write(self, text):
            self.text += text

    log = Log()
    if not given:
        monkeypatch.setattr("sys.stderr", log)
        monkeypatch.setattr("sys.stdout", log)
    file = log if given else None
    callbacks = [ProgressBar(file), LossPrinter(1, file), EpochPrinter(file)]
    Network([4, 8, 4]).fit(np.eye(4), np.arange(4), epochs=2, callbacks=callbacks)
    assert log.text.startswith("Iter-1 loss: ")
    assert log.text.count("\n") == 4
