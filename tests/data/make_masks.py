"""Write masks.json: recorded mask streams, words and normals, from plain Python integers.

Nothing of cdrop or NumPy is used: the generator is typed in from the published algorithms
(xoshiro256++ by Blackman and Vigna 2018, https://prng.di.unimi.it/xoshiro256plusplus.c; SplitMix64
by Steele, Lea and Flood 2014), the mask bit by bit from its definition, so the file checks the
both the kernels and the NumPy twin. Run ``python tests/data/make_masks.py``; tests import it too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def splitmix64(state: int) -> Iterator[int]:
    while True:
        state = (state + GOLDEN) & WORD
        yield mix(state)


def rotl(x: int, k: int) -> int:
    return ((x << k) | (x >> (64 - k))) & WORD


def xoshiro256pp(s: list[int]) -> Iterator[int]:
    s = list(s)
    while True:
        yield (rotl((s[0] + s[3]) & WORD, 23) + s[0]) & WORD
        t = (s[1] << 17) & WORD
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)


def lane_state(seed: int, step: int, purpose: int, layer: int, block: int, lane: int) -> list[int]:
    k0, k1, k2, k3 = seed, step, (purpose << 32) | layer, block * 8 + lane
    k0 = mix((k0 + GOLDEN) & WORD)
    k1 = mix((k1 + k0 + GOLDEN) & WORD)
    k2 = mix((k2 + k1 + GOLDEN) & WORD)
    k3 = mix((k3 + k2 + GOLDEN) & WORD)
    k0 = mix((k0 + k3 + GOLDEN) & WORD)
    k1 = mix((k1 + k0 + GOLDEN) & WORD)
    k2 = mix((k2 + k1 + GOLDEN) & WORD)
    k3 = mix((k3 + k2 + GOLDEN) & WORD)
    return [k0, k1, k2, k3] if k0 | k1 | k2 | k3 else [GOLDEN, 0, 0, 0]


def draws(
    seed: int = 0, step: int = 0, purpose: int = 1, layer: int = 0, block: int = 0
) -> Iterator[tuple[int, ...]]:
    """Yield 8 words at a time: one of each lane."""
    lanes = [xoshiro256pp(lane_state(seed, step, purpose, layer, block, i)) for i in range(8)]
    return zip(*lanes, strict=True)


def random_words(n: int, **key: int) -> list[int]:
    return list(itertools.islice(itertools.chain.from_iterable(draws(**key)), n))


def random_normal(n: int, **key: int) -> list[float]:
    words = itertools.chain.from_iterable(draws(**key))
    normals: list[float] = []
    while len(normals) < n:
        u = (next(words) >> 11) * 2.0**-52 - 1.0
        v = (next(words) >> 11) * 2.0**-52 - 1.0
        s = u * u + v * v
        if 0.0 < s < 1.0:
            f = math.sqrt(-2.0 * math.log(s) / s)
            normals += [u * f, v * f]
    return normals[:n]


def mask_words(
    rows: int,
    width: int,
    keep: float,
    *,
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    purpose: int = 0,
) -> list[int]:
    """Return the words of a packed mask, row-major."""
    k, per_row = round(keep * 2**32), -(-width // 64)
    valid = [((1 << min(64, width - 64 * w)) - 1) for w in range(per_row)]
    if k == 0 or k == 2**32:
        return [word if k else 0 for _ in range(rows) for word in valid]
    words: list[int] = []
    for block in range(-(-rows // 64)):
        source = draws(seed, step, purpose, layer, block)
        padding = valid * 64
        for group in range(0, len(padding), 8):
            words += group_words(source, padding[group : group + 8], k)
    return words[: rows * per_row]


def group_words(source: Iterator[tuple[int, ...]], valid: list[int], k: int) -> list[int]:
    """Compare every unit's bits with those of k from the top, until all units are decided."""
    undecided, kept = list(valid), [0] * 8
    for bit in range(31, -1, -1):
        if k & (2 ** (bit + 1) - 1) == 0:
            break
        for lane, r in enumerate(next(source)):
            if k >> bit & 1:
                kept[lane] |= undecided[lane] & ~r
                undecided[lane] &= r
            else:
                undecided[lane] &= ~r
        if not any(undecided):
            break
    return kept


def sha256(words: list[int]) -> str:
    """Digest of the words as little-endian bytes."""
    return hashlib.sha256(b"".join(word.to_bytes(8, "little") for word in words)).hexdigest()


KEEPS = [0.0, 2.0**-32, 1 / 16 + 2.0**-32, 0.1, 0.5, 0.75, 0.8, 1 - 2.0**-32, 1.0]
WIDTHS = [1, 10, 64, 65, 200, 784, 1030]
ROWS = [1, 64, 130]
KEYS = [(0, 1, 0), (1, 1, 1), (1, 2, 1), (42, 2**32 + 5, 2), (2**64 - 1, 2**64 - 1, 2**32 - 1)]
PURPOSES = [4, 5]  # predictions under dropout, subnetworks
STREAMS = [
    {"seed": 0, "step": 0, "purpose": 1, "layer": 0, "block": 0},
    {"seed": 1, "step": 7, "purpose": 2, "layer": 0, "block": 0},
    {"seed": 2**63 + 1, "step": 3, "purpose": 3, "layer": 2, "block": 2**61 - 1},
    {"seed": 2**64 - 1, "step": 2**64 - 1, "purpose": 0, "layer": 2**32 - 1, "block": 5},
]


def mask_record(
    rows: int, width: int, keep: float, key: tuple[int, int, int], purpose: int = 0
) -> dict[str, object]:
    seed, step, layer = key
    words = mask_words(rows, width, keep, seed=seed, step=step, layer=layer, purpose=purpose)
    record = {"rows": rows, "width": width, "keep": keep}
    record |= {"seed": seed, "step": step, "layer": layer, "purpose": purpose}
    return record | {"first": [f"{w:x}" for w in words[:2]], "sha256": sha256(words)}


def stream_record(key: dict[str, int]) -> dict[str, object]:
    words = random_words(1003, **key)
    normals = [x.hex() for x in random_normal(9, **key)]
    first = [f"{w:x}" for w in words[:10]]
    return {"key": key, "n": 1003, "first": first, "sha256": sha256(words), "normals": normals}


def main() -> None:
    keys = itertools.cycle(KEYS)
    shapes = itertools.product(KEEPS, WIDTHS, ROWS)
    masks = [mask_record(rows, width, keep, next(keys)) for keep, width, rows in shapes]
    masks += [mask_record(130, 200, 0.75, key, p) for p in PURPOSES for key in KEYS]
    streams = [stream_record(key) for key in STREAMS]
    made_by = "tests/data/make_masks.py; words in hexadecimal, digests of little-endian bytes"
    lines = ",\n".join(json.dumps(record) for record in masks)
    text = f'{{"made_by": {json.dumps(made_by)},\n"streams": {json.dumps(streams)},\n"masks": [\n'
    Path(__file__).with_name("masks.json").write_text(f"{text}{lines}\n]}}\n")


if __name__ == "__main__":
    main()
