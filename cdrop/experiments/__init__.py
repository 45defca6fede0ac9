"""Experiments as plain functions with plain results."""

from cdrop.experiments.compare import ComparisonResult, Settings, compare
from cdrop.experiments.ledger import Ledger, OtherExperimentError, open_ledger
from cdrop.experiments.paired import Arm, Contrast, ExperimentResult, paired_experiment
from cdrop.experiments.trials import Trial

__all__ = [
    "Arm",
    "ComparisonResult",
    "Contrast",
    "ExperimentResult",
    "Ledger",
    "OtherExperimentError",
    "Settings",
    "Trial",
    "compare",
    "open_ledger",
    "paired_experiment",
]
