"""Callbacks: objects that `Network.fit` calls as it proceeds, and the ones that come with cdrop.

A callback watches a fit and never changes it: the weights are byte for byte the same with and
without one, except that a callback may ask the fit to stop early. Its state is part of the fit's
checkpoints, so that it resumes after a crash as if there had been none.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from cdrop._checks import whole_number
from cdrop._console import in_notebook, is_terminal, put

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from cdrop.network import Network
    from cdrop.schedules import Epoch

__all__ = ["Callback", "EpochPrinter", "LossPrinter", "ProgressBar", "Validation"]

_MOMENTS = {  # at which callbacks are called, with their arguments
    "on_fit_begin": "net, total",
    "on_iteration": "net, iteration, loss",
    "on_epoch_end": "net, epoch",
    "on_fit_end": "net",
}


class Callback:
    """Base class: override the moments you care about.

    Examples
    --------
    Stop as soon as the loss of a minibatch falls below a value:

    >>> class StopBelow(Callback):
    ...     def __init__(self, threshold):
    ...         self.threshold = threshold
    ...
    ...     def on_iteration(self, net, iteration, loss):
    ...         return loss < self.threshold
    >>> StopBelow(0.1).on_iteration(None, 7, 0.05)
    True
    """

    def on_fit_begin(self, net: Network, total: int) -> None:
        """Handle the start of a fit of `total` iterations.

        Parameters
        ----------
        net : Network
            The network about to be trained.
        total : int
            Number of iterations this call of ``fit`` will run.
        """

    def on_iteration(self, net: Network, iteration: int, loss: float) -> bool | None:
        """Handle the end of an iteration.

        Parameters
        ----------
        net : Network
            The network, after the update.
        iteration : int
            Number of the iteration, counted from 1.
        loss : float
            Loss of the minibatch before the update, with its L2 term.

        Returns
        -------
        bool or None
            True (Python's or NumPy's) asks ``fit`` to stop after this iteration; with any other value it continues.
        """
        return None

    def on_epoch_end(self, net: Network, epoch: Epoch) -> bool | None:
        """Handle the end of an epoch; not called in a fit by iterations.

        Parameters
        ----------
        net : Network
            The network, after the epoch's last update.
        epoch : cdrop.schedules.Epoch
            Its number, loss, and results on the validation rows.

        Returns
        -------
        bool or None
            True (Python's or NumPy's) asks ``fit`` to stop after this epoch; with any other value it continues.
        """
        return None

    def on_fit_end(self, net: Network) -> None:
        """Handle the end of the fit: completed, stopped, or ended by an error.

        Each callback whose `on_fit_begin` returned is called, also if another one raises. The error of the fit is what
        is raised then; errors of `on_fit_end` become notes on it.

        Parameters
        ----------
        net : Network
            The trained network.
        """

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state to restore when ``fit(checkpoint=...)`` resumes after a crash.

        Returns
        -------
        dict or None
            All attributes, unless overridden. A checkpoint can hold numbers, strings, None, arrays,
            and lists and dicts of these; anything else is an error. None means that there never is
            any state, as with a printer, which may be a different one when the fit resumes.
        """
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned; called after `on_fit_begin`.

        Parameters
        ----------
        state : dict
            The callback may keep it: it is not used again.
        """
        vars(self).clear()
        vars(self).update(state)


class _Forgetful(Callback):
    """A callback that only shows something and has no state."""

    def state_dict(self) -> None:
        """Return None: there is no state."""


class LossPrinter(_Forgetful):
    """Print the loss every N iterations, as the article does.

    Parameters
    ----------
    every : int, default=100
        Print after each iteration whose number is a multiple of this.
    file : text stream, optional
        Where to print; standard output by default.

    Raises
    ------
    TypeError, ValueError
        If `every` is not a positive integer.

    Examples
    --------
    >>> LossPrinter(every=100).on_iteration(None, 100, 0.7141623845363005)
    Iter-100 loss: 0.7142
    """

    def __init__(self, every: int = 100, file: TextIO | None = None) -> None:
        self.every = whole_number("every", every, 1, 2**62)
        self.file = file

    def __repr__(self) -> str:
        return f"LossPrinter(every={self.every})"

    def on_iteration(self, net: Network, iteration: int, loss: float) -> None:
        """Print the loss when its turn has come."""
        if iteration % self.every == 0:
            # Looked up now, not when the printer was made: the output may be redirected since.
            put(f"Iter-{iteration} loss: {loss:.4f}", self.file or sys.stdout)


class EpochPrinter(_Forgetful):
    """Print each epoch's loss, and the score of the validation rows, as scikit-learn does.

    Parameters
    ----------
    file : text stream, optional
        Where to print; standard output by default.

    Examples
    --------
    >>> from cdrop.schedules import Epoch
    >>> EpochPrinter().on_epoch_end(None, Epoch(1, 100, 0.25, 1e-3, 0.7, 0.5))
    Iteration 1, loss = 0.25000000
    Validation score: 0.500000
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file

    def __repr__(self) -> str:
        return "EpochPrinter()"

    def on_epoch_end(self, net: Network, epoch: Epoch) -> None:
        """Print the loss."""
        lines = [f"Iteration {epoch.number}, loss = {epoch.loss:.8f}"]
        if not math.isnan(epoch.validation_score):
            lines.append(f"Validation score: {epoch.validation_score:f}")
        put("\n".join(lines), self.file or sys.stdout)


class Validation(Callback):
    """Score the network on held-out data at regular intervals.

    Parameters
    ----------
    X : array_like, shape (n, n_features)
        Held-out inputs.
    y : array_like, shape (n,) or (n, n_outputs)
        Their labels or targets.
    every : int, default=100
        Score after each iteration whose number is a multiple of this.

    Attributes
    ----------
    iterations : list of int
        The iterations after which the network was scored.
    scores : list of float
        ``net.score(X, y)`` at those iterations: accuracy, or R^2 for a squared error. In the fit of an estimator,
        that of the estimator, and `y` has its labels.

    Raises
    ------
    TypeError, ValueError
        If `every` is not a positive integer.

    Examples
    --------
    >>> validation = Validation([[0.0, 1.0]], [1], every=50)
    >>> validation.iterations, validation.scores
    ([], [])
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, every: int = 100) -> None:
        self.X = X
        self.y = y
        self.every = whole_number("every", every, 1, 2**62)
        self.iterations: list[int] = []
        self.scores: list[float] = []
        self._estimator: Any = None  # during its fit, whose labels `y` has

    def __repr__(self) -> str:
        """Return how often it scores, and the last score: the data may be long."""
        last = f", last {self.scores[-1]:.4g}" if self.scores else ""
        return f"<Validation: every {self.every} iterations, {len(self.scores)} scores{last}>"

    def _check(self, name: str, net: Network) -> None:
        """Raise, before a fit begins, what `Network.score` would raise within it."""
        if self._estimator is not None:
            return  # it has checked
        try:
            net._scorable_data(self.X, self.y)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None

    def on_iteration(self, net: Network, iteration: int, loss: float) -> None:
        """Score the network when its turn has come."""
        if iteration % self.every == 0:
            self.scores.append(float((self._estimator or net).score(self.X, self.y)))
            self.iterations.append(iteration)

    def state_dict(self) -> dict[str, Any]:
        """As `Callback.state_dict`: the scores, not the data."""
        return {"every": self.every, "iterations": self.iterations, "scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Callback.load_state_dict`; what `state_dict` cannot have returned is a ValueError."""
        every, iterations, scores = map(state.get, ("every", "iterations", "scores"))
        for kind, numbers in ((int, iterations), (float, scores)):
            if not isinstance(numbers, list) or not all(type(number) is kind for number in numbers):
                raise ValueError(
                    f"Validation remembers {state!r}; expected what its state_dict returns"
                )
        self.every = whole_number("every", every, 1, 2**62)
        self.iterations, self.scores = list(iterations or ()), list(scores or ())


class ProgressBar(_Forgetful):
    """Show a tqdm bar, in a terminal or as a widget in a notebook; silent elsewhere, and without tqdm.

    The loss of the last epoch and its validation score, if there is one, are shown next to the bar. In a terminal the
    bar disappears at the end, in a notebook it stays.

    Parameters
    ----------
    file : text stream, optional
        Where to draw; by default the notebook, or standard error.
    total : int, optional
        Iterations of several fits together, drawn as one bar that ends with `close`. By default
        each fit has its own bar.
    initial : int, default 0
        Of the `total`, those that were done before; the remaining time does not count on them.
    unit : str, default "it"
        What is counted.

    Attributes
    ----------
    visible : bool
        Whether a bar can be drawn there at all.

    Notes
    -----
    tqdm comes with the extra ``progress``: ``pip install 'cdrop[progress]'``. The widget needs ipywidgets,
    without which a notebook shows the bar as text.

    Examples
    --------
    >>> import io
    >>> ProgressBar(file=io.StringIO()).visible
    False
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        total: int | None = None,
        initial: int = 0,
        unit: str = "it",
    ) -> None:
        self.file = file
        self.total = None if total is None else whole_number("total", total, 1, 2**62)
        self.initial = whole_number("initial", initial, 0, 2**62)
        if not isinstance(unit, str):
            raise TypeError(f"unit is {unit!r}; expected a string")
        self.unit = unit
        self._bar: Any = None

    def __repr__(self) -> str:
        """Return the call that makes it, without the stream and arguments that have their default."""
        defaults = {"total": None, "initial": 0, "unit": "it"}
        given = {name: getattr(self, name) for name in defaults}
        shown = (f"{name}={value!r}" for name, value in given.items() if value != defaults[name])
        return f"ProgressBar({', '.join(shown)})"

    @property
    def visible(self) -> bool:
        """Whether the output is a terminal or notebook, and tqdm can be imported."""
        shown = self._in_notebook or is_terminal(self.file or sys.stderr)
        return shown and _tqdm(self._in_notebook) is not None

    @property
    def _in_notebook(self) -> bool:
        return self.file is None and in_notebook()

    def on_fit_begin(self, net: Network, total: int) -> None:
        """Open the bar, or continue the one that spans several fits."""
        self._open(self.total or total)

    def _open(self, total: int | None) -> None:
        if self._bar is None and self.visible:
            notebook = self._in_notebook
            self._bar = _tqdm(notebook)(
                total=total,
                initial=self.initial,
                file=self.file or sys.stderr,
                unit=self.unit,
                leave=notebook,
            )

    def on_iteration(self, net: Network, iteration: int, loss: float) -> None:
        """Advance by one iteration."""
        self.advance()

    def advance(self, amount: int = 1) -> None:
        """Advance by an integer of at least 0, for work that no fit here reports; opens the bar if needed."""
        amount = whole_number("amount", amount, 0, 2**62)
        self._open(self.total)
        if self._bar is not None:
            self._bar.update(amount)

    def on_epoch_end(self, net: Network, epoch: Epoch) -> None:
        """Show the epoch's loss, and the validation score if there is one, next to the bar."""
        if self._bar is not None:
            shown = {"epoch": epoch.number, "loss": f"{epoch.loss:.4g}"}
            if not math.isnan(epoch.validation_score):
                shown["score"] = f"{epoch.validation_score:.4f}"
            self._bar.set_postfix(shown, refresh=False)

    def on_fit_end(self, net: Network) -> None:
        """Close the bar unless it spans several fits."""
        if self.total is None:
            self.close()

    def close(self) -> None:
        """Remove the bar; needed once when `total` was given, harmless otherwise."""
        if self._bar is not None:
            if self._bar.leave:
                self._bar.total = self._bar.n  # a fit that stopped early has not failed
            self._bar.close()
            self._bar = None


def _tqdm(notebook: bool = False) -> Any:
    """Return the class of tqdm for a terminal or a notebook, or None where tqdm is not installed."""
    try:
        if not notebook:
            from tqdm import tqdm
        else:
            with warnings.catch_warnings(
                action="ignore"
            ):  # of missing widgets: there is a text bar
                from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


def check_callbacks(callbacks: Sequence[Any], net: Network | None = None) -> tuple[Any, ...]:
    """Return callbacks as a tuple; raise if one is not a callback, or if its data do not fit the network."""
    expected = "expected a sequence of cdrop.callbacks.Callback objects"
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks is {callbacks!r}; {expected}")
    for i, callback in enumerate(callbacks):
        methods = [getattr(callback, name, None) for name in _MOMENTS]
        if isinstance(callback, type) or not all(map(callable, methods)):
            raise TypeError(f"callbacks[{i}] is {callback!r}; {expected}")
        for (name, arguments), method in zip(_MOMENTS.items(), methods, strict=True):
            _check_takes(f"callbacks[{i}].{name}", method, arguments)
        if net is not None and isinstance(callback, Validation):
            callback._check(f"callbacks[{i}]", net)
    return tuple(callbacks)


def _check_takes(name: str, method: Any, arguments: str) -> None:
    """Raise if a method cannot be called with as many arguments, before a fit begins rather than within it."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return  # of some compiled functions nothing is known
    try:
        signature.bind(*arguments.split(", "))
    except TypeError:
        raise TypeError(f"{name} takes {signature}; expected ({arguments})") from None
