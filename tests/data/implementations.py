"""What is compared with PyTorch: cdrop's side of torch_cases.py.

Add a function to ``IMPLEMENTATIONS`` and every recorded and live comparison runs over it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch_cases

from cdrop import Network, reference
from cdrop.optimizers import get_optimizer


def train_reference(
    case: torch_cases.Case,
    initial: tuple[list[torch_cases.Array], list[torch_cases.Array]],
    data: torch_cases.Batches,
    dtype: str,
    max_norm: float | None = None,
) -> torch_cases.Run:
    """Train the NumPy twin with keyed masks."""
    spec = reference.NetworkSpec(
        case.sizes,
        dropout=case.dropout,
        input_dropout=case.input_dropout,
        activation=case.activation,
        loss=case.loss,
        scaling=case.scaling,
        seed=case.seed,
    )
    params = tuple([a.astype(dtype) for a in part] for part in initial)
    state = reference.initial_state(params, case.optimizer)
    losses, flat = [], []
    for i, x in enumerate(data.x.astype(dtype)):
        loss = reference.train_step(
            params,
            state,
            x,
            data.y[i] if data.y.dtype.kind == "i" else data.y[i].astype(dtype),
            spec,
            step=i + 1,
            learning_rate=case.learning_rate,
            l2=case.l2,
            max_norm=max_norm,
            sample_weight=None if data.sample_weight is None else data.sample_weight[i],
            **case.hyper,
        )
        losses.append(loss)
        flat.append(torch_cases.flatten(params))
    outputs = reference.forward(params, data.x[0].astype(dtype), spec)[-1]
    return torch_cases.Run(np.array(losses), flat[0], flat[-1], outputs)


def train_network(
    case: torch_cases.Case,
    initial: tuple[list[torch_cases.Array], list[torch_cases.Array]],
    data: torch_cases.Batches,
    dtype: str,
    max_norm: float | None = None,
) -> torch_cases.Run:
    """Train `cdrop.Network` from the same weights, on three threads."""
    net = Network(
        case.sizes,
        dropout=case.dropout,
        input_dropout=case.input_dropout,
        activation=case.activation,
        loss=case.loss,
        scaling=case.scaling,
        seed=case.seed,
        dtype=dtype,
        threads=3,
    )
    state = net.state_dict()
    for layer, (weight, bias) in enumerate(zip(*initial, strict=True)):
        state["arrays"][f"weight.{layer}"] = weight.astype(dtype)
        state["arrays"][f"bias.{layer}"] = bias.astype(dtype)
    net.load_state_dict(state)
    losses, flat = [], []
    for i, x in enumerate(data.x):
        weights = None if data.sample_weight is None else data.sample_weight[i]
        loss = net.train_step(
            x,
            data.y[i],
            weights,
            optimizer=get_optimizer(case.optimizer, **case.hyper),
            learning_rate=case.learning_rate,
            l2=case.l2,
            max_norm=max_norm,
        )
        losses.append(loss)
        flat.append(torch_cases.flatten((net.coefs_, net.intercepts_)))
    logits = net._predicted(data.x[0], "outputs")
    return torch_cases.Run(np.array(losses), flat[0], flat[-1], logits)


IMPLEMENTATIONS: dict[str, Callable[..., torch_cases.Run]] = {
    "reference": train_reference,
    "network": train_network,
}
