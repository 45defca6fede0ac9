"""Other systems: the C tests on more processors and C libraries, fused multiply-adds, and Windows' compiler."""

import importlib.util
import os
import re
import subprocess
import sys

from campaign import ROOT, Run, campaign, need, need_module
from sanitizers import c_tests, make

# Each is emulated, but for the first two.
EMULATORS = {
    "musl": None,
    "i686": None,
    "riscv64": "qemu-riscv64-static",
    "ppc64le": "qemu-ppc64le-static",
    "s390x": "qemu-s390x-static",
}
PROGRAMS = (
    "fma",
    "special_values",
    "network",
    "masks",
    "sample",
    "accuracy",
    "kernels",
    "lists",
    "products",
)


# What multiplies two floats to a double on s390x: software that is not used there, and one loss of floats.
WITH_PRODUCTS = ("fma", "network")
POISSON = "[poisson f32, "


def wrong_product(run: Run):
    """Return what the emulated s390x prints of a product of two floats where it is wrong, else an empty string."""
    built = run.directory / "widened"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "s390x-linux-musl", "-O2"]
    subprocess.run([*zig, ROOT / "tests" / "soak" / "widened.c", "-o", built], check=True)
    command = [EMULATORS["s390x"], built]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode else ""


def network_but_poisson(run: Run, system):
    """Run the networks' C test where that product is wrong: nothing but Poisson's loss of floats may differ."""
    said = make(system, "run-c-tests", C_PROGRAMS="test_network").stdout
    counts = re.search(r"^(\d+) passed, (\d+) failed$", said, re.MULTILINE)
    passed, failed = map(int, counts.groups()) if counts else (0, 0)
    run.figure(
        8,
        f"{system}: test_network: {passed} checks passed, {failed} of Poisson's loss in float32 failed",
        passed > 0 and said.count(POISSON) == failed,
    )


@campaign(8, 10)
def systems(run: Run):
    """The C tests, recorded hashes included, for musl, 32-bit x86, RISC-V, POWER and big-endian s390x (qemu)."""
    need_module("ziglang")
    os.environ["PY"] = sys.executable
    for system, emulator in EMULATORS.items():
        if emulator:
            need(emulator, debian="qemu-user-static")
        programs = PROGRAMS
        # qemu 7.2 takes the first operand of s390x's MDEBR for a double.
        if system == "s390x" and (wrong := wrong_product(run)):
            print(f"{emulator} is wrong: {wrong}", flush=True)
            programs = tuple(name for name in PROGRAMS if name not in WITH_PRODUCTS)
            network_but_poisson(run, system)
        c_tests(run, 8, system, programs)
    apart = {"OBJ": "build/c-fused", "FLAGS_riscv64": "-ffp-contract=fast"}
    bent = make("riscv64", "run-c-tests", C_PROGRAMS="test_network", **apart)
    failed = re.search(r"passed, (\d+) failed", bent.stdout)
    run.figure(
        10,
        f"riscv64, control: multiply-adds fused by the compiler: {failed[1] if failed else 'NO'} checks fail",
        failed is not None and failed[1] != "0",
    )


@campaign(8)
def fma(run: Run):
    """The fused multiply-adds in software against the CPU's instruction: 10^8 operands of each type and mode."""
    built = make("host", "build/c-host/test_fma")
    if built.returncode:
        raise SystemExit(f"cdrop: {built.stdout}{built.stderr}")
    trials = run.trials(20_000_000)
    command = [ROOT / "build" / "c-host" / "test_fma", str(trials)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    run.figure(
        8,
        f"fma: float and double, denormals kept and flushed, {5 * trials:,} operands each: "
        f"{process.stdout.splitlines()[-1]}",
        process.returncode == 0,
    )


# ---- clang-cl ------------------------------------------------------------------------------------

# What src_c takes from Windows and its C library, declared; clang has the rest.
HEADERS = {
    "math.h": """
#undef NAN
#undef INFINITY
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)
#define signbit(x) __builtin_signbit(x)
double sqrt(double), fabs(double), frexp(double, int *), ldexp(double, int), log(double);
""",
    "stdlib.h": """
#include <stddef.h>
void *malloc(size_t), *calloc(size_t, size_t), *realloc(void *, size_t), free(void *);
""",
    "malloc.h": """
#include <stddef.h>
void *_aligned_malloc(size_t, size_t), _aligned_free(void *);
""",
    "string.h": """
#include <stddef.h>
void *memcpy(void *, const void *, size_t), *memset(void *, int, size_t), *memmove(void *, const void *, size_t);
int memcmp(const void *, const void *, size_t), strcmp(const char *, const char *);
""",
    "time.h": """
struct timespec { long long tv_sec; long tv_nsec; };
#define TIME_UTC 1
int timespec_get(struct timespec *, int);
""",
    "windows.h": """
#include <stddef.h>
typedef struct { void *p; } SRWLOCK, CONDITION_VARIABLE;
#define SRWLOCK_INIT {0}
#define CONDITION_VARIABLE_INIT {0}
#define INFINITE 0xffffffff
#define WINAPI __stdcall
typedef unsigned long DWORD;
typedef void *HANDLE;
typedef DWORD (WINAPI *LPTHREAD_START_ROUTINE)(void *);
void AcquireSRWLockExclusive(SRWLOCK *), ReleaseSRWLockExclusive(SRWLOCK *);
void WakeAllConditionVariable(CONDITION_VARIABLE *);
unsigned char TryAcquireSRWLockExclusive(SRWLOCK *);
int SleepConditionVariableSRW(CONDITION_VARIABLE *, SRWLOCK *, DWORD, DWORD), SwitchToThread(void), CloseHandle(HANDLE);
DWORD GetCurrentProcessorNumber(void);
HANDLE CreateThread(void *, size_t, LPTHREAD_START_ROUTINE, void *, DWORD, DWORD *);
""",
}
FUSED = re.compile(r"^\s+(?:vfn?m(?:add|sub)\w*|fn?m(?:add|sub|la|ls))\b", re.MULTILINE)
# Files without a written fused multiply-add.
PLAIN = ("numbers", "network", "forward", "sample", "bernoulli", "train", "fma")


def compiled(source, directory, target, flags):
    """Compile a file as setup.py has clang-cl do; return the assembly."""
    (zig,) = importlib.util.find_spec("ziglang").submodule_search_locations
    clang = [sys.executable, "-m", "ziglang", "clang", "--driver-mode=cl", f"--target={target}"]
    headers = ["/I", directory, "/imsvc", f"{zig}/lib/include"]
    given = [
        *flags,
        "-WX",
        *headers,
        "/FA",
        f"/Fa{directory}/out.asm",
        "/c",
        f"/Fo{directory}/out.obj",
    ]
    process = subprocess.run(
        [*clang, *given, source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise SystemExit(f"cdrop: {source} for {target}:\n{process.stderr[-4000:]}")
    return (directory / "out.asm").read_text()


@campaign(8)
def clang_cl(run: Run):
    """Every C file compiled as for Windows on x86-64 and ARM: no fused multiply-add that is not written."""
    need_module("ziglang")
    for name, text in HEADERS.items():
        (run.directory / name).write_text(f"#pragma once\n{text}")
    flags = re.search(r'^CLANG_CL_FLAGS = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    usual = flags[1].split()
    free = [flag for flag in usual if "fp-contract" not in flag]
    files = sorted(ROOT.glob("src_c/**/*.c"))
    for target in ("x86_64-pc-windows-msvc", "arm64-pc-windows-msvc"):
        text = {path.stem: compiled(path, run.directory, target, usual) for path in files}
        fused = {name: len(FUSED.findall(text[name])) for name in PLAIN}
        run.figure(
            8,
            f"clang-cl, {target}: {len(text)} files; fused multiply-adds in {', '.join(PLAIN)}: {sum(fused.values())}",
            not any(fused.values()),
        )
    numbers = compiled(ROOT / "src_c" / "numbers.c", run.directory, "arm64-pc-windows-msvc", free)
    bent = len(FUSED.findall(numbers))
    run.figure(8, f"clang-cl, control: numbers.c without the flag: {bent} fused", bent > 0)
