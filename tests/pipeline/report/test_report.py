"""The page as people use it: made by the commands, opened from disk in a browser whose network is cut."""

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.embeddings import run_scorable
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features, runs_of
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = "<script>alert(1)</script> book me a flight to paris"
QUOTES = "he said \"how much is a 'cheap' hotel\" & left </script><!-- 🙂"
HEBREW = "כמה קלוריות יש ב־🍕 pizza"
LEVELS = ("<b>topic</b>", "the fine one's [0].label:Q")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def hostile_rows():
    """The small dataset with texts and labels that would break a careless page."""
    renamed = {"travel": '<img src=x onerror="alert(2)">', "hotel": "hotel & \"inn\" 'כן'"}
    table = [(text, renamed.get(a, a), renamed.get(b, b), split) for text, a, b, split in rows()]
    return [
        *table,
        (SCRIPT, renamed["travel"], "flight", "test"),
        (QUOTES, renamed["travel"], renamed["hotel"], "test"),
        (HEBREW, "kitchen", "calories", "test"),
    ]


@dataclass(frozen=True)
class Made:
    """A page, what `run` said of it, and the artifacts it was made of."""

    path: Path
    result: dict
    pipeline: Pipeline


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def whole(made) -> Made:
    """The page with galleries, and with retrieval as `retrieve` leaves it."""
    report = made.result["report"]
    name = f"retrieval-{report['dataset']}-{report['backbone']}.json"
    made.pipeline.json("retrieve", "--candidates", "10,20", "--queries", "20", "--engines", "flat")
    assert (made.path.parent / name).is_file()
    (made.path.parent / f"reproduced-{report['dataset']}-{report['backbone']}.json").write_text("{}")
    output = made.path.parent / "whole.html"
    return Made(output, made.pipeline.json("report", "--output", output), made.pipeline)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is not driven")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


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


def test_run_ends_with_the_page_and_report_makes_the_same_again_whose_bytes_are_the_same(made, whole):
    report = made.result["report"]
    assert made.path == made.pipeline.artifacts / "reports" / f"{report['dataset']}-{report['backbone']}.html"
    assert report["bytes"] == made.path.stat().st_size < 10e6
    assert (report["methods"], report["seeds"], report["galleries"]) == (["v5", "mrl"], [1, 2], False)
    assert (whole.result["galleries"], whole.result["retrieval"], whole.result["claims"]) == (True, True, True)
    before = whole.path.read_bytes()
    shown = made.pipeline("report", "--output", whole.path)
    assert shown.stdout.startswith("report: ")
    dated = re.compile(rb"Made on [0-9-]+;")
    assert dated.sub(b"", whole.path.read_bytes()) == dated.sub(b"", before)


def test_the_commands_on_the_page_make_it_again(whole, visit):
    lines = visit(whole.path).text("#settings pre").splitlines()
    typed = [shlex.split(line)[1:] for line in lines]
    assert [words[0] for words in typed] == ["embed", "fit-head", "fit-head", "report"]
    assert whole.pipeline.json(*typed[0])["computed"] == 0
    ids = {run["id"] for words in typed[1:3] for run in whole.pipeline.json(*words)["runs"]}
    assert ids == set(whole.result["runs"])


def test_the_figures_are_those_of_score(made, visit):
    page = visit(made.path).page
    scores = {(score["method"], score["seed"]): score for score in made.result["scores"]}
    for method in ("v5", "mrl"):
        cell = page.locator("#accuracy details").first.locator("tr", has=page.get_by_role("rowheader", name=method))
        page.locator("#accuracy summary").first.evaluate("one => one.parentElement.open = true")
        first = cell.first.locator("td").all_text_contents()
        values = [scores[method, seed]["prefixes"][0]["levels"][1]["accuracy"] for seed in (1, 2)]
        assert first[0] == "64"
        assert first[-1].startswith(f"{np.mean(values) * 100:.1f} [")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_described_and_followed_by_its_numbers(whole, visit, scheme):
    page = visit(whole.path, color_scheme=scheme).page
    charts = page.locator(".chart")
    specs = page.evaluate("Object.keys(JSON.parse(document.getElementById('chart-data').textContent))")
    assert charts.count() == len(specs) > 12
    for i in range(charts.count()):
        assert len(charts.nth(i).get_attribute("aria-label")) > 20
        assert charts.nth(i).locator("svg path").count() > 3
    for section in page.locator("section:has(.chart)").all():
        assert section.locator("details table caption").count() >= 1
    ink = page.evaluate("getComputedStyle(document.body).color")
    drawn = page.locator(".chart svg .role-axis-label text").first.evaluate("one => getComputedStyle(one).fill")
    assert drawn == ink


def test_charts_follow_when_the_scheme_changes(made, visit):
    visitor = visit(made.path, color_scheme="light")
    page = visitor.page

    def looks():
        return page.evaluate(
            "[document.body, document.querySelector('.chart svg .role-axis-label text')].map((one, i) => "
            "getComputedStyle(one)[i ? 'fill' : 'backgroundColor'])"
        )

    light = looks()
    page.emulate_media(color_scheme="dark")
    visitor.drawn("dark")
    assert all(a != b for a, b in zip(light, looks(), strict=True))


def test_a_phone_needs_no_sideways_scrolling(whole, visit):
    page = visit(whole.path, viewport={"width": 390, "height": 844}).page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    boxes = page.locator("#zoom canvas").evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
    assert all(300 < width <= 390 for width in boxes)


def test_neighbours_shown_are_the_nearest_by_cosine_at_every_prefix_for_both_methods(made, visit):
    features = labelled_features(Artifacts(made.pipeline.artifacts))
    runs = {run.method: run for run in runs_of(Artifacts(made.pipeline.artifacts), features) if run.seed == 1}
    vectors = [run_scorable(runs[name], features).split("test")[0].astype(np.float64) for name in ("v5", "mrl")]
    texts = [features.dataset.texts[row] for row in features.dataset.split_rows("test")]
    visitor = visit(made.path)
    visitor.compare("v5", "mrl")
    slider = visitor.page.locator("#zoom-dim")
    for words in ("is salmon healthy", "alert(1)", "קלוריות"):
        visitor.choose(words)
        chosen = next(i for i, text in enumerate(texts) if words in text)
        assert visitor.text("#zoom-text") == texts[chosen]
        slider.focus()
        visitor.page.keyboard.press("Home")
        for step, dim in enumerate((64, 128, 192, 256)):
            if step:
                visitor.page.keyboard.press("ArrowRight")
            assert visitor.text("#zoom-dims").startswith(f"{dim} dims")
            for side in (0, 1):
                prefix = vectors[side][:, :dim] / np.linalg.norm(vectors[side][:, :dim], axis=1, keepdims=True)
                cosines = prefix @ prefix[chosen]
                cosines[chosen] = -np.inf
                expected = np.argsort(-cosines, kind="stable")[:10].tolist()
                assert visitor.shown(side) == expected, (words, dim, side)


def test_neighbours_are_marked_by_what_they_share(made, visit):
    features = labelled_features(Artifacts(made.pipeline.artifacts))
    labels = features.dataset.labels[features.dataset.split_rows("test")]
    visitor = visit(made.path)
    chosen = int(visitor.page.evaluate("JSON.parse(document.getElementById('explorer-data').textContent).first"))
    for side in (0, 1):
        panel = visitor.page.locator("#zoom .panel").nth(side)
        shown = visitor.shown(side)
        signs = panel.locator(".sign").evaluate_all("all => all.map((one) => one.className)")
        same = labels[shown] == labels[chosen]
        kinds = ["sign same" if fine else "sign near" if coarse else "sign far" for coarse, fine in same]
        assert signs == kinds
        count = panel.locator(".count").text_content()
        assert f"{same[:, 1].sum()} share its {LEVELS[1]}" in count
        assert f"{same[:, 0].sum()} its {LEVELS[0]}" in count


def _pixel(page, side, text):
    """Where a text lies on a map, from the page's own data and the map's size."""
    return page.evaluate(
        """([side, text]) => {
          const data = JSON.parse(document.getElementById('explorer-data').textContent), view = data.views[side];
          const bytes = Uint8Array.from(atob(view.places), (one) => one.charCodeAt(0));
          const places = new Uint16Array(bytes.buffer);
          const canvas = document.querySelectorAll('#zoom canvas')[side].getBoundingClientRect();
          const at = (i, size) => size / 2 + (places[2 * text + i] / 65535 - 0.5) * (size - 24);
          return [at(0, canvas.width), at(1, canvas.height)];
        }""",
        [side, text],
    )


def test_a_text_is_chosen_by_mouse_on_the_map_and_in_the_list_and_by_arrow_keys(made, visit):
    visitor = visit(made.path)
    page = visitor.page
    texts = page.evaluate("JSON.parse(document.getElementById('explorer-data').textContent).texts")
    where = [_pixel(page, 0, i) for i in range(len(texts))]
    alone = max(
        range(len(texts)), key=lambda i: min(np.hypot(*np.subtract(where[i], w)) for w in where if w != where[i])
    )
    canvas = page.locator("#zoom canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.hover(position={"x": where[alone][0] + 2, "y": where[alone][1] - 2})
    assert texts[alone] in visitor.text("#zoom .tip >> nth=0")
    canvas.click(position={"x": where[alone][0] + 2, "y": where[alone][1] - 2})
    assert visitor.text("#zoom-text") == texts[alone]

    neighbour = visitor.shown(1)[3]
    page.locator("#zoom .panel").nth(1).locator(".nearest button").nth(3).click()
    assert visitor.text("#zoom-text") == texts[neighbour]

    canvas.focus()
    tried = {}
    for key, axis, sign in (("ArrowRight", 0, 1), ("ArrowLeft", 0, -1), ("ArrowDown", 1, 1), ("ArrowUp", 1, -1)):
        before = texts.index(visitor.text("#zoom-text"))
        page.keyboard.press(key)
        after = texts.index(visitor.text("#zoom-text"))
        tried[key] = (where[after][axis] - where[before][axis]) * sign
        assert tried[key] >= 0, key
    assert sum(moved > 0 for moved in tried.values()) >= 3


def test_another_method_and_a_close_up_can_be_chosen(made, visit):
    visitor = visit(made.path)
    page = visitor.page
    visitor.compare("v5", "mrl")
    before = visitor.shown(0), visitor.shown(1)
    page.locator("#zoom-right").select_option(label="v5")
    assert visitor.shown(1) == before[0]
    page.locator("#zoom-right").select_option(label="pca*")
    assert page.locator("#zoom .panel").nth(1).locator("canvas").get_attribute("aria-label").count("pca*") == 1
    picture = "document.querySelectorAll('#zoom canvas')[0].toDataURL()"
    page.wait_for_timeout(700)
    far = page.evaluate(picture)
    page.locator("#zoom-close").click()
    page.wait_for_timeout(700)
    assert page.evaluate(picture) != far
    page.locator("#zoom .panel").first.get_by_role("button", name="Show all").click()
    page.wait_for_timeout(700)
    assert page.evaluate(picture) == far


def test_points_have_the_colour_of_their_coarse_label_and_the_legend_names_it(made, visit):
    page = visit(made.path).page
    names = page.locator("#zoom-labels bdi").all_text_contents()
    assert len(names) >= 2
    picture = "document.querySelectorAll('#zoom canvas')[0].toDataURL()"
    by_label = page.evaluate(picture)
    page.locator("#zoom-colour").select_option("relation")
    assert page.evaluate(picture) != by_label
    assert not page.locator("#zoom-labels").is_visible()


def test_the_wheel_zooms_a_map_in_use_and_dragging_moves_it(made, visit):
    page = visit(made.path).page
    canvas = page.locator("#zoom canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    picture = "document.querySelectorAll('#zoom canvas')[0].toDataURL()"
    seen = [page.evaluate(picture)]
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)
    seen.append(page.evaluate(picture))
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 140, steps=4)
    page.mouse.up()
    seen.append(page.evaluate(picture))
    assert len(set(seen)) == 3


def test_the_address_keeps_what_is_shown(made, visit):
    visitor = visit(made.path)
    visitor.choose("is salmon healthy")
    visitor.page.locator("#zoom-dim").focus()
    visitor.page.keyboard.press("End")
    visitor.page.locator("#zoom-right").select_option(label="pca*")
    address = visitor.page.url
    visitor.page.goto("about:blank")
    visitor.page.goto(address)
    assert "is salmon healthy" in visitor.text("#zoom-text")
    assert visitor.text("#zoom-dims").startswith("256 dims")
    assert visitor.page.locator("#zoom-right option:checked").text_content() == "pca*"


@pytest.mark.parametrize("typed", [SCRIPT, QUOTES, HEBREW])
def test_texts_and_labels_show_as_typed_and_harm_nothing(whole, visit, typed):
    visitor = visit(whole.path)
    visitor.choose(typed)
    assert visitor.text("#zoom-text") == typed
    labels = next(row[1:3] for row in hostile_rows() if row[0] == typed)
    assert visitor.text("#zoom-path") == " › ".join(labels)
    assert visitor.page.locator("#zoom-text").get_attribute("dir") == "auto"
    visitor.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert visitor.page.locator("main img, main b, main script").count() == 0
    assert LEVELS[0] in visitor.text("main")


def test_right_to_left_text_runs_right_to_left(made, visit):
    visitor = visit(made.path)
    visitor.choose(HEBREW)
    assert visitor.page.locator("#zoom-text").evaluate("one => getComputedStyle(one).direction") == "rtl"


def test_the_page_forbids_scripts_and_connections_that_are_not_its_own(made, browser):
    visitor = Visitor(browser, made.path)
    visitor.page.evaluate(
        "const made = document.createElement('script'); made.textContent = 'window.foreign = 1';"
        "document.body.append(made)"
    )
    assert visitor.page.evaluate("window.foreign") is None
    assert visitor.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert all("Content Security Policy" in line for line in visitor.trouble)
    assert len(visitor.trouble) >= 2
    visitor.page.context.close()


def test_the_first_tab_stop_skips_to_the_summary_and_headings_are_in_order(made, visit):
    page = visit(made.path).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    titles = page.locator("h2").all_text_contents()
    assert titles[:3] == ["Which to use", "See it: the explorer", "How sure"]


def test_without_scripts_every_number_is_there(made, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(made.path.as_uri())
    assert page.locator("noscript").count() == 1
    assert page.locator("#accuracy details").count() == 2
    assert page.locator("#accuracy details").first.locator("td").count() > 20
    context.close()


@pytest.mark.parametrize("width", [390, 1200])
def test_claims_are_read_without_scrolling_sideways_a_figure_a_line(whole, visit, width):
    page = visit(whole.path, viewport={"width": width, "height": 800}).page
    inside = page.locator("#claims .scroll").evaluate("one => one.scrollWidth - one.clientWidth")
    assert inside <= 0
    lines = page.locator("#claims .line")
    assert lines.count() > 15
    heights = lines.evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")
    assert max(heights) < 2 * min(heights)
    assert "FLOP" in page.locator("#claims").text_content()
    assert not re.search(r"(v5|mrl) -?0\.\d{3} ", page.locator("#claims").text_content())


def test_what_was_not_measured_says_which_command_does(made, visit):
    visitor = visit(made.path)
    dataset = made.result["report"]["dataset"]
    assert f"pipeline report --dataset {dataset} --backbone minilm" in visitor.text("#galleries pre")
    assert f"pipeline retrieve --dataset {dataset} --backbone minilm" in visitor.text("#recall pre")


def _without_altair(tmp_path) -> dict[str, str]:
    (tmp_path / "hidden").mkdir()
    absent = "raise ModuleNotFoundError(\"No module named 'altair'\", name='altair')\n"
    (tmp_path / "hidden" / "altair.py").write_text(absent)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), str(Path(__file__).parents[3])])}


def test_without_the_extra_report_names_it_and_run_goes_on(fitted, tmp_path, small_csv):
    environment = _without_altair(tmp_path)
    said = fitted.fails("report", **environment)
    assert "altair" in said
    assert "pip install altair" in said
    artifacts = tmp_path / "copy"
    shutil.copytree(fitted.artifacts, artifacts)
    pages = set(artifacts.rglob("*.html"))
    done = Pipeline(artifacts, tmp_path)(
        "run",
        small_csv,
        "--backbone",
        "minilm",
        "--methods",
        "v5,mrl",
        "--seeds",
        "1,2",
        "--epochs",
        "2",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "pip install altair" in line]
    assert "Next:" in done.stdout
    assert set(artifacts.rglob("*.html")) == pages


@pytest.mark.slow
def test_one_run_makes_a_page_too_and_a_damaged_retrieval_file_is_named(fitted, tmp_path, visit):
    artifacts = tmp_path / "copy"
    shutil.copytree(fitted.artifacts, artifacts)
    copy = Pipeline(artifacts, tmp_path)
    for run in copy.json("runs", "list")["runs"]:
        if (run["method"], run["seed"]) != ("mrl", 1):
            shutil.rmtree(run["path"])
    made = copy.json("report")
    visitor = visit(Path(made["path"]))
    assert "One seed" in visitor.text("#summary")
    assert visitor.page.locator("#claims").count() == 0
    path = artifacts / "reports" / f"retrieval-{made['dataset']}-{made['backbone']}.json"
    path.write_text('{"results": [{"method": "v5"}]}')
    done = copy("report")
    assert done.returncode == 0, done.stderr
    assert path.name in done.stderr
    assert "pipeline retrieve" in done.stderr
