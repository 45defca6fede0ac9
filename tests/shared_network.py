"""Threads that do all sorts of things to one network: whole steps, one fit at a time, only documented errors.

Meant for free-threaded Python, where threads run side by side; with the GIL they take turns, at any bytecode.
"""

import contextlib
import copy
import random
import threading

import numpy as np
from conftest import problem

from cdrop import Network
from cdrop.callbacks import Callback

UNITS = [12, 8, 3]
IN_A_FIT = "the network is in a fit, which alone may change it"
FIT_STEPS = 3


class OneAtATime(Callback):
    """Notices a fit that begins before another one has ended."""

    def __init__(self):
        self.inside = []
        self.most = 0

    def on_fit_begin(self, net, total):
        self.inside.append(threading.get_ident())
        self.most = max(self.most, len(self.inside))

    def on_fit_end(self, net):
        self.inside.remove(threading.get_ident())


class Hammered:
    """A network, the calls on it, and what must hold of each result while other threads make others."""

    def __init__(self):
        self.x, self.y = problem(UNITS, rows=32)
        self.net = Network(UNITS, dropout=0.5, threads=1)
        self.net.train_step(self.x, self.y)  # so that the optimizer is the same all along
        self.weights = self.net.coefs_, self.net.intercepts_
        self.alone = OneAtATime()
        self.calls = [
            (self.fit, FIT_STEPS),
            (self.train_step, 1),
            (self.set_weights, 0),
            (self.predict, 0),
            (self.state, 0),
            (self.attributes, 0),
            (self.history, 0),
        ]

    def fit(self):
        callbacks = [self.alone]
        self.net.fit(self.x, self.y, batch_size=16, iterations=FIT_STEPS, callbacks=callbacks)

    def train_step(self):
        assert np.isfinite(self.net.train_step(self.x, self.y))

    def set_weights(self):
        self.net.set_weights(*self.weights)

    def predict(self):
        assert abs(self.net.predict_proba(self.x).sum(axis=1) - 1).max() < 1e-5
        assert self.net.predict_uncertainty(self.x[:4], mc_samples=3).mean.shape == (4, 3)

    def state(self):
        """A state is of one moment: there, the optimizer has made every update of the history."""
        state = self.net.state_dict()
        assert state["updates"] == len(state["losses"])
        assert np.isfinite(state["losses"]).all()
        assert copy.deepcopy(self.net).history.iterations >= state["updates"]

    def attributes(self):
        """Readers of the attributes must find a dict that is whole."""
        self.net.threads = random.choice([None, 1, 2])
        name = f"note_{threading.get_ident()}"
        setattr(self.net, name, object())
        delattr(self.net, name)

    def history(self):
        assert repr(self.net.history).startswith("<History: ")
        assert sum(self.net.history.loss[:20]) > 0

    def work(self, seed, rounds):
        """Make calls in random order; return how many steps they made and how many were refused."""
        draw, steps, refused = random.Random(seed), 0, 0
        for _ in range(rounds):
            call, made = draw.choice(self.calls)
            try:
                call()
                steps += made
            except RuntimeError as error:
                assert IN_A_FIT in str(error), error
                refused += 1
        return steps, refused


def in_threads(functions):
    """Run functions in threads that start together; return their results, or raise the first error of any."""
    results, errors, start = [None] * len(functions), [], threading.Barrier(len(functions))

    def run(i):
        try:
            start.wait()
            results[i] = functions[i]()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(functions))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive(), "hangs"
    if errors:
        raise errors[0]
    return results


def hammer(threads=8, rounds=40, seed=0):
    """Let threads work on one network; return the steps made and the calls refused."""
    hammered = Hammered()
    work = [lambda i=i: hammered.work(seed * threads + i, rounds) for i in range(threads)]
    made, refused = map(sum, zip(*in_threads(work), strict=True))
    assert hammered.net.history.iterations == hammered.net._updates == made + 1
    assert hammered.alone.most <= 1
    return made, refused


def enter_fits(threads=8, rounds=2000):
    """Enter and leave fits of one network from many threads, as fast as can be; return how many were entered."""
    from cdrop._kernels import Fitting

    net, alone = Network(UNITS), OneAtATime()

    def enter():
        entered = 0
        for _ in range(rounds):
            with contextlib.suppress(RuntimeError), Fitting(vars(net)):
                alone.on_fit_begin(net, 0)
                entered += 1
                alone.on_fit_end(net)
        return entered

    entered = sum(in_threads([enter] * threads))
    assert alone.most == 1
    assert net._fit is None
    return entered


def read_changing_attributes(threads=8, rounds=1000):
    """Take states of a network whose attributes come and go, so that the dict that holds them moves."""
    net = Network([2, 2])

    def read():
        for _ in range(rounds):
            _, now, _ = net._engine.copy([(0, 0)], vars(net))  # what `state_dict` begins with
            assert now["units"] == (2, 2)

    def change():
        thread = threading.get_ident()
        for i in range(rounds):
            for note in range(20):  # names and values that nothing else keeps
                setattr(net, f"note_{thread}_{note}", object())
            for note in range(20):
                delattr(net, f"note_{thread}_{note}")
            net.threads = 1 + i % 200

    in_threads([read, change] * (threads // 2))


def take_turns(threads=8, rounds=2000):
    """Take the lock of one network in turns, as fast as can be: no thread may believe that a fork left it held."""
    net = Network([2, 2])
    work = [lambda: [net._engine.get(0, 0) for _ in range(rounds)].clear()] * threads
    in_threads(work)
