"""Correlation between any two rows of masks."""

import numpy as np
from campaign import Run, campaign
from words import bound, outputs, program

from cdrop.kernels import drawn_keep


def largest_of_pairs(content: bytes, keep: float) -> tuple[int, int, float]:
    """Return the number of units of a row, the number of pairs, and their largest deviate."""
    units = int.from_bytes(content[-8:], "little")
    equal = np.frombuffer(content[:-8], np.uint64)
    rows = int(np.sqrt(len(equal)))
    equal, p = equal.reshape(rows, rows)[np.tril_indices(rows, -1)], keep**2 + (1 - keep) ** 2
    return units, len(equal), np.max(np.abs(equal - units * p)) / np.sqrt(units * p * (1 - p))


@campaign(5)
def pairs(run: Run):
    """Count the equal bits of any two rows of two steps, across blocks and layers; control: correlated rows."""
    path, keeps = program("pairs"), (0.5, 0.8, 0.1)
    whole = [{"pieces": run.trials(5000)}, {"pieces": 200, "twins": 64}]
    cases = [{"seed": run.seed, "keep": keep, **case} for keep in keeps for case in whole]
    found = iter(outputs(path, cases))
    for keep in keeps:
        (units, n, z), (_, _, twins) = (
            largest_of_pairs(next(found), drawn_keep(keep)) for _ in whole
        )
        run.figure(
            5,
            f"keep {keep:.6g}, {n} pairs of rows, 2^{np.log2(units):.1f} units each: largest |z| {z:.2f}, bound "
            f"{bound(n * len(keeps)):.2f}; control {twins:.0f}",
            z < bound(n * len(keeps)) < twins,
        )
