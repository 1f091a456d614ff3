"""A page made by the commands, and a browser without a network in which it is opened."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = "<script>alert(1)</script> book me a flight to paris"
QUOTES = "he said \"how much is a 'cheap' hotel\" & left </script><!-- 🙂"
CONTROLS = "\x1b[31mhow warm\x1b[0m is it in \u202eamil\u202c"
"""ESC sequences and a bidi override: a terminal that obeyed the first, a page that obeyed the second, would mislead."""
HEBREW = "כמה קלוריות יש ב־🍕 pizza"
LEVELS = ("<b>topic</b>", "the fine one's [0].label:Q")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def hostile_rows():
    """The small dataset with texts and labels that would break a careless page."""
    renamed = {
        "travel": '<img src=x onerror="alert(2)">',
        "hotel": "hotel & \"inn\" 'כן'",
        "calories": "calories\u202e\x1b[7m",
    }
    table = [(text, renamed.get(a, a), renamed.get(b, b), split) for text, a, b, split in rows()]
    return [
        *table,
        (SCRIPT, renamed["travel"], "flight", "test"),
        (QUOTES, renamed["travel"], renamed["hotel"], "test"),
        (HEBREW, "kitchen", renamed["calories"], "test"),
        (CONTROLS, "kitchen", renamed["calories"], "test"),
    ]


@dataclass(frozen=True)
class Made:
    """A page, what `run` said of it, and the artifacts it was made of."""

    path: Path
    result: dict
    pipeline: Pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    root = tmp_path_factory.mktemp("report")
    csv = write_csv(root / "hostile.csv", hostile_rows(), header=f"text,{','.join(LEVELS)},split")
    pipeline = Pipeline(root / "artifacts", root)
    result = pipeline.json(
        "run", csv, "--backbone", "minilm", "--methods", "v5,mrl", "--seeds", "1,2", "--epochs", "2",
        "--levels", ",".join(LEVELS),
    )  # fmt: skip
    assert len(result["scores"]) == 4
    assert 2 <= len(result["advice"]) <= 4
    return Made(Path(result["report"]["path"]), result, pipeline)


@pytest.fixture(scope="session")
def whole(made) -> Made:
    """The page with galleries, and with retrieval as `retrieve` leaves it."""
    report = made.result["report"]
    name = f"retrieval-{report['dataset']}-{report['backbone']}.json"
    made.pipeline.json("retrieve", "--candidates", "10,20", "--queries", "20", "--engines", "flat")
    assert (made.path.parent / name).is_file()
    (made.path.parent / f"reproduced-{report['dataset']}-{report['backbone']}.json").write_text("{}")
    output = made.path.parent / "whole.html"
    return Made(output, made.pipeline.json("report", "--output", output), made.pipeline)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is not driven")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


STILL = """async () => {
    const map = document.querySelector("#zoom canvas");
    for (let same = 0, last = null; same < 5;) {
        await new Promise(requestAnimationFrame);
        const now = map.toDataURL();
        same = now === last ? same + 1 : 0;
        last = now;
    }
    return map.toDataURL();
}"""


class Visitor:
    """A browser page that has no network, and notes whatever goes wrong."""

    def __init__(self, browser, path, **options):
        self.trouble = []
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_offline(True)
        context.route(re.compile("^(https?|wss?):"), self._refuse)
        self.page = context.new_page()
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.trouble.append(said.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append("dialog: " + dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.drawn(options.get("color_scheme", "light"))

    def _refuse(self, route):
        self.trouble.append("asked for " + route.request.url)
        route.abort()

    def drawn(self, scheme):
        self.page.wait_for_selector(f"html[data-charts={scheme}]")

    def text(self, selector):
        return self.page.locator(selector).text_content()

    def shown(self, side):
        """Texts listed as neighbours beside one map."""
        buttons = self.page.locator("#zoom .panel").nth(side).locator(".nearest button")
        return [int(value) for value in buttons.evaluate_all("all => all.map((one) => one.dataset.text)")]

    def still_map(self):
        """The first map's picture when it has been the same for five frames: nothing moves any more."""
        return self.page.evaluate(STILL)

    def compare(self, left, right):
        """Choose the methods of both maps."""
        self.page.locator("#zoom-left").select_option(label=left)
        self.page.locator("#zoom-right").select_option(label=right)

    def choose(self, words):
        """Find a text by its words and choose it, by keyboard alone."""
        self.page.locator("#zoom-search").focus()
        self.page.keyboard.type(words)
        self.page.keyboard.press("ArrowDown")
        self.page.keyboard.press("Enter")


@pytest.fixture(scope="module")
def read(browser):
    """A page that one test after the other looks at: what they choose or open stays so."""
    opened = {}

    def once(path):
        if path not in opened:
            opened[path] = Visitor(browser, path)
        return opened[path]

    yield once
    for visitor in opened.values():
        assert visitor.trouble == []
        visitor.page.context.close()


@pytest.fixture
def visit(browser):
    opened = []

    def start(path, **options):
        opened.append(Visitor(browser, path, **options))
        return opened[-1]

    yield start
    for visitor in opened:
        assert visitor.trouble == []
        visitor.page.context.close()
