"""The finished runs of an experiment, kept in a directory, from which one that was killed resumes.

``experiment.jsonl`` holds a line of JSON for the experiment, one for each arm and one for each run. Lines are
appended and synced to disk one by one, so a run costs its own line, however many there are. Each line carries a
checksum. Only the last one can be torn by a crash; it is dropped then.
"""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdrop._checks import truth_value
from cdrop._files import check_writable, named, sweep, sync_directory
from cdrop._version import __version__
from cdrop.checkpoints import digest
from cdrop.experiments.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Ledger", "OtherExperimentError", "is_kept_name", "open_ledger"]

_FILE = "experiment.jsonl"
_NAMES = re.compile(r"experiment\.jsonl|repeat-[0-9]+-.*\.cdrop", re.IGNORECASE)
_LONG = 1000  # iterations from which a run is worth its own checkpoints
_MOST_BYTES = 1 << 30  # of a line: the values of 200 million test rows


def is_kept_name(name: str) -> bool:
    """Return whether a ledger's directory may have a file of this name."""
    return _NAMES.fullmatch(name) is not None


class OtherExperimentError(ValueError):
    """A directory holds the runs of another experiment."""


class Ledger:
    """What is kept of an experiment; `open_ledger` opens it.

    Attributes
    ----------
    directory : Path
    identity : dict or None
        What all runs share; None before `claim`.
    arms : dict of str to list of dict
        The settings of each arm's candidates.
    started : str
        Start time, as in `ExperimentResult`.
    trials : list of Trial
        The finished runs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity: dict[str, Any] | None = None
        self.arms: dict[str, list[dict[str, Any]]] = {}
        self.started = ""
        self.trials: list[Trial] = []

    def __repr__(self) -> str:
        """Return the directory, and how many runs it holds."""
        return f"<Ledger {str(self.directory)!r}: {len(self.trials)} runs>"

    def claim(
        self, identity: dict[str, Any], arms: dict[str, list[dict[str, Any]]], started: str
    ) -> str:
        """Record this experiment, or check that it is the one recorded; more arms may join.

        Parameters
        ----------
        identity : dict
            What its runs share, in values that JSON can carry.
        arms : dict of str to list of dict
            The settings of each arm's candidates.
        started : str
            Time, if this is the start.

        Returns
        -------
        str
            The start time.

        Raises
        ------
        OtherExperimentError
            If the directory holds the runs of another experiment.
        OSError
            If it cannot be written.
        """
        asked = json.loads(json.dumps({"cdrop": __version__, **identity}))
        if self.identity is None:
            self._append({"experiment": asked, "started": started})
            sync_directory(self.directory)
            self.identity, self.started = asked, started
        self._check(self.identity, asked)
        for name, candidates in json.loads(json.dumps(arms)).items():
            if name not in self.arms:
                self._append({"arm": name, "candidates": candidates})
                self.arms[name] = candidates
            self._check_arm(name, candidates)
        for trial in self.trials:  # a crash may have come between the two
            self._forget(trial)
        return self.started

    def _check_arm(self, name: str, asked: list[dict[str, Any]]) -> None:
        """Raise if the recorded candidates of an arm differ from those asked for."""
        had = self.arms[name]
        self._check({"candidates": len(had)}, {"candidates": len(asked)}, f" of {name!r}")
        for i, (one, other) in enumerate(zip(had, asked, strict=True)):
            self._check(one, other, f" of {name!r}" + (f"[{i}]" if len(had) > 1 else ""))

    def _check(self, had: dict[str, Any], asked: dict[str, Any], of: str = "") -> None:
        """Raise if what is recorded differs from what is asked for."""
        for name in {**had, **asked}:
            # As text, because NaN, which scikit-learn's imputers have as a parameter, is not equal to itself.
            if json.dumps(had.get(name)) != json.dumps(asked.get(name)):
                raise OtherExperimentError(
                    f"{self.directory} holds another experiment: {name.replace('_', ' ')}{of} is {had.get(name)} there "
                    f"and {asked.get(name)} here; expected the same data and settings (repeats and threads may "
                    "differ), or another directory"
                )

    def among(self, repeats: int, arms: Iterable[str]) -> list[Trial]:
        """Return the recorded runs of the first `repeats` repeats of some arms."""
        names = set(arms)
        return [t for t in self.trials if t.repeat < repeats and t.arm in names]

    def add(self, trial: Trial) -> None:
        """Record a run; it is on the disk when this returns."""
        self._append({"run": trial.to_json()})
        self.trials.append(trial)
        self._forget(trial)

    def checkpoint(self, repeat: int, arm: str) -> dict[str, Any]:
        """Return the arguments of `Network.fit` that save a run in progress, if it is long enough to be worth it."""
        candidates = self.arms[arm]
        settings = candidates[0]
        if "estimator" in settings:  # whose parameters may have the same names
            return {}
        short = "epochs" not in settings and settings.get("iterations", 1000) <= _LONG
        if short or len(candidates) > 1 or find_spec("safetensors") is None:
            return {}
        return {"checkpoint": self._path(repeat, arm), "checkpoint_every": _LONG}

    def _forget(self, trial: Trial) -> None:
        """Remove a run's own checkpoint."""
        path = self._path(trial.repeat, trial.arm)
        sweep(path)
        path.unlink(missing_ok=True)

    def _path(self, repeat: int, arm: str) -> Path:
        """Return where a run's checkpoint is; names of arms may hold what names of files may not."""
        name = arm if arm.isidentifier() else digest(arm)[:12]
        return self.directory / f"repeat-{repeat + 1}-{name}.cdrop"

    def _append(self, entry: dict[str, Any]) -> None:
        """Append a line and sync it to disk; a failure leaves the file as it was."""
        # Without a buffer: closing the file would write the rest of a line that the disk had no space for.
        with open(self.directory / _FILE, "ab", buffering=0) as file:
            end, line = file.tell(), memoryview(_line(entry))
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except BaseException as error:
                os.ftruncate(file.fileno(), end)
                if isinstance(error, OSError):
                    raise named(error, self.directory / _FILE) from error
                raise

    def _read(self) -> None:
        """Read the lines; drop a torn last one."""
        path = self.directory / _FILE
        with open(path, "r+b") as file:
            number, end = 0, 0
            while line := file.readline(_MOST_BYTES):
                number += 1
                if len(line) < _MOST_BYTES and not line.endswith(b"\n"):
                    file.truncate(end)
                    return
                end += len(line)
                try:
                    self._take(_entry(line))
                except (KeyError, TypeError, ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}, is damaged: {error}") from None

    def _take(self, entry: dict[str, Any]) -> None:
        """Take one line."""
        if "experiment" in entry:
            self.identity, self.started = dict(entry["experiment"]), str(entry["started"])
        elif "arm" in entry:
            self.arms[str(entry["arm"])] = [dict(candidate) for candidate in entry["candidates"]]
        else:
            trial = Trial.from_json(entry["run"])
            if trial.arm not in self.arms:
                raise ValueError(f"a run of {trial.arm!r}, which is not one of its arms")
            self.trials.append(trial)


def _line(entry: dict[str, Any]) -> bytes:
    """Return an entry with the checksum of its text."""
    text = json.dumps(entry)
    return f'{{"sha256": "{sha256(text.encode()).hexdigest()[:32]}", "entry": {text}}}\n'.encode()


def _entry(line: bytes) -> dict[str, Any]:
    """Return the entry of a line whose checksum is right."""
    entry = json.loads(line)["entry"]
    if _line(entry) != line:
        raise ValueError("its checksum does not fit")
    return dict(entry)


def open_ledger(directory: str | os.PathLike[str], *, resume: bool = False) -> Ledger:
    """Open a directory to keep an experiment in.

    Parameters
    ----------
    directory : path
        It may be new; its parent must exist.
    resume : bool, default False
        Resume the experiment in it, if there is one. Without it the directory must be empty.

    Returns
    -------
    Ledger
        For the argument ``ledger`` of `paired_experiment` and `compare`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the directory holds something else, or a damaged file.
    OSError
        If it cannot be made or written.
    """
    path, resume = Path(directory), truth_value("resume", resume)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{directory}: there is no directory {path.parent}")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{directory} is a file; expected a directory")
    path.mkdir(exist_ok=True)
    check_writable(path / _FILE)
    sweep(path / _FILE)
    there = sorted(entry.name for entry in path.iterdir())
    if there and not resume:
        raise ValueError(
            f"{directory} is not empty; expected a new or empty directory, or resume=True to resume the experiment "
            "in it"
        )
    if there and _FILE not in there:
        raise ValueError(
            f"{directory} holds {there[0]} and no experiment; expected a new or empty directory, or an experiment's"
        )
    ledger = Ledger(path)
    if there:
        ledger._read()
    return ledger
