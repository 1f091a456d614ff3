"""How long the page takes to make, and a frame of its explorer while zooming, with 20,000 texts.

    python benchmarks/report/page.py --json report-page.json
    python benchmarks/report/page.py --artifacts artifacts --json report-page.json

Without `--artifacts` a dataset is drawn: as many test texts as asked for, vectors around the centres of 150 classes in
10, one closed form head. `first` is `pipeline report` with nothing kept but the head, in a process of its own; `again`
the same command, which finds scores, predictions and maps kept. A frame is what one turn of the wheel costs in headless
Chromium without a GPU: `draw` the script alone, `frame` from one animation frame to the next, which the display limits
to 16.7 ms. With `--artifacts` the page is that of the dataset and backbone used last there, with all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured import Results, machine

CLASSES, PARENTS, TRAINING, WIDTH = 150, 10, 3_000, 384
TURNS = """async () => {
  const canvas = document.querySelector("#zoom canvas"), box = canvas.getBoundingClientRect(), draw = [], frame = [];
  let last = 0;
  for (let turn = 0; turn < 120; turn += 1) {
    const began = performance.now(), place = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
    canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: turn % 60 < 40 ? -60 : 120, ...place, cancelable: true }));
    draw.push(performance.now() - began);
    const now = await new Promise(requestAnimationFrame);
    if (last) frame.push(now - last);
    last = now;
  }
  return { draw, frame };
}"""


def dataset(folder: Path, texts: int) -> tuple[Path, Path]:
    """A CSV of so many test texts and some training texts, and their vectors."""
    rng = np.random.default_rng(0)
    rows = texts + TRAINING
    fine = rng.integers(0, CLASSES, rows)
    centres = rng.standard_normal((PARENTS, WIDTH))[np.arange(CLASSES) % PARENTS] + rng.standard_normal(
        (CLASSES, WIDTH)
    )
    vectors = centres[fine] + 1.5 * rng.standard_normal((rows, WIDTH))
    lines = ["text,parent,class,split"]
    for row, label in enumerate(fine):
        split = "test" if row < texts else "train" if row % 10 else "val"
        lines.append(f"text {row} about subject {label},area {label % PARENTS},subject {label},{split}")
    (folder / "drawn.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.save(folder / "drawn.npy", vectors.astype(np.float32))
    return folder / "drawn.csv", folder / "drawn.npy"


def pipeline(artifacts: Path, *words: str | Path) -> tuple[float, dict[str, Any]]:
    """Seconds of a command in a process of its own, and its JSON."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", *map(str, words), "--artifacts", str(artifacts), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, json.loads(done.stdout)


def frames(page: Path) -> dict[str, list[float]]:
    """Milliseconds of drawing and of frames while the wheel turns over the left map."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(page.resolve().as_uri())
        opened.wait_for_selector("html[data-charts]", timeout=120_000)
        canvas = opened.locator("#zoom canvas").first
        canvas.scroll_into_view_if_needed()
        canvas.focus()
        measured: dict[str, list[float]] = opened.evaluate(TURNS)
        browser.close()
    return measured


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, help="Existing folder; by default a dataset is drawn.")
    parser.add_argument("--texts", type=int, default=20_000, help="Test texts of the dataset that is drawn.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    results = Results(machine("cpu"), options.json)
    with tempfile.TemporaryDirectory() as scratch:
        artifacts = options.artifacts or Path(scratch, "artifacts")
        page = Path(scratch, "page.html")
        if options.artifacts is None:
            csv, vectors = dataset(Path(scratch), options.texts)
            pipeline(artifacts, "embed", csv, "--embeddings", vectors)
            pipeline(artifacts, "fit-head", "--method", "lda")
            results.add("report, first", pipeline(artifacts, "report", "--output", page)[0], "s")
        seconds, made = pipeline(artifacts, "report", "--output", page)
        shown = made["explorer"]["texts"]
        results.add("report, again", seconds, "s", f"{len(made['runs'])} runs, {shown:,} texts in the explorer")
        results.add("page", made["bytes"] / 1e6, "MB")
        for name, values in frames(page).items():
            for share in (50, 95):
                results.add(
                    f"zooming: {name}, {share} %", float(np.percentile(values, share)), "ms", f"{shown:,} texts"
                )


if __name__ == "__main__":
    main()
