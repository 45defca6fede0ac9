"""TestU01's tests on the bits of masks."""

import random

from campaign import Run, campaign, need_header
from words import ORDERS, output, program, side_by_side

SMALL = [("small", test) for test in range(1, 11)]
LINEAR = [("crush", test) for test in (71, 72)]
RANK = [("crush", test) for test in range(56, 62)]
ALL, FEWER = SMALL + LINEAR + RANK, SMALL + LINEAR + RANK[4:5]
OTHER_ORDERS = [order for order in ORDERS.values() if order]


def streams() -> list[tuple[dict, list]]:
    """Return what is tested, and how: masks in every order, two at a time, and of other rates, then made fair."""
    in_order = [({"keep": 0.5}, ALL), ({"keep": 0.5, "width": 800}, ALL)]
    wide = [({"keep": 0.5, "width": 65536}, FEWER)]
    other = [({"keep": 0.5, "order": order}, FEWER) for order in OTHER_ORDERS]
    two = [({"keep": 0.5, "order": order, "zip": 1}, FEWER) for order in OTHER_ORDERS]
    unfair = [({"keep": keep, "neumann": 1}, FEWER) for keep in (0.1, 0.25, 1 / 3, 0.8)]
    unfair_two = [
        ({"keep": 0.8, "order": order, "zip": 1, "neumann": 1}, SMALL) for order in OTHER_ORDERS
    ]
    return in_order + wide + other + two + unfair + unfair_two


FAULTS = {
    "xorshift64": ({"xorshift": 64}, ("small", 8)),
    "xorshift128+, low bits": ({"xorshift": 128, "low": 1}, ("crush", 71)),
    "correlated rows": ({"keep": 0.5, "order": 1, "zip": 1, "twins": 16}, ("small", 9)),
    "correlated rows, keep 0.8": (
        {"keep": 0.8, "order": 1, "zip": 1, "neumann": 1, "twins": 16},
        ("small", 9),
    ),
    "keep off by 1e-3": ({"keep": 0.5, "off": 1e-3}, ("small", 10)),
}


def p_values(path: str, settings: dict, test: tuple[str, int]) -> list[tuple[float, str]]:
    """Return the p-values of a test, and what statistics they are of."""
    content = output(path, {**settings, test[0]: test[1]}).decode()
    return [(float(p), name) for p, name in (line.split("\t") for line in content.splitlines())]


def inside(p: float) -> bool:
    """Whether a p-value is what 499 of 500 are."""
    return 0.001 <= p <= 0.999


def twice(path: str, settings: dict, test: tuple[str, int]) -> tuple[list, int, list[str]]:
    """Run a test, again on a fresh seed if a p-value is outside; return the first ones, how many are, what stays."""
    first = p_values(path, settings, test)
    outside = [i for i, (p, _) in enumerate(first) if not inside(p)]
    if not outside:
        return first, 0, []
    second = p_values(path, {**settings, "seed": settings["seed"] + 10**6}, test)
    faults = [
        f"{second[i][1]} of {settings}: {first[i][0]:.2g}, then {second[i][0]:.2g}"
        for i in outside
        if not inside(second[i][0])
    ]
    return first, len(outside), faults


@campaign(5)
def crush(run: Run):
    """TestU01 on masks in several orders, and two at a time; controls: two generators, correlated rows, keep off."""
    need_header("testu01/bbattery.h", debian="libtestu01-0-dev, of the section non-free")
    path = program("crush")
    jobs = [(settings, test) for settings, tests in streams() for test in tests]
    random.Random(run.seed).shuffle(jobs)
    chosen = jobs[: run.trials(len(jobs))]
    seeded = enumerate([*FAULTS.values(), *chosen], start=run.seed * 1000)
    results = side_by_side(
        lambda job: twice(path, {**job[1][0], "seed": job[0]}, job[1][1]), seeded
    )
    for name, (_, _, faults) in zip(FAULTS, results, strict=False):
        run.figure(5, f"control, {name}: {faults[0] if faults else 'not found'}", bool(faults))
    results = results[len(FAULTS) :]
    p, outside = [p for first, _, _ in results for p, _ in first], sum(n for _, n, _ in results)
    faults = [fault for _, _, faults in results for fault in faults]
    run.figure(
        5,
        f"{len(chosen)} tests of TestU01, {len(p)} p-values from {min(p):.2g} to {max(p):.5g}; {outside} outside "
        f"[0.001, 0.999], {len(faults)} of them again on a fresh seed: {'; '.join(faults) or 'none'}",
        not faults,
    )
