"""Build the page that trains in the browser: cdrop's C library in WebAssembly, and the hashes it must come to.

``make browser`` runs it. The compiler is zig's clang (``pip install ziglang``), which brings its own C library.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cdrop
from cdrop.datasets import digits, make_digits

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "build" / "pages" / "browser"  # `make docs` copies build/pages into the site
PAGE = ("index.html", "demo.css", "demo.js")
SEED, TRAINING, TESTING, BATCH, STEPS, L2 = 0, (500, 2000), 1000, 100, 600, 1e-3
HIDDEN, DROPOUT = (64, 128), (0.2, 0.5)
FLAGS = [
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-O3", "-flto", "-s", "-std=c11"),
    *("-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-mbulk-memory"),
    "-Wall",
]


def write_templates(path):
    """Write the pen's paths and the constants of `cdrop.datasets.digits` as C."""
    lines, most = [], 0
    for text in (text for variants in digits._TEMPLATES for text in variants):
        knots, strokes = digits._parse(text)
        points = digits._share_points(knots, strokes)
        numbers = [
            [list(knot) for knot in knots],
            [knot for stroke in strokes for knot in stroke],
            [len(stroke) for stroke in strokes],
            points,
        ]
        inner = ", ".join(json.dumps(n).replace("[", "{").replace("]", "}") for n in numbers)
        lines.append(f"    {{{len(knots)}, {len(strokes)}, {inner}}},")
        most = max(most, len(knots))
    variants = [len(variants) for variants in digits._TEMPLATES]
    first = [sum(variants[:digit]) for digit in range(10)]
    constants = {
        "CARELESS": digits._CARELESS,
        "CARELESS_TAIL": digits._CARELESS_TAIL,
        "SHAKE": digits._SHAKE,
        "BEND": digits._BEND,
        "TURN": digits._TURN,
        "LEAN": digits._LEAN,
        "SLANT": digits._SLANT,
        "WIDTH": digits._WIDTH,
        "HEIGHT": digits._HEIGHT,
        "WIDTH_SPREAD": 1.3 * digits._SIZE,
        "HEIGHT_SPREAD": digits._SIZE,
        "SHIFT": digits._SHIFT,
        "PRESSURE": digits._PRESSURE,
        "THIN": digits._THIN,
        "THICK": digits._THICK,
        "EXPOSURE": 255 / (0.45 * 16 * 256),
        "LOUDNESS": digits._NOISE / 127.5,
        "DARKEST": digits._FLOOR,
    }
    path.write_text(
        "\n".join(
            [
                "/* Written by docs/browser/build.py from cdrop/datasets/digits.py. */",
                *(f"#define {name} ((float){value!r})" for name, value in constants.items()),
                f"enum {{ TEMPLATES = {len(lines)}, KNOTS = {most} }};",
                "typedef struct {",
                "    int knots, count;",
                "    unsigned char places[KNOTS][2], strokes[2 * KNOTS], lengths[4], points[4];",
                "} template;",
                "static const template templates[TEMPLATES] = {",
                *lines,
                "};",
                f"static const int first_template[10] = {{{', '.join(map(str, first))}}};",
                f"static const int variants[10] = {{{', '.join(map(str, variants))}}};",
                "",
            ]
        )
    )


def compile_library():
    """Compile the library and the page's calls into one module; return its bytes."""
    made = ROOT / "build" / "browser"
    made.mkdir(parents=True, exist_ok=True)
    write_templates(made / "templates.h")
    sources = [HERE / "demo.c", *sorted((ROOT / "src_c").rglob("*.c"))]
    zig = [sys.executable, "-m", "ziglang", "cc"]
    includes = [f"-I{ROOT / 'src_c'}", f"-I{made}"]
    module = made / "cdrop.wasm"
    subprocess.run([*zig, *FLAGS, *includes, *sources, "-o", module], check=True)
    return module.read_bytes()


def trained(training, hidden, dropout):
    """Train natively as the page does; return the hash of the weights and the accuracy."""
    images, labels = make_digits(training + TESTING, SEED)
    x = images.reshape(-1, 784).astype("float32") / 255
    net = cdrop.Network([784, hidden, hidden, 10], dropout=dropout, seed=SEED)
    net.fit(x[:training], labels[:training], batch_size=BATCH, iterations=STEPS, l2=L2)
    weights = b"".join(array.astype("<f4").tobytes() for array in net.coefs_ + net.intercepts_)
    score = net.score(x[training:], labels[training:])
    return {"sha256": hashlib.sha256(weights).hexdigest(), "score": score}


def native():
    """Return what the page compares with, by its settings."""
    return {
        f"{training}-{hidden}-{dropout}": trained(training, hidden, dropout)
        for training in TRAINING
        for hidden in HIDDEN
        for dropout in (0, *DROPOUT)
    }


def main():
    """Build the page."""
    OUT.mkdir(parents=True, exist_ok=True)
    module = compile_library()
    made = {
        "wasm": base64.b64encode(module).decode(),
        "native": native(),
        "settings": {"seed": SEED, "testing": TESTING, "batch": BATCH, "steps": STEPS, "l2": L2},
    }
    # A script, because a page that is opened as a file may not fetch others.
    (OUT / "built.js").write_text(f"const BUILT = {json.dumps(made)};\n")
    for name in PAGE:
        shutil.copy(HERE / name, OUT / name)
    print(f"cdrop: {OUT / 'index.html'}, {len(module) / 1024:.0f} KiB of WebAssembly")


if __name__ == "__main__":
    main()
