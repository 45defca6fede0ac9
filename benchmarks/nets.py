"""The same training step in every library: net, batches, update rule, penalty on the weights, inverted dropout.

Each class makes steps with its own masks, and one with given masks: `checks` shows that it then has our loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop import Network

__all__ = ["CdropNet", "JaxNet", "Problem", "TorchNet", "peers_present"]

RATE, RHO, EPSILON, L2 = 1e-3, 0.9, 1e-8, 1e-3
BETA1, BETA2, DECAY = 0.9, 0.999, 0.01


@dataclass(frozen=True)
class Problem:
    """Data, widths, rows of a minibatch, the probability of dropping a hidden unit, update rule and activation."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    units: tuple[int, ...]
    batch: int
    dropout: float
    optimizer: str = "rmsprop"  # or adam, or adamw
    activation: str = "relu"  # or tanh
    kind: str = "bernoulli"  # of cdrop's dropout; the peers have no other

    @property
    def l2(self) -> float:
        """Return the L2 penalty; AdamW has its decay in place of one."""
        return 0.0 if self.optimizer == "adamw" else L2

    def rows(self, step: int) -> slice:
        """Return the rows of a minibatch: another one each step, over and over."""
        first = step % (len(self.X) // self.batch) * self.batch
        return slice(first, first + self.batch)


def initial(problem: Problem) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return cdrop's initial weights and biases, for all libraries to begin with."""
    net = Network(problem.units, activation=problem.activation, seed=1)
    return list(zip(net.coefs_, net.intercepts_, strict=True))


class CdropNet:
    """cdrop as a user has it: `fit` on all rows, divided by the number of steps."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.net = Network(
            problem.units,
            dropout=problem.dropout,
            activation=problem.activation,
            seed=1,
            dropout_kind=problem.kind,
        )
        self.rule = {
            "optimizer": problem.optimizer,
            "learning_rate": RATE,
            "l2": problem.l2,
        }

    def seconds(self, steps: int) -> float:
        """Train and return the seconds of one step."""
        p = self.problem
        start = time.perf_counter()
        self.net.fit(p.X, p.y, **self.rule, batch_size=p.batch, iterations=steps)
        return (time.perf_counter() - start) / steps

    def loss(self, step: int) -> float:
        """Make one step on minibatch `step` and return the loss before it."""
        rows = self.problem.rows(step)
        return self.net.train_step(self.problem.X[rows], self.problem.y[rows], **self.rule)


class TorchNet:
    """PyTorch, eager; the optimizer fused, `foreach` or a loop over parameters, whichever is faster here."""

    def __init__(self, problem: Problem) -> None:
        import torch

        self.torch, self.problem, self.at = torch, problem, 0
        self.X, self.y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
        layers: list[Any] = []
        for weight, bias in initial(problem):
            linear = torch.nn.Linear(*weight.shape)
            linear.weight.data = torch.from_numpy(np.ascontiguousarray(weight.T))
            linear.bias.data = torch.from_numpy(bias.copy())
            layers += [linear, torch.nn.Tanh() if problem.activation == "tanh" else torch.nn.ReLU()]
            layers += [torch.nn.Dropout(problem.dropout)] if problem.dropout else []
        self.layers = layers[: layers.index(linear) + 1]
        self.model = torch.nn.Sequential(*self.layers)
        self.activate = torch.tanh if problem.activation == "tanh" else torch.relu
        self.linears = [m for m in self.layers if isinstance(m, torch.nn.Linear)]
        self.entropy = torch.nn.CrossEntropyLoss()
        self.use(foreach=True)

    def choose_optimizer(self) -> None:
        """Keep the fastest of the optimizer's settings for this net on this machine."""
        settings: list[dict[str, bool]] = [{"foreach": True}, {"foreach": False}]
        if self.problem.optimizer != "rmsprop":  # RMSprop has no `fused` on CPUs
            settings.append({"fused": True})

        def seconds(setting: dict[str, bool]) -> float:
            self.use(**setting)
            self.seconds(3)
            return min(self.seconds(5) for _ in range(3))

        self.use(**min(settings, key=seconds))

    def use(self, **setting: bool) -> None:
        """Take one of the optimizer's settings; the penalty is on the weights only."""
        optim, rule = self.torch.optim, self.problem.optimizer
        groups = [
            {
                "params": [m.weight for m in self.linears],
                "weight_decay": DECAY if rule == "adamw" else self.problem.l2,
            },
            {"params": [m.bias for m in self.linears], "weight_decay": 0.0},
        ]
        if rule == "rmsprop":
            self.optimizer = optim.RMSprop(groups, lr=RATE, alpha=RHO, eps=EPSILON, **setting)
            return
        make = optim.AdamW if rule == "adamw" else optim.Adam
        self.optimizer = make(groups, lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, **setting)

    def _update(self, loss: Any) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def seconds(self, steps: int) -> float:
        """Train and return the seconds of one step."""
        start = time.perf_counter()
        for _ in range(steps):
            rows = self.problem.rows(self.at)
            self.at += 1
            self._update(self.entropy(self.model(self.X[rows]), self.y[rows]))
        return (time.perf_counter() - start) / steps

    def loss(self, step: int, masks: Sequence[NDArray[np.float32]]) -> float:
        """Make one step under scaled masks; return the loss before it, with its L2 term."""
        rows, hidden = self.problem.rows(step), iter(masks)
        x = self.X[rows]
        for linear in self.linears:
            x = linear(x)
            if linear is not self.linears[-1]:
                x = self.activate(x) * self.torch.from_numpy(next(hidden))
        penalty = sum(float((m.weight.detach().double() ** 2).sum()) for m in self.linears)
        loss = self.entropy(x, self.y[rows])
        self._update(loss)
        return float(loss.detach()) + self.problem.l2 / 2 * penalty


class JaxNet:
    """JAX: loss, gradient and update in one jitted call that reuses the buffers of the old weights."""

    def __init__(self, problem: Problem) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.problem, self.at = jax, problem, 0
        self.X, self.y = jnp.asarray(problem.X), jnp.asarray(problem.y)
        self.weights = [(jnp.array(w), jnp.array(b)) for w, b in initial(problem)]
        self.state, rule = _jax_rule(jax, problem, self.weights)
        self.key = jax.random.key(1)
        keep, l2 = 1 - problem.dropout, problem.l2
        activate = jnp.tanh if problem.activation == "tanh" else jax.nn.relu

        def entropy(weights: Any, x: Any, y: Any, masks: Any) -> Any:
            for (w, b), mask in zip(weights[:-1], masks, strict=True):
                x = activate(x @ w + b) * mask
            logits = jax.nn.log_softmax(x @ weights[-1][0] + weights[-1][1])
            return -jnp.take_along_axis(logits, y[:, None], axis=1).mean()

        def update(weights: Any, state: Any, x: Any, y: Any, masks: Any) -> Any:
            loss, slope = jax.value_and_grad(entropy)(weights, x, y, masks)
            slope = [(dw + l2 * w, db) for (dw, db), (w, _) in zip(slope, weights, strict=True)]
            return *rule(weights, state, slope), loss

        def drawn(weights: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
            masks: list[Any] = [1.0] * (len(weights) - 1)
            if problem.dropout:
                key, *keys = jax.random.split(key, len(weights))
                shapes = [(len(x), len(b)) for _, b in weights[:-1]]
                masks = [
                    jax.random.bernoulli(k, keep, shape) / keep
                    for k, shape in zip(keys, shapes, strict=True)
                ]
            return *update(weights, state, x, y, masks), key

        self.given = jax.jit(update, donate_argnums=(0, 1))
        self.drawn = jax.jit(drawn, donate_argnums=(0, 1, 4))

    def seconds(self, steps: int) -> float:
        """Train and return the seconds of one step."""
        start = time.perf_counter()
        for _ in range(steps):
            rows = self.problem.rows(self.at)
            self.at += 1
            self.weights, self.state, loss, self.key = self.drawn(
                self.weights, self.state, self.X[rows], self.y[rows], self.key
            )
        loss.block_until_ready()
        return (time.perf_counter() - start) / steps

    def loss(self, step: int, masks: Sequence[NDArray[np.float32]]) -> float:
        """Make one step under scaled masks; return the loss before it, with its L2 term."""
        rows = self.problem.rows(step)
        penalty = sum(float((np.asarray(w, np.float64) ** 2).sum()) for w, _ in self.weights)
        self.weights, self.state, loss = self.given(
            self.weights, self.state, self.X[rows], self.y[rows], list(masks)
        )
        return float(loss) + self.problem.l2 / 2 * penalty


def _jax_rule(jax: Any, problem: Problem, weights: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the optimizer's first state, and the function (weights, state, slope) -> (weights, state)."""
    jnp, tree = jax.numpy, jax.tree

    def rmsprop(weights: Any, state: Any, slope: Any) -> Any:
        state = tree.map(lambda s, g: RHO * s + (1 - RHO) * g * g, state, slope)
        step = tree.map(lambda s, g: RATE * g / (jnp.sqrt(s) + EPSILON), state, slope)
        return tree.map(jnp.subtract, weights, step), state

    def adam(weights: Any, state: Any, slope: Any) -> Any:
        first, second, t = state[0], state[1], state[2] + 1
        first = tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, slope)
        second = tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, slope)
        rate, correction = RATE / (1 - BETA1**t), 1 - BETA2**t
        if problem.optimizer == "adamw":
            weights = [(w * (1 - RATE * DECAY), b) for w, b in weights]
        step = tree.map(lambda m, v: rate * m / (jnp.sqrt(v / correction) + EPSILON), first, second)
        return tree.map(jnp.subtract, weights, step), (first, second, t)

    def zeros() -> Any:
        return tree.map(jnp.zeros_like, weights)

    if problem.optimizer == "rmsprop":
        return zeros(), rmsprop
    return (zeros(), zeros(), jnp.zeros(())), adam


NETS = {"PyTorch": ("torch", TorchNet), "JAX": ("jax", JaxNet)}


def peers_present() -> dict[str, Any]:
    """Return the peers whose libraries are installed here, by name."""
    from importlib.util import find_spec

    return {name: net for name, (module, net) in NETS.items() if find_spec(module)}
