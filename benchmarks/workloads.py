"""What is timed. Every function gives results, cdrop's times and those of the peers that are installed."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cdrop
from benchmarks.checks import largest_difference
from benchmarks.nets import L2, RATE, CdropNet, Problem, peers_present
from benchmarks.timing import Result, alternate, burst
from cdrop import Network, kernels

__all__ = ["WORKLOADS", "Plan"]

A, B = (784, 256, 256, 10), (784, 1024, 1024, 1024, 10)
WIDE, TABULAR = (784, 2048, 2048, 2048, 10), (30, 256, 256, 256, 2)
# Uses a CPU until its standard input ends, which it does however this process ends.
BUSY = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True:
    pass
"""
KEEPS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
DENSITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
MATRICES = 4  # in turn: a branch predictor must not learn one by heart


class Plan:
    """How much is done, on which images, and who takes part."""

    def __init__(
        self, X: Any, y: Any, *, rounds: int, quick: bool, peers: set[str], mnist: bool = False
    ) -> None:
        self.X, self.y, self.mnist = X, y, mnist
        self.rounds, self.quick = rounds, quick
        self.nets = {name: net for name, net in peers_present().items() if name in peers}
        self.torch = "PyTorch" in self.nets
        self.sklearn = "scikit-learn" in peers and find_spec("sklearn") is not None

    def say(self, text: str) -> None:
        """Something to report that is not a time."""
        print(f"  {text}", flush=True)

    def run(
        self, group: str, name: str, who: dict[str, Callable[[], float]], **options: Any
    ) -> Result:
        """Time contestants in turn."""
        return alternate(group, name, who, **{"rounds": self.rounds, **options})


def _step(
    plan: Plan,
    group: str,
    name: str,
    problem: Problem,
    steps: int,
    absent: tuple[str, ...] = (),
) -> Result:
    """Time one training step in every library but those that are absent."""
    steps = max(1, steps // 20) if plan.quick else steps
    cdrop_net = CdropNet(problem)
    who: dict[str, Callable[[], float]] = {"cdrop": lambda: cdrop_net.seconds(steps)}
    for peer, make in plan.nets.items():
        if peer in absent:
            continue
        net = make(problem)
        if peer == "PyTorch":
            net.choose_optimizer()
        who[peer] = lambda net=net: net.seconds(max(3, steps // 10))
    return plan.run(group, name, who)


def _check(plan: Plan, label: str, problem: Problem) -> None:
    """Show that the peers' steps are ours."""
    for peer, make in plan.nets.items():
        worst = largest_difference(problem, make)
        plan.say(f"{label}: {peer}'s losses differ from ours by at most {worst:.1e} of the loss")


def steps(plan: Plan) -> Iterator[Result]:
    """Workloads A and B, with and without dropout."""
    for label, units, batch, count in (("A", A, 256, 1000), ("B", B, 128, 200)):
        _check(plan, label, Problem(plan.X, plan.y, units, batch, 0.5))
        for dropout in (0.5, 0.0):
            problem = Problem(plan.X, plan.y, units, batch, dropout)
            name = f"{label} {'with' if dropout else 'without'} dropout"
            yield _step(plan, "steps", name, problem, count)


def kinds(plan: Plan) -> Iterator[Result]:
    """B's step without dropout, and with each kind: here the contestants are kinds, and the first has shared masks."""
    count, most = 10 if plan.quick else 100, cdrop.get_num_threads()
    nets = {
        name: CdropNet(Problem(plan.X, plan.y, B, 128, 0.0 if name == "none" else 0.5, kind=kind))
        for name, kind in (
            ("cdrop", "shared"),
            ("none", "bernoulli"),
            *((kind, kind) for kind in ("bernoulli", "gaussian", "uniform", "concrete")),
        )
    }

    def on(net: CdropNet, threads: int) -> Callable[[], float]:
        def run() -> float:
            with _limited(plan, threads):
                return net.seconds(count)

        return run

    for threads in sorted({1, most}):
        who = {name: on(net, threads) for name, net in nets.items()}
        yield plan.run("kinds", f"B with shared masks, {_threads(threads)}", who)


def keep(plan: Plan) -> Iterator[Result]:
    """Workload A over the keep probability: the picture at the top of README.md and docs/speed.md."""
    for p in KEEPS:
        yield _step(plan, "keep", f"{p:g}", Problem(plan.X, plan.y, A, 256, 1 - p), 400)


def shape(plan: Plan) -> Iterator[Result]:
    """Workload A's step over width and over batch, with dropout."""
    for width in (64, 256, 1024):
        problem = Problem(plan.X, plan.y, (784, width, width, 10), 256, 0.5)
        yield _step(plan, "shape", f"width {width}", problem, 51200 // width)
    for batch in (32, 256, 2048):
        problem = Problem(plan.X, plan.y, A, batch, 0.5)
        yield _step(plan, "shape", f"batch {batch}", problem, 51200 // batch)


def wide(plan: Plan) -> Iterator[Result]:
    """A net too wide for the caches, with and without dropout."""
    for dropout in (0.5, 0.0):
        problem = Problem(plan.X, plan.y, WIDE, 128, dropout)
        name = f"3 x 2048 {'with' if dropout else 'without'} dropout"
        yield _step(plan, "wide", name, problem, 40)


def _table_rows(count: int, features: int, classes: int) -> tuple[Any, Any]:
    """Return made rows whose label depends on the first features."""
    random = np.random.default_rng(0)
    X = random.standard_normal((count, features), dtype=np.float32)
    return X, (X[:, :10] @ random.standard_normal((min(features, 10), classes))).argmax(axis=1)


@contextlib.contextmanager
def _limited(plan: Plan, count: int) -> Iterator[None]:
    """Let cdrop and PyTorch use that many threads. XLA's threads are those that JAX began with."""
    most = cdrop.get_num_threads()
    if plan.torch:
        import torch

        torch.set_num_threads(count)
    cdrop.set_num_threads(count)
    try:
        yield
    finally:
        cdrop.set_num_threads(most)
        if plan.torch:
            torch.set_num_threads(most)


def tabular(plan: Plan) -> Iterator[Result]:
    """A net for a table with 30 columns, AdamW, on all threads and on one; JAX cannot change its threads."""
    X, y = _table_rows(10_000, 30, 2)
    most = cdrop.get_num_threads()
    _check(plan, "tabular", Problem(X, y, TABULAR, 256, 0.15, "adamw"))
    for count in sorted({1, most}, reverse=True):
        for dropout in (0.0, 0.15):
            problem = Problem(X, y, TABULAR, 256, dropout, "adamw")
            name = f"{f'dropout {dropout:g}' if dropout else 'no dropout'}, {_threads(count)}"
            with _limited(plan, count):
                yield _step(plan, "tabular", name, problem, 400, () if count == most else ("JAX",))


def small(plan: Plan) -> Iterator[Result]:
    """Nets so small that the work around the arithmetic counts, with Adam."""
    X, y = _table_rows(10_000, 4, 4)
    epoch = Problem(X, y, (4, 32, 16, 4), len(X), 0.0, "adam", "tanh")
    _check(plan, "small", epoch)
    yield _step(plan, "small", "4-32-16-4 tanh, epoch of 10,000 rows", epoch, 400)
    step = Problem(X[:150], y[:150] % 3, (4, 10, 3), 150, 0.0, "adam")
    yield _step(plan, "small", "4-10-3, batch 150", step, 2000)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _thread_counts(plan: Plan, group: str) -> Iterator[Result]:
    """Time A and B on all threads and on one, with dropout: here the contestants are thread counts."""
    most = cdrop.get_num_threads()
    if most == 1:
        plan.say("left out: there is one thread only")
        return

    def on(problem: Problem, count: int, steps: int) -> Callable[[], float]:
        net = CdropNet(problem)

        def run() -> float:
            with _limited(plan, count):
                return net.seconds(max(1, steps // 20) if plan.quick else steps)

        return run

    for label, units, batch, steps in (("A", A, 256, 500), ("B", B, 128, 100)):
        problem = Problem(plan.X, plan.y, units, batch, 0.5)
        who = {"cdrop": on(problem, most, steps), "1 thread": on(problem, 1, steps)}
        yield plan.run(group, f"{label} on {_threads(most)}", who)


def threads(plan: Plan) -> Iterator[Result]:
    """Workloads A and B on one thread and on all."""
    yield from _thread_counts(plan, "threads")


def busy(plan: Plan) -> Iterator[Result]:
    """The same next to a process that uses one CPU all the time."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE):
        yield from _thread_counts(plan, "busy")


def overhead(plan: Plan) -> Iterator[Result]:
    """What a fit costs once: checks of the data, background, first memory, and one iteration."""
    rows = 5_500 if plan.quick else 55_000
    copies = -(-rows // len(plan.X))
    X, y = np.tile(plan.X, (copies, 1))[:rows], np.tile(plan.y, copies)[:rows]

    def fit() -> float:
        net = Network(A, dropout=0.5, seed=1)
        begin = time.perf_counter()
        net.fit(X, y, iterations=1)
        return time.perf_counter() - begin

    yield plan.run("overhead", f"one iteration on {rows:,} x 784", {"cdrop": fit}, per="fit")


def job(plan: Plan) -> Iterator[Result]:
    """The main job, from process to process: cdrop compare --data mnist."""
    if not plan.mnist:
        plan.say("left out: MNIST is not here (CDROP_DATA names the directory that has it)")
        return
    command = [sys.executable, "-m", "cdrop", "compare", "--data", "mnist"]
    command += ["--repeats", "2", "--iterations", "50"] if plan.quick else []

    def run() -> float:
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begin

    name = "2 repeats of 50 iterations" if plan.quick else "5 repeats of 1,000 iterations"
    yield plan.run("job", name, {"cdrop": run}, per="run", rounds=min(plan.rounds, 3))


def _fit(
    plan: Plan, name: str, X: Any, y: Any, hidden: tuple[int, ...], batch: int, epochs: int
) -> Result:
    """Time a whole fit with Adam and no dropout, which scikit-learn does not have."""
    units = (X.shape[1], *hidden, int(y.max()) + 1)

    def ours() -> None:
        settings = {"learning_rate": RATE, "l2": L2, "batch_size": min(batch, len(X))}
        Network(units, seed=1).fit(X, y, optimizer="adam", epochs=epochs, **settings)

    who = {"cdrop": burst(ours)}
    if plan.sklearn:
        who["scikit-learn"] = burst(lambda: _sklearn_fit(X, y, hidden, batch, epochs))
    if plan.torch:
        who["PyTorch"] = burst(lambda: _torch_fit(X, y, units, batch, epochs))
    return plan.run("fits", name, who, per="fit")


def _sklearn_fit(X: Any, y: Any, hidden: tuple[int, ...], batch: int, epochs: int) -> None:
    from sklearn.neural_network import MLPClassifier

    _estimator_fit(MLPClassifier, X, y, hidden, batch, epochs)


def _estimator_fit(
    estimator: Any, X: Any, y: Any, hidden: tuple[int, ...], batch: int, epochs: int
) -> None:
    """Fit an estimator with MLPClassifier's parameters for a fixed number of epochs."""
    import warnings

    model = estimator(
        hidden, alpha=L2 * batch, batch_size=min(batch, len(X)), max_iter=epochs, tol=0,
        n_iter_no_change=epochs + 1, learning_rate_init=RATE,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(X, y)


def _torch_fit(X: Any, y: Any, units: tuple[int, ...], batch: int, epochs: int) -> None:
    import torch

    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(units):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=L2, fused=True)
    entropy, inputs, labels = torch.nn.CrossEntropyLoss(), torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        order = torch.randperm(len(X))
        for rows in order.split(batch):
            optimizer.zero_grad()
            entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()


def fits(plan: Plan) -> Iterator[Result]:
    """Whole fits: a table of numbers, and a tiny net."""
    X, y = _table_rows(2000 if plan.quick else 20_000, 100, 5)
    yield _fit(plan, "tabular: 20,000 x 100, 128-64, 3 epochs", X, y, (128, 64), 200, 3)
    yield _fit(
        plan, "tiny: 150 x 4, 10, 100 epochs", X[:150, :4].copy(), y[:150] % 3, (10,), 150, 100
    )


def estimators(plan: Plan) -> Iterator[Result]:
    """Whole fits of DropoutMLPClassifier without dropout, next to MLPClassifier's: same net, batch and epochs."""
    if not plan.sklearn:
        plan.say("left out: scikit-learn is not installed, or does not take part")
        return
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, digits = load_digits(return_X_y=True)
    digits_size = ("digits: 1,797 x 64", (pixels / 16).astype(np.float32), digits, 60)
    copies = 1 if plan.quick else 6  # of 10,000 rows: as many as MNIST has
    mnist_size = ("MNIST: 60,000 x 784", np.tile(plan.X, (copies, 1)), np.tile(plan.y, copies), 4)
    for (name, X, y, epochs), hidden in itertools.product(
        (digits_size, mnist_size), ((100,), (256, 256))
    ):
        problem = (X, y, hidden, 200, 1 if plan.quick else epochs)
        who = {
            "cdrop": burst(lambda p=problem: _estimator_fit(cdrop.DropoutMLPClassifier, *p)),
            "scikit-learn": burst(lambda p=problem: _estimator_fit(MLPClassifier, *p)),
        }
        yield plan.run("estimators", f"{name}, {'-'.join(map(str, hidden))}", who, per="fit")


def prediction(plan: Plan) -> Iterator[Result]:
    """Probabilities without dropout, for one row and for many, by a net after two epochs of training."""
    net = Network(A, dropout=0.5, seed=1)
    net.fit(plan.X, plan.y, batch_size=256, epochs=2)
    weights = [np.ascontiguousarray(w) for w in net.coefs_]
    for rows in (1, 1000 if plan.quick else 10_000):
        x = np.ascontiguousarray(plan.X[:rows])
        who = {"cdrop": burst(lambda x=x: net.predict_proba(x))}
        who["NumPy"] = burst(lambda x=x: _numpy_predict(x, weights, net.intercepts_))
        if plan.torch:
            who["PyTorch"] = burst(_torch_predict(x))
        result = plan.run("prediction", f"A, {rows:,} rows", who, per="call")
        yield result
        if peer := result.fastest_peer():
            plan.say(f"the fastest peer, {peer}, takes {result.ratio(peer):.2f} of cdrop's time")


def _numpy_predict(x: Any, weights: list[Any], biases: list[Any]) -> NDArray[np.float32]:
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(x @ w + b, 0)
    x = np.exp(x @ weights[-1] + biases[-1])
    probabilities: NDArray[np.float32] = x / x.sum(axis=1, keepdims=True)
    return probabilities


def _torch_predict(x: NDArray[np.float32]) -> Callable[[], object]:
    import torch

    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(A):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    model, inputs = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1)), torch.from_numpy(x)

    def call() -> object:
        with torch.inference_mode():
            return model(inputs)

    return call


def masks(plan: Plan) -> Iterator[Result]:
    """Masks for 4,096 x 1,024 units; peers draw theirs as bytes or floats. One thread."""
    shape = (4096, 1024)
    random = np.random.default_rng(0)
    for p in (0.5, 0.8):
        who: dict[str, Callable[[], float]] = {
            "cdrop": burst(lambda p=p: kernels.bernoulli_mask(*shape, p, seed=1)),
            "NumPy": burst(lambda p=p: random.random(shape, dtype=np.float32) < p),
        }
        if plan.torch:
            import torch

            ones = torch.ones(shape)
            who["PyTorch"] = burst(lambda p=p, x=ones: torch.nn.functional.dropout(x, 1 - p))
        result = plan.run("masks", f"keep {p:g}", who, per="unit")
        for seconds in result.seconds.values():
            seconds[:] = [s / (shape[0] * shape[1]) for s in seconds]
        yield result


def _product(plan: Plan, size: int, density: float, count: int) -> Iterator[Result]:
    """Forward, and all three gradients, of a square masked product; packing and compressing included."""
    random = np.random.default_rng(size)
    shape = (MATRICES, size, size)
    x = random.standard_normal(shape, dtype=np.float32)
    x[random.random(shape, dtype=np.float32) >= density] = 0
    w, d = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    turn = iter(range(1 << 62))

    def in_turn(call: Callable[[Any, Any, Any], object], *arrays: Any) -> Callable[[], float]:
        def one() -> object:
            i = next(turn) % MATRICES
            return call(*(a[i] for a in arrays))

        return burst(one)

    name = f"{size}^3, density {density:g}, {count} thread{'s' if count > 1 else ''}"
    forward = {
        "cdrop": in_turn(lambda a, b, c: kernels.masked_gemm(a, b), x, w, d),
        "NumPy": in_turn(lambda a, b, c: a @ b, x, w, d),
    }
    backward = {
        "cdrop": in_turn(lambda a, b, c: kernels.masked_gradients(c, a, b), x, w, d),
        "NumPy": in_turn(lambda a, b, c: (a.T @ c, c @ b.T, c.sum(axis=0)), x, w, d),
    }
    if plan.torch:
        import torch

        t = [torch.from_numpy(a) for a in (x, w, d)]
        forward["PyTorch"] = in_turn(lambda a, b, c: torch.mm(a, b), *t)
        backward["PyTorch"] = in_turn(lambda a, b, c: (a.T @ c, c @ b.T, c.sum(dim=0)), *t)
    yield plan.run("products", f"forward {name}", forward, per="call")
    yield plan.run("products", f"gradients {name}", backward, per="call")


def products(plan: Plan) -> Iterator[Result]:
    """Masked products over size and density, on one thread and on all."""
    from threadpoolctl import threadpool_limits

    most = cdrop.get_num_threads()
    sizes = (64, 256) if plan.quick else (64, 256, 1024, 4096)
    for count in sorted({1, most}):
        for size in sizes:
            for density in (0.25, 1.0) if plan.quick or size == 4096 else DENSITIES:
                with threadpool_limits(count):
                    if plan.torch:
                        import torch

                        torch.set_num_threads(count)
                    yield from _product(plan, size, density, count)


WORKLOADS = {
    f.__name__: f
    for f in (
        steps, kinds, wide, keep, shape, tabular, small, threads, busy, fits, estimators, overhead,
        prediction, masks, products, job,
    )
}  # fmt: skip
