"""What the article printed: its losses, its accuracies and what they say about its three claims.

The article trained a 784-256-256-10 network on MNIST, 5 times without and 5 times with dropout. It
printed one run's loss per arm and the mean and standard deviation of test accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdrop.experiments.statistics import mean

__all__ = ["ITERATIONS", "REPEATS", "RESULTS", "ArticleArm", "estimates"]

REPEATS = 5
ITERATIONS = tuple(range(100, 1001, 100))


@dataclass(frozen=True)
class ArticleArm:
    """The article's numbers for one arm.

    Attributes
    ----------
    mean_accuracy, std_accuracy : float
        Over the article's repeats, on the 10,000 test images.
    loss : tuple of float
        Training loss after each of `ITERATIONS`, rounded here to 4 decimals.
    """

    mean_accuracy: float
    std_accuracy: float
    loss: tuple[float, ...]


RESULTS = {
    "without": ArticleArm(
        mean_accuracy=0.9640,
        std_accuracy=0.0071,
        loss=(0.7142, 0.5242, 0.3711, 0.3891, 0.2560, 0.3012, 0.2451, 0.2316, 0.1841, 0.2194),
    ),
    "with": ArticleArm(
        mean_accuracy=0.9692,
        std_accuracy=0.0006,
        loss=(0.8994, 0.7619, 0.6473, 0.4278, 0.4877, 0.3574, 0.3651, 0.3070, 0.2755, 0.3182),
    ),
}


def estimates() -> dict[str, float]:
    """Return the article's own estimate behind each of its claims.

    Returns
    -------
    dict of str to float
        Keyed like `cdrop.experiments.claims.judge`: differences are with minus without dropout,
        the ratio of standard deviations is without over with.

    Examples
    --------
    >>> {name: round(value, 4) for name, value in estimates().items()}
    {'accuracy': 0.0052, 'consistency': 11.8333, 'convergence': 0.1411}
    """
    without, dropped = RESULTS["without"], RESULTS["with"]
    return {
        "accuracy": dropped.mean_accuracy - without.mean_accuracy,
        "consistency": without.std_accuracy / dropped.std_accuracy,
        "convergence": mean(dropped.loss) - mean(without.loss),
    }
