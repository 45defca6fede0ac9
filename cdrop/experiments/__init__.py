"""Paired experiments: any arms, any data, and presets for the article, the paper and your own tables."""

from cdrop.experiments.advice import arms_for, does_dropout_help
from cdrop.experiments.article import Settings, compare
from cdrop.experiments.ledger import Ledger, OtherExperimentError, open_ledger
from cdrop.experiments.paired import paired_experiment
from cdrop.experiments.results import Arm, Claim, Contrast, ExperimentResult, Preset, Published
from cdrop.experiments.statistics import Evidence
from cdrop.experiments.trials import Trial

__all__ = [
    "Arm",
    "Claim",
    "Contrast",
    "Evidence",
    "ExperimentResult",
    "Ledger",
    "OtherExperimentError",
    "Preset",
    "Published",
    "Settings",
    "Trial",
    "arms_for",
    "compare",
    "does_dropout_help",
    "open_ledger",
    "paired_experiment",
]
