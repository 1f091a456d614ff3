"""The page as people use it: made by the commands, opened from disk in a browser whose network is cut."""

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.terminal.escape import shown
from tests.pipeline.conftest import Pipeline
from tests.pipeline.report.conftest import HEBREW, LEVELS, QUOTES, SCRIPT, Visitor, hostile_rows
from tests.pipeline.small_dataset import write_csv


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


def test_the_commands_on_the_page_make_it_again(whole, read):
    lines = read(whole.path).text("#settings pre").splitlines()
    typed = [shlex.split(line)[1:] for line in lines]
    assert [words[0] for words in typed] == ["embed", "fit-head", "fit-head", "report"]
    assert whole.pipeline.json(*typed[0])["computed"] == 0
    ids = {run["id"] for words in typed[1:3] for run in whole.pipeline.json(*words)["runs"]}
    assert ids == set(whole.result["runs"])


def test_the_figures_are_those_of_score(made, read):
    page = read(made.path).page
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


@pytest.mark.parametrize("typed", [SCRIPT, QUOTES, HEBREW])
def test_texts_and_labels_show_as_typed_and_harm_nothing(whole, read, typed):
    visitor = read(whole.path)
    visitor.choose(typed)
    assert visitor.text("#zoom-text") == typed
    labels = next(row[1:3] for row in hostile_rows() if row[0] == typed)
    assert visitor.text("#zoom-path") == " › ".join(map(shown, labels))
    direction = visitor.page.locator("#zoom-text").evaluate("one => [one.dir, getComputedStyle(one).direction]")
    assert direction == ["auto", "rtl" if typed == HEBREW else "ltr"]
    visitor.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert visitor.page.locator("main img, main b, main script").count() == 0
    assert LEVELS[0] in visitor.text("main")


def test_control_characters_are_shown_as_the_terminal_shows_them(whole, read):
    """Also where a cell, a legend or a chart holds them: only isolates around a whole name stay as they are."""
    spelled = whole.path.read_text("utf-8")
    data_of_page = spelled[: spelled.index("</main>")] + "".join(
        json.dumps(json.loads(found), ensure_ascii=False)
        for found in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', spelled, re.S)
    )
    assert not set(re.sub("\u2068[^\u2066-\u2069]*\u2069", "", data_of_page)) & set("\x1b\u202e\u202c\u2068\u2069")
    assert "\\u001b" not in data_of_page
    visitor = read(whole.path)
    visitor.choose(r"\x1b[31mhow warm\x1b[0m is it in \u202eamil\u202c")
    assert visitor.text("#zoom-path") == r"kitchen › calories\u202e\x1b[7m"
    assert r"calories\u202e\x1b[7m" in visitor.page.locator("main").text_content()


def test_where_nothing_goes_wrong_the_page_says_so_instead_of_drawing_empty_charts(pipeline, tmp_path):
    said = {
        ("billing", "refund"): "my money has not come back",
        ("billing", "invoice"): "the invoice lacks a tax number",
        ("delivery", "late"): "nothing has arrived",
        ("delivery", "damaged"): "the glass inside is cracked",
    }
    rows = [
        (f"{text}, {i} days ago", *path, "test" if i % 3 == 0 else "train")
        for path, text in said.items()
        for i in range(12)
    ]
    path = write_csv(tmp_path / "easy.csv", rows, header="text,area,topic,split")
    made = pipeline.json("run", path, "--backbone", "minilm", "--methods", "lda")
    page = Path(made["report"]["path"]).read_text("utf-8")
    assert "Nothing: at 64 and 256 dims every answer on topic" in page
    assert "errors-0" not in page


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


def test_claims_are_read_without_scrolling_sideways_a_figure_a_line(whole, read):
    page = read(whole.path).page
    lines = page.locator("#claims .line")
    assert lines.count() > 15
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        inside = page.locator("#claims .scroll").evaluate("one => one.scrollWidth - one.clientWidth")
        assert inside <= 0
        heights = lines.evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")
        assert max(heights) < 2 * min(heights)
    assert "FLOP" in page.locator("#claims").text_content()
    assert not re.search(r"(v5|mrl) -?0\.\d{3} ", page.locator("#claims").text_content())


def test_what_was_not_measured_says_which_command_does(made, read):
    visitor = read(made.path)
    dataset = made.result["report"]["dataset"]
    assert f"pipeline report --dataset {dataset} --backbone minilm" in visitor.text("#galleries pre")
    assert f"pipeline retrieve --dataset {dataset} --backbone minilm" in visitor.text("#recall pre")


def test_without_the_extra_report_names_it_and_run_goes_on(fitted, tmp_path, small_csv):
    said = fitted.fails("report", without="altair")
    assert "altair" in said
    assert "[report]" in said
    assert "pip install altair vl-convert-python" in said
    artifacts = tmp_path / "copy"
    shutil.copytree(fitted.artifacts, artifacts)
    pages = set(artifacts.rglob("*.html"))
    call = ("run", small_csv, "--backbone", "minilm", "--methods", "v5,mrl", "--seeds", "1,2", "--epochs", "2")
    done = Pipeline(artifacts, tmp_path)(*call, without="altair")
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
