"""The drawings of the site, made from what cdrop itself draws and computes. ``make docs`` calls `draw_all`."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from cdrop import kernels

# Okabe and Ito's palette: apart for every kind of color vision.
BLUE, ORANGE, GREEN, PALE, GRAY = "#0072B2", "#D55E00", "#009E73", "#E8EEF2", "#7A7A7A"
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "cdrop"}

# Shares of live entries in the article's network on MNIST: input pixels that are not the background, then the units of
# both hidden layers that are positive and kept, for 5,000 training images after 1,000 iterations of seed 0.
LIVE = {"without": (0.192, 0.430, 0.692), "with": (0.192, 0.146, 0.308)}
BATCH, UNITS = 256, (784, 256, 256, 10)
DENSE_ABOVE = 0.55  # of AVX-512: a layer with a larger share runs densely


def canvas(width, height, right, top):
    """Return a figure and its axes, without frame, of the given size in inches and in the drawing's own units."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, right), ylim=(0, top))
    axes.axis("off")
    return figure, axes


def cell(axes, x, y, width=1.0, height=1.0, color="white", text="", **font):
    """Draw a box, with a text in its middle."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor=GRAY, linewidth=0.6))
    if text:
        dark = color in (BLUE, ORANGE, GREEN)
        font = {"ha": "center", "va": "center", "color": "white" if dark else "black", **font}
        axes.text(x + width / 2, y + height / 2, text, **font)


def arrow(axes, start, end, color=GRAY, bend=0.0):
    """Draw an arrow from one point to another."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9,
            color=color,
            linewidth=1,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def mask_word():
    """Draw the first mask word of a row: 64 units, one bit each."""
    word = int(kernels.bernoulli_mask(1, 64, 0.5, seed=1)[0, 0])
    figure, axes = canvas(8.2, 1.5, 66, 12)
    for unit in range(64):
        kept = word >> unit & 1
        cell(axes, 1 + unit, 5, 1, 3, BLUE if kept else "white", "1" if kept else "0", fontsize=6)
        if unit % 8 == 0 or unit == 63:
            axes.text(1.5 + unit, 8.6, str(unit), ha="center", fontsize=7, color=GRAY)
    axes.text(1, 10.6, "unit of the row", fontsize=8, color=GRAY)
    axes.text(
        1,
        1.6,
        f"one word of 64 bits: 0x{word:016x}, {word.bit_count()} units kept",
        family="DejaVu Sans Mono",
        fontsize=8.5,
    )
    return figure


def binary(value, bits):
    """Return the first binary digits of a number of at least 0 and below 1."""
    return [int(value * 2 ** (i + 1)) & 1 for i in range(bits)]


def deciding_bits():
    """Draw how units are decided bit by bit for keep 0.8: a digit that differs from keep's ends it."""
    keep, bits = 0.8, 6
    uniforms = (0.34, 0.79, 0.91, 0.62, 0.86, 0.05, 0.74, 0.97)
    target = binary(keep, bits)
    figure, axes = canvas(8.2, 2.75, 66, 22)
    axes.text(1, 20.4, "keep = 0.8, in binary", va="center")
    axes.text(23, 20.4, "random bits of 8 of the units: one draw gives a row of them", va="center")
    for i, digit in enumerate(target):
        y = 17 - 2.4 * i
        axes.text(1, y + 1, f"digit {i + 1}", va="center", color=GRAY, fontsize=8)
        cell(axes, 8, y, 4, 2, PALE, str(digit))
    for j, uniform in enumerate(uniforms):
        x, own = 23 + 5 * j, binary(uniform, bits)
        end = next(i for i in range(bits) if own[i] != target[i])
        for i in range(end + 1):
            last = i == end
            kept = own[i] < target[i]
            color = (BLUE if kept else ORANGE) if last else "white"
            cell(axes, x, 17 - 2.4 * i, 4, 2, color, str(own[i]))
        axes.text(
            x + 2,
            2.2,
            "kept" if own[end] < target[end] else "dropped",
            ha="center",
            color=BLUE if own[end] < target[end] else ORANGE,
            fontsize=8,
        )
    axes.text(23, 0.2, "colored: the digit that decided", color=GRAY, fontsize=8, va="bottom")
    return figure


def live_list():
    """Draw how a row of pre-activations becomes a list of live entries."""
    values = np.array([0.7, -0.3, 1.2, 0.4, -0.8, -0.1, 0.9, 0.2, -0.5, 1.1, -0.2, 0.6])
    mask = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0], bool)
    live = np.flatnonzero((values > 0) & mask)
    figure, axes = canvas(8.2, 2.7, 66, 21)
    for y, name in ((16, "pre-activation"), (12.6, "mask"), (9.2, "live"), (3.5, "value = 2 a")):
        axes.text(1, y + 1.25, name, va="center")
    for unit, value in enumerate(values):
        x = 14 + 4.2 * unit
        axes.text(x + 2.1, 19.4, str(unit), ha="center", fontsize=8, color=GRAY)
        cell(axes, x, 16, 4.2, 2.5, "white" if value > 0 else PALE, f"{value:.1f}", fontsize=8)
        for y, bits in ((12.6, mask), (9.2, (values > 0) & mask)):
            cell(axes, x, y, 4.2, 2.5, BLUE if bits[unit] else "white", str(int(bits[unit])))
    for place, unit in enumerate(live):
        x = 14 + 4.2 * place
        cell(axes, x, 3.5, 4.2, 2.5, "white", f"{2 * values[unit]:.1f}", fontsize=8)
        arrow(axes, (14 + 4.2 * unit + 2.1, 9), (x + 2.1, 6.2), BLUE)
    axes.text(
        14,
        0.8,
        f"{live.size} of {values.size} units are left: positive, and kept. The other "
        f"{values.size - live.size} are never read again.",
        fontsize=8.5,
        color=GRAY,
    )
    return figure


def panels():
    """Draw a product: lists of a batch against one block of one panel of the weights."""
    figure, axes = canvas(8.2, 3.9, 66, 31)
    axes.text(10, 29.3, "lists of the batch", ha="center")
    rng = np.random.default_rng(3)
    for row in range(8):
        for block in range(2):
            count = rng.integers(3, 8)
            for i in range(count):
                color = BLUE if block == 0 else PALE
                cell(axes, 1 + 9.6 * block + i, 25.5 - 2.9 * row, 1, 1.5, color)
    axes.text(5, 3.0, "units 0 to 63", ha="center", fontsize=8, color=GRAY)
    axes.text(14.6, 3.0, "64 to 127", ha="center", fontsize=8, color=GRAY)
    axes.text(40, 29.3, "weights, in panels of 128 columns (AVX-512, float32)", ha="center")
    for panel in range(3):
        x = 25 + 10.5 * panel
        cell(axes, x, 4.2, 9.6, 22.8, "white")
        cell(axes, x, 15.6, 9.6, 11.4, GREEN if panel == 0 else PALE)
        axes.plot([x, x + 9.6], [15.6, 15.6], color=GRAY, linewidth=0.6)
        axes.text(x + 4.8, 2.6, f"panel {panel}", ha="center", fontsize=8, color=GRAY)
    axes.text(
        29.8,
        21.3,
        "64 rows:\n32 KiB, stays\nin the L1 cache",
        ha="center",
        va="center",
        color="white",
        fontsize=8,
    )
    arrow(axes, (8.6, 23.35), (24.8, 23.35), BLUE)
    axes.text(62, 29.3, "sums", ha="center")
    for row in range(8):
        cell(axes, 59, 25.5 - 2.9 * row, 6, 1.5, GREEN if row == 1 else "white")
    axes.text(
        62,
        1.2,
        "green: 8 registers\nof 16 outputs",
        ha="center",
        va="bottom",
        fontsize=8,
        color=GRAY,
    )
    return figure


def chain():
    """Draw one output element: its sum, once over all entries and once over the live ones."""
    inputs = (1.4, 0.0, 0.8, 0.0, 0.0, 1.8)
    figure, axes = canvas(8.2, 2.9, 66, 22)
    for y, name, everything in ((14, "dense", True), (4, "list", False)):
        axes.text(1, y + 2, name, va="center", fontweight="bold")
        cell(axes, 7, y, 6, 4, PALE, "start\nbias", fontsize=8)
        end = 13.0
        for i, value in enumerate(inputs):
            x = 15 + 8 * i
            if not (value or everything):
                continue
            text = f"fma\n{value:g} · w{chr(0x2080 + i)}"
            cell(axes, x, y, 6, 4, GREEN if value else "white", text, fontsize=8)
            arrow(axes, (end, y + 2), (x, y + 2), GREEN if value else GRAY)
            end = x + 6
        arrow(axes, (end, y + 2), (64.5, y + 2), GREEN)
    axes.text(
        33,
        10.7,
        "fma(0, w, sum) = sum, exactly: a skipped zero changes no bit",
        ha="center",
        color=GRAY,
        fontsize=8.5,
    )
    axes.text(7, 0.8, "one output element, in ascending order of the input", color=GRAY, fontsize=8)
    return figure


def products(shares):
    """Return the multiply-adds of one step, in millions, as (layer, what, number), where shares of the inputs are live.

    A product by the gradient runs on as many entries as its units were live on the way up, and on all where the layer
    above ran densely, as it does for the output.
    """
    above = [share if share <= DENSE_ABOVE else 1.0 for share in (*shares[1:], 1.0)]
    rows = []
    for i, share in enumerate(shares):
        size = BATCH * UNITS[i] * UNITS[i + 1] / 1e6
        share = share if share <= DENSE_ABOVE else 1.0
        rows += [(i + 1, "forward", size * share), (i + 1, "weights", size * share)]
        if i:
            rows.append((i + 1, "inputs", size * above[i]))
    return rows


def work():
    """Plot the multiply-adds of the article's step: every entry, the live ones without dropout, and with it."""
    figure = Figure(figsize=(8.2, 2.6), facecolor="white")
    axes = figure.add_axes((0.2, 0.2, 0.77, 0.75))
    arms = (
        ("every entry", (1.0, 1.0, 1.0)),
        ("live, without dropout", LIVE["without"]),
        ("live, with dropout 0.5", LIVE["with"]),
    )
    for place, (_, shares) in enumerate(arms):
        at, rows = 0.0, products(shares)
        for layer, color in ((1, BLUE), (2, GREEN), (3, ORANGE)):
            size = sum(number for which, _, number in rows if which == layer)
            label = f"layer {layer}: {UNITS[layer - 1]} x {UNITS[layer]}" if place == 0 else None
            axes.barh(place, size, left=at, color=color, height=0.6, label=label)
            at += size
        axes.text(at + 1.5, place, f"{at:.0f}", va="center")
    axes.set_yticks(range(3), [name for name, _ in arms])
    axes.invert_yaxis()
    axes.set_xlim(0, 170)
    axes.set_xlabel("million multiply-adds in a step of the article's network, batch 256")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


DRAWINGS = (mask_word, deciding_bits, live_list, panels, chain, work)


def draw_all(directory):
    """Write each drawing as ``<name>.svg`` into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for drawing in DRAWINGS:
            name = drawing.__name__.replace("_", "-")
            drawing().savefig(directory / f"{name}.svg", metadata={"Date": None})
