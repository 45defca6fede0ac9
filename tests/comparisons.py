"""What the tests of experiments share: a small dataset, a network that does not train, made-up results."""

import gzip
import json
import struct
from types import SimpleNamespace

import numpy as np

from cdrop.datasets.dataset import split
from cdrop.datasets.digits import make_digits
from cdrop.experiments import Arm, ExperimentResult, Settings, Trial, compare
from cdrop.experiments.metrics import METRICS
from cdrop.experiments.statistics import Sampling


def small_dataset(name="small (not MNIST)", train=300, validation=20, test=100):
    """Drawn digits, few enough that a run takes milliseconds."""
    images, labels = make_digits(train + validation + test)
    cut = train + validation
    return split(
        name,
        "made by a test",
        (images[:cut], labels[:cut]),
        (images[cut:], labels[cut:]),
        validation,
    )


def write_idx_directory(directory):
    """Write the four IDX files, just large enough for 5,000 validation images."""
    dataset = small_dataset(train=5400, validation=0, test=200)
    for stem, part in (("train", "train"), ("t10k", "test")):
        images, labels = getattr(dataset, f"X_{part}"), getattr(dataset, f"y_{part}")
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        with gzip.open(directory / f"{stem}-images-idx3-ubyte.gz", "wb", compresslevel=1) as stream:
            stream.write(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        labels_file = directory / f"{stem}-labels-idx1-ubyte"
        labels_file.write_bytes(header + labels.astype("uint8").tobytes())
    return directory


def timeless(result):
    """Return a result as JSON, without what depends on the clock and the machine."""
    plain = result if isinstance(result, dict) else result.to_dict()
    del plain["time"], plain["machine"]
    plain["data"].pop("memory_bytes", None)  # depends on the number of runs at a time
    for arm in plain["arms"].values():
        del arm["seconds"]
    return json.dumps(plain)


class FakeTrainer:
    """Stands for `cdrop.Network`: its accuracies and losses are made up.

    `accuracy` and `loss` are functions of (seed, dropout) and (seed, dropout, iteration); the accuracy is rounded to
    test rows. `calls` records what the experiment asked for. A `fault` is raised in run number `fault_at`;
    KeyboardInterrupt there makes `fit` return early, as `Network.fit` does.
    """

    def __init__(self, accuracy=None, loss=None, fault=None, fault_at=-1):
        self.accuracy = accuracy or (lambda seed, dropout: 0.9 + 0.01 * seed - 0.04 * dropout)
        self.loss = loss or (
            lambda seed, dropout, t: (1 + dropout) * (100 / (100 + t) + 0.01 * seed)
        )
        self.fault, self.fault_at = fault, fault_at
        self.calls = []

    def __call__(self, units, **options):
        self.calls.append({"units": units, **options})
        return _FakeNet(self, len(self.calls) - 1)


class _FakeNet:
    def __init__(self, trainer, number):
        self.trainer, self.number = trainer, number
        self.call = trainer.calls[number]
        self.key = self.call["seed"], self.call.get("dropout", 0.0)
        self.history = SimpleNamespace(loss=[], interrupted=False, iterations=0)

    def fit(self, X, y, *, callbacks, iterations=None, epochs=None, **options):
        iterations = epochs if iterations is None else iterations
        self.call |= {"X": X, "y": y, "iterations": iterations, **options}
        faulty = self.number == self.trainer.fault_at
        interrupted = faulty and self.trainer.fault is KeyboardInterrupt
        if faulty and not interrupted:
            raise self.trainer.fault
        steps = range(1, (iterations // 2 if interrupted else iterations) + 1)
        loss = [self.trainer.loss(*self.key, t) for t in steps]
        for callback in callbacks:
            callback.on_fit_begin(self, iterations)
            for t, value in enumerate(loss, start=1):
                callback.on_iteration(self, t, value)
            callback.on_fit_end(self)
        self.history.loss, self.history.interrupted = loss, interrupted
        return self.history

    def evaluate(self, X, y):
        self.call |= {"X_test": X, "y_test": y}
        accuracy = self.trainer.accuracy(*self.key)
        return SimpleNamespace(loss=1 - accuracy, score=accuracy)

    def predict_proba(self, X):
        """Return 0.9 for the right class of as many rows as the accuracy asks for, which the seed draws."""
        y, classes = self.call["y_test"], self.call["units"][-1]
        order = np.random.default_rng([self.key[0], int(1000 * self.key[1])]).permutation(len(y))
        wrong = order[round(self.trainer.accuracy(*self.key) * len(y)) :]
        shown = y.copy()
        shown[wrong] = (y[wrong] + 1) % classes
        p = np.full((len(y), classes), 0.1 / (classes - 1))
        p[np.arange(len(y)), shown] = 0.9
        return p


def fake_result(repeats=5, name="MNIST", rng_seed=0, trainer=None, **settings):
    """A finished comparison of made-up numbers, near those of the real one."""
    noise = np.random.default_rng(rng_seed).standard_normal((2, repeats))

    def accuracy(seed, dropout):
        arm = int(dropout > 0)
        return float(0.9695 + (0.0053, 0.0019)[arm] * noise[arm, seed])

    return compare(
        small_dataset(name, test=1000),
        Settings(repeats=repeats, **settings),
        network=trainer or FakeTrainer(accuracy=accuracy),
    )


def made_up(metric="accuracy", ratio=None, loss=(), rows=None, alpha=0.05, margin=0.0, **scores):
    """A result of made-up scores, by arm; `loss` has learning curves of the arms in order, `rows` values per row."""
    arms, metric = {}, METRICS[metric]
    for number, (name, some) in enumerate(scores.items()):
        trials = []
        for repeat, score in enumerate(some):
            curve = list(loss[number][repeat]) if loss else []
            values = None if rows is None else rows[number][repeat]
            points = list(range(100, 100 * len(curve) + 1, 100))
            columns = points, curve, curve, curve
            trials.append(
                Trial(repeat, name, 0, {metric.name: score}, {}, 90, 10, values, *columns, 1.0)
            )
        arms[name] = Arm(name, metric.name, [{"hidden": [8]}], trials)
    repeats = len(next(iter(scores.values())))
    return ExperimentResult(
        arms=arms,
        metric=metric,
        task=metric.tasks[0],
        sampling=Sampling(ratio),
        asked=repeats,
        seed=0,
        data={},
        machine={},
        started="",
        margin=margin,
        alpha=alpha,
        repeats=list(range(repeats)),
    )
