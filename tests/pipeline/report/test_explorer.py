"""The explorer as people use it: by mouse, keyboard and address, against neighbours computed here."""

import numpy as np

from pipeline.evaluation.embeddings import run_scorable
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import labelled_features, runs_of
from tests.pipeline.report.conftest import LEVELS


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
    far = visitor.still_map()
    page.locator("#zoom-close").click()
    assert visitor.still_map() != far
    page.locator("#zoom .panel").first.get_by_role("button", name="Show all").click()
    assert visitor.still_map() == far


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
    visitor = visit(made.path)
    page = visitor.page
    canvas = page.locator("#zoom canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    seen = [visitor.still_map()]
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -400)
    page.wait_for_function("before => document.querySelector('#zoom canvas').toDataURL() !== before", arg=seen[0])
    seen.append(visitor.still_map())
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 140, steps=4)
    page.mouse.up()
    seen.append(visitor.still_map())
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
