"""The article's three claims, judged by the repeats at hand and never by rote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdrop.experiments.statistics import Evidence, mean, paired_difference, spread_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdrop.experiments.paired import Arm

__all__ = ["Claim", "judge"]


@dataclass(frozen=True)
class Claim:
    """One claim of the article and what these repeats say about it.

    Attributes
    ----------
    name : str
        Short name: ``accuracy``, ``consistency`` or ``convergence``.
    text : str
        The claim in words.
    quantity : str
        What `evidence` estimates.
    evidence : Evidence
        Estimate, interval, test and verdict.
    note : str
        What else bears on the claim; may be empty.
    """

    name: str
    text: str
    quantity: str
    evidence: Evidence
    note: str = ""


def judge(without: Arm, dropped: Arm) -> list[Claim]:
    """Judge the article's claims.

    Parameters
    ----------
    without, dropped : Arm
        Results of the paired repeats without and with dropout.

    Returns
    -------
    list of Claim
        Better mean accuracy, consistency, convergence, in the article's order.
    """
    return [
        Claim(
            "accuracy",
            "dropout gives the better mean test accuracy",
            "mean accuracy with minus without dropout",
            paired_difference(without.score, dropped.score, of="mean accuracies"),
        ),
        Claim(
            "consistency",
            "dropout is far more consistent between repeats",
            "std of accuracy without over with dropout",
            spread_ratio(without.score, dropped.score, of="spreads"),
        ),
        Claim(
            "convergence",
            "the network without dropout converges faster in training loss",
            "mean printed loss with minus without dropout",
            paired_difference(
                [mean(row) for row in without.loss],
                [mean(row) for row in dropped.loss],
                of="mean losses",
            ),
            _where_lower(without.curve("loss")[0], dropped.curve("loss")[0]),
        ),
    ]


def _where_lower(without: Sequence[float], dropped: Sequence[float]) -> str:
    """Say at how many printed iterations the mean loss without dropout is the lower one."""
    lower = sum(a < b for a, b in zip(without, dropped, strict=True))
    return f"the mean loss without dropout is lower at {lower} of {len(without)} printed iterations"
