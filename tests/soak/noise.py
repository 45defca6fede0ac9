"""The noise of dropout: its moments, and whether its numbers are independent."""

import numpy as np
from campaign import Run, campaign
from words import bound, outputs, program

STEP = 2**16  # numbers
SUMS = ["mean", "variance", "skewness", "kurtosis"]
PAIRS = ["next unit", "partner of the pair", "next row", "next block", "next step"]
SUMS += [f"{what}, {pair}" for what in ("product", "product of squares") for pair in PAIRS]
MOMENTS = {
    "gaussian": [1, 3, 15, 105],
    "uniform": [1, 9 / 5, 27 / 7, 9],
    "concrete": [1, 1.0697685062222924, 1.1608690195550618, 1.2676357689505536],
}  # second, fourth, sixth, eighth


def deviates(content: bytes, kind: str) -> tuple[float, dict[str, float]]:
    """Return how many numbers there were, and by how many standard deviations each sum is off."""
    *sums, n = np.frombuffer(content)
    _, fourth, sixth, eighth = MOMENTS[kind]
    variances = [1.0, fourth - 1, sixth, eighth - fourth**2]
    variances += [1.0] * len(PAIRS) + [(fourth - 1) ** 2] * len(PAIRS)
    return n, dict(zip(SUMS, np.abs(sums) / np.sqrt(n * np.array(variances)), strict=True))


@campaign(4)
def noise(run: Run):
    """Sum powers and products of all kinds of noise; controls: mean or scale off by 1e-4, copied numbers."""
    path, limit = program("noise"), bound(2 * len(SUMS))
    steps, fewer = run.trials(2**34 // STEP), run.trials(2**31 // STEP)
    faults = {
        "mean": {"shift": 30},
        "variance": {"scale": 30},
        "product, next unit": {"copied": 200},
    }
    cases = [
        {"kind": number, "seed": run.seed, "steps": fewer if fault else steps, **fault}
        for number in (1, 2, 4)
        for fault in ({}, *faults.values())
    ]
    found = iter(outputs(path, cases))
    for kind in MOMENTS:
        n, z = deviates(next(found), kind)
        caught = {name: deviates(next(found), kind)[1][name] for name in faults}
        worst = max(z, key=lambda name: z[name])
        run.figure(
            4,
            f"{kind}, 2^{np.log2(n):.1f} numbers: |z| of mean {z['mean']:.2f}, variance {z['variance']:.2f}; largest of"
            f" {len(z)} {z[worst]:.2f} ({worst}); bounds 4 and {limit:.2f}; "
            f"controls {', '.join(f'{value:.0f}' for value in caught.values())}",
            max(z["mean"], z["variance"]) < 4
            and max(z.values()) < limit
            and min(caught.values()) > limit,
        )
