"""One run of the campaign `handlers`, in a separate process, because it may hang.

``python _handled.py KIND PLANT TRIALS SEED`` prints what came of the trials, as JSON. PLANT names a fault that the run
must find, or is "none".
"""

import collections
import copy
import ctypes
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from conftest import digest, problem

from cdrop import Network, _training, load
from cdrop.callbacks import Callback
from cdrop.schedules import Step

UNITS = [6, 9, 3]
X, Y = problem(UNITS)
FIT = {
    "batch_size": 8,
    "epochs": 12,
    "optimizer": "adam",
    "learning_rate": Step(0.01, every=3),
    "validation": (X, Y),
}
COUNTS = collections.Counter()


class Outside(Exception):
    """Raised from outside."""


class Torn(AssertionError):
    """A state that no step has made."""


def network():
    return Network(UNITS, dropout=0.5, seed=4, threads=1)


# ---- Planted faults ----------------------------------------------------------------------------


def plant_late_counters():
    """Count a step after it is made, in Python, as cdrop once did."""

    def step(net, data, minibatch, hyper, moment, fit=None):
        state = {**vars(net), "history": copy.copy(net.history)}
        state["history"].loss = list(net.history.loss)
        was = {"history": state["history"], "_updates": net._updates}
        optimizer, rate, _ = hyper.at(moment)
        constants = optimizer.constants(rate, 0.0, net._updates + 1)
        loss = net._engine.step(data, minibatch.rows, constants, 0.0, state, was, {}, 1)
        net._updates += 1
        net.history.loss.append(loss)
        return loss

    _training.step = step


def plant_lock():
    """Hold a lock during a step, for which a save waits."""
    lock, step, state = threading.Lock(), _training.step, Network._state

    def locked(call):
        def wait(*arguments):
            with lock:
                return call(*arguments)

        return wait

    _training.step, Network._state = locked(step), locked(state)


PLANTS = {"none": lambda: None, "late counters": plant_late_counters, "lock": plant_lock}


# ---- What must hold ----------------------------------------------------------------------------


def passed_through():
    """Return the digests of the states that the fit passes through."""
    net, seen = network(), set()

    class Sees(Callback):
        def on_fit_begin(self, net, total):
            seen.add(digest(net))

        def on_iteration(self, net, iteration, loss):
            seen.add(digest(net))

    net.fit(X, Y, **FIT, callbacks=[Sees()])
    return seen


def check(net, seen):
    """Raise unless the network is one that the fit passes through, and trains on like its copy."""
    if digest(net) not in seen:
        raise Torn("the weights and counters are of no step")
    again = copy.deepcopy(net)
    for n in (net, again):
        n.fit(X, Y, **{**FIT, "epochs": 1})
    if digest(net) != digest(again) or net.history.epoch_loss != again.history.epoch_loss:
        raise Torn("a copy trains otherwise")


# ---- Signal handlers ---------------------------------------------------------------------------


def saved(net):
    """Return what a file holds that is saved now."""
    path = os.path.join(tempfile.gettempdir(), f"handled.{os.getpid()}")
    net.save(path)
    try:
        return load(path)
    finally:
        os.unlink(path)


COPIES = {
    "save": saved,
    "copy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
}
STEPS = {
    "train_step": lambda net: net.train_step(X, Y),
    "fit": lambda net: net.fit(X, Y, iterations=1),
}


def handlers(trials, draw):
    """Send signals to fits, at random times; the handlers save, copy, raise or train."""
    seen, taken = passed_through(), []

    def handle(*_):
        if getattr(net, "_fit", net) is None:  # before or after the fit; older versions do not say
            return
        COUNTS["signals"] += 1
        kind = draw.choice([*COPIES, *STEPS, "raise"])
        if kind == "raise":
            raise Outside
        if kind in COPIES:
            taken.append(COPIES[kind](net))
        else:
            try:
                STEPS[kind](net)
            except RuntimeError:
                COUNTS["refused because the network is in a fit"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # not before: another signal would end a hang

    net = network()
    signal.signal(signal.SIGALRM, handle)
    while COUNTS["signals"] < trials:
        net = network()
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-4 + 0.01 * draw.random())
            net.fit(X, Y, **FIT)
        except Outside:
            COUNTS["raised"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        for other in (net, *taken):
            check(other, seen)
        COUNTS["copies and files"] += len(taken)
        taken.clear()


# ---- Asynchronous exceptions -------------------------------------------------------------------


def exceptions(trials, draw):
    """Raise exceptions in threads that fit, at random times."""
    seen, raise_in = passed_through(), ctypes.pythonapi.PyThreadState_SetAsyncExc
    while COUNTS["exceptions"] < trials:
        net, ready = network(), threading.Event()

        def train(net=net, ready=ready):
            try:
                ready.set()
                net.fit(X, Y, **FIT)
            except Outside:
                COUNTS["raised"] += 1

        worker = threading.Thread(target=train)
        worker.start()
        ready.wait()
        time.sleep(0.01 * draw.random())
        COUNTS["exceptions"] += raise_in(
            ctypes.c_ulong(worker.ident or 0), ctypes.py_object(Outside)
        )
        worker.join()
        check(net, seen)


# ---- Mixed calls of several threads ------------------------------------------------------------

THREADS = 6


def finite(net):
    """Raise unless a copy can be used."""
    state = net.state_dict()
    if not all(np.isfinite(array).all() for array in state["arrays"].values()):
        raise Torn("numbers that are not finite")
    if not (state["arrays"]["state2.weight.0"] >= 0).all():
        raise Torn("Adam's second moments below 0")
    if state["updates"] > len(state["losses"]):
        raise Torn("more updates than losses")
    net.fit(X, Y, iterations=1)


CALLS = {
    "predict": (8, lambda net: net.predict(X)),
    "predict_uncertainty": (4, lambda net: net.predict_uncertainty(X, 2)),
    "evaluate": (4, lambda net: net.evaluate(X, Y)),
    "coefs_": (8, lambda net: net.coefs_),
    "train_step": (8, lambda net: net.train_step(X, Y, optimizer="adam", learning_rate=1e-4)),
    "train_step, RMSprop": (4, lambda net: net.train_step(X, Y, learning_rate=1e-4)),
    "fit": (1, lambda net: net.fit(X, Y, iterations=3, learning_rate=1e-4)),
    "fit with epochs": (1, lambda net: net.fit(X, Y, **{**FIT, "epochs": 1})),
    "set_weights": (2, lambda net: net.set_weights(net.coefs_, net.intercepts_)),
    "deepcopy": (2, lambda net: finite(copy.deepcopy(net))),
    "pickle": (2, lambda net: finite(pickle.loads(pickle.dumps(net)))),
    "load_state_dict": (1, lambda net: net.load_state_dict(net.state_dict())),
}


def calls(trials, draw):
    """Call a network from 6 threads that change every microsecond."""
    sys.setswitchinterval(1e-6)
    net, errors, each = network(), [], -(-trials // THREADS)
    names, weights = list(CALLS), [weight for weight, _ in CALLS.values()]
    seeds = [draw.random() for _ in range(THREADS)]

    def work(seed):
        try:
            for name in random.Random(seed).choices(names, weights, k=each):
                try:
                    CALLS[name][1](net)
                except RuntimeError:
                    COUNTS["refused because the network is in a fit"] += 1
                COUNTS["calls"] += 1
                if len(net.history.loss) > 2000:  # so that copies stay small
                    net.load_state_dict(network().state_dict())
        except RuntimeError:
            work(seed + 1)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    finite(net)


KINDS = {"handlers": handlers, "exceptions": exceptions, "calls": calls}

if __name__ == "__main__":
    kind, plant, trials, seed = sys.argv[1:]
    PLANTS[plant]()
    KINDS[kind](int(trials), random.Random(int(seed)))
    print(json.dumps(COUNTS))
