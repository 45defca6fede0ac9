"""The finished trainings of an experiment, kept in a folder, from which one that was killed goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdrop import storage
from cdrop._checks import choice, truth_value, whole_number
from cdrop._files import check_writable, sweep
from cdrop._version import __version__
from cdrop.checkpoints import digest
from cdrop.experiments.trials import Trial

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Ledger", "OtherExperimentError", "open_ledger"]

_FILE = "experiment.cdrop"
_LONG = 1000  # iterations from which a training is worth checkpoints of its own


class OtherExperimentError(ValueError):
    """A folder has the trainings of another experiment."""


class Ledger:
    """What is kept of an experiment; `open_ledger` makes it.

    Attributes
    ----------
    folder : Path or None
        Where it is kept.
    identity : dict or None
        What all trainings share, once `claim` has been told it.
    configurations : dict of str to dict
        The settings of each arm.
    started : str
        Time of the beginning, as in `ExperimentResult`.
    trials : list of Trial
        The finished trainings.
    """

    def __init__(
        self,
        identity: dict[str, Any] | None = None,
        configurations: dict[str, dict[str, Any]] | None = None,
        started: str = "",
        trials: list[Trial] | None = None,
    ) -> None:
        self.folder: Path | None = None
        self.identity = identity
        self.configurations = configurations or {}
        self.started = started
        self.trials = trials or []

    def claim(
        self, identity: dict[str, Any], configurations: dict[str, dict[str, Any]], started: str
    ) -> str:
        """Keep this experiment from now on, or go on with it; more configurations may join.

        Parameters
        ----------
        identity : dict
            What its trainings share, in values that JSON can carry.
        configurations : dict of str to dict
            The settings of each arm.
        started : str
            Time, if this is the beginning.

        Returns
        -------
        str
            The time of the beginning.

        Raises
        ------
        OtherExperimentError
            If the folder has the trainings of another experiment.
        OSError
            If it cannot be written.
        """
        asked = {"cdrop": __version__, **identity}
        if self.identity is None:
            self.identity, self.started = asked, started
        self._check(self.identity, asked)
        for name, settings in configurations.items():
            had = self.configurations.setdefault(name, settings)
            self._check(had, settings, f" of {name!r}")
        self._save()
        for trial in self.trials:  # a kill may have come between the two
            self._forget(trial)
        return self.started

    def _check(self, had: dict[str, Any], asked: dict[str, Any], of: str = "") -> None:
        """Raise if what is kept differs from what is asked for."""
        for name in {**had, **asked}:
            was, value = had.get(name), asked.get(name)
            if json.dumps(was) != json.dumps(value):
                raise OtherExperimentError(
                    f"{self.folder} has another experiment: {name.replace('_', ' ')}{of} is {was} there, and {value} "
                    "here. Expected the same data and settings (but repeats and threads), or another folder"
                )

    def among(self, repeats: int, configurations: Iterable[str]) -> list[Trial]:
        """Return what is kept of the first `repeats` repeats of some configurations."""
        names = set(configurations)
        return [t for t in self.trials if t.repeat < repeats and t.configuration in names]

    def add(self, trial: Trial) -> None:
        """Keep a training; it is on the disk then."""
        self.trials.append(trial)
        self._save()
        self._forget(trial)

    def checkpoint(self, repeat: int, configuration: str) -> dict[str, Any]:
        """Return what `Network.fit` needs to keep a training under way, if that is long enough to be worth it."""
        settings = self.configurations[configuration]
        if "epochs" not in settings and settings.get("iterations", 1000) <= _LONG:
            return {}
        return {"checkpoint": self._path(repeat, configuration), "checkpoint_every": _LONG}

    def _forget(self, trial: Trial) -> None:
        """Remove a training's own checkpoint."""
        path = self._path(trial.repeat, trial.configuration)
        sweep(path)
        path.unlink(missing_ok=True)

    def _path(self, repeat: int, configuration: str) -> Path:
        """Return where a training's checkpoint is; names may have in them what those of files may not."""
        assert self.folder is not None
        name = configuration if configuration.isidentifier() else digest(configuration)[:12]
        return self.folder / f"repeat-{repeat + 1}-{name}.cdrop"

    def _save(self) -> None:
        assert self.folder is not None
        storage.save(self, self.folder / _FILE)

    def _to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what `cdrop.storage` writes."""
        told = {name: getattr(self, name) for name in ("identity", "configurations", "started")}
        return {**told, "trials": [trial._asdict() for trial in self.trials]}, {}

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Ledger:
        """Take what `cdrop.storage` has read, which may be anything; see there."""
        identity, configurations = settings["identity"], settings["configurations"]
        kinds = isinstance(identity, dict) and isinstance(configurations, dict)
        if not kinds or not all(isinstance(arm, dict) for arm in configurations.values()):
            raise TypeError("it does not say of which experiment it is")
        if not isinstance(settings["started"], str):
            raise TypeError("it does not say when it began")
        trials = [Trial(**trial) for trial in settings["trials"]]
        for trial in trials:
            _check_trial(trial, tuple(configurations))
        return cls(identity, configurations, settings["started"], trials)


def _check_trial(trial: Trial, names: tuple[str, ...]) -> None:
    """Raise unless a training that was read is one."""
    whole_number("repeat", trial.repeat, 0, 2**62)
    choice("configuration", trial.configuration, names)
    columns = (trial.iterations, trial.loss, trial.test_loss, trial.test_score)
    lists = all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
    if not lists or not columns[0] or not isinstance(trial.seconds, float):
        raise TypeError(f"{trial} is no training")
    for iteration in trial.iterations:
        whole_number("iteration", iteration, 1, 2**62)
    if not all(isinstance(number, float) for column in columns[1:] for number in column):
        raise TypeError(f"{trial} is no training")


def open_ledger(folder: str | os.PathLike[str], *, resume: bool = False) -> Ledger:
    """Open a folder to keep an experiment in.

    Parameters
    ----------
    folder : path
        It may be new; the folder above it must be there.
    resume : bool, default False
        Go on with the experiment that is there, if there is one. Without it the folder must be empty.

    Returns
    -------
    Ledger
        To be given to `paired_experiment` or `compare`.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    TypeError, ValueError
        If an argument is not as above, or the folder has something else in it, or a damaged file.
    OSError
        If it cannot be made or written.
    """
    path, resume = Path(folder), truth_value("resume", resume)
    storage._safetensors()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{folder}: there is no folder {path.parent}")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    path.mkdir(exist_ok=True)
    check_writable(path / _FILE)
    sweep(path / _FILE)  # what an experiment killed at its very beginning has left
    there = sorted(entry.name for entry in path.iterdir())
    if there and not resume:
        raise ValueError(
            f"{folder} is not empty; expected a new or empty folder, or resume, to go on with the experiment in it"
        )
    if there and _FILE not in there:
        raise ValueError(
            f"{folder} has no experiment in it, but {there[0]}; expected a new or empty folder, or an experiment's"
        )
    ledger = storage.load(path / _FILE) if there else Ledger()
    if not isinstance(ledger, Ledger):
        raise ValueError(f"{path / _FILE} is no experiment, but a {type(ledger).__name__}")
    ledger.folder = path
    return ledger
