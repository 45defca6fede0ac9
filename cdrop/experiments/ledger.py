"""The finished trainings of a comparison, kept in a folder, from which one that was killed goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cdrop
from cdrop import storage
from cdrop._checks import choice, whole_number
from cdrop._files import check_writable, sweep
from cdrop.experiments.compare import ARMS, Run, Settings

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["Ledger", "open_ledger"]

_FILE = "comparison.cdrop"
_FREE = ("repeats", "threads")  # no training depends on them
_LONG = 1000  # iterations from which a training is worth checkpoints of its own


class Ledger:
    """What is kept of a comparison; `open_ledger` makes it.

    Attributes
    ----------
    folder : Path or None
        Where it is kept.
    comparison : dict or None
        Settings and data, once `claim` has been told them.
    started : str
        Time of the beginning, as in `ComparisonResult`.
    runs : list of Run
        The finished trainings.
    """

    def __init__(
        self,
        comparison: dict[str, Any] | None = None,
        started: str = "",
        runs: list[Run] | None = None,
    ) -> None:
        self.folder: Path | None = None
        self.comparison = comparison
        self.started = started
        self.runs = runs or []

    def claim(self, settings: Settings, data: dict[str, Any], started: str) -> None:
        """Keep this comparison from now on, or go on with it.

        Parameters
        ----------
        settings : Settings
        data : dict
            As `cdrop.experiments.compare.describe_data` gives it.
        started : str
            Time, if this is the beginning.

        Raises
        ------
        ValueError
            If the folder has the trainings of another comparison.
        OSError
            If it cannot be written.
        """
        known = {k: v for k, v in dataclasses.asdict(settings).items() if k not in _FREE}
        asked = {
            "cdrop": cdrop.__version__,
            **known,
            "data": data["name"],
            "sha256": data["sha256"],
        }
        if self.comparison is None:
            self.comparison, self.started = asked, started
            self._save()
            return
        for name, value in asked.items():
            was = self.comparison.get(name)
            if json.dumps(was) != json.dumps(value):
                raise ValueError(
                    f"{self.folder} has a comparison with {name.replace('_', ' ')} {was}; here it is {value}. Expected "
                    "the same data and settings (but repeats and threads), or another folder"
                )
        for run in self.runs:  # a kill may have come between the two
            self._forget(run)

    def finished(self, repeat: int, arm: str) -> Run | None:
        """Return a training that is kept."""
        return next((run for run in self.runs if run[:2] == (repeat, arm)), None)

    def count(self, repeats: int) -> int:
        """Return how many trainings of the first `repeats` repeats are kept."""
        return sum(run.repeat < repeats for run in self.runs)

    def add(self, run: Run) -> None:
        """Keep a training; it is on the disk then."""
        self.runs.append(run)
        self._save()
        self._forget(run)

    def checkpoint(self, settings: Settings, repeat: int, arm: str) -> dict[str, Any]:
        """Return what `Network.fit` needs to keep a training under way, if that is long enough to be worth it."""
        if settings.iterations <= _LONG:
            return {}
        return {"checkpoint": self._path(repeat, arm), "checkpoint_every": _LONG}

    def _forget(self, run: Run) -> None:
        """Remove a training's own checkpoint."""
        path = self._path(run.repeat, run.arm)
        sweep(path)
        path.unlink(missing_ok=True)

    def _path(self, repeat: int, arm: str) -> Path:
        assert self.folder is not None
        return self.folder / f"repeat-{repeat + 1}-{arm}.cdrop"

    def _save(self) -> None:
        assert self.folder is not None
        storage.save(self, self.folder / _FILE)

    def _to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Give what `cdrop.storage` writes."""
        runs = [run._asdict() for run in self.runs]
        return {"comparison": self.comparison, "started": self.started, "runs": runs}, {}

    @classmethod
    def _from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Ledger:
        """Take what `cdrop.storage` has read, which may be anything; see there."""
        runs = [Run(**run) for run in settings["runs"]]
        for run in runs:
            whole_number("repeat", run.repeat, 0, 2**62)
            choice("arm", run.arm, ARMS)
            if not isinstance(run.loss, list) or not all(
                isinstance(number, float) for number in (run.test_accuracy, run.seconds, *run.loss)
            ):
                raise TypeError(f"{run} is no training")
        if not isinstance(settings["comparison"], dict) or not isinstance(settings["started"], str):
            raise TypeError("it does not say of which comparison it is")
        return cls(settings["comparison"], settings["started"], runs)


def open_ledger(folder: str | os.PathLike[str], *, resume: bool = False) -> Ledger:
    """Open a folder to keep a comparison in.

    Parameters
    ----------
    folder : path
        It may be new; the folder above it must be there.
    resume : bool, default False
        Go on with the comparison that is there, if there is one. Without it the folder must be empty.

    Returns
    -------
    Ledger
        To be given to `compare`.

    Raises
    ------
    ImportError
        If safetensors is not installed.
    ValueError
        If the folder has something else in it, or a damaged file.
    OSError
        If it cannot be made or written.
    """
    path = Path(folder)
    storage._safetensors()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{folder}: there is no folder {path.parent}")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    path.mkdir(exist_ok=True)
    check_writable(path / _FILE)
    sweep(path / _FILE)  # what a comparison killed at its very beginning has left
    there = sorted(entry.name for entry in path.iterdir())
    if there and not resume:
        raise ValueError(
            f"{folder} is not empty; expected a new or empty folder, or resume, to go on with the comparison in it"
        )
    if there and _FILE not in there:
        raise ValueError(
            f"{folder} has no comparison in it, but {there[0]}; expected a new or empty folder, or that of a comparison"
        )
    ledger = storage.load(path / _FILE) if there else Ledger()
    if not isinstance(ledger, Ledger):
        raise ValueError(f"{path / _FILE} is no comparison, but a {type(ledger).__name__}")
    ledger.folder = path
    return ledger
