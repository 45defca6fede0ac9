"""Experiments as plain functions with plain results."""

from cdrop.experiments.compare import Arm, ComparisonResult, Run, Settings, compare

__all__ = ["Arm", "ComparisonResult", "Run", "Settings", "compare"]
