"""Model files: fuzzed bytes, killed savers, failing system calls, a full disk."""

import collections
import os
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from campaign import Run, campaign, need
from conftest import digest
from model_files import DIGITS, check_killed, forged, kill_while_saving, parts, sign

from cdrop import Network, load, storage
from cdrop.storage import ModelFileError

# ---- Fuzzing -----------------------------------------------------------------------------------


def small_file(draw):
    """Return the bytes of a small network's file."""
    net = Network([2, 3, 2], dropout=0.5, seed=draw.randrange(2**64))
    net.fit(np.array([[0.5, 0.5], [0.5, 1], [0.5, 0.5]]), [0, 1, 0], iterations=draw.randrange(9))
    return bytes(storage._packed("Network", *net._to_parts()))


def mutated(content, draw):
    """Change 1 to 8 bytes, or cut, repeat, move or swap a stretch."""
    content = bytearray(content)
    kind = draw.randrange(6)
    i, j = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    if kind < 2:
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif kind == 2:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == 3:
        del content[i : min(j, i + 40)]
    elif kind == 4:
        content[i:i] = content[j : j + 40] or b"\0"
    else:
        content[i : i + 8] = draw.choice([b"\xff" * 8, bytes(8), b"0" * 8, b'"' * 8, b"[" * 8])
    return bytes(content)


WORDS = ["relu", "adam", "float64", "units", "Network", "", None, True, [], {}]
NUMBERS = [0, 1, 2, -1, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400]


def mutated_json(value, draw):
    """Change one leaf, or one member, somewhere in a value."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.8:
        value = value.copy()
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if draw.random() < 0.1:
            del value[key]
        elif isinstance(value, dict) and draw.random() < 0.1:
            value[draw.choice(["x", "units", "name", "threads"])] = value[key]
        else:
            value[key] = mutated_json(value[key], draw)
        return value
    return draw.choice(WORDS + NUMBERS)


def attack(content, draw):
    """Return a file whose digest is right, and whose content is not, or no longer as it was."""
    kind = draw.randrange(3)
    if kind == 0:  # anywhere
        changed = mutated(content, draw)
        return sign(changed) if len(changed) > DIGITS.stop else changed
    about, arrays = parts(content)
    del about["sha256"]
    if kind == 1:
        name = draw.choice([*about, "settings", "settings", "settings"])
        about[name] = mutated_json(about[name], draw)
        return forged(about, arrays)
    name = draw.choice(list(arrays))
    which = draw.randrange(3)
    arrays[name][which] = (
        draw.choice(["F32", "F64", "I64", "BF16", "U8", "BOOL", "C64", "F4"]),
        [draw.choice([0, 1, 2, 3, 6, 2**31, 2**62]) for _ in range(draw.randrange(4))],
        arrays[name][2][: draw.randrange(40)],
    )[which]
    return forged(about, arrays)


def outcome(path, content):
    """Load; a model that comes of it must save, predict and train as one."""
    path.write_bytes(content)
    try:
        net = load(path)
    except ModelFileError:
        return "refused"
    net.threads = 1
    net.save(path)
    if digest(load(path)) != digest(net):
        return "unfaithful"
    x = np.zeros((2, net.units[0]))
    try:
        net.predict(x)
        y = [0, 0] if net.loss == "softmax_cross_entropy" else np.zeros((2, net.units[-1]))
        net.train_step(x, y)
    except FloatingPointError:
        pass  # weights that are not finite are legal
    return "loaded"


@campaign(16)
def fuzz(run: Run):
    """Mutate model files, with and without a right digest, in a process whose memory is limited."""
    draw, path, trials = random.Random(run.seed), run.folder / "m", run.trials(100_000)
    outcome(path, small_file(draw))  # all is imported then
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**27,) * 2)
    counts, slowest = collections.Counter(), 0.0
    for trial in range(trials):
        if trial % 1000 == 0:
            content = small_file(draw)
        signed = trial % 2 == 1
        bad = attack(content, draw) if signed else mutated(content, draw)
        start = time.perf_counter()
        result = outcome(path, bad)
        slowest = max(slowest, time.perf_counter() - start)
        counts[signed, result] += 1
        if result == "unfaithful" or (result == "loaded" and not signed and bad != content):
            Path("fault.safetensors").write_bytes(bad)
            raise SystemExit(f"trial {trial}, seed {run.seed}: {result}; see fault.safetensors")
    run.figure(
        16,
        f"{trials} mutations: without a right digest {counts[False, 'refused']} refused, "
        f"{counts[False, 'loaded']} unchanged; with one {counts[True, 'refused']} refused, {counts[True, 'loaded']} "
        f"loaded as what they say; slowest {slowest * 1e3:.0f} ms, memory below 128 MiB more",
        slowest < 1,
    )


# ---- Kills -------------------------------------------------------------------------------------


@campaign(18)
def kill(run: Run):
    """Kill savers; the file must be the last acknowledged or the one after, and train on as if nothing had been."""
    draw, path, left = random.Random(run.seed), run.folder / "m", 0
    trials = run.trials(500)
    for _ in range(trials):
        acknowledged = kill_while_saving(path, 0.03 * draw.random())
        left += len(os.listdir(run.folder)) > 1
        check_killed(path, acknowledged)
        path.unlink()
    run.figure(
        18,
        f"{trials} savers killed: 0 lost, 0 behind an acknowledged save, {left} left a temporary file, 0 of them after "
        "loading; all resumed bit for bit",
    )


# ---- Faults ------------------------------------------------------------------------------------

VICTIM = """
import sys
from cdrop import Network
net = Network([6, 300, 3], seed=2)
net.save(sys.argv[1] + ".warm")
print("ready", flush=True)
sys.stdin.readline()
net.save(sys.argv[1])
print("saved", flush=True)
"""


def traced_save(path, *options):
    """Save under strace; return whether it was acknowledged, what was said, and the calls between."""
    log = path.parent / "calls"
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout.readline() == "ready\n"
        strace = ["strace", "-f", "-p", str(victim.pid), "-e", "trace=%file,%desc", "-o", str(log)]
        with subprocess.Popen([*strace, *options], stderr=subprocess.PIPE, text=True) as tracer:
            assert "attached" in tracer.stderr.readline()
            out, err = victim.communicate("\n")
            tracer.stderr.read()
    calls = re.findall(r"^\d+ +(\w+)\(", log.read_text(), flags=re.MULTILINE)
    log.unlink()
    (path.parent / "m.warm").unlink()
    return "saved" in out, err, calls


@campaign(19)
def faults(run: Run):
    """Kill, EIO and ENOSPC at each file system call of a save, each in a process of its own."""
    need("strace", debian="strace")
    folder = run.folder
    path, results = folder / "m", collections.Counter()
    old, new = (digest(Network([6, 300, 3], seed=seed)) for seed in (1, 2))
    Network([6, 300, 3], seed=1).save(path)
    acknowledged, _, calls = traced_save(path)
    assert acknowledged
    assert {"fsync", "rename", "write", "openat"} <= set(calls)
    points = [(name, n + 1) for name, c in collections.Counter(calls).items() for n in range(c)]
    for how in ("signal=KILL", "error=EIO", "error=ENOSPC"):
        for name, number in points[: run.trials(len(points))]:
            Network([6, 300, 3], seed=1).save(path)
            where = f"inject={name}:{how}:when={number}"
            acknowledged, said, _ = traced_save(path, "-e", where)
            left = [n for n in os.listdir(folder) if n != "m"]
            found = digest(load(path))
            assert found == new or (found == old and not acknowledged), where
            assert not left or "KILL" in how or name == "unlink", (where, left)
            assert os.listdir(folder) == ["m"], where
            assert acknowledged or "KILL" in how or "Error" in said, (where, said)
            results[how, "new" if found == new else "old", acknowledged] += 1
    run.figure(
        19,
        f"{sum(results.values())} saves, each of {len(points)} calls ({' '.join(calls)}): "
        + "; ".join(
            f"{how}: {file} file, {'' if told else 'not '}acknowledged: {count}"
            for (how, file, told), count in sorted(results.items())
        ),
    )


# ---- A full disk -------------------------------------------------------------------------------


@campaign(19)
def full(run: Run):
    """Save onto a small tmpfs that is more or less full. Needs the right to mount."""
    draw, counts, folder = random.Random(run.seed), collections.Counter(), run.folder
    need("mount", debian="mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "cdrop", folder], check=True)
    try:
        before, path, ballast = Network([100, 50], seed=1), folder / "m", folder / "ballast"
        for _ in range(run.trials(1000)):
            ballast.unlink(missing_ok=True)
            before.save(path)
            ballast.write_bytes(bytes(draw.randrange(2**17)))
            after = Network([100, draw.randrange(20, 200)], seed=2)
            try:
                after.save(path)
                expected = after
            except OSError:
                expected = before
            assert digest(load(path)) == digest(expected)
            assert sorted(os.listdir(folder)) == ["ballast", "m"]
            counts[expected is after] += 1
    finally:
        subprocess.run(["umount", folder], check=True)
    run.figure(
        19, f"full disk: {counts[True]} saves fitted, {counts[False]} kept the old file whole"
    )
