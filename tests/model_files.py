"""Model files written by another hand, from the format's description, and savers that are killed."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
from conftest import digest

from cdrop import Network, load

OPENING = b'{"__metadata__":{"cdrop":"{\\"sha256\\": \\"'
DIGITS = slice(8 + len(OPENING), 8 + len(OPENING) + 64)


def sign(content):
    """Set the digest right: what an attacker would do, written again from the format's description."""
    zeroed = content[: DIGITS.start] + b"0" * 64 + content[DIGITS.stop :]
    return (
        content[: DIGITS.start]
        + hashlib.sha256(zeroed).hexdigest().encode()
        + zeroed[DIGITS.stop :]
    )


def parts(content):
    """Return a file's entry of metadata, its arrays as {name: [dtype, shape, bytes]}."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = json.loads(header.pop("__metadata__")["cdrop"])
    arrays = {
        name: [h["dtype"], h["shape"], data[slice(*h["data_offsets"])]]
        for name, h in header.items()
    }
    return about, arrays


def forged(about, arrays, entry=None):
    """Make a file of any entry (as text, if it is to be written otherwise) and arrays, with its digest right."""
    entry = entry or json.dumps({"sha256": "0" * 64, **about})
    header, data = {"__metadata__": {"cdrop": entry}}, b""
    for name, (dtype, shape, content) in arrays.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    return sign(struct.pack("<Q", len(text)) + text + data)


SAVER = """
import sys
import numpy as np
from cdrop import Network, load
path = sys.argv[1]
x, y = np.eye(6), [0, 1, 2, 0, 1, 2]
net = Network([6, 300, 3], dropout=0.5, seed=6)
while True:
    net.fit(x, y, batch_size=2, iterations=3)
    net.save(path)
    print(net.history.iterations, flush=True)
"""


def kill_while_saving(path, delay):
    """Save in a loop, kill after `delay` seconds; return how many updates the last acknowledged file had."""
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        rest = process.stdout.read().split()
    return int(rest[-1]) if rest else 3


def check_killed(path, acknowledged):
    """Check that the file is whole, no older than acknowledged, alone, and continues as if nothing had happened."""
    net = load(path)
    done = net.history.iterations
    assert done in (acknowledged, acknowledged + 3)
    assert os.listdir(path.parent) == [path.name]
    whole = Network([6, 300, 3], dropout=0.5, seed=6)
    x, y = np.eye(6), [0, 1, 2, 0, 1, 2]
    for n, more in ((whole, done + 3), (net, 3)):
        n.fit(x, y, batch_size=2, iterations=more)
    assert digest(net) == digest(whole)
