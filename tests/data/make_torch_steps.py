"""Write torch_steps.npz: what PyTorch's autograd and optimizers make of the small cases.

Run ``python tests/data/make_torch_steps.py`` where PyTorch (CPU) is installed. Float64; masks,
initial weights and batches come from torch_cases.py, nothing of cdrop is used here. Our
momentum rules keep ``v = -lr * buffer`` of PyTorch's: the same steps at a constant rate. L2 is a
term of the loss, so autograd differentiates it; AdamW decays weights, not biases.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch_cases import (
    SMALL,
    Array,
    Batches,
    Case,
    Run,
    batches,
    drawn_keeps,
    flatten,
    initial_weights,
    kept_units,
)

Tensors = list[torch.Tensor]
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def optimizer(case: Case, weights: Tensors, biases: Tensors) -> torch.optim.Optimizer:
    lr, hyper, every = case.learning_rate, case.hyper, [*weights, *biases]
    betas = (hyper.get("beta1", 0.9), hyper.get("beta2", 0.999))
    match case.optimizer:
        case "sgd":
            return torch.optim.SGD(every, lr)
        case "momentum" | "nesterov" as name:
            momentum = hyper.get("momentum", 0.9)
            return torch.optim.SGD(every, lr, momentum=momentum, nesterov=name == "nesterov")
        case "adagrad":
            return torch.optim.Adagrad(every, lr, eps=1e-8)
        case "rmsprop":
            return torch.optim.RMSprop(every, lr, alpha=hyper.get("rho", 0.9), eps=1e-8)
        case "adam":
            return torch.optim.Adam(every, lr, betas, eps=1e-8)
        case "adamw":
            decay = hyper.get("weight_decay", 0.01)
            groups = [
                {"params": weights, "weight_decay": decay},
                {"params": biases, "weight_decay": 0.0},
            ]
            return torch.optim.AdamW(groups, lr, betas, eps=1e-8)
    raise ValueError(case.optimizer)


def forward(
    case: Case, weights: Tensors, biases: Tensors, x: torch.Tensor, masks: Tensors | None
) -> torch.Tensor:
    """Return the linear outputs: for training with masks, without for a prediction."""
    for layer, (weight, bias, keep) in enumerate(
        zip(weights, biases, drawn_keeps(case), strict=True)
    ):
        if layer > 0:
            x = ACTIVATIONS[case.activation](x)
        if masks is not None:
            x = x * masks[layer] / (keep if case.scaling == "train" else 1.0)
        elif case.scaling == "test":
            x = x * keep
        x = x @ weight + bias
    return x


def row_losses(case: Case, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    match case.loss:
        case "softmax_cross_entropy":
            return F.cross_entropy(outputs, y, reduction="none")
        case "sigmoid_cross_entropy":
            return F.binary_cross_entropy_with_logits(outputs, y, reduction="none").sum(1)
        case _:
            return 0.5 * ((outputs - y) ** 2).sum(1)


def limit_norms(weights: Tensors, max_norm: float) -> None:
    """Scale columns above the limit to it; `torch.renorm` adds 1e-7 to their norms, and is no peer."""
    with torch.no_grad():
        for weight in weights:
            weight *= (max_norm / weight.norm(dim=0)).clamp(max=1)


def train_torch(
    case: Case,
    initial: tuple[list[Array], list[Array]],
    data: Batches,
    dtype: str,
    max_norm: float = math.inf,
) -> Run:
    """Train with autograd under the same keyed masks as cdrop."""
    number = getattr(torch, dtype)
    weights, biases = (
        [torch.tensor(a, dtype=number, requires_grad=True) for a in part] for part in initial
    )
    rule = optimizer(case, weights, biases)
    losses, flat = [], []
    for step, x in enumerate(torch.tensor(data.x, dtype=number), 1):
        masks = [torch.tensor(m, dtype=number) for m in kept_units(case, len(x), step)]
        y = torch.tensor(data.y[step - 1])
        outputs = forward(case, weights, biases, x, masks)
        rows = row_losses(case, outputs, y if y.dtype == torch.int64 else y.to(number))
        w = torch.ones_like(rows)
        if data.sample_weight is not None:
            w = torch.tensor(data.sample_weight[step - 1], dtype=number)
        loss = (w * rows).sum() / w.sum() + 0.5 * case.l2 * sum((a * a).sum() for a in weights)
        rule.zero_grad()
        loss.backward()
        rule.step()
        limit_norms(weights[:-1], max_norm)
        losses.append(loss.item())
        flat.append(
            flatten(([a.detach().numpy() for a in weights], [a.detach().numpy() for a in biases]))
        )
    with torch.no_grad():
        outputs = forward(case, weights, biases, torch.tensor(data.x[0], dtype=number), None)
    return Run(np.array(losses), flat[0], flat[-1], outputs.numpy())


def main() -> None:
    arrays: dict[str, Array] = {}
    for name, case in SMALL.items():
        run = train_torch(case, initial_weights(case), batches(case), "float64")
        arrays |= {f"{name}/{part.name}": getattr(run, part.name) for part in fields(Run)}
    about = {
        "made_by": "tests/data/make_torch_steps.py",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cases": [asdict(case) for case in SMALL.values()],
    }
    path = Path(__file__).with_name("torch_steps.npz")
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main()
