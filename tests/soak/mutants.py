"""Mutants of the kernels' C, made by universalmutator: how many of them the tests find."""

import collections
import difflib
import functools
import itertools
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist

from campaign import ROOT, Run, binding, campaign, need

CORES = len(os.sched_getaffinity(0))
WHOLE, TARGET = 200, 0.9
# One path of one lane and one of eight stand for the two that take longer to compile.
PATHS = ("src_c/simd/scalar_fma.c", "src_c/simd/avx2.c")
STAND_INS = (
    "-Wl,--defsym=cdrop_path_scalar=cdrop_path_scalar_fma",
    "-Wl,--defsym=cdrop_path_avx512=0",
)
WHOLE_RUNS = "test_network"  # of training, after all others
CHECKED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
REPORTED, REPORTS = 99, "exitcode=99:detect_leaks=0"


@dataclass(frozen=True)
class Kernel:
    """Files of src_c that are mutated, and the tests that must find it, of C and of Python."""

    files: tuple[str, ...]
    programs: tuple[str, ...]
    python: tuple[str, ...]


@dataclass(frozen=True)
class Mutant:
    """A file of src_c with one change."""

    file: str
    text: str

    def __str__(self):
        """Return where the change is, and the lines before and after."""
        before, after = original(self.file).splitlines(), self.text.splitlines()
        lines = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
        pairs = itertools.zip_longest(before, after)
        at = next(i for i, (a, b) in enumerate(pairs, 1) if a != b)
        return f"{self.file}:{at}: " + " -> ".join(" ".join(line[1:].split()) for line in lines)


@functools.cache
def original(file):
    """Return the text of a file of src_c."""
    return (ROOT / "src_c" / file).read_text()


def mutants_of(file, directory):
    """Return all that universalmutator makes of a file."""
    mutate = need("mutate", pip="universalmutator")
    directory.mkdir()
    command = [mutate, ROOT / "src_c" / file, "c", "--noCheck", "--mutantDir", directory]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)
    return [Mutant(file, path.read_text()) for path in sorted(directory.iterdir())]


# ---- Where they are tried ------------------------------------------------------------------------


def compiler():
    """Return the command that compiles as setup.py does, but fast, and ending at the first failed check."""
    text = (ROOT / "setup.py").read_text()
    flags = re.search(r'^POSIX_FLAGS = "(.*)"$', text, flags=re.MULTILINE)[1].split()
    strict = "-Werror=implicit-function-declaration"  # else only the linker says so
    flags += ["-O1", "-DCHECK_STOPS", strict, "-fPIC", "-pthread", "-Isrc_c"]
    return [need("gcc", debian="gcc"), *flags]


class Sandbox:
    """A copy of the project in which one mutant at a time is compiled and tested."""

    def __init__(self, directory, kernel):
        ignore = shutil.ignore_patterns("*.so", "__pycache__", "soak", "peers")
        for name in ("src_c", "tests", "cdrop"):
            shutil.copytree(ROOT / name, directory / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", directory)
        cpu = directory / "src_c" / "cpu.c"
        cpu.write_text(cpu.read_text().replace("if (f.avx512)", "if (0)"))
        self.directory, self.kernel, self.limits, self.compiler = directory, kernel, {}, compiler()
        paths = sorted(directory.glob("src_c/*.c"))
        self.sources = [*PATHS, *(str(path.relative_to(directory)) for path in paths)]
        self.tests = [f"tests/c/{name}.c" for name in ("check", *kernel.programs, WHOLE_RUNS)]
        self.original = self.compile([*self.sources, *self.tests], "original")
        self.binding = binding(directory)

    def compile(self, sources, name, *flags):
        """Return the objects of some sources, or None where one is no C."""
        objects = {}
        for source in sources:
            objects[source] = self.directory / f"{source}.{name}.o"
            command = [*self.compiler, *flags, "-c", source, "-o", objects[source]]
            if subprocess.run(command, cwd=self.directory, stderr=subprocess.DEVNULL).returncode:
                return None
        return objects

    def link(self, output, objects, *others):
        """Link the library, of which some objects are new, with others; return the result's path."""
        library = [{**self.original, **objects}[source] for source in self.sources]
        command = [*self.compiler, *library, *others, *STAND_INS, "-lm", "-o", output]
        subprocess.run(command, cwd=self.directory, check=True)
        return self.directory / output

    def failure(self, *command, memory="8589934592"):
        """Run a test; return how it fails: 'check', 'crash', or 'no end' after ten times what it takes else."""
        start = time.monotonic()
        try:
            result = subprocess.run(
                ["prlimit", "--core=0", f"--as={memory}", *command],
                cwd=self.directory,
                env={**os.environ, "ASAN_OPTIONS": REPORTS, "UBSAN_OPTIONS": REPORTS},
                capture_output=True,
                timeout=self.limits.get(command),
            ).returncode
        except subprocess.TimeoutExpired:
            return "no end"
        self.limits.setdefault(command, 10 * (time.monotonic() - start) + 2)
        return {0: "", 1: "check", REPORTED: "sanitizer"}.get(result, "crash")

    def run_c(self, programs, objects, *flags, **limits):
        """Run C tests to the first that fails; return how it does."""
        for name in programs:
            tests = ({**self.original, **objects}[f"tests/c/{n}.c"] for n in (name, "check"))
            output = self.link(f"{name}-{len(flags)}", objects, *tests, *flags)
            if failure := self.failure(output, **limits):
                return failure
        return ""

    def run_python(self, objects):
        """Run the Python tests on the same objects."""
        self.link("cdrop/_kernels.so", objects, self.binding, "-shared")
        pytest = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
        return self.failure(*pytest, *self.kernel.python)

    def run_all(self, objects):
        """Run all tests to the first that fails, fast ones first; return how it does."""
        return (
            self.run_c(self.kernel.programs, objects)
            or self.run_python(objects)
            or self.run_c([WHOLE_RUNS], objects)
        )

    def control(self):
        """Run all tests with nothing changed, which also shows how long each takes."""
        return self.run_all({})

    def readers(self, file):
        """Return the sources that a file of src_c goes into: those of every path, or its own."""
        if not file.endswith(".inc.h"):
            return [f"src_c/{file}"]
        return [s for s in self.original if "path.inc.h" in (self.directory / s).read_text()]

    def judge(self, mutant):
        """Return 'not C', 'same code', how a mutant was found, or '' where it was not."""
        path, sources = self.directory / "src_c" / mutant.file, self.readers(mutant.file)
        path.write_text(mutant.text)
        try:
            new = self.compile(sources, "new")
            if not new:
                return "not C"
            if all(new[s].read_bytes() == self.original[s].read_bytes() for s in new):
                return "same code"
            if failure := self.run_all(new):
                return failure
            new = self.compile(sources, "new", *CHECKED)
            return self.run_c(self.kernel.programs, new, *CHECKED, memory="unlimited")
        finally:
            path.write_text(original(mutant.file))


# ---- Survivors -----------------------------------------------------------------------------------

# What survives here changes no result: patterns of Mutant.__str__, and why. Each was read before it was listed.
COMMUTES = r"(w(xor|or|and|add)|V\(v(add|mul|fma)\))"
WITHOUT_EFFECT = [
    (r": cdrop_lap\(", "only for which part of a step time is counted"),
    (r"thinned_step >= step", "weights that a later step has copied are copied again"),
    (r"thinned.c:\d+: for .*i > n->layers", "weights are copied again in each step"),
    (r"deltas\.blocks = kept", "no product runs on the lists of no units"),
    (r"learned.c:\d+: continue;$", "at the end of a loop"),
    (r"double weights = l2 == ", "0 times a finite number"),
    (rf"-> .*{COMMUTES} \( ?[^()]+,", "the operation is commutative"),
    (r"-> if \(keep (<|==) .*CDROP_KEEP_ALL\)", "keep 0 gives zeros on the general way, too"),
    (r": if \(~valid\)", "where all bits are valid, the words are what they were"),
    (r"VEC a = V\(vset\)\(0\), b", "a rule without the state does not look at it"),
    (r": for \(; above && item < next", "a factor of 1 changes nothing: only time is saved"),
    (
        r"CDROP_FETCH|fetch_|fetches|product.inc.h:.*\bshare\b|[^_]ahead|touche[sd]|worth_it|FEW_LINES",
        "a prefetch",
    ),
    (r"s->rows\[line \+ 1\]|line \+ 1 >= last|CDROP_CACHE_LINE", "a prefetch"),
    (r": const size_t n = cdrop_min\(CDROP_BLOCK, s->columns", "how much is fetched ahead"),
    (r"if \(k->n == CDROP_BLOCK\)", "the same function, its bound a constant or not"),
    (r"MANY_(GROUPS|BLOCKS)|const int last = ", "the order of the work, not of any sum"),
    (
        r"dense_above|sampled_density|SAMPLES|\bseen\b|\(double\)live|live \+= k->",
        "lists or dense: the same bits",
    ),
    (r"n_in, CDROP_KEEP_ALL,", "all are kept, whatever the key"),
    (r"CDROP_UNROLL", "the loop is the same, unrolled or not"),
    (r"; (\w+)\+\+\).* -> .*; \1 != .*; \1\+\+\)", "counts to the same end"),
    (r"cdrop_useful_threads", "the number of threads changes no bit"),
    (r"product.inc.h:\d+: continue;", "the loop continues there anyway"),
]


def reason(mutant):
    """Return why no test can find a mutant, or '' where one could."""
    return next((why for pattern, why in WITHOUT_EFFECT if re.search(pattern, str(mutant))), "")


def interval(hits, n):
    """Return Wilson's 95 % interval of a share (1927)."""
    z = NormalDist().inv_cdf(0.975)
    middle, half = hits + z * z / 2, z * (hits * (n - hits) / n + z * z / 4) ** 0.5
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def report(run, files, counts, survivors):
    """Report the score, what was left out, and each survivor."""
    for mutant in survivors:
        print(f"  survived: {mutant}: {reason(mutant) or 'NO TEST FINDS IT'}")
    left_out = {name: counts.pop(name, 0) for name in ("not C", "same code")}
    tested, without_effect = counts.total(), sum(bool(reason(mutant)) for mutant in survivors)
    found, count = tested - len(survivors), tested - without_effect
    low, high = interval(found, count)
    run.figure(
        22,
        f"{' '.join(files)}: {found} of {count} mutants found, {found / count:.1%} "
        f"[{low:.1%}, {high:.1%}] ({dict(counts)}); {without_effect} others without effect, "
        f"{found / tested:.1%} with those; left out {left_out}",
        found / count >= TARGET,
    )


# ---- The campaigns -------------------------------------------------------------------------------


def seeded_mutants(run, files):
    """Return all mutants of some files in an order of the seed's."""
    directories = [run.directory / f"mutants-{i}" for i in range(len(files))]
    mutants = [m for pair in zip(files, directories, strict=True) for m in mutants_of(*pair)]
    random.Random(run.seed).shuffle(mutants)
    return mutants


def try_mutants(run, kernel):
    """Try a seeded sample of a kernel's mutants; what is not changed must pass before and after."""
    mutants, counts, survivors = seeded_mutants(run, kernel.files), collections.Counter(), []
    places, boxes = [run.directory / f"box-{i}" for i in range(CORES)], queue.SimpleQueue()

    def judge(mutant):
        box = boxes.get()
        verdict = box.judge(mutant)
        boxes.put(box)
        return verdict

    with ThreadPoolExecutor(CORES) as pool:
        all_boxes = list(pool.map(Sandbox, places, [kernel] * CORES))
        control = list(pool.map(Sandbox.control, all_boxes))
        for box in all_boxes:
            boxes.put(box)
        for mutant, verdict in zip(mutants, pool.map(judge, mutants), strict=False):
            counts[verdict] += 1
            survivors += [mutant] * (not verdict)
            if counts.total() - counts["not C"] - counts["same code"] == run.trials(WHOLE):
                break
        pool.shutdown(cancel_futures=True)
    control += map(Sandbox.control, all_boxes)
    run.figure(22, f"nothing changed: fails {control}", not any(control))
    report(run, kernel.files, counts, survivors)


@campaign(22)
def mask_mutants(run: Run):
    """Mutate the generator and the masks: the tests must find it."""
    files = ("bernoulli.c", "simd/bernoulli.inc.h")
    try_mutants(run, Kernel(files, ("test_masks",), ("tests/test_masks.py",)))


@campaign(22)
def product_mutants(run: Run):
    """Mutate the lists of live units and the products that run on them: the tests must find it."""
    files = ("masked_gemm.c", "products.c", "simd/product.inc.h", "simd/lists.inc.h")
    programs = ("test_lists", "test_products")
    python = ("tests/test_kernels.py", "tests/test_background.py")
    try_mutants(run, Kernel(files, programs, python))


@campaign(22)
def gradient_mutants(run: Run):
    """Mutate the gradients and the functions they go through: the tests must find it."""
    files = ("masked_grad.c", "simd/functions.inc.h")
    programs = ("test_accuracy", "test_kernels", "test_products")
    python = ("tests/test_kernels.py", "tests/test_background.py")
    try_mutants(run, Kernel(files, programs, python))


@campaign(22)
def update_mutants(run: Run):
    """Mutate the update rules and the limit of norms: the tests must find it."""
    files = ("optimizers.c", "simd/update.inc.h")
    programs = ("test_kernels",)
    try_mutants(run, Kernel(files, programs, ("tests/test_optimizers.py",)))


@campaign(22)
def noise_mutants(run: Run):
    """Mutate the noise, learned rates and the steps on thinned networks: the tests must find it."""
    files = ("noise.c", "simd/noise.inc.h", "learned.c", "thinned.c")
    tests = ("kinds", "concrete", "masksembles")
    try_mutants(
        run, Kernel(files, ("test_noise",), tuple(f"tests/test_{name}.py" for name in tests))
    )


@campaign(22)
def loss_mutants(run: Run):
    """Mutate the losses: the tests must find it."""
    files = ("losses.c", "simd/losses.inc.h")
    programs = ("test_special_values", "test_kernels", "test_noise")
    try_mutants(run, Kernel(files, programs, ("tests/test_losses.py",)))
