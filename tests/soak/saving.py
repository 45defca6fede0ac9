"""Model files: killed savers, failing system calls, a full disk."""

import collections
import os
import random
import re
import subprocess
import sys

from campaign import Run, campaign, need
from conftest import digest
from model_files import check_killed, kill_while_saving

from cdrop import Network, load

# ---- Kills -------------------------------------------------------------------------------------


@campaign(18)
def kill(run: Run):
    """Kill savers; the file must be the last acknowledged or the one after, and train on as if nothing had been."""
    draw, path, left = random.Random(run.seed), run.directory / "m", 0
    trials = run.trials(500)
    for _ in range(trials):
        acknowledged = kill_while_saving(path, 0.03 * draw.random())
        left += len(os.listdir(run.directory)) > 1
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
    """Kill, EIO and ENOSPC at each file system call of a save, each in a separate process."""
    need("strace", debian="strace")
    directory = run.directory
    path, results = directory / "m", collections.Counter()
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
            left = [n for n in os.listdir(directory) if n != "m"]
            found = digest(load(path))
            assert found == new or (found == old and not acknowledged), where
            assert not left or "KILL" in how or name == "unlink", (where, left)
            assert os.listdir(directory) == ["m"], where
            assert acknowledged or "KILL" in how or "Error" in said, (where, said)
            results[how, "new" if found == new else "old", acknowledged] += 1
    run.figure(
        19,
        f"{sum(results.values())} saves, each of {len(points)} calls ({' '.join(calls)}): "
        + "; ".join(
            f"{how}: {file} file, {'' if acknowledged else 'not '}acknowledged: {count}"
            for (how, file, acknowledged), count in sorted(results.items())
        ),
    )


# ---- A full disk -------------------------------------------------------------------------------


@campaign(19)
def full(run: Run):
    """Save onto a small tmpfs that is more or less full. Needs the right to mount."""
    draw, counts, directory = random.Random(run.seed), collections.Counter(), run.directory
    need("mount", debian="mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "cdrop", directory], check=True)
    try:
        before, path, ballast = Network([100, 50], seed=1), directory / "m", directory / "ballast"
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
            assert sorted(os.listdir(directory)) == ["ballast", "m"]
            counts[expected is after] += 1
    finally:
        subprocess.run(["umount", directory], check=True)
    run.figure(
        19, f"full disk: {counts[True]} saves fitted, {counts[False]} kept the old file whole"
    )
