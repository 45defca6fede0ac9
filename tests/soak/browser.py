"""The page of docs/browser.md: each of its training runs in headless Chromium gives the weights of a native one."""

import html
import importlib.util
import json
import re
import shutil
import subprocess

from campaign import ROOT, Run, campaign, need, need_module

ROW = 9
SECONDS = 600  # that a page may take


def built():
    """Build the page; return its directory and the settings whose native results it has."""
    path = ROOT / "docs" / "browser" / "build.py"
    spec = importlib.util.spec_from_file_location("build_browser", path)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.main()
    return build.OUT, [
        (n, h, d) for n in build.TRAINING for h in build.HIDDEN for d in build.DROPOUT
    ]


def trained(chromium, page, training, hidden, dropout):
    """Let a page train; return what it says of its two networks' weights, and its last message."""
    address = f"{page.as_uri()}?run&training={training}&hidden={hidden}&dropout={dropout}"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--virtual-time-budget={1000 * SECONDS}", address]
    dom = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout

    def text(name):
        return html.unescape(re.search(rf'id="{name}"[^>]*>([^<]*)<', dom)[1])

    return [text("same0"), text("same1")], text("status")


@campaign(ROW)
def browser(run: Run):
    """Train all settings of the page in headless Chromium; control: a page that expects other weights."""
    chromium = need("chromium", debian="chromium")
    need_module("ziglang")
    directory, settings = built()
    chosen, good = settings[: run.trials(len(settings))], 0
    for setting in chosen:
        said, status = trained(chromium, directory / "index.html", *setting)
        good += said == ["the same weights"] * 2
        print(*setting, *said, status, flush=True)
    run.figure(
        ROW,
        f"WebAssembly in Chromium: {good} of {len(chosen)} pairs of networks have native weights",
        good == len(chosen),
    )
    shutil.copytree(directory, run.directory / "other")
    script = run.directory / "other" / "built.js"
    words = script.read_text().removeprefix("const BUILT = ").removesuffix(";\n")
    other = json.loads(words)
    for result in other["native"].values():
        result["sha256"] = "0" * 64
    script.write_text(f"const BUILT = {json.dumps(other)};\n")
    said, _ = trained(chromium, run.directory / "other" / "index.html", *settings[0])
    seen = all(text.startswith("other weights") for text in said)
    run.figure(ROW, f"control, other hashes expected: {'seen' if seen else 'NOT SEEN'}", seen)
