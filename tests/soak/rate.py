"""The rate of masks: whether each unit is kept as often as it should be, wherever it stands."""

import numpy as np
from campaign import Run, campaign
from words import bound, outputs, pieces, program

from cdrop.kernels import drawn_keep

RATES = [(0.5, 512), (0.25, 512), (0.1, 512), (0.8, 512), (1 / 3, 512), (0.999, 512)]
RATES += [(2.0**-10, 512), (0.5, 800), (0.8, 800)]


def cells(width: int) -> np.ndarray:
    """Return the share of a block's words that have a unit at each lane and bit position."""
    row = np.minimum(np.maximum(width - 64 * np.arange(-(-width // 64)), 0), 64)
    live = np.tile(row, 64).reshape(-1, 8)[:, :, None] > np.arange(64)
    return live.mean(axis=0) / 8


def rate_deviates(content: bytes, keep: float, width: int) -> tuple[float, dict[str, float]]:
    """Return the number of units, and the largest deviates of all, a lane, a position, a cell."""
    words = int.from_bytes(content[-8:], "little")
    kept, n = np.frombuffer(content[:-8], np.uint64).reshape(8, 64), cells(width) * words
    sums = {"all": (0, 1), "a lane": 1, "a position": 0, "a bit of a lane": ()}
    z = {
        name: (kept.sum(axis) - n.sum(axis) * keep) / np.sqrt(n.sum(axis) * keep * (1 - keep))
        for name, axis in sums.items()
    }
    return n.sum(), {name: np.max(np.abs(values)) for name, values in z.items()}


@campaign(4)
def rate(run: Run):
    """Count the units kept at each bit position of each lane; controls: keep off by 1e-4, one bit of a lane off."""
    path, limit = program("rate"), bound(len(RATES) * (8 + 64 + 8 * 64))
    whole = [{"pieces": run.trials(pieces(37))}, {"off": 1e-4}, {"stuck": 256}]
    cases = [
        {"seed": run.seed, "keep": keep, "width": width, "pieces": pieces(34), **case}
        for keep, width in RATES
        for case in whole
    ]
    found = iter(outputs(path, cases))
    for keep, width in RATES:
        (n, z), (_, off), (_, stuck) = (
            rate_deviates(next(found), drawn_keep(keep), width) for _ in whole
        )
        figures = ", ".join(f"{name} {value:.2f}" for name, value in z.items())
        overall = z.pop("all")
        caught = off["all"] > 4 and stuck["a bit of a lane"] > limit
        run.figure(
            4,
            f"keep {keep:.6g}, width {width}, 2^{np.log2(n):.1f} units: largest |z| of {figures}; "
            f"bounds 4 and {limit:.2f}; controls {off['all']:.0f} and {stuck['a bit of a lane']:.0f}",
            overall < 4 and max(z.values()) < limit and caught,
        )
