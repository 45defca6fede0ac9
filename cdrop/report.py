"""Results as text for a terminal: pure functions from results to strings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cdrop.experiments import article
from cdrop.experiments.compare import ARMS
from cdrop.experiments.statistics import mean, repeats_needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cdrop.experiments.bench import StepTime
    from cdrop.experiments.claims import Claim
    from cdrop.experiments.compare import ComparisonResult
    from cdrop.experiments.paired import ExperimentResult
    from cdrop.experiments.paper import Outcome, Planned
    from cdrop.experiments.statistics import Evidence
    from cdrop.experiments.trials import Trial

__all__ = [
    "bench",
    "bench_heading",
    "comparison",
    "facts",
    "grounds",
    "heading",
    "how_to_resume",
    "incomplete",
    "info",
    "interval",
    "kept",
    "loss",
    "not_mnist",
    "overtaking",
    "p_value",
    "paper",
    "paper_heading",
    "paper_line",
    "quantity",
    "repeats",
    "repeats_for_a_difference",
    "run_line",
    "spread",
    "why_not_beside",
]

SMALL_DIFFERENCE = 0.001  # of mean accuracies: a tenth of a percentage point


def not_mnist(name: str) -> str:
    """Return the line that opens and closes a report on data called `name`, which are not MNIST.

    Examples
    --------
    >>> not_mnist("drawn digits (not MNIST)")
    'NOT MNIST: the data are drawn digits; no number here is a result on MNIST.'
    """
    return f"NOT MNIST: the data are {_short(name)}; no number here is a result on MNIST."


def bench_heading(machine: dict[str, Any], size: str, rounds: int) -> str:
    """Describe what `bench` is going to time, and on what."""
    from cdrop.experiments.bench import SIZES

    units, batch = SIZES[size]
    return (
        f"{'-'.join(map(str, units))}, batch {batch}, float32, RMSprop, drawn digits; "
        f"medians of {rounds} rounds, best in brackets\n"
        f"{machine['cpu']}, {machine['simd']}, cdrop {machine['versions']['cdrop']}\n"
    )


def bench(times: Sequence[StepTime]) -> str:
    """Return a table of step times and of what they are spent on.

    Parameters
    ----------
    times : sequence of StepTime
        As `cdrop.experiments.bench.measure` gives them.

    Returns
    -------
    str
        Some lines without a final newline.
    """
    parts = list(times[0].parts)
    lines = [f"{'':<26}{'us a step':>18}   " + "".join(f"{part:>10}" for part in parts)]
    for t in times:
        name = f"{'with' if t.dropout else 'without'} dropout, {t.threads} thread{'s' * (t.threads > 1)}"
        step = f"{t.median * 1e6:.0f} [{min(t.seconds) * 1e6:.0f}]"
        lines.append(f"{name:<26}{step:>18}   " + "".join(f"{t.parts[p]:>10.1%}" for p in parts))
    lines += [
        "",
        f"A step with dropout takes {times[0].median / times[1].median:.2f} of one without.",
    ]
    if len(times) > 2:
        gain = times[2].median / times[0].median
        lines.append(f"{times[0].threads} threads are {gain:.2f} times as fast as one.")
    return "\n".join(lines)


def heading(result: ComparisonResult) -> str:
    """Describe data, settings and machine, as printed before the training begins.

    Parameters
    ----------
    result : ComparisonResult
        With or without finished repeats.

    Returns
    -------
    str
        Some lines without a final newline.
    """
    return "\n".join(f"{name:<9} {text}" for name, text in facts(result).items())


def facts(result: ComparisonResult) -> dict[str, str]:
    """Return what `heading` tells, by the names of its lines."""
    settings, data, machine = result.settings, result.data, result.experiment.machine
    versions = machine["versions"]
    last = settings.seed + settings.repeats - 1
    seeds = f"seed {last}" if settings.repeats == 1 else f"seeds {settings.seed} to {last}"
    sweep = ", ".join(f"{rate:g}" for rate in settings.sweep)
    return {
        "data": f"{_short(data['name'])}: {data['train']:,} training, {data['test']:,} test {data['row']}s",
        "source": data["source"],
        "network": f"two hidden layers of {settings.hidden} ReLU units;"
        f" dropout {settings.dropout:g} after both, or none",
        **({"sweep": f"dropout {sweep} as well"} if sweep else {}),
        "training": f"{settings.optimizer}, learning rate {settings.learning_rate:g}, L2 {settings.l2:g},"
        f" {settings.iterations:,} minibatches of {settings.batch_size}",
        "repeats": f"{settings.repeats:,} per arm, {seeds}; paired: same initial weights and minibatches",
        "machine": f"{machine['cpu']}; SIMD {machine['simd']}; {_workers(machine)}",
        "versions": f"cdrop {versions['cdrop']}, Python {versions['python']}, NumPy {versions['numpy']},"
        f" SciPy {versions['scipy'] or 'absent'}",
    }


def kept(folder: Path | None, finished: int, trainings: int) -> str | None:
    """Return the heading's line on the folder that keeps the trainings, if there is one."""
    if folder is None:
        return None
    if not finished:
        return f"kept      in {folder}, each training as it is finished"
    return f"kept      in {folder}: {finished} of {trainings} trainings are there already"


def how_to_resume(folder: Path, finished: int) -> str:
    """Return the line that says how an incomplete comparison goes on."""
    trainings = f"{finished} finished training{'' if finished == 1 else 's'}"
    return f"Kept in {folder}: {trainings}. The same command with --resume goes on."


def run_line(without: Trial, dropped: Trial, repeats: int) -> str:
    """Return the line of progress for one finished pair.

    Parameters
    ----------
    without, dropped : Trial
        The two trainings of a repeat.
    repeats : int
        Number of repeats asked for.
    """
    return (
        f"repeat {without.repeat + 1:,} of {repeats:,}: test accuracy {without.score:.4f}"
        f" without, {dropped.score:.4f} with dropout"
        f" ({without.seconds + dropped.seconds:.1f} s)"
    )


def comparison(result: ComparisonResult) -> str:
    """Return the whole report: losses, accuracies, a verdict per claim, time.

    Parameters
    ----------
    result : ComparisonResult
        Finished or not; the article's numbers stand beside only where data and settings agree.

    Returns
    -------
    str
        Some paragraphs without a final newline.
    """
    parts = []
    if not result.complete:
        parts.append(incomplete(result))
    if result.repeats:
        parts += [_loss_table(result), _accuracy_table(result)]
        if not result.beside_article:
            parts.append(why_not_beside(result))
        parts += [_verdicts(result), "\n".join(_besides(result))]
        if result.settings.sweep:
            parts.append(_sweep(result))
        parts.append(_time(result))
    return "\n\n".join(parts)


def paper_heading(result: ExperimentResult, plan: Mapping[str, Planned], *, search: bool) -> str:
    """Describe what ``cdrop paper`` is going to train, and on what."""
    data, machine = result.data, result.machine
    tested = "images held out" if search else "test images"
    lines = [
        f"data      {_short(data['name'])}: {result.data['train']:,} training, {result.data['test']:,} {tested}",
        f"source    {data['source']}",
        f"machine   {machine['cpu']}; SIMD {machine['simd']}; {_workers(machine)}",
        f"repeats   {result.asked} of each, from seed {result.seed}",
    ]
    if not search:
        lines += [f"{name:<9} {planned.recipe}" for name, planned in plan.items()]
    return "\n".join(lines)


def paper_line(trial: Trial) -> str:
    """Return the line of progress for one finished training."""
    return (
        f"{trial.configuration}, repeat {trial.repeat + 1}: {_percent(100 * (1 - trial.score))} error"
        f" ({trial.iterations[-1]:,} steps, {trial.seconds:.0f} s)"
    )


def paper(result: ExperimentResult, outcomes: Sequence[Outcome], *, search: bool) -> str:
    """Return a table of errors beside the paper's, or of the candidates by their errors on held-out images.

    Parameters
    ----------
    result : ExperimentResult
    outcomes : sequence of Outcome
    search : bool
        Whether the errors are of images held out.

    Returns
    -------
    str
        Some lines without a final newline.
    """
    width = max(len(outcome.name if search else outcome.planned.row.about) for outcome in outcomes)
    lines = [] if result.complete else [f"INCOMPLETE: stopped by {result.stopped}.", ""]
    if search:
        lines.append(f"{'':{width}}   error on images held out")
    else:
        lines.append(f"{'test error':{width}}   paper    here      by seed")
    for outcome in outcomes:
        errors = "  ".join(map(_percent, outcome.errors))
        # A third decimal, as means of a few trainings have it: two would hide by how little a row is missed.
        average = f"{mean(outcome.errors):.3f} %" if outcome.errors else "none yet"
        row = outcome.planned.row
        if search:
            lines.append(
                f"{outcome.name:{width}}   {average}"
                + (f"   ({errors})" if len(outcome.errors) > 1 else "")
            )
        else:
            lines.append(
                f"{row.about:{width}}   {row.error:.2f} %  {average:>7}   {errors}".rstrip()
            )
    done = [outcome for outcome in outcomes if outcome.errors]
    spent = sum(len(outcome.errors) * outcome.seconds for outcome in done)
    return "\n".join([*lines, "", f"Time: {spent / 60:.1f} minutes of training."])


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def info(
    machine: dict[str, Any],
    usable: Sequence[str],
    built: Sequence[str],
    extras: dict[str, tuple[str, str | None]],
    cache: Path,
) -> str:
    """Describe this machine and installation.

    Parameters
    ----------
    machine : dict
        As `cdrop.experiments.machine.describe` returns it.
    usable, built : sequence of str
        SIMD paths that this processor and system support, and all that were compiled in.
    extras : dict of str to tuple
        For each extra its package and that package's version, None where it is absent.
    cache : path
        Where downloaded data is kept.
    """
    versions = machine["versions"]
    lines = [
        f"cdrop     {versions['cdrop']}, Python {versions['python']}, NumPy {versions['numpy']}",
        f"platform  {machine['platform']}",
        f"cpu       {machine['cpu']}",
        f"SIMD      {machine['simd']} is in use; usable here: {', '.join(usable)}; built in:"
        f" {', '.join(built)} (CDROP_SIMD forces one)",
        f"threads   {machine['threads']} ({machine['threads_from']})",
        f"cache     {cache}",
    ]
    for extra, (package, version) in extras.items():
        state = f"{package} {version}" if version else f"absent: pip install 'cdrop[{extra}]'"
        lines.append(f"{'extras' if extra == next(iter(extras)) else '':<9} {extra:<9} {state}")
    return "\n".join(lines)


def incomplete(result: ComparisonResult) -> str:
    """Say why and after how many repeats the comparison ended."""
    why = "interrupted" if result.interrupted else f"stopped ({result.experiment.stopped})"
    return f"INCOMPLETE: {why} after {result.repeats:,} of {result.settings.repeats:,} repeats."


def _loss_table(result: ComparisonResult) -> str:
    """Return mean losses at the printed iterations, with the article's where they compare."""
    ours = [result.arms[arm].curve("loss")[0] for arm in ARMS]
    title = f"Training loss, mean over {repeats(result.repeats)}, with its L2 term"
    if not result.beside_article:
        head = ["  iteration   without dropout   with dropout"]
        rows = zip(result.settings.printed_iterations, *ours, strict=True)
        body = [f"  {t:>9,}   {loss(a):>15}   {loss(b):>12}" for t, a, b in rows]
        return "\n".join([title, *head, *body])
    theirs = [article.RESULTS[arm].loss for arm in ARMS]
    head = [
        "              without dropout        with dropout",
        "  iteration    here   article       here   article",
    ]
    body = [
        f"  {t:>9,}   {loss(a):>5}   {loss(x):>7}      {loss(b):>5}   {loss(y):>7}"
        for t, a, b, x, y in zip(article.ITERATIONS, *ours, *theirs, strict=True)
    ]
    return "\n".join([f"{title}; the article's one run beside it", *head, *body])


def _accuracy_table(result: ComparisonResult) -> str:
    """Return mean and std of test accuracy, with the article's where they compare."""
    beside = result.beside_article
    head = f"  {'':15}   {'here, ' + repeats(result.repeats):<20}"
    lines = ["Test accuracy, mean +- standard deviation between repeats"]
    lines.append(head + f"article, {article.REPEATS} repeats" if beside else head.rstrip())
    for arm in ARMS:
        ours = result.arms[arm]
        line = f"  {arm + ' dropout':<15}   {spread(ours.mean_score, ours.std_score):<20}"
        if beside:
            line += spread(article.RESULTS[arm].mean_accuracy, article.RESULTS[arm].std_accuracy)
        lines.append(line.rstrip())
    return "\n".join(lines)


def why_not_beside(result: ComparisonResult) -> str:
    """Say why the article's numbers are absent."""
    differences = result.settings.differences()
    name = result.data["name"]
    if name != "MNIST":
        whole = "all of MNIST" if result.data["is_mnist"] else "MNIST"
        differences.insert(0, f"{_short(name)} instead of {whole}")
    return f"The article's numbers are for another setting (here {'; '.join(differences)})."


def _verdicts(result: ComparisonResult) -> str:
    """Return one verdict per claim of the article with all that it rests on."""
    theirs = article.estimates() if result.beside_article else {}
    lines = [f"The article's claims, judged by {repeats(result.repeats, these=True)}"]
    for number, claim in enumerate(result.claims(), start=1):
        evidence = claim.evidence
        reason = f" ({evidence.reason})" if evidence.reason else ""
        lines += [f'  {number}. "{claim.text}"', f"     {evidence.verdict}{reason}"]
        lines += [f"     {line}" for line in grounds(claim, theirs.get(claim.name))]
    return "\n".join(lines)


def grounds(claim: Claim, theirs: float | None) -> list[str]:
    """Return what a verdict rests on, a line each: the estimate (and the article's), interval, test and note."""
    evidence = claim.evidence
    beside = "" if theirs is None else f" (article: {quantity(theirs, evidence)})"
    lines = [f"{claim.quantity}: {quantity(evidence.estimate, evidence)}{beside}"]
    if evidence.interval is not None:
        lines.append(f"95 % interval {interval(evidence)}")
    if evidence.p_value is not None:
        lines.append(f"{evidence.test}: {p_value(evidence.p_value)}")
    return [*lines, claim.note] if claim.note else lines


def overtaking(result: ComparisonResult) -> str:
    """Say from which iteration on the mean test accuracy with dropout is the better one, if from any."""
    iteration, noted = result.overtakes(), result.settings.printed_iterations
    if iteration is None:
        return f"Dropout does not overtake: at iteration {noted[-1]:,}, the last, its mean test accuracy is not ahead."
    first = ", the first noted," if iteration == noted[0] else ""
    return f"From iteration {iteration:,}{first} on the mean test accuracy with dropout is ahead."


def repeats_for_a_difference(result: ComparisonResult) -> str | None:
    """Say how many repeats would see a small difference of the arms; None where that is unknown."""
    without, dropped = (result.arms[arm].score for arm in ARMS)
    needed = repeats_needed(without, dropped, SMALL_DIFFERENCE)
    if needed is None:
        return None
    return (
        f"To see a difference of {100 * SMALL_DIFFERENCE:g} points between the mean accuracies with a probability of"
        f" 80 %, {repeats(needed)} are needed, at the spread of {repeats(result.repeats, these=True)}."
    )


def _besides(result: ComparisonResult) -> list[str]:
    """Return what no claim is about."""
    return [line for line in (overtaking(result), repeats_for_a_difference(result)) if line]


def _sweep(result: ComparisonResult) -> str:
    """Return a table of the probabilities of dropping, each beside none."""
    contrasts = {contrast.second: contrast for contrast in result.experiment.contrasts()}
    lines = [
        f"Test accuracy by the probability of dropping; p by Holm's method for {len(contrasts)} tests",
        "  dropping   accuracy              minus none   95 % interval        p",
    ]
    names = {id(arm): name for name, arm in result.arms.items()}
    for rate, arm in result.sweep().items():
        line = f"  {rate:>8g}   {spread(arm.mean_score, arm.std_score):<20}"
        if (contrast := contrasts.get(names[id(arm)])) is not None:
            score = contrast.score
            line += f"  {quantity(score.estimate, score):>10}   {interval(score):<18}"
            line += f"   {p_value(contrast.p_holm)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _time(result: ComparisonResult) -> str:
    """Return the time the trainings took."""
    means = [sum(result.arms[arm].seconds) / result.repeats for arm in ARMS]
    return (
        f"Time: {result.experiment.seconds:.1f} s in all; a training with its test took {means[0]:.2f} s"
        f" without and {means[1]:.2f} s with dropout."
    )


def quantity(value: float, evidence: Evidence) -> str:
    """Format an estimate: differences with a sign, ratios with two decimals."""
    return f"{value:+.4f}" if evidence.null == 0 else f"{value:.3g}"


def _workers(machine: dict[str, Any]) -> str:
    """Say what the trainings run on."""
    if machine["jobs"] > 1:
        return f"{machine['jobs']} trainings at a time, {machine['threads']} thread each"
    return f"threads {machine['threads']} ({machine['threads_from']})"


def _short(name: str) -> str:
    """Return the name of a data set where "not MNIST" is said anyway."""
    return name.removesuffix(" (not MNIST)")


def interval(evidence: Evidence) -> str:
    """Format a 95 % interval; empty where there is none."""
    return " to ".join(quantity(end, evidence) for end in evidence.interval or ())


def p_value(p: float | None) -> str:
    """Format a p-value; empty where there is none."""
    if p is None:
        return ""
    if p < 1e-300:
        return "p < 1e-300"
    return f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


def loss(value: float) -> str:
    """Format a loss, of any size."""
    return f"{value:.3f}" if not value >= 1e4 else f"{value:.1e}"


def spread(mean: float, std: float) -> str:
    """Format mean and standard deviation; one value has no deviation."""
    return f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} +- {std:.4f}"


def repeats(number: int, *, these: bool = False) -> str:
    """Return the number of repeats with its noun."""
    noun = f"{number:,} repeat{'' if number == 1 else 's'}"
    return f"{'this' if number == 1 else 'these'} {noun}" if these else noun
