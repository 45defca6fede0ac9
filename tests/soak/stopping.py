"""Which score early stopping of the estimators should go by, on real and generated tables."""

import warnings

import numpy as np
from campaign import Run, campaign
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_friedman1,
    make_moons,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cdrop import DropoutMLPClassifier, DropoutMLPRegressor
from cdrop.experiments import paired_experiment

REPEATS = 10
NETWORK = {"hidden_layer_sizes": (64,), "dropout": 0.3, "early_stopping": True}


class TiesByLoss(DropoutMLPClassifier):
    """Early stopping by the accuracy, except that between equal accuracies the loss decides."""

    def _noted(self, epoch, watch):
        noted = super()._noted(epoch, watch)
        best, loss = self.best_validation_score_, self.best_validation_loss_
        if epoch.validation_score == best and epoch.validation_loss < loss:
            noted["best_validation_loss_"] = epoch.validation_loss
            noted["_best_weights"] = self.network_.coefs_, self.network_.intercepts_
            if epoch.validation_loss <= loss - watch.options.tol:
                noted["_no_improvement_count"] = 0
        return noted


def generated(n, seed, **settings):
    return make_classification(n, 20, n_informative=6, n_redundant=4, random_state=seed, **settings)


def tables():
    """Return tables by name, and what else they are scored by: accuracy, or average precision."""
    digits = load_digits(return_X_y=True)
    return {
        "iris": (*load_iris(return_X_y=True), "accuracy"),
        "wine": (*load_wine(return_X_y=True), "accuracy"),
        "breast_cancer": (*load_breast_cancer(return_X_y=True), "accuracy"),
        "digits": (*digits, "accuracy"),
        "digits, 300 rows": (digits[0][:300], digits[1][:300], "accuracy"),
        "moons": (*make_moons(600, noise=0.25, random_state=1), "accuracy"),
        "5 classes": (*generated(1000, 2, n_classes=5), "accuracy"),
        "labels flipped": (*generated(600, 3, flip_y=0.3), "accuracy"),
        "10 % positive": (*generated(1500, 4, weights=[0.9], flip_y=0.01), "average_precision"),
        "3 % positive": (*generated(3000, 5, weights=[0.97], flip_y=0.01), "average_precision"),
        "1 % positive": (*generated(4000, 6, weights=[0.99], flip_y=0.0), "average_precision"),
        "diabetes": (*load_diabetes(return_X_y=True), "r2"),
        "friedman": (*make_friedman1(600, noise=1.0, random_state=7), "r2"),
    }


def arms(regression):
    """Return pipelines by the score that their early stopping goes by."""
    if regression:
        kinds = {"score": (DropoutMLPRegressor, None), "loss": (DropoutMLPRegressor, "loss")}
    else:
        kinds = {
            "score": (DropoutMLPClassifier, None),
            "loss": (DropoutMLPClassifier, "loss"),
            "ties": (TiesByLoss, None),
        }
    return {
        name: make_pipeline(StandardScaler(), kind(**NETWORK, scoring=scoring))
        for name, (kind, scoring) in kinds.items()
    }


def bounds(interval):
    """Return an interval as text; there is none where all differences are equal."""
    return "" if interval is None else "[{:+.3f}, {:+.3f}]".format(*interval)


@campaign()
def stopping(run: Run) -> None:
    """Compare early stopping by score, by loss, and by score with ties broken by loss, on 13 tables."""
    warnings.simplefilter("ignore")
    print("table | measure | score | loss | ties | loss - score [95 %] | ties - score [95 %]")
    for name, (X, y, metric) in tables().items():
        regression = metric == "r2"
        result = paired_experiment(
            arms(regression),
            X,
            (y - y.mean()) / y.std() if regression else y,
            metric=metric,
            repeats=max(3, run.trials(REPEATS)),
            seed=run.seed,
            threads=1,
            task="regression" if regression else "classification",
        )
        for measure in (metric, "rmse" if regression else "log_loss"):
            means = [
                np.mean([t.scores[measure] for t in result.trials if t.arm == arm])
                for arm in result.arms
            ]
            cells = [f"{mean:.3f}" for mean in means]
            if measure == metric:
                found = [contrast.score for contrast in result.contrasts()]
                cells += [f"{e.estimate:+.3f} {bounds(e.interval)}" for e in found]
            print(" | ".join((name, measure, *cells)), flush=True)
