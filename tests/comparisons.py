"""What the tests of the comparison share: a small data set, a trainer that does not train."""

import gzip
import json
import struct
from types import SimpleNamespace

import numpy as np

from cdrop.datasets.dataset import split
from cdrop.datasets.digits import make_digits
from cdrop.experiments import Settings, compare


def small_dataset(name="small (not MNIST)", train=300, validation=20, test=100):
    """Drawn digits, few enough that a training takes milliseconds."""
    images, labels = make_digits(train + validation + test)
    cut = train + validation
    return split(
        name,
        "made by a test",
        (images[:cut], labels[:cut]),
        (images[cut:], labels[cut:]),
        validation,
    )


def write_idx_folder(folder):
    """Write the four IDX files, just large enough for 5,000 validation images."""
    dataset = small_dataset(train=5400, validation=0, test=200)
    for stem, part in (("train", "train"), ("t10k", "test")):
        images, labels = getattr(dataset, f"X_{part}"), getattr(dataset, f"y_{part}")
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        with gzip.open(folder / f"{stem}-images-idx3-ubyte.gz", "wb", compresslevel=1) as stream:
            stream.write(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        labels_file = folder / f"{stem}-labels-idx1-ubyte"
        labels_file.write_bytes(header + labels.astype("uint8").tobytes())
    return folder


def timeless(plain):
    """Return a comparison's result as JSON, without what the clock said."""
    del plain["time"]
    for arm in plain["arms"].values():
        del arm["seconds"]
    return json.dumps(plain)


class FakeTrainer:
    """Stands for `cdrop.Network` and returns what it was told to.

    `accuracy` and `loss` are functions of (seed, dropout) and (seed, dropout, iteration). `calls`
    records what the experiment asked for. A `fault` is raised in training number `fault_at`;
    KeyboardInterrupt there makes `fit` return early, as `Network.fit` does.
    """

    def __init__(self, accuracy=None, loss=None, fault=None, fault_at=-1):
        self.accuracy = accuracy or (lambda seed, dropout: 0.9 + 0.001 * seed + 0.01 * dropout)
        self.loss = loss or (
            lambda seed, dropout, t: (1 + dropout) * (100 / (100 + t) + 0.01 * seed)
        )
        self.fault, self.fault_at = fault, fault_at
        self.calls = []

    def __call__(self, units, **options):
        self.calls.append({"units": units, **options})
        return _FakeNet(self, options["seed"], options.get("dropout", 0.0), len(self.calls) - 1)


class _FakeNet:
    def __init__(self, trainer, seed, dropout, number):
        self.trainer, self.seed, self.dropout, self.number = trainer, seed, dropout, number
        self.history = SimpleNamespace(loss=[], interrupted=False, iterations=0)

    def fit(self, X, y, *, callbacks, iterations=None, epochs=None, **options):
        iterations = epochs if iterations is None else iterations
        self.trainer.calls[-1] |= {"X": X, "y": y, "iterations": iterations, **options}
        faulty = self.number == self.trainer.fault_at
        interrupted = faulty and self.trainer.fault is KeyboardInterrupt
        if faulty and not interrupted:
            raise self.trainer.fault
        steps = range(1, (iterations // 2 if interrupted else iterations) + 1)
        loss = [self.trainer.loss(self.seed, self.dropout, t) for t in steps]
        for callback in callbacks:
            callback.on_fit_begin(self, iterations)
            for t, value in enumerate(loss, start=1):
                callback.on_iteration(self, t, value)
            callback.on_fit_end(self)
        self.history.loss, self.history.interrupted = loss, interrupted
        return self.history

    def evaluate(self, X, y):
        self.trainer.calls[self.number] |= {"X_test": X, "y_test": y}
        accuracy = self.trainer.accuracy(self.seed, self.dropout)
        return SimpleNamespace(loss=1 - accuracy, score=accuracy)


def fake_result(repeats=5, name="MNIST", rng_seed=0, trainer=None, **settings):
    """A finished comparison of made-up numbers, near those of the real one."""
    rng = np.random.default_rng(rng_seed)
    noise = rng.standard_normal((2, repeats))

    def accuracy(seed, dropout):
        arm = int(dropout > 0)
        return float(0.9695 + (0.0053, 0.0019)[arm] * noise[arm, seed])

    return compare(
        small_dataset(name),
        Settings(repeats=repeats, **settings),
        network=trainer or FakeTrainer(accuracy=accuracy),
    )
