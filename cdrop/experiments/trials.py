"""One run of an experiment: an arm trained and tested in one repeat, and the record of it."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdrop._checks import whole_number

__all__ = ["Trial"]


@dataclass(frozen=True, eq=False, repr=False)
class Trial:
    """The record of one finished run.

    Attributes
    ----------
    repeat : int
        Which repeat, from 0.
    arm : str
    candidate : int
        Index of the candidate that the validation rows chose; 0 for an arm without a choice.
    scores : dict of str to float
        Test score by metric.
    baseline : dict of str to float
        By metric, the test score of a prediction that ignores the inputs, from the same training rows.
    train, test : int
        Number of rows that were trained on (validation rows included) and tested on.
    rows : ndarray of bool or float32, shape (n_test,), or None
        Value of each test row, whose mean is the score by the experiment's metric; None if that has none.
    iterations : list of int
        Iterations of the learning curves; empty for estimators.
    loss : list of float
        Training loss of the minibatches of these iterations, with the L2 term and under masks.
    test_loss, test_score : list of float
        Mean loss over the test rows, without L2, and their accuracy (R2 for numbers), after these iterations.
    seconds : float
        Duration of training and tests, including that of the other candidates.
    """

    repeat: int
    arm: str
    candidate: int
    scores: dict[str, float]
    baseline: dict[str, float]
    train: int
    test: int
    rows: NDArray[Any] | None
    iterations: list[int]
    loss: list[float]
    test_loss: list[float]
    test_score: list[float]
    seconds: float

    def __repr__(self) -> str:
        """Return the scores, on one line: rows and curves may be long."""
        scores = "".join(f", {name} {value:.4g}" for name, value in self.scores.items())
        return f"<Trial: arm {self.arm!r}, repeat {self.repeat}{scores}>"

    def to_json(self) -> dict[str, Any]:
        """Return the record in values that JSON can carry: booleans as packed bits, numbers as float32."""
        plain = dict(vars(self))
        if self.rows is not None:
            bits = self.rows.dtype == np.bool_
            raw = np.packbits(self.rows) if bits else self.rows.astype("<f4")
            plain["rows"] = {
                "bits" if bits else "float32": base64.b64encode(raw.tobytes()).decode(),
                "n": len(self.rows),
            }
        return plain

    @classmethod
    def from_json(cls, plain: Any) -> Trial:
        """Read a record; raise TypeError or ValueError if it is not one."""
        trial = cls(**plain | {"rows": _rows(plain["rows"])})
        whole_number("repeat", trial.repeat, 0, 2**62)
        whole_number("candidate", trial.candidate, 0, 2**31)
        for size in (trial.train, trial.test):
            whole_number("size", size, 1, 2**62)
        columns = (trial.iterations, trial.loss, trial.test_loss, trial.test_score)
        lists = all(isinstance(c, list) and len(c) == len(trial.iterations) for c in columns)
        dicts = isinstance(trial.scores, dict) and isinstance(trial.baseline, dict)
        if not lists or not dicts or not isinstance(trial.arm, str):
            raise TypeError("a record lacks its columns")
        for iteration in trial.iterations:
            whole_number("iteration", iteration, 1, 2**62)
        numbers = [*trial.loss, *trial.test_loss, *trial.test_score, trial.seconds]
        numbers += [*trial.scores.values(), *trial.baseline.values()]
        if not all(isinstance(number, float) for number in numbers):
            raise TypeError("a record has something other than numbers in its columns")
        return trial


def _rows(plain: Any) -> NDArray[Any] | None:
    """Unpack the values per row."""
    if plain is None:
        return None
    n = whole_number("n", plain["n"], 0, 2**40)
    kind = "bits" if "bits" in plain else "float32"
    raw = base64.b64decode(plain[kind], validate=True)
    if len(raw) != (math.ceil(n / 8) if kind == "bits" else 4 * n):
        raise ValueError(f"{n} rows do not take {len(raw)} bytes")
    if kind == "bits":
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=n).astype(np.bool_)
    return np.frombuffer(raw, "<f4").astype(np.float32)
