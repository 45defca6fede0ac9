"""The Python tests on 64-bit ARM: an interpreter and NumPy of that machine under qemu, the extension cross-compiled."""

import os
import re
import shutil
import subprocess
import sys

from campaign import ROOT, Run, campaign, need

DIRECTORY = ROOT / "build" / "arm64"
SYSTEM = DIRECTORY / "system"
COMPILER = "aarch64-linux-gnu-gcc"
# The default CPU of qemu 7.2 computes wrong products of matrices in NumPy.
EMULATOR = "qemu-aarch64-static -cpu cortex-a76"
PACKAGES = ("numpy>=2", "hypothesis>=6.100", "pytest>=8", "pytest-timeout>=2.3", "safetensors")
TESTS = ("determinism", "masks", "kernels", "losses", "optimizers", "files", "storage")
# Of the wheel, what its file says: examples and times of import are the same everywhere, and slow here.
WITHOUT = {"packaging": ("-k", "test_library or limited_api or release")}

APT = """
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::State "{directory}/state";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
"""

# Under its own name, so that the tests' subprocesses begin with it too.
PYTHON = """#!/bin/sh
export PYTHONHOME={system}/usr
exec {emulator} -L {system} -0 "$0" {python} "$@"
"""


def quietly(*command, **options):
    """Run a command; stop with what it said if it fails."""
    process = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if process.returncode:
        raise SystemExit(f"cdrop: {' '.join(map(str, command))}:\n{process.stdout[-4000:]}")


def fetch_system():
    """Unpack Python and its headers, of this machine's Debian but for ARM, without installing anything."""
    apt = DIRECTORY / "apt"
    (apt / "state" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "conf").write_text(APT.format(directory=apt))
    environment = {**os.environ, "APT_CONFIG": str(apt / "conf")}
    quietly("apt-get", "update", env=environment)
    wanted = ("python3", "libpython3-dev", "libstdc++6")
    quietly("apt-get", "install", "--yes", "--download-only", *wanted, env=environment)
    for archive in sorted((apt / "cache" / "archives").glob("*.deb")):
        quietly("dpkg-deb", "-x", archive, SYSTEM)


def interpreter():
    """Return the path of the unpacked Python, and its version as 3.x."""
    (path,) = (SYSTEM / "usr" / "bin").glob("python3.[0-9][0-9]")
    return path, path.name.removeprefix("python")


def fetch_packages(version):
    """Unpack the wheels that the tests need."""
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_28")]
    target = ["--target", DIRECTORY / "site", "--upgrade", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *target, *platforms]
    quietly(*pip, "--implementation=cp", f"--python-version={version}", *PACKAGES)


def build(name, version, *flags):
    """Compile the extension, copy the package and it into a directory of that name, and return the directory."""
    directory = DIRECTORY / name
    shutil.rmtree(directory, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(ROOT / "cdrop", directory / "cdrop", ignore=ignored)
    source = directory / "_kernels.c"
    quietly(sys.executable, "-m", "cython", "-3", ROOT / "cdrop" / "_kernels.pyx", "-o", source)
    usual = re.search(r'^POSIX_FLAGS = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    include = SYSTEM / "usr" / "include"
    headers = ["-isystem", include / f"python{version}", "-isystem", include, f"-I{ROOT / 'src_c'}"]
    suffix = f"cpython-{version.replace('.', '')}-aarch64-linux-gnu.so"
    library = ["-shared", "-fPIC", "-pthread", "-o", directory / "cdrop" / f"_kernels.{suffix}"]
    ours = sorted((ROOT / "src_c").rglob("*.c"))
    quietly(COMPILER, *usual.split(), *flags, *headers, *library, source, *ours, "-lm")
    return directory


def pytest(python, directory, *arguments):
    """Run tests with the package of a directory; return the process."""
    paths = {"PYTHONPATH": f"{directory}:{DIRECTORY / 'site'}"}
    paths["PYTHONSAFEPATH"] = "1"  # else the tests' own processes find the package here first
    return subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
    )


def ready():
    """Fetch what is not there yet; return a Python that runs on this machine as on ARM, and its version."""
    need("qemu-aarch64-static", debian="qemu-user-static")
    need(COMPILER, debian="gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    need("apt-get", debian="apt")
    need("dpkg-deb", debian="dpkg")
    complete = DIRECTORY / "complete"
    if not complete.exists():
        fetch_system()
        fetch_packages(interpreter()[1])
        complete.touch()
    path, version = interpreter()
    python = DIRECTORY / "python"
    python.write_text(PYTHON.format(emulator=EMULATOR, system=SYSTEM, python=path))
    python.chmod(0o755)
    return python, version


@campaign(8, 10)
def arm64(run: Run):
    """The Python tests of kernels, masks, files and recorded weights on 64-bit ARM under qemu."""
    python, version = ready()
    recorded = "test_weights_are_the_recorded_ones_on_every_path and not article"
    bent = pytest(
        python,
        build("contracted", version, "-ffp-contract=fast"),
        "tests/test_determinism.py",
        "-k",
        recorded,
    )
    failed = re.search(r"(\d+) failed", bent.stdout)
    run.figure(
        10,
        f"arm64, control: built with other roundings: {failed[1] if failed else 'NONE'} of the recorded hashes differ",
        failed is not None,
    )
    directory = build("package", version)
    names = TESTS[: run.trials(len(TESTS))]
    for name in names:
        process = pytest(python, directory, f"tests/test_{name}.py")
        run.figure(
            10 if name == "determinism" else 8,
            f"arm64, Python {version}: test_{name}.py: {process.stdout.splitlines()[-1]}"
            + ("" if process.returncode == 0 else f"\n{process.stdout[-4000:]}{process.stderr}"),
            process.returncode == 0,
        )


def unpacked(wheel, version):
    """Install a wheel as pip does on ARM; return the directory."""
    directory = DIRECTORY / "wheel"
    shutil.rmtree(directory, ignore_errors=True)
    platform = [
        "--implementation=cp",
        f"--python-version={version}",
        "--platform=manylinux2014_aarch64",
    ]
    target = ["--target", directory, "--no-deps", "--only-binary=:all:", *platform]
    quietly(sys.executable, "-m", "pip", "install", "--quiet", *target, wheel)
    return directory


@campaign(47)
def arm_wheel(run: Run):
    """The wheel for 64-bit ARM that `make wheels` built under qemu: recorded weights, masks, kernels, the file."""
    wheels = sorted((ROOT / "dist").glob("cdrop-*manylinux_2_17_aarch64.whl"))
    if len(wheels) != 1:
        raise SystemExit(
            f"cdrop: dist/ has {len(wheels)} wheels for aarch64; expected 1: make wheels"
        )
    python, version = ready()
    directory = unpacked(wheels[0], version)
    names = ("packaging", "determinism", "masks", "kernels")
    for name in names[: run.trials(len(names))]:
        process = pytest(python, directory, f"tests/test_{name}.py", *WITHOUT.get(name, ()))
        run.figure(
            47,
            f"{wheels[0].name}, Python {version}: test_{name}.py: {process.stdout.splitlines()[-1]}"
            + ("" if process.returncode == 0 else f"\n{process.stdout[-4000:]}{process.stderr}"),
            process.returncode == 0,
        )
