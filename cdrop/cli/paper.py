"""``cdrop paper``: rows of the paper's table, or a search for how to train them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdrop.cli import common
from cdrop.cli.common import REFUSED, CommandError

if TYPE_CHECKING:
    from cdrop.datasets import Dataset
    from cdrop.experiments import ExperimentResult
    from cdrop.experiments.paper import Outcome

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Train rows of the table."""
    from cdrop.cli.progress import Progress
    from cdrop.experiments import paper
    from cdrop.experiments.paired import runs_left

    common.check_outputs(args)
    repeats = args.repeats or (1 if args.search else 3)
    ledger = common.open_directory(args)
    data, fallback = _images(args, paper.HELD_OUT if args.search else 0)
    plan = paper.plan(args.rows or None, args.epochs, candidates=args.search)
    work = {name: planned.work(data) for name, planned in plan.items()}
    kept = [] if ledger is None else ledger.among(repeats, plan)
    left = ([work[name]] for _, name in runs_left(repeats, plan, kept))
    progress = Progress(left, sum(work[t.arm] for t in kept), repeats * sum(work.values()))

    def begin(result: ExperimentResult) -> None:
        common.begin(args, result, len(kept), fallback)
        progress.on_begin(result)

    with common.plain_errors(args, progress):
        result = paper.train_rows(
            data,
            plan,
            search=args.search,
            repeats=repeats,
            seed=args.seed,
            threads=args.threads,
            ledger=ledger,
            time_limit=None if args.time_limit is None else 60 * args.time_limit,
            callbacks=[progress],
            on_begin=begin,
            on_trial=progress.on_trial,
        )
    rows = paper.outcomes(result, plan)
    more = {"rows": [row.to_dict() for row in rows]}
    return common.finish(args, result, lambda: _table(result, rows, search=args.search), more)


def _images(args: argparse.Namespace, validation: int) -> tuple[Dataset, str | None]:
    """Return images and labels with their own split."""
    from cdrop.datasets import Dataset

    if args.data not in (None, "mnist", "digits") and not Path(args.data).is_dir():
        raise CommandError(
            f"--data {args.data}: expected mnist, digits, or a directory of IDX files", REFUSED
        )
    data, fallback = common.load_data(args, validation=validation)
    assert isinstance(data, Dataset)
    if args.train_size is None:
        return data, fallback
    try:
        return data.subset(args.train_size), fallback
    except ValueError as error:
        raise CommandError(f"--train-size: {error}", REFUSED) from error


def _table(result: ExperimentResult, outcomes: Sequence[Outcome], *, search: bool) -> str:
    """Return a table of errors next to the paper's, or of the candidates by their errors on held-out images."""
    from cdrop.experiments.statistics import mean

    name_of = {o.name: o.name if search else o.planned.row.about for o in outcomes}
    width = max(map(len, name_of.values()))
    lines = [] if result.complete else [f"INCOMPLETE: stopped by {result.stopped}.", ""]
    head = "error on images held out" if search else "paper    here      by seed"
    lines.append(f"{'test error' * (not search):{width}}   {head}")
    for outcome in outcomes:
        errors = "  ".join(f"{error:.2f} %" for error in outcome.errors)
        # A third decimal, as means of a few runs have it: two would hide by how little a row is missed.
        average = f"{mean(outcome.errors):.3f} %" if outcome.errors else "none yet"
        paper = "" if search else f"{outcome.planned.row.error:.2f} %  "
        lines.append(f"{name_of[outcome.name]:{width}}   {paper}{average:>7}   {errors}".rstrip())
    spent = sum(len(outcome.errors) * outcome.seconds for outcome in outcomes if outcome.errors)
    return "\n".join([*lines, "", f"Time: {spent / 60:.1f} minutes of training."])
