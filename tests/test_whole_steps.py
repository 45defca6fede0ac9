"""Whole steps: what signal handlers, finalizers, other threads and exceptions from outside find and leave behind."""

import copy
import ctypes
import gc
import os
import pickle
import random
import signal
import threading
import warnings

import numpy as np
import pytest
from conftest import FREE_THREADED, digest, problem, run_python
from shared_network import in_threads

from cdrop import Network, storage
from cdrop.callbacks import Callback
from cdrop.schedules import Step

UNITS = [6, 9, 3]
DATA = problem(UNITS)
FIT = {"batch_size": 8, "optimizer": "adam"}
READS = {
    "save": lambda net: storage._packed("Network", *net._to_parts()),
    "pickle": pickle.dumps,
    "deepcopy": lambda net: digest(copy.deepcopy(net)),
    "state_dict": lambda net: net.state_dict()["updates"],
    "coefs_": lambda net: net.coefs_,
    "predict": lambda net: net.predict(DATA[0]),
    "evaluate": lambda net: net.evaluate(*DATA),
}
CHANGES = {
    "fit": lambda net: net.fit(*DATA, iterations=1),
    "train_step": lambda net: net.train_step(*DATA),
    "set_weights": lambda net: net.set_weights(net.coefs_, net.intercepts_),
    "load_state_dict": lambda net: net.load_state_dict(net.state_dict()),
}


def network(**settings):
    return Network(UNITS, dropout=0.5, seed=4, **settings)


def states_of(net, **fit):
    """Train a copy, and return the digests of all states that the fit passes through."""
    seen = [digest(net)]

    class Sees(Callback):
        def on_iteration(self, net, iteration, loss):
            seen.append(digest(net))

    copy.deepcopy(net).fit(*DATA, **fit, callbacks=[Sees()])
    return seen


def check_whole(net, seen):
    """Check that a network is at a step that was made, is saved and loaded, and trains."""
    assert digest(net) in seen
    assert len(net.history.epoch_loss) == len(net.history.validation_score)
    again = copy.deepcopy(net)
    assert digest(again) == digest(net)
    for n in (net, again):
        n.fit(*DATA, **FIT, epochs=1)
    assert digest(again) == digest(net)


class Calls(Callback):
    """Does something at every moment of a fit."""

    def __init__(self, does):
        self.does = does

    def on_fit_begin(self, net, total):
        self.does(net)

    def on_iteration(self, net, iteration, loss):
        self.does(net)

    def on_epoch_end(self, net, epoch):
        self.does(net)

    def on_fit_end(self, net):
        self.does(net)


# ---- Calls within a fit ------------------------------------------------------------------------

HANDLER = """
import os, random, signal, threading
from test_whole_steps import CHANGES, DATA, FIT, READS, check_whole, digest, network
from cdrop.callbacks import Callback
from cdrop.schedules import Step

net, quiet = network(), network()
fit = dict(FIT, epochs=1000, learning_rate=Step(0.01, every=150), validation=DATA)
calls, said = 0, set()
within = False  # before the fit and after it a handler may change the network
class Moments(Callback):
    def on_fit_begin(self, net, total):
        global within
        within = True
        signal.setitimer(signal.ITIMER_REAL, 0.003)
    def on_fit_end(self, net):
        global within
        within = False
def handle(*_):
    global calls
    if not within:
        return
    calls += 1
    for name, call in HANDLED.items():
        try:
            call(net)
        except RuntimeError as error:
            said.add((name, str(error)[:23]))
    if calls < 100:  # on a busy machine the fit makes hardly a step between two
        signal.setitimer(signal.ITIMER_REAL, 0.003)
for call in READS.values():
    call(quiet)  # imports, which a handler within a handler would find begun
signal.signal(signal.SIGALRM, handle)
net.fit(*DATA, **fit, callbacks=[Moments()])
signal.signal(signal.SIGALRM, signal.SIG_IGN)
quiet.fit(*DATA, **fit)
assert digest(net) == digest(quiet)
assert calls > 5, calls
print(sorted(said))
"""


def test_a_signal_handler_saves_and_copies_the_network_that_its_thread_trains():
    process = run_python(HANDLER.replace("HANDLED", "READS"))
    assert (process.stdout, process.returncode) == ("[]\n", 0), process.stderr


def test_a_signal_handler_that_would_change_it_gets_an_error():
    process = run_python(HANDLER.replace("HANDLED", "CHANGES"))
    assert process.returncode == 0, process.stderr
    assert eval(process.stdout) == [(name, "the network is in a fit") for name in sorted(CHANGES)]


@pytest.mark.skipif(FREE_THREADED, reason="whose collector waits, whatever the threshold")
@pytest.mark.parametrize("name", READS)
def test_a_finalizer_reads_the_network_that_its_thread_trains(name):
    net, quiet, calls = network(), network(), []

    class Loop:
        def __init__(self):
            self.me = self

        def __del__(self):
            READS[name](net)
            calls.append(name)

    class Litters(Callback):
        def on_iteration(self, net, iteration, loss):
            Loop()

    before = gc.get_threshold()
    gc.set_threshold(3)
    try:
        net.fit(*DATA, **FIT, iterations=200, callbacks=[Litters()])
    finally:
        gc.set_threshold(*before)
    quiet.fit(*DATA, **FIT, iterations=200)
    assert len(calls) > 100
    assert digest(net) == digest(quiet)


@pytest.mark.parametrize("name", CHANGES)
def test_only_the_fit_changes_its_network(name):
    net, quiet = network(), network()
    refused = 0

    def change(net):
        nonlocal refused
        with pytest.raises(RuntimeError, match=r"^the network is in a fit, .* expected .* copy"):
            CHANGES[name](net)
        refused += 1

    fit = {**FIT, "epochs": 2, "learning_rate": Step(0.01, every=1)}
    net.fit(*DATA, **fit, callbacks=[Calls(change)])
    assert refused == 1 + 2 * (5 + 1) + 1
    quiet.fit(*DATA, **fit)
    assert digest(net) == digest(quiet)
    CHANGES[name](net)


@pytest.mark.parametrize("rules", [("adam", "rmsprop"), ("adam", "adam")], ids=str)
def test_of_two_fits_in_two_threads_one_is_refused(rules):
    net, alone, begun = network(), network(), threading.Event()

    def first():
        waits = Calls(lambda net: begun.set() or gate.wait(0.01))
        net.fit(*DATA, optimizer=rules[0], iterations=20, callbacks=[waits])

    def second():
        begun.wait()
        with pytest.raises(RuntimeError, match="the network is in a fit"):
            net.fit(*DATA, optimizer=rules[1], iterations=20)

    gate = threading.Event()
    in_threads([first, second])
    alone.fit(*DATA, optimizer=rules[0], iterations=20)
    assert digest(net) == digest(alone)


def test_steps_with_other_rules_in_two_threads_keep_their_states_apart():
    """Each change of the rule begins with a fresh state, as in one thread."""
    net = network()

    def steps(rule):
        return lambda: [
            net.train_step(*DATA, optimizer=rule, learning_rate=1e-4) for _ in range(200)
        ]

    in_threads([steps("adam"), steps("rmsprop"), steps("sgd")])
    assert net.history.iterations == 600
    state = net.state_dict()
    assert all(np.isfinite(array).all() for array in state["arrays"].values())
    assert state["updates"] <= 600
    assert (state["arrays"]["state2.weight.0"] >= 0).all()


@pytest.mark.posix
def test_a_child_may_train_though_the_fork_fell_into_a_fit():
    net = network()
    read, write = os.pipe()

    def fork(net):
        if not hasattr(fork, "done"):
            fork.done = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                try:
                    net.train_step(*DATA)
                    net.fit(*DATA, iterations=2)
                    os.write(write, b"trained")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)

    net.fit(*DATA, iterations=5, callbacks=[Calls(fork)])
    assert os.read(read, 10) == b"trained"


# ---- Exceptions from outside -------------------------------------------------------------------


class Outside(Exception):
    """Raised from outside."""


# An exception from outside may come within Python's own code, as when a thread's function has returned, or within a
# callback of the garbage collector, such as hypothesis installs: there it is reported and lost.
MAY_BE_LOST = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@MAY_BE_LOST
def test_asynchronous_exceptions_leave_a_step_that_was_made():
    fit = {**FIT, "epochs": 30, "learning_rate": Step(0.01, every=3), "validation": DATA}
    seen, draw, hit = states_of(network(), **fit), random.Random(0), 0
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for _ in range(60):
        net, ready = network(), threading.Event()

        def train(net=net, ready=ready):
            ready.set()
            try:
                net.fit(*DATA, **fit)
            except Outside:
                nonlocal hit
                hit += 1

        worker = threading.Thread(target=train)
        worker.start()
        ready.wait()
        threading.Event().wait(0.01 * draw.random())
        set_exception(ctypes.c_ulong(worker.ident), ctypes.py_object(Outside))
        worker.join(60)
        assert not worker.is_alive()
        check_whole(net, seen)
    assert hit > 5


@MAY_BE_LOST
def test_a_handler_that_raises_leaves_a_step_that_was_made():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone")
    fit = {**FIT, "epochs": 60, "learning_rate": Step(0.01, every=3), "validation": DATA}
    seen, draw, hit = states_of(network(), **fit), random.Random(0), 0

    def handle(*_):
        raise Outside

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(60):
            net = network()
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 0.02 * draw.random())
                net.fit(*DATA, **fit)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Outside:
                hit += 1
            check_whole(net, seen)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hit > 5


def test_no_memory_in_a_call_leaves_the_network_usable(monkeypatch):
    """Python's own number of the process may be what there is no memory for."""
    net, real = network(), os.getpid

    def fails():
        monkeypatch.setattr(os, "getpid", real)
        raise MemoryError

    for call in {**READS, **CHANGES}.values():
        before = digest(net)
        monkeypatch.setattr(os, "getpid", fails)
        with pytest.raises(MemoryError):
            call(net)
        assert digest(net) == before
        in_threads([lambda call=call: call(net)])


def test_states_read_by_other_threads_are_those_of_a_step():
    fit = {**FIT, "epochs": 40, "learning_rate": Step(0.01, every=3), "validation": DATA}
    net, done = network(), threading.Event()
    seen = states_of(net, **fit)

    def train():
        try:
            net.fit(*DATA, **fit)
        finally:
            done.set()

    def read():
        while not done.is_set():
            for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                assert digest(again) in seen
                weights = [*net.coefs_, *net.intercepts_]
                assert all(np.isfinite(array).all() for array in weights)

    in_threads([train, read, read])
    assert digest(net) == seen[-1]


# ---- Ctrl-C ------------------------------------------------------------------------------------

INTERRUPT = """
import os, signal, threading, time, warnings
import numpy as np
from test_whole_steps import DATA, FIT, Calls, Callback, check_whole, digest, network, states_of
from cdrop import Network, load

signal.signal(signal.SIGINT, signal.default_int_handler)
warnings.simplefilter("error")

def press(net=None):
    os.kill(os.getpid(), signal.SIGINT)

class At(Callback):
    def __init__(self, moment):
        setattr(self, moment, lambda net, *_: press())
"""


def interrupted(code):
    process = run_python(INTERRUPT + code)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.posix
@pytest.mark.parametrize(("moment", "steps"), [("on_iteration", 1), ("on_epoch_end", 5)])
def test_ctrl_c_in_a_callback_ends_the_fit_with_a_warning_or_raises(moment, steps):
    assert (
        interrupted(f"""
for epochs in (1, 9):
    net = network()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = net.fit(*DATA, **FIT, epochs=epochs, callbacks=[At("{moment}")])
    assert history.interrupted and history.iterations == {steps}, history.iterations
    assert [str(w.message) for w in caught] == ["Training interrupted by user."]
    assert caught[0].filename == "<string>"
    check_whole(net, states_of(network(), **FIT, epochs=9))
    net = network()
    try:
        net.fit(*DATA, **FIT, epochs=epochs, callbacks=[At("{moment}")], interrupt="raise")
    except KeyboardInterrupt:
        assert net.history.interrupted and net.history.iterations == {steps}
        check_whole(net, states_of(network(), **FIT, epochs=9))
        print("raised")
""")
        == ["raised"] * 2
    )


@pytest.mark.posix
def test_a_loop_ends_at_the_first_ctrl_c():
    assert interrupted("""
fits = 0
threading.Timer(0.3, press).start()
try:
    for fits in range(100):
        network(threads=1).fit(*DATA, iterations=10**9, interrupt="raise")
except KeyboardInterrupt:
    print(fits)
""") == ["0"]


@pytest.mark.posix
def test_ctrl_c_in_a_checkpointed_fit_resumes(tmp_path):
    pytest.importorskip("safetensors", exc_type=ImportError)
    assert interrupted(f"""
fit = dict(FIT, epochs=3, validation=DATA, checkpoint={str(tmp_path / "c")!r}, interrupt="raise")
class Once(Callback):
    def on_epoch_end(self, net, epoch):
        if epoch.number == 3 and not os.path.exists({str(tmp_path / "pressed")!r}):
            open({str(tmp_path / "pressed")!r}, "w").close()
            press()
    def state_dict(self):
        return None
try:
    network().fit(*DATA, **fit, callbacks=[Once()])
except KeyboardInterrupt:
    print("raised")
net, quiet = network(), network()
net.fit(*DATA, **fit, callbacks=[Once()])
quiet.fit(*DATA, **{{**fit, "checkpoint": None}})
assert digest(net) == digest(quiet) and net.history.epoch_loss == quiet.history.epoch_loss
""") == ["raised"]


@pytest.mark.posix
@pytest.mark.parametrize(
    "call",
    [
        "net.predict(X)",
        "net.evaluate(X, y)",
        "net.score(X, y)",
        "net.predict_uncertainty(X[:40], 10**8)",
        "net.predict_proba(X[:40], mc_samples=10**8)",
        "net.subnetworks(20).predict(X[:200_000])",
        "net.fit(X[:8], y[:8], batch_size=8, epochs=1, validation=(X, y), interrupt='raise')",
    ],
)
def test_ctrl_c_is_handled_within_long_calls(call):
    assert interrupted(f"""
net = Network([2, 2000, 2000, 2], dropout=0.5)
X = np.tile(np.linspace(0, 1, 1000, dtype="f4")[:, None], (1000, 2))
y = np.arange(len(X)) % 2
pressed = []
def later():
    pressed.append(time.process_time())  # this process may be stopped for a while
    press()
threading.Timer(0.5, later).start()
try:
    {call}
    print("ended")
except KeyboardInterrupt:
    late = time.process_time() - pressed[0]
    print("raised", net.history.epoch_loss, late) if late > 5 else print("raised")
""") == ["raised"]


@pytest.mark.posix
def test_handlers_that_callbacks_set_stay():
    assert interrupted("""
for moment in ("on_fit_begin", "on_iteration", "on_epoch_end", "on_fit_end"):
    def mine(*_):
        print(moment)
    class Sets(Callback):
        pass
    setattr(Sets, moment, lambda self, *_: signal.signal(signal.SIGINT, mine) and None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    network().fit(*DATA, **FIT, epochs=1, callbacks=[Sets()])
    assert signal.getsignal(signal.SIGINT) is mine
    press()
    time.sleep(0.01)
""") == ["on_fit_begin", "on_iteration", "on_epoch_end", "on_fit_end"]


def test_interrupt_must_be_a_known_name():
    for bad in (None, "stop", 1, True):
        with pytest.raises(ValueError, match="interrupt is .*; expected one of 'keep', 'raise'"):
            network().fit(*DATA, interrupt=bad)
