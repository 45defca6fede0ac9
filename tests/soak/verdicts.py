"""How often verdicts are wrong where there is nothing to find, and intervals miss a known effect."""

import os
from functools import cache, partial
from multiprocessing import Pool

import numpy as np
from campaign import Run, campaign, need_module

from cdrop import Network
from cdrop.datasets.dataset import split_rows
from cdrop.experiments import paired_experiment
from cdrop.experiments.statistics import (
    Sampling,
    Scores,
    difference,
    plan_looks,
    probability_better,
    spread_ratio,
)

ROW = 27
REPEATS = (5, 10, 20, 50, 100)
ROWS, COLUMNS, TESTING = 200, 10, 40  # of a table; 80 : 20 splits
GIVEN = 200  # rows of a given test set
FRESH = 10**5  # rows that give the true accuracy
LIMIT, COVERED = 0.07, (0.92, 0.98)
NETWORK = {"hidden": 16, "epochs": 10, "batch_size": 32, "learning_rate": 0.01}
DROPOUT = {**NETWORK, "dropout": 0.5}
FLIPS = {"none": NETWORK, "dropout": DROPOUT}
KNOWN = {
    **FLIPS,
    "linear": {**NETWORK, "hidden": (), "epochs": 20},
    "wide": {**NETWORK, "hidden": 64, "epochs": 20},
}
CONTRASTS = (("none", "dropout"), ("none", "linear"), ("linear", "wide"))
TODAY = "t-test over seeds"
TESTS = {
    "difference": difference,
    "P(better)": probability_better,
    "spread": spread_ratio,
    TODAY: difference,
}


def draw(rng, rows, known):
    """Draw a table: labels are coin flips, or depend on two columns and the product of two more."""
    X = rng.standard_normal((rows, COLUMNS))
    logit = 1.5 * X[:, 0] - X[:, 1] + X[:, 2] * X[:, 3] if known else np.zeros(rows)
    return X.astype("float32"), (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)


def experiment(arms, data, entropy, **options):
    """Run the arms through the public API; no two experiments share a seed."""
    settings = {"metric": "accuracy", "threads": 1, "seed": 1000 * entropy[-1], **options}
    return paired_experiment(arms, *data, **settings)


def judged(result, test, n, first="none", second="dropout", level=0.95):
    """Return what a test says about two arms after n repeats."""
    arms = []
    for name in (first, second):
        s = result.scores(name)
        arms.append(Scores(s.values[:n], None if s.rows is None or test == TODAY else s.rows[:n]))
    return TESTS[test](*arms, Sampling() if test == TODAY else result.sampling, level=level)


def coin_flips(given, entropy):
    """Return which verdicts on a table of coin flips are wrong: by test, at each number of repeats."""
    rng = np.random.default_rng(entropy)
    data = draw(rng, ROWS, known=False)
    options = {"test_data": draw(rng, GIVEN, known=False)} if given else {}
    result = experiment(FLIPS, data, entropy, repeats=REPEATS[-1], **options)

    def wrong(test, n, level=0.95):
        return judged(result, test, n, level=level).verdict != "not decided"

    found = {test: [wrong(test, n) for n in REPEATS] for test in TESTS if given or test != TODAY}
    looks = plan_looks(REPEATS[-1])
    found["until decided"] = [any(wrong("difference", k.repeats, 1 - k.alpha) for k in looks)]
    return found


@cache
def fresh_rows():
    return draw(np.random.default_rng(FRESH), FRESH, known=True)


def true_accuracies(arms, data, seed):
    """Return the accuracy on fresh rows of each arm, trained once."""
    X, y = fresh_rows()
    found = {}
    for name in arms:
        fit = dict(KNOWN[name])
        hidden, dropout = fit.pop("hidden"), fit.pop("dropout", 0.0)
        units = COLUMNS, *(hidden if isinstance(hidden, tuple) else (hidden,)), 2
        net = Network(units, dropout, seed=seed, threads=1)
        net.fit(*data, **fit)
        found[name] = np.mean(net.predict(X) == y)
    return found


def on_a_fresh_table(entropy):
    """Return the accuracies of networks trained on a split of a separate table."""
    X, y = draw(np.random.default_rng(entropy), ROWS, known=True)
    train, _, _ = split_rows(y, entropy[-1], TESTING, 0, stratify=True)
    return true_accuracies(KNOWN, (X[train], y[train]), entropy[-1])


def over_splits(truth, entropy):
    """Return for each contrast and number of repeats: interval holds the truth, estimate, its error."""
    data = draw(np.random.default_rng(entropy), ROWS, known=True)
    result = experiment(KNOWN, data, entropy, repeats=20)
    found = {}
    for first, second in CONTRASTS:
        for n in (5, 20):
            evidence = judged(result, "difference", n, first, second)
            found[first, second, n] = held(evidence, truth[second] - truth[first])
    return found


def on_a_test_set(entropy):
    """Return the same where the truth is the mean over seeds for one training set."""
    rng = np.random.default_rng(entropy)
    data = draw(rng, ROWS - TESTING, known=True)
    result = experiment(FLIPS, data, entropy, repeats=20, test_data=draw(rng, GIVEN, known=True))
    seeds = range(2**40 + 1000 * entropy[-1], 2**40 + 1000 * entropy[-1] + 25)
    accuracies = [true_accuracies(FLIPS, data, seed) for seed in seeds]
    truth = np.mean([a["dropout"] - a["none"] for a in accuracies])
    return {("none", "dropout", n): held(judged(result, "difference", n), truth) for n in (5, 20)}


def held(evidence, truth):
    """Return whether the interval holds the truth; differences that are all equal have none, and claim nothing."""
    low, high = evidence.interval or (-np.inf, np.inf)
    return low <= truth <= high, evidence.estimate - truth, evidence.standard_error


def percent(shares):
    return " / ".join(f"{100 * share:.1f}" for share in shares)


def tell_wrong(run: Run, given, found):
    """Print the shares of wrong verdicts on coin flips."""
    where = "given test set" if given else "splits"
    for test in found[0]:
        shares = np.mean([one[test] for one in found], axis=0)
        at = "" if test == "until decided" else f" at {' / '.join(map(str, REPEATS))} repeats"
        text = f"coin flips, {where}, {len(found)} tables, {test}: {percent(shares)} % wrong{at}"
        if test == TODAY:
            run.figure(ROW, f"control: {text}", shares[-1] > LIMIT)
        elif test == "spread" and given:  # seeds of the arms may truly spread differently here
            run.figure(ROW, f"{text} (no bound)")
        else:
            run.figure(ROW, text, shares.max() <= LIMIT)


def tell_covered(run: Run, where, found, most):
    """Print how often the interval holds the truth, and its error relative to the true one."""
    for first, second, n in found[0]:
        hits, off, errors = np.transpose([one[first, second, n] for one in found])
        share, wide = hits.mean(), np.sqrt(np.nanmean(errors**2) / np.mean(off**2))
        without = np.isnan(errors).sum()
        text = (
            f"known effect, {where}, {second} - {first}, {n} repeats: {100 * share:.1f} % covered"
        )
        text += f", standard error {wide:.2f} times the true one"
        text += f", {without} without an interval" * bool(without)
        run.figure(ROW, text, COVERED[0] <= share <= most)


@campaign(ROW)
def verdicts(run: Run):
    """Wrong verdicts on coin flips and coverage of known effects; control: a t-test over seeds."""
    need_module("scipy")
    tables = run.trials(400)
    # A number for each kind of table keeps their draws apart.
    kinds = [[(run.seed, kind, i) for i in range(tables)] for kind in range(5)]
    with Pool(os.cpu_count()) as pool:
        for given in (False, True):
            found = pool.map(partial(coin_flips, given), kinds[given], chunksize=1)
            tell_wrong(run, given, found)
        fresh = pool.map(on_a_fresh_table, kinds[2])
        truth = {name: np.mean([one[name] for one in fresh]) for name in KNOWN}
        # Over splits the correction is an upper bound, see docs/verdict.md: too wide is no failure.
        found = pool.map(partial(over_splits, truth), kinds[3], chunksize=1)
        tell_covered(run, "splits", found, most=1.0)
        found = pool.map(on_a_test_set, kinds[4], chunksize=1)
        tell_covered(run, "given test set", found, most=COVERED[1])
