"""The README's picture: the answer of a report page, its charts and the two maps of its explorer, in full colour.

    python scripts/picture_of_page.py artifacts/reports/PAGE.html docs/explorer.png

Headless Chromium opens the page and hides what needs reading (tables, lists, controls); everything else is as it is on
the page. The alternative, a palette image, is a third of the size and shows other colours than the page.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1000
HIDDEN = (
    "nav, header, .skip, #answer h2, #answer .note, details, #explorer > h2, #explorer p, .controls, .slide, .chosen, "
    ".shares, .count, .nearest, .zooms, .tools, .bar label, main > section:not(#answer, #explorer), main > .note "
    "{ display: none !important; } section { padding: 0 !important; } .frame { display: block; } "
    "main { max-width: none; padding: 1rem 1.4rem 1.4rem; }"
)


def main() -> None:
    """Write the picture."""
    page, output = map(Path, sys.argv[1:])
    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": WIDTH, "height": 800}, reduced_motion="reduce")
        shown.goto(page.resolve().as_uri())
        shown.wait_for_selector("html[data-charts=light]")
        shown.add_style_tag(content=HIDDEN)
        shown.set_viewport_size({"width": WIDTH + 1, "height": 800})  # maps are drawn again in their new places
        shown.wait_for_timeout(500)
        shown.locator("main").screenshot(path=output)
        browser.close()


if __name__ == "__main__":
    main()
