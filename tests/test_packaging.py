"""What a user gets: the version, the README, a light import, a library that exports little."""

import ctypes
import doctest
import importlib
import importlib.metadata
import os
import pkgutil
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import cdrop
from cdrop import _kernels

ROOT = Path(__file__).resolve().parents[1]

# Optional, or only for tests: importing cdrop must need none of them.
HEAVY = [
    "jinja2",
    "joblib",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pandas",
    "pooch",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "tqdm",
]

DOCTEST_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# What threadpoolctl finds the pool by.
EXPORTS = {"PyInit__kernels", "cdrop_get_num_threads", "cdrop_set_num_threads"}

# Those that every manylinux system has, by the stems of their names.
SYSTEM_LIBRARIES = {"ld-linux-x86-64", "ld-linux-aarch64", "libc", "libm", "libpthread"}


def read(name):
    """Return the text of a file next to the tests; skip where the tests were copied without it."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not next to these tests")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def headers():
    """Return the paths of the C headers; skip where the tests were copied without the sources."""
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "src_c").rglob("*.h")}
    return found or pytest.skip("the sources are not next to these tests")


def code_blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_python(code, environment=None):
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env=environment
    )
    return process.stdout


def test_version_of_module_and_package_agree():
    assert cdrop.__version__ == importlib.metadata.version("cdrop")


def test_version_is_that_of_pyproject():
    assert cdrop.__version__ == tomllib.loads(read("pyproject.toml"))["project"]["version"]


def test_version_heads_the_changelog_in_few_lines():
    text = read("CHANGELOG.md")
    newest = re.search(r"^## \[(\S+)\] - ", text, flags=re.MULTILINE)
    assert newest[1] == cdrop.__version__
    first = text.split("\n## ")[1]
    assert len(re.findall(r"^- ", first, flags=re.MULTILINE)) <= 10


def test_citation_has_this_version():
    assert f"\nversion: {cdrop.__version__}\n" in read("CITATION.cff")


def test_quick_start_holds_two_commands():
    section = read("README.md").split("## Quick start\n")[1]
    assert code_blocks(section)[0].split("\n") == ["make compare", "make test", ""]


PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if page.exists() and code_blocks(page.read_text(encoding="utf-8"), "python")
)


def test_pages_with_examples_are_found():
    read("README.md"), read("docs/tour.md")
    assert {"README.md", "docs/tour.md", "docs/how-to/serve.md"} <= set(PAGES)


def imports(text):
    """Return the packages that the examples of a page import, and the one that saved models need."""
    found = set(re.findall(r"^>>> (?:import|from) (\w+)", text, flags=re.MULTILINE))
    return found | ({"safetensors"} if re.search(r"\.save\(|checkpoint[\"=]", text) else set())


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages(page, tmp_path, monkeypatch):
    text = read(page)
    for name in imports(text):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=DOCTEST_FLAGS)
    names = {}
    for number, block in enumerate(code_blocks(text, "python"), start=1):
        example = doctest.DocTestParser().get_doctest(block, names, f"{page} {number}", None, 0)
        assert example.examples
        runner.run(example, clear_globs=False)
        names = example.globs
    assert runner.failures == 0


MODULES = [info.name for info in pkgutil.walk_packages(cdrop.__path__, "cdrop.")]


@pytest.mark.parametrize("name", ["cdrop", *(m for m in MODULES if not m.endswith("__main__"))])
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name in ("cdrop.checkpoints", "cdrop.storage"):
        pytest.importorskip("safetensors")
    found = doctest.testmod(importlib.import_module(name), optionflags=DOCTEST_FLAGS)
    assert found.failed == 0


@pytest.mark.usefixtures("headers")
def test_files_next_to_the_modules_are_packed():
    settings = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    listed = re.search(r"^recursive-include cdrop (.*)$", read("MANIFEST.in"), flags=re.MULTILINE)
    made = {".py", ".pyc", ".pyx", ".c", ".so"}
    data = [p for p in (ROOT / "cdrop").rglob("*.*") if p.is_file() and p.suffix not in made]
    assert "page.html" in {path.name for path in data}
    for path in data:
        for patterns in (settings["package-data"]["cdrop"], listed[1].split()):
            assert any(path.match(pattern) for pattern in patterns), path


@pytest.mark.usefixtures("headers")
def test_readme_fits_on_few_screens():
    assert len(read("README.md").splitlines()) <= 130


def test_links_of_the_readme_lead_to_files():
    text = read("README.md")
    linked = re.findall(r"\]\(([^):]+)\)", text)
    assert {"docs/why.md", "docs/speed.md"} <= set(linked)
    assert [name for name in linked if not (ROOT / name.partition("#")[0]).exists()] == []


PUBLIC = [info.name for info in pkgutil.iter_modules(cdrop.__path__) if info.name[0] != "_"]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_module_has_a_page(name):
    read("docs/api/index.md")
    pages = [ROOT / "docs" / "api" / f"{name}.md", ROOT / "docs" / f"{name}.md"]
    if not any(page.exists() and f"cdrop.{name}" in read(page) for page in pages):
        shown = set(read("docs/api/cdrop.md").split())
        assert set(importlib.import_module(f"cdrop.{name}").__all__) <= shown


@pytest.mark.usefixtures("headers")
def test_contributing_names_files_that_exist():
    section = read("CONTRIBUTING.md").split("## Where things are\n")[1].split("\n## ")[0]
    names = re.findall(
        r"`([\w/.]+)`", "\n".join(row.split(" | ")[0] for row in section.split("\n"))
    )
    assert names
    assert [n for n in names if not ((ROOT / n).exists() or (ROOT / "cdrop" / n).exists())] == []


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the symbols of an ELF file")
def test_library_exports_only_its_entry_points():
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", _kernels.__file__]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    exported = {line.split()[0] for line in lines} - {"_init", "_fini"}
    assert "PyInit__kernels" in exported
    assert exported <= EXPORTS


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the headers of an ELF file")
def test_library_is_hardened_and_needs_only_the_c_library():
    command = ["readelf", "--wide", "--dynamic", "--program-headers", _kernels.__file__]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    needed = {name.split(".")[0] for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text)}
    assert "libc" in needed
    assert needed <= SYSTEM_LIBRARIES
    assert re.search(r"GNU_STACK .* RW ", text), "the stack is executable"
    assert "GNU_RELRO" in text
    assert "BIND_NOW" in text
    assert "TEXTREL" not in text


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the symbols of an ELF file")
def test_library_guards_its_stack():
    command = ["nm", "--dynamic", "--undefined-only", _kernels.__file__]
    assert (
        "__stack_chk_fail"
        in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="marks of x86")
def test_library_marks_where_jumps_may_lead():
    begin = ctypes.cast(ctypes.CDLL(_kernels.__file__).PyInit__kernels, ctypes.c_void_p).value
    assert ctypes.string_at(begin, 4) == b"\xf3\x0f\x1e\xfa"  # endbr64


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
def test_a_wheel_for_release_has_no_debugging_sections():
    about = importlib.metadata.distribution("cdrop").read_text("WHEEL") or ""
    if "manylinux" not in about:
        pytest.skip("not installed from such a wheel")
    command = ["readelf", "--wide", "--sections", _kernels.__file__]
    assert (
        ".debug" not in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )


def test_a_library_of_the_limited_api_is_in_a_wheel_for_every_python():
    about = importlib.metadata.distribution("cdrop").read_text("WHEEL") or ""
    if "manylinux" not in about and "musllinux" not in about:
        pytest.skip("not installed from such a wheel")
    limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert bool(re.search(r"^Tag: cp311-abi3-", about, re.MULTILINE)) == limited
    assert _kernels.__file__.endswith(".abi3.so") == limited


def setup_py(tmp_path, name="--version", python=(), **environment):
    """Run setup.py with further lines of Python before it; return its exit code and what it says on standard error."""
    lines = [
        "import os, runpy, sys",
        *python,
        f"os.chdir({str(ROOT)!r})",
        f"sys.argv = ['setup.py', {name!r}]",
    ]
    (tmp_path / "run.py").write_text("\n".join([*lines, "runpy.run_path('setup.py')", ""]))
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.usefixtures("headers")
@pytest.mark.parametrize(
    ("asked", "free_threaded", "message"),
    [
        ("yes", 0, r"cdrop: CDROP_ABI3 is 'yes'; expected 1 .* or 0\n"),
        ("1", 1, r"cdrop: CDROP_ABI3 is '1' in a free-threaded Python.*; expected it unset\n"),
        ("1", 0, ""),
        ("", 1, ""),
    ],
)
def test_the_limited_api_is_built_where_it_is_asked_for_and_exists(
    asked, free_threaded, message, tmp_path
):
    pytest.importorskip("setuptools")
    python = [
        "import sysconfig",
        "variable = sysconfig.get_config_var",
        f"known = {{'Py_GIL_DISABLED': {free_threaded}}}",
        "sysconfig.get_config_var = lambda name: known[name] if name in known else variable(name)",
    ]
    code, said = setup_py(tmp_path, python=python, CDROP_ABI3=asked)
    assert bool(code) == bool(message)
    assert re.fullmatch(message, said)


def hardening(compiler):
    """Return the flags of hardening that setup.py chooses for a compiler."""
    code = (
        "import os, runpy, setuptools, types\n"
        "setuptools.setup = lambda **given: None\n"
        f"os.chdir({str(ROOT)!r})\n"
        "build = runpy.run_path('setup.py')['BuildKernels']\n"
        f"build.compiler = types.SimpleNamespace(compiler_so={compiler!r})\n"
        "print(*build.hardening(build.__new__(build)))"
    )
    return run_python(code).split()


@pytest.mark.posix
@pytest.mark.usefixtures("headers")
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_hardening_is_what_the_compiler_takes(tmp_path):
    pytest.importorskip("setuptools")
    assert {"-D_FORTIFY_SOURCE=3", "-D_FORTIFY_SOURCE=2"} & set(hardening(["gcc"]))
    assert hardening(["gcc", "-fsanitize=address"]) == []
    old = tmp_path / "old-gcc"
    for refused, left in (
        ("=3|-fcf", "-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-clash-protection"),
        ("FORTIFY|clash|-fcf", ""),
    ):
        old.write_text(f'#!/bin/sh\ncase "$*" in *{refused.replace("|", "*|*")}*) exit 1;; esac\n')
        old.chmod(0o755)
        assert hardening([str(old)]) == left.split()


def for_windows(platform, compiler=""):
    """Return what setup.py has distutils call for Windows, or the error that it exits with."""
    code = (
        "import os, runpy, setuptools, types\n"
        "setuptools.setup = lambda **given: None\n"
        f"os.chdir({str(ROOT)!r})\n"
        "build = runpy.run_path('setup.py')['BuildKernels']\n"
        "build.compiler = types.SimpleNamespace(initialized=True)\n"
        f"build.plat_name = {platform!r}\n"
        "try:\n"
        "    build.use_clang_cl(build.__new__(build))\n"
        "    print(build.compiler.cc, *build.compiler.compile_options)\n"
        "except SystemExit as error:\n"
        "    print(error)\n"
    )
    return run_python(code, {**os.environ, "CC": str(compiler)}).strip()


@pytest.mark.posix
@pytest.mark.usefixtures("headers")
@pytest.mark.skipif(os.name != "posix", reason="the compilers are shell scripts")
def test_windows_is_compiled_by_a_new_clang_cl_alone(tmp_path):
    pytest.importorskip("setuptools")
    compiler = tmp_path / "clang-cl"
    wanted = r"; expected clang-cl of LLVM 19 or newer: .*"
    assert re.fullmatch(
        f"cdrop: the C compiler .* is not found{wanted}", for_windows("win-amd64", compiler)
    )
    for said, found in (("", "not clang-cl"), ("clang version 18.1.8", "clang version 18.1.8")):
        compiler.write_text(f"#!/bin/sh\necho '{said}'\n")
        compiler.chmod(0o755)
        assert re.fullmatch(f"cdrop: .* is {found}{wanted}", for_windows("win-amd64", compiler))
    compiler.write_text("#!/bin/sh\necho 'clang version 19.1.0'\n")
    command = f"{compiler} /nologo /DNDEBUG /MD --target=arm64-pc-windows-msvc"
    assert for_windows("win-arm64", compiler) == command
    assert for_windows("win32") == "cdrop: the platform is win32; expected win-amd64 or win-arm64"


@pytest.mark.usefixtures("headers")
def test_every_feature_that_a_path_is_compiled_for_is_asked_for():
    asked = set(re.findall(r"\bbit_(\w+)", read("src_c/cpu.c")))
    targets = {
        path.stem: re.findall(r'^CDROP_TARGET_BEGIN\("(.*)"\)$', path.read_text(), re.MULTILINE)
        for path in (ROOT / "src_c" / "simd").glob("*.c")
    }
    assert {path for path, features in targets.items() if features} >= {"avx2", "avx512"}
    for path, features in targets.items():
        assert {name.upper() for text in features for name in text.split(",")} <= asked, path


def test_import_loads_no_optional_library():
    loaded = run_python("import sys, cdrop; print(*{name.split('.')[0] for name in sys.modules})")
    assert set(loaded.split()) & set(HEAVY) == set()


@pytest.mark.parametrize("name", ["convert", "datasets", "experiments", "plotting"])
def test_submodule_is_available_after_import_of_the_package(name):
    assert run_python(f"import cdrop; print(cdrop.{name}.__name__)") == f"cdrop.{name}\n"
    assert name in cdrop.__all__
    assert name in dir(cdrop)


def test_estimators_are_available_after_import_of_the_package():
    pytest.importorskip("sklearn")
    assert run_python("import cdrop; print(cdrop.estimators.__name__)") == "cdrop.estimators\n"


def test_no_module_imports_the_whole_package():
    """A module that imports the package needs all of it, and makes a circle with what the package imports."""
    modules = [path for path in (ROOT / "cdrop").rglob("*.py") if path.name != "__main__.py"]
    assert [p for p in modules if re.search(r"^import cdrop$", p.read_text(), re.MULTILINE)] == []


def test_import_takes_little_time_over_that_of_numpy():
    # Of this thread, and relative to NumPy in the same process: other work on the machine, a slow CPU and waiting
    # threads of a BLAS must not count.
    code = (
        "import time; start = time.thread_time(); import numpy; middle = time.thread_time(); import cdrop;"
        "print((time.thread_time() - middle) / (middle - start))"
    )
    assert any(float(run_python(code, storing_bytecode())) < 0.6 for _ in range(20))


def storing_bytecode():
    """Return an environment in which no import but the first compiles a module, as users have it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@pytest.mark.linux
def test_estimators_cost_little_beyond_scikit_learn():
    pytest.importorskip("sklearn")
    code = (
        "import os, time;"
        "used = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE');"
        "start = time.thread_time(); import sklearn.neural_network; middle, before = time.thread_time(), used();"
        "from cdrop import DropoutMLPClassifier;"
        "print((time.thread_time() - middle) / (middle - start), used() - before)"
    )
    for _ in range(5):
        share, size = map(float, run_python(code, storing_bytecode()).split())
        if share < 0.05 and size < 10e6:
            return
    pytest.fail(f"{share:.2f} of scikit-learn's CPU time and {size} bytes beyond it")


@pytest.mark.usefixtures("headers")
def test_the_group_for_building_is_what_the_build_requires():
    settings = tomllib.loads(read("pyproject.toml"))
    assert settings["dependency-groups"]["build"] == settings["build-system"]["requires"]


@pytest.mark.usefixtures("headers")
@pytest.mark.parametrize(
    ("module", "release", "needed"),
    [("setuptools", "65.5.0", "77"), ("setuptools", "76.1", "77"), ("Cython", "3.0.12", "3.1")],
)
def test_a_tool_too_old_to_build_is_named_in_one_line(module, release, needed, tmp_path):
    pytest.importorskip("setuptools")
    (tmp_path / f"{module}.py").write_text(f"__version__ = {release!r}\n")
    code, said = setup_py(tmp_path, "build_ext", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert re.fullmatch(
        f"cdrop: {module} is {release}; expected {module} {needed} or newer: .*\n", said
    )


MISSING = {
    "*": r"the C compiler is '.*/compiler', which is not there or .*; expected gcc or clang .*",
    "*Python.h*": r"Python.h is not in .*; expected the headers of Python 3\.\d+: apt install .*",
}


@pytest.mark.posix
@pytest.mark.usefixtures("headers")
@pytest.mark.skipif(os.name != "posix", reason="a compiler that is a shell script")
@pytest.mark.parametrize("refused", MISSING)
def test_a_missing_compiler_or_header_is_named_in_one_line(refused, tmp_path):
    pytest.importorskip("Cython")
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\ncase $(cat) in {refused}) exit 1;; esac\n")
    compiler.chmod(0o755)
    code, said = setup_py(tmp_path, "build_ext", CC=str(compiler))
    assert code == 1
    assert re.fullmatch(f"cdrop: {MISSING[refused]}\n", said)


WORKFLOWS = [".github/workflows/ci.yml", ".github/workflows/wheels.yml"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_and_containers_are_pinned_by_digest(name):
    workflow = read(name)
    for container in re.findall(r"container: (.*)", workflow):
        assert re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", container)
    uses = re.findall(r"uses: (.*)", workflow)
    assert uses
    assert [use for use in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", use)] == []
    installed = re.findall(r"pip install (?!.*--no-index|--only-binary)(.*)", workflow)
    assert [one for line in installed for one in line.split() if "==" not in one] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_only_read_except_to_publish_a_release(name):
    workflow = pytest.importorskip("yaml").safe_load(read(name))
    assert workflow["permissions"] == {"contents": "read"}
    more = {job: text for job, text in workflow["jobs"].items() if "permissions" in text}
    assert set(more) == ({"publish"} if name.endswith("wheels.yml") else set())
    for job in more.values():
        assert job["permissions"] == {"id-token": "write"}
        assert job["if"] == "github.event_name == 'release'"
        assert job["environment"]["name"] == "pypi"
        assert not any("run" in step for step in job["steps"])


def test_wheels_are_built_for_every_python_that_the_classifiers_name():
    settings = tomllib.loads(read("pyproject.toml"))
    named = [text.rpartition(" ")[2] for text in settings["project"]["classifiers"]]
    pythons = [text for text in named if re.fullmatch(r"3\.\d+", text)]
    tested = re.search(r"python: \[(.*)\]", read(".github/workflows/wheels.yml"))[1]
    assert set(pythons) <= set(re.findall(r"[\d.]+", tested))
    wheels = settings["tool"]["cibuildwheel"]
    assert f"cp{pythons[0].replace('.', '')}-*" in wheels["build"]
    assert {
        "select": "cp311-*",
        "inherit": {"environment": "append"},
        "environment": {"CDROP_ABI3": "1"},
    } in wheels["overrides"]


def test_no_flag_ties_the_build_to_this_cpu():
    flags = re.search(r'^POSIX_FLAGS = "(.*)"$', read("setup.py"), flags=re.MULTILINE)[1].split()
    assert "-ffp-contract=off" in flags
    assert [f for f in flags if f.startswith(("-m", "-ffast-math", "-Ofast", "-fopenmp"))] == []


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_changed_header_compiles_again(headers):
    target = ".venv/stamps/extension"
    command = ["make", "--dry-run", "--print-data-base", target]
    rules = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout
    needed = re.search(rf"^{re.escape(target)}: (.*)$", rules, flags=re.MULTILINE)[1].split()
    assert headers <= set(needed)


def test_extension_depends_on_every_header(headers):
    pytest.importorskip("setuptools", reason="builds nothing without setuptools")
    code = (
        "import os, runpy, setuptools\n"
        "setuptools.setup = lambda **given: print(*given['ext_modules'][0].depends)\n"
        f"os.chdir({str(ROOT)!r})\n"
        "runpy.run_path('setup.py')"
    )
    assert headers <= set(run_python(code).split())
