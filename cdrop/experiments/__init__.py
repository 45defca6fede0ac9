"""Experiments as plain functions with plain results."""

from cdrop.experiments.compare import Arm, ComparisonResult, Run, Settings, compare
from cdrop.experiments.ledger import Ledger, open_ledger

__all__ = ["Arm", "ComparisonResult", "Ledger", "Run", "Settings", "compare", "open_ledger"]
