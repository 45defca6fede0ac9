"""Results made of given scores, without training, for tests of the views."""

from __future__ import annotations

import math

import numpy as np

from cdrop.experiments.metrics import METRICS
from cdrop.experiments.results import Arm, ExperimentResult, Preset
from cdrop.experiments.statistics import Sampling
from cdrop.experiments.trials import Trial

MACHINE = {
    "cpu": "a processor",
    "simd": "avx2",
    "threads": 2,
    "threads_from": "asked for",
    "platform": "Linux",
    "jobs": 1,
    "versions": {"cdrop": "1.0", "python": "3.11", "numpy": "2.0", "scipy": "1.13"},
}


def made_result(
    arms=("none", "dropout"),
    repeats=5,
    *,
    metric="accuracy",
    scores=None,
    step=0.005,
    curves=5,
    estimators=(),
    candidates=None,
    splits=True,
    baseline=0.6,
    name="wine.csv",
    **fields,
):
    """A result of `repeats` repeats; arm k scores `step` * k above the first, or what `scores` has for it.

    Arms named in `estimators` have no learning curves; the others have `curves` points.
    """
    rng = np.random.default_rng(7)
    measure = METRICS[metric]
    common = rng.normal(0, 0.01, repeats)
    regression = "regression" in measure.tasks
    built = {}
    for k, arm in enumerate(arms):
        values = 0.9 + step * k + common + rng.normal(0, 0.004, repeats)
        if scores is not None and arm in scores:
            values = np.broadcast_to(scores[arm], repeats)
        trials = []
        for r in range(repeats):
            points = 0 if arm in estimators else curves
            decay = 0.3 + np.exp(-np.arange(1, points + 1) / (1.5 + 0.3 * k)) + common[r]
            measured = {metric: float(values[r])}
            if metric != "log_loss" and not regression:
                measured["log_loss"] = float(1.2 - values[r])
            some = (candidates or {}).get(arm, [{"dropout": 0.1 * k}])
            bits = None if splits else rng.random(200) < values[r]
            trials.append(
                Trial(
                    repeat=r,
                    arm=arm,
                    candidate=r % len(some),
                    scores=measured,
                    baseline=dict.fromkeys(measured, baseline),
                    train=800,
                    test=200,
                    rows=bits,
                    iterations=[100 * (i + 1) for i in range(points)],
                    loss=decay.tolist(),
                    test_loss=(decay + 0.1).tolist(),
                    test_score=(1.2 - decay).tolist(),
                    seconds=0.5 + k,
                )
            )
        built[arm] = Arm(arm, metric, (candidates or {}).get(arm, [{"dropout": 0.1 * k}]), trials)
    known = [metric, *(["log_loss"] if metric != "log_loss" and not regression else [])]
    defaults = {
        "asked": max(repeats, 1),
        "seed": 3,
        "data": {"train": 800, "test": 200, "name": name},
        "machine": MACHINE,
        "started": "2026-01-01T00:00:00+00:00",
        "repeats": list(range(repeats)),
        "baseline": {m: [baseline] * repeats for m in known},
        "seconds": 12.5,
        "trials": [trial for arm in built.values() for trial in arm.trials],
        "preset": Preset(),
    }
    return ExperimentResult(
        arms=built,
        metric=measure,
        task="regression" if regression else "classification",
        sampling=Sampling(0.25) if splits else Sampling(),
        **(defaults | fields),
    )


NAN = math.nan
