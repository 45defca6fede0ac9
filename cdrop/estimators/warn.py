"""Warnings that show the caller's line, and that filters for scikit-learn silence."""

from __future__ import annotations

import sys
import warnings

from sklearn.exceptions import ConvergenceWarning

__all__ = ["warn"]

_INSIDE = ("cdrop.", "sklearn.callback.")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside cdrop that called it.

    A ConvergenceWarning comes from the module "sklearn.neural_network", so that the filter of scikit-learn's gallery,
    ``filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")``, applies as to MLPClassifier.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
        frame = frame.f_back
    names = frame.f_globals
    theirs = issubclass(category, ConvergenceWarning)
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module="sklearn.neural_network" if theirs else names.get("__name__", "__main__"),
        registry=names.setdefault("__warningregistry__", {}),
    )
