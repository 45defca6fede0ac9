"""One training of an experiment: what is made and trained, and what is kept of it."""

from __future__ import annotations

import dataclasses
import inspect
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cdrop._checks import whole_number
from cdrop.callbacks import Callback
from cdrop.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    NetworkFactory = Callable[..., Any]

__all__ = ["Configuration", "Data", "Trial", "train"]

# What an experiment decides itself, or what is no part of a training's result.
_NOT_OF_NETWORK = {"self", "units", "seed", "threads"}
_OF_FIT = (
    "optimizer",
    "learning_rate",
    "l2",
    "share_l2",
    "max_norm",
    "batch_size",
    "iterations",
    "epochs",
    "shuffle",
)
_OF_NETWORK = tuple(
    name for name in inspect.signature(Network.__init__).parameters if name not in _NOT_OF_NETWORK
)


class Data(NamedTuple):
    """What every training of an experiment trains and is tested on."""

    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]

    @property
    def outputs(self) -> int:
        """Units of the last layer, if the targets are labels: one more than the largest."""
        return 1 + max(int(labels.max()) for labels in (self.y_train, self.y_test))


@dataclass(frozen=True)
class Configuration:
    """How the networks of one arm are made and trained.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    network : dict
        Arguments of `Network` but the units, the seed and the threads.
    fit : dict
        Arguments of `Network.fit` that say how to train.
    """

    hidden: tuple[int, ...]
    network: dict[str, Any]
    fit: dict[str, Any]

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Configuration:
        """Sort the settings of an arm.

        Parameters
        ----------
        name : str
            What an error calls the arm.
        settings : mapping
            ``hidden`` (widths of the hidden layers, or one width), and any argument of `Network` and `Network.fit` that
            says what to train and how.

        Raises
        ------
        TypeError, ValueError
            If a name is none of these, or a width no whole number above 0.

        Examples
        --------
        >>> Configuration.from_settings("plain", {"hidden": 256, "l2": 1e-3, "dropout": 0.5})
        Configuration(hidden=(256,), network={'dropout': 0.5}, fit={'l2': 0.001})
        """
        known = ("hidden", *_OF_NETWORK, *_OF_FIT)
        for setting in settings:
            if setting not in known:
                raise ValueError(
                    f"configurations[{name!r}] has {setting!r}; expected some of {', '.join(known)}"
                )
        hidden = settings.get("hidden", ())
        widths = list(hidden) if isinstance(hidden, (tuple, list)) else [hidden]
        return cls(
            tuple(whole_number(f"configurations[{name!r}] hidden", n, 1, 2**32) for n in widths),
            {key: settings[key] for key in _OF_NETWORK if key in settings},
            {key: settings[key] for key in _OF_FIT if key in settings},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings in values that JSON can carry."""
        return {
            "hidden": list(self.hidden),
            **{key: _plain(value) for key, value in (self.network | self.fit).items()},
        }

    def make(self, make: NetworkFactory, data: Data, seed: int, threads: int | None) -> Any:
        """Make the network of one training."""
        if self.network.get("loss", "softmax_cross_entropy") == "softmax_cross_entropy":
            outputs = data.outputs
        else:
            outputs = 1 if data.y_train.ndim == 1 else data.y_train.shape[1]
        units = [data.X_train.shape[1], *self.hidden, outputs]
        return make(units, **self.network, seed=seed, threads=threads)


class Trial(NamedTuple):
    """One finished training.

    Attributes
    ----------
    repeat : int
        Which repeat, from 0.
    configuration : str
        Which arm.
    iterations : list of int
        The iterations after which something was noted; the last one ended the training.
    loss : list of float
        Training loss of the minibatches of these iterations, with its L2 term and its masks.
    test_loss, test_score : list of float
        Mean loss over the test rows, without L2, and accuracy (R^2 for a squared error), after them.
    seconds : float
        Of training and tests together.
    """

    repeat: int
    configuration: str
    iterations: list[int]
    loss: list[float]
    test_loss: list[float]
    test_score: list[float]
    seconds: float

    @property
    def score(self) -> float:
        """The test score after the last iteration."""
        return self.test_score[-1]


class Notes(Callback):
    """Notes the losses and the test score every so many iterations; `finish` adds the last."""

    def __init__(self, data: Data, every: int | None) -> None:
        self.data, self.every = data, every
        self.rows: list[list[float]] = []
        self.length = 0

    def on_fit_begin(self, net: Any, total: int) -> None:
        """Hear how many iterations are left; those of a checkpoint are done."""
        self.length = net.history.iterations + total

    def on_iteration(self, net: Any, iteration: int, loss: float) -> None:
        """Note this iteration when its turn has come."""
        if self.every is not None and iteration % self.every == 0:
            self._note(net, iteration, loss)

    def finish(self, net: Any) -> None:
        """Note the last iteration."""
        loss = net.history.loss
        if len(loss) < self.length:
            raise ValueError(
                f"a callback ended a training after {len(loss)} of {self.length} iterations; an experiment needs all "
                "of them"
            )
        if not self.rows or self.rows[-1][0] != len(loss):
            self._note(net, len(loss), loss[-1])

    def state_dict(self) -> dict[str, Any]:
        """As `Callback.state_dict`."""
        return {"every": self.every, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Callback.load_state_dict`."""
        self.rows = state["rows"]

    def _note(self, net: Any, iteration: int, loss: float) -> None:
        seen = net.evaluate(self.data.X_test, self.data.y_test)
        self.rows.append([iteration, float(loss), float(seen.loss), float(seen.score)])


def train(
    data: Data,
    configuration: Configuration,
    arm: str,
    repeat: int,
    seed: int,
    *,
    threads: int | None = None,
    note_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    network: NetworkFactory | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> Trial:
    """Train and test one network.

    Parameters
    ----------
    data : Data
    configuration : Configuration
    arm : str
        The configuration's name.
    repeat : int
        Which repeat this is of.
    seed : int
        Of initial weights, order of minibatches, and masks.
    threads : int, optional
        As `Network` has it.
    note_every : int, optional
        Note losses and scores after each iteration that is a multiple of this; by default only after the last.
    callbacks : sequence of Callback
        Handed to ``fit``.
    network : callable, optional
        Called as `cdrop.Network`, which it is by default.
    checkpoint : mapping, optional
        The arguments of ``fit`` for checkpoints.

    Returns
    -------
    Trial

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, from which ``fit`` returns: a part of a training is no result.
    ValueError
        If a callback ended the training.
    FloatingPointError
        If it broke down.
    """
    begin = time.perf_counter()
    net = configuration.make(network or Network, data, seed, threads)
    notes = Notes(data, note_every)
    history = net.fit(
        data.X_train,
        data.y_train,
        **configuration.fit,
        callbacks=[notes, *callbacks],
        **(checkpoint or {}),
    )
    if history.interrupted:
        raise KeyboardInterrupt
    notes.finish(net)
    columns = zip(*notes.rows, strict=True)
    iterations, loss, test_loss, test_score = (list(column) for column in columns)
    seconds = time.perf_counter() - begin
    return Trial(repeat, arm, [int(i) for i in iterations], loss, test_loss, test_score, seconds)


def _plain(value: Any) -> Any:
    """Return a setting as JSON can carry it; rules and schedules by their names and constants."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": getattr(value, "name", type(value).__name__), **dataclasses.asdict(value)}
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value
