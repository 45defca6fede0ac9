"""Does dropout help on your own table? A preset: both arms at their best, chosen inside each split."""

from __future__ import annotations

from typing import Any

from cdrop._checks import choice, finite_number, whole_number
from cdrop._kernels import KINDS
from cdrop.datasets import Dataset, Table
from cdrop.experiments.article import not_mnist
from cdrop.experiments.paired import paired_experiment
from cdrop.experiments.problem import count_test_rows
from cdrop.experiments.results import ExperimentResult, Preset

__all__ = ["RATES", "arms_for", "default_arms", "does_dropout_help"]

RATES = (0.1, 0.2, 0.3, 0.5)
L2 = (0.0, 1e-4, 1e-3)
HIDDEN = (128, 128)
EPOCHS, PATIENCE = 200, 10


def arms_for(
    rows: int,
    *,
    rates: tuple[float, ...] = RATES,
    l2: tuple[float, ...] = L2,
    hidden: tuple[int, ...] = HIDDEN,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    learning_rate: float = 1e-3,
    kind: str = "bernoulli",
) -> dict[str, list[dict[str, Any]]]:
    """Return the two arms: no dropout, and dropout; each with its candidates.

    Parameters
    ----------
    rows : int
        Training rows, from which the batch size follows: a fiftieth, but 16 to 512.
    rates : tuple of float
        Probabilities of dropping a hidden unit that the second arm chooses from.
    l2 : tuple of float
        What both arms choose from.
    hidden : tuple of int
        Widths of the hidden layers.
    epochs, patience : int
        The most epochs, and those without a better validation loss after which training stops.
    learning_rate : float
        Of Adam.
    kind : str
        What dropout does: ``dropout_kind`` of `cdrop.Network`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> {name: len(candidates) for name, candidates in arms_for(1000).items()}
    {'no dropout': 3, 'dropout': 12}
    """
    rows = whole_number("rows", rows, 1, 2**62)
    shared = {
        "hidden": tuple(_sequence("hidden", hidden)),
        "optimizer": "adam",
        "learning_rate": finite_number("learning_rate", learning_rate, positive=True),
        "batch_size": min(512, max(16, rows // 50)),
        "epochs": whole_number("epochs", epochs, 1, 2**53),
        "patience": whole_number("patience", patience, 1, 2**53),
    }
    plain = [{**shared, "l2": value} for value in _sequence("l2", l2)]
    if choice("kind", kind, KINDS) != "bernoulli":
        shared["dropout_kind"] = kind
    dropped = [
        {**shared, **one, "dropout": rate} for rate in _sequence("rates", rates) for one in plain
    ]
    return {"no dropout": plain, "dropout": dropped}


def _sequence(name: str, values: Any) -> list[Any]:
    """Return some numbers; `paired_experiment` checks each of them."""
    if not isinstance(values, (tuple, list)) or not values:
        raise TypeError(f"{name} is {values!r}; expected a tuple of one or more numbers")
    for i, value in enumerate(values):
        finite_number(f"{name}[{i}]", value)
    return list(values)


def default_arms(data: Dataset | Table, test_size: float, **settings: Any) -> dict[str, Any]:
    """Return `arms_for` the rows that a split of `data` trains on."""
    rows = len(data.y_train) if isinstance(data, Dataset) else len(data.y)
    if isinstance(data, Table) and data.test is None:
        rows -= count_test_rows(test_size, rows)
    return arms_for(rows, **settings)


def does_dropout_help(
    data: Dataset | Table, *, test_size: float = 0.2, arms: Any = None, **options: Any
) -> ExperimentResult:
    """Compare networks with dropout and without on own data, both with early stopping and at their best settings.

    Each repeat splits the rows with its own seed. Rate and L2 are chosen on validation rows inside the split; the
    test rows choose nothing.

    Parameters
    ----------
    data : Table or Dataset
        Such as `cdrop.datasets.load` returns.
    test_size : float, default 0.2
        Share of the rows that each repeat holds out for testing; of no meaning with a given test set.
    arms : mapping, optional
        By default `arms_for` the number of training rows.
    **options
        As in `paired_experiment`: ``repeats``, ``metric``, ``margin``, ``until_decided``, ``n_jobs``, ``ledger``, ...

    Returns
    -------
    ExperimentResult

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or as `paired_experiment` raises them.

    Examples
    --------
    >>> from cdrop.datasets import load
    >>> from cdrop.experiments import does_dropout_help
    >>> print(does_dropout_help(load("titanic.csv", label="survived")))  # doctest: +SKIP
    """
    if not isinstance(data, (Dataset, Table)):
        raise TypeError(f"data is a {type(data).__name__}; expected a Dataset or a Table")
    if arms is None:
        arms = default_arms(data, test_size)
    return paired_experiment(
        arms,
        data,
        test_size=test_size,
        about=data.describe(),
        preset=_preset(data, arms),
        **options,
    )


def _preset(data: Dataset | Table, arms: Any) -> Preset:
    """Return what the views show in addition."""
    facts = data.facts() if isinstance(data, Table) else {}
    if _like_default(arms):
        some, (one, *_) = arms.values()
        kind = f"{one['dropout_kind']} " if "dropout_kind" in one else ""
        rates = [one["dropout"] for several in arms.values() for one in several if "dropout" in one]
        l2 = [one.get("l2", 0.0) for one in some]
        facts["arms"] = (
            f"no dropout, and {kind}dropout {_either(rates)}; both with early stopping and L2 of {_either(l2)}, "
            "chosen on validation rows"
        )
        facts["network"] = (
            f"hidden layers of {' and '.join(map(str, some[0]['hidden']))} ReLU units; Adam, minibatches of "
            f"{some[0]['batch_size']}, at most {some[0]['epochs']} epochs"
        )
    return Preset(
        title=f"Does dropout help on {data.name}?",
        facts=facts,
        warnings=not_mnist(data),
        call=f"does_dropout_help(load({data.source!r}, ...))",
    )


def _like_default(arms: Any) -> bool:
    """Return whether arms are such as `arms_for` makes, so that a sentence can describe them."""
    if not hasattr(arms, "values") or not all(isinstance(some, list) for some in arms.values()):
        return False
    keys = {"hidden", "batch_size", "epochs", "patience", "l2"}
    return list(arms) == ["no dropout", "dropout"] and all(
        isinstance(one, dict) and keys <= one.keys() and isinstance(one["hidden"], tuple)
        for some in arms.values()
        for one in some
    )


def _either(values: Any) -> str:
    """Return distinct numbers in words: ``0.1, 0.2 or 0.5``."""
    *first, last = dict.fromkeys(f"{value:g}" for value in values)
    return f"{', '.join(first)} or {last}" if first else last
