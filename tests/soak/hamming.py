"""Blackman and Vigna's test for Hamming-weight dependencies (2022), written from its idea, for masks of any rate."""

import numpy as np
from campaign import Run, campaign
from scipy import stats
from words import ORDERS, WHOLE, output, pieces, program, side_by_side


def cuts(keep: float) -> tuple[int, int]:
    """Return the least and largest weight of the middle class; each of the others has at most a seventh of the words.

    With thirds, which look as good, xorshift128+ needs twice the bits to be found.
    """
    weight = stats.binom(64, keep)
    return int(weight.ppf(1 / 7)), int(weight.isf(1 / 7))


def orthonormal(keep: float) -> np.ndarray:
    """Return three functions of a class, a row each: 1, and two orthonormal to it under the classes' probabilities."""
    below, above = cuts(keep)
    weight = stats.binom(64, keep)
    p = np.array([weight.cdf(below - 1), 0, weight.sf(above)])
    p[1] = 1 - p.sum()
    q, r = np.linalg.qr(np.vander(np.arange(3.0), increasing=True) * np.sqrt(p)[:, None])
    return (q * np.sign(np.diag(r))).T / np.sqrt(p)


def dependence(content: bytes, keep: float) -> tuple[int, float, str]:
    """Return the number of words, the p-value, and the dependence that it is of.

    Each deviate is the correlation of a word's weight with a product of functions, one for each of the eight words
    before, the nearest first; under independence all are standard normal and uncorrelated. They fall into categories by
    how many of the functions are not 1: what one word explains would drown among the many deviates of all eight.
    """
    sums, words = np.frombuffer(content[:-8], np.int64), int.from_bytes(content[-8:], "little")
    z = sums.reshape((3,) * 8) / 2**26 / np.sqrt(words * 64 * keep * (1 - keep))
    for axis in range(8):
        z = np.moveaxis(np.tensordot(orthonormal(keep), z, (1, axis)), 0, axis)
    category = sum(np.minimum(digit, 1) for digit in np.indices(z.shape))
    found = []
    for k in range(9):
        members = np.where(category == k, np.abs(z), 0)
        at = np.unravel_index(np.argmax(members), z.shape)
        n = np.sum(category == k)
        p = -np.expm1(n * np.log1p(-2 * stats.norm.sf(members[at])))
        found.append((p, "".join(map(str, at)), members[at]))
    p, signature, largest = min(found)
    return words, -np.expm1(9 * np.log1p(-p)), f"z {largest:.2f} at {signature}"


def case(keep: float = 0.5, **settings: float) -> dict:
    """Return the arguments of one run of the program."""
    below, above = cuts(keep)
    claimed = round(keep * WHOLE)
    return {"keep": keep, "claimed": claimed, "below": below, "above": above, **settings}


def masks(run: Run) -> list[dict]:
    """Return what is tested: fair masks in each order, and masks of other rates in three of them."""
    fair = [case(pieces=run.trials(pieces(40)), order=order) for order in ORDERS.values()]
    unfair = [
        case(keep, pieces=run.trials(pieces(38)), order=ORDERS[name])
        for keep in (0.1, 1 / 3, 0.8)
        for name in ("units", "rows", "steps")
    ]
    return fair + unfair


FAULTS = {
    "xorshift128+": case(pieces=pieces(37), xorshift=128),
    "correlated rows": case(pieces=pieces(34), order=1, twins=16),
    "keep off by 1e-4": case(pieces=pieces(34), off=1e-4),
}


@campaign(6)
def hamming(run: Run):
    """Dependence between the weights of nine words; controls: xorshift128+, correlated rows, keep off by 1e-4."""
    path = program("hamming")

    def tested(settings: dict) -> tuple[int, float, str]:
        return dependence(output(path, settings), settings["claimed"] / WHOLE)

    def twice(settings: dict) -> list[tuple[int, float, str]]:
        first = tested(settings)
        return [first] if first[1] >= 0.001 else [first, tested({**settings, "seed": run.seed + 1})]

    cases = masks(run)
    faulty = side_by_side(tested, FAULTS.values())
    for name, (words, p, where) in zip(FAULTS, faulty, strict=True):
        text = f"control, {name}: 2^{np.log2(words) + 6:.1f} bits, p {p:.2g}, {where}"
        run.figure(6, text, p < 1e-9)
    found = side_by_side(twice, [{**settings, "seed": run.seed} for settings in cases])
    names = {order: name for name, order in ORDERS.items()}
    for settings, results in zip(cases, found, strict=True):
        figures = ", on a fresh seed ".join(f"p {p:.2g} ({where})" for _, p, where in results)
        run.figure(
            6,
            f"keep {settings['keep']:.6g}, successive {names[settings['order']]}, "
            f"2^{np.log2(results[0][0]) + 6:.1f} bits: {figures}",
            results[-1][1] >= 0.001,
        )
