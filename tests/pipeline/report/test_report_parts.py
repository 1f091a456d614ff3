"""What the page is made of, each part against a slow or obvious reference."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

import data
from pipeline.claims.published import DIFFERENCE
from pipeline.claims.verdicts import judge
from pipeline.evaluation.comparison import Entry, compare
from pipeline.evaluation.ranking import Comparison
from pipeline.report.explorer import cut, shown_rows
from pipeline.report.frames import accuracy_frame, parent_confusions, parent_errors
from pipeline.report.html import table, tag
from pipeline.report.looks import styles
from pipeline.report.page import TEMPLATES
from pipeline.report.tsne import _repulsion, layout, principal_plane, rotation
from pipeline.terminal.escape import shown, shown_on_page
from tests.pipeline.evaluation.predicted import predicted

TREE = data.Hierarchy(("top", "leaf"), (("a", "b"), ("a0", "a1", "b0", "b1")), (np.array([0, 0, 1, 1]),))


class _Read(HTMLParser):
    """Collects text and attribute values as a browser would read them."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.text, self.values = [], "", []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.text += data


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=60)


@given(TEXTS)
def test_text_and_attributes_come_out_as_they_went_in_and_make_no_element(text):
    read = _Read(tag("em", text, title=text))
    assert (read.tags, read.text, read.values) == (["em"], shown_on_page(text), [shown_on_page(text)])


@given(TEXTS, TEXTS)
def test_what_controls_the_order_or_a_terminal_is_shown_but_isolates_around_a_name(text, name):
    there = shown_on_page({"a": [f"{text}\u2068{shown(name)}\u2069"]})["a"][0]
    assert shown(there.replace("\u2068", "").replace("\u2069", "")) == there.replace("\u2068", "").replace("\u2069", "")
    assert there.count("\u2068") == there.count("\u2069") >= 1
    assert shown_on_page(there) == there


@given(TEXTS)
def test_json_in_the_page_is_the_same_json_and_can_end_no_element(text):
    body = TEMPLATES.from_string("{{ value|tojson }}").render(value={"text": text})
    assert json.loads(body) == {"text": text}
    assert not set("<>&") & set(body)


def test_cells_of_a_table_are_escaped_and_markup_is_not_escaped_twice():
    made = table("<b>", ("<i>",), [("<u>",)])
    assert _Read(made).tags == ["div", "table", "caption", "thead", "tr", "th", "tbody", "tr", "th"]
    assert tag("p", Markup("<br>")) == "<p><br></p>"


@pytest.mark.parametrize(("interval", "expected"), [((0.05, 0.15), 1), ((-0.15, -0.05), -1), ((-0.05, 0.15), 0)])
def test_a_method_leads_only_if_the_interval_over_seeds_and_texts_excludes_zero(interval, expected):
    row = Comparison(
        a="a", b="b", metric="accuracy", prefix=1, dim=64, dim_b=64, level=0, n=3, mean_a=0, mean_b=0,
        mean_difference=sum(interval) / 2, sd=None, ci95=(0.01, 0.2), p=None, p_holm=None, cohens_d=None,
        texts_ci95=(0.05, 0.15), interval=interval,
    )  # fmt: skip
    assert row.leader == expected
    assert row.seen_from("b").leader == -expected
    assert row.seen_from("b").seen_from("a") == row


def test_one_cell_has_one_interval_wherever_it_is_shown():
    """The claims, the page's frames and the comparisons take the same interval of the same predictions."""
    entries = {
        "leave-one-out": [
            Entry(name, seed, predicted([(0.9 - 0.05 * (name == "mrl"), 0.6)] * 4, texts=300, seed=seed))
            for name in ("v5", "mrl")
            for seed in (1, 2, 3)
        ]
    }
    (claim,) = (claim for claim in judge(entries) if claim.id == "coarse-64")
    frame = accuracy_frame(entries, TREE.names)
    (row,) = (row for row in compare(entries["leave-one-out"]) if (row.dim, row.level) == (64, 0))
    for name in ("v5", "mrl"):
        shown = frame.filter(method=name, dim=64, level="top").row(0, named=True)
        assert (shown["low"], shown["high"]) == tuple(100 * end for end in claim.ci95[name])
    assert row.interval == pytest.approx(claim.ci95[DIFFERENCE])


def test_a_method_looks_the_same_whatever_stands_beside_it():
    alone, beside = styles(["joint"]), styles(["v5", "mrl", "joint", "v5 (lr 0.001)", "features*", "pca*"])
    assert alone["joint"] == beside["joint"]
    assert len({look.colour for look in beside.values()}) == len(beside)


def test_errors_by_parent_agree_with_a_loop_over_answers():
    entries = [Entry("m", seed, predicted([(0.9, 0.6)] * 4, texts=200, seed=seed)) for seed in (1, 2)]
    wrong = {"a": [0, 0, 0], "b": [0, 0, 0]}
    pairs = {("a", "b"): 0, ("b", "a"): 0}
    for entry in entries:
        for text, guess in zip(entry.predictions.labels, entry.predictions.predicted[0], strict=True):
            parent, answer = "ab"[text[1] // 2], "ab"[guess[1] // 2]
            wrong[parent][0] += 1
            wrong[parent][1] += guess[1] != text[1] and answer == parent
            wrong[parent][2] += answer != parent
            if answer != parent:
                pairs[parent, answer] += 1
    for row in parent_errors(entries, TREE).filter(dim=64).to_dicts():
        texts, sibling, stranger = wrong[row["parent"]]
        assert row["texts"] == texts / 2
        assert row["sibling"] == pytest.approx(100 * sibling / texts)
        assert row["stranger"] == pytest.approx(100 * stranger / texts)
        assert row["wrong"] == pytest.approx(100 * (sibling + stranger) / texts)
    assert any(sibling for _, sibling, _ in wrong.values())
    for row in parent_confusions(entries, TREE, "m", 64).to_dicts():
        assert row["share"] == pytest.approx(100 * pairs[row["truth"], row["answer"]] / wrong[row["truth"]][0])


def test_many_texts_are_sampled_and_few_are_all_shown():
    assert shown_rows(4500).tolist() == list(range(4500))
    rows = shown_rows(50_000)
    assert len(rows) == 20_000
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, shown_rows(50_000))
    assert rows[-1] > 19_000


def test_long_texts_are_cut_until_all_fit_and_short_ones_stay():
    texts = ["short", "é" * 1000, "x" * 3000]
    assert cut(texts, 10_000) == texts
    fitted = cut(texts, 1500)
    assert fitted[0] == "short"
    assert sum(len(text.encode()) for text in fitted) <= 1500 + 2 * len("…".encode())
    assert all(text.endswith("…") for text in fitted[1:])


def _groups(seed=0, groups=12, each=30):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 16))
    rows = np.repeat(centres, each, axis=0) + rng.normal(scale=0.2, size=(groups * each, 16))
    distance = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return rows, distance.argsort(axis=1)[:, :10], np.repeat(np.arange(groups), each)


def test_the_push_is_that_of_all_pairs():
    points = np.random.default_rng(1).normal(scale=12, size=(300, 2)).astype(np.float32)
    between = points[:, None].astype(np.float64) - points[None]
    weight = 1 / (1 + (between**2).sum(axis=2))
    np.fill_diagonal(weight, 0)
    slow = (weight[..., None] ** 2 * between).sum(axis=1) / weight.sum()
    fast = _repulsion(points, 192)
    assert np.corrcoef(slow.ravel(), fast.ravel())[0, 1] > 0.99
    assert np.linalg.norm(fast) == pytest.approx(np.linalg.norm(slow), rel=0.1)


def test_a_map_keeps_neighbours_together_better_than_principal_components_and_is_the_same_again():
    rows, neighbours, labels = _groups()
    start = principal_plane(rows)
    made = layout(neighbours, start)
    assert np.array_equal(made, layout(neighbours, start))
    assert np.isfinite(made).all()

    def kept(points):
        distance = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        return (labels[distance.argsort(axis=1)[:, :10]] == labels[:, None]).mean()

    assert kept(made) > 0.95 > kept(start)


@pytest.mark.parametrize("n", [3, 4, 11])
def test_few_points_are_laid_out_too_and_even_equal_ones(n):
    neighbours = np.array([[j for j in range(n) if j != i] for i in range(n)])
    for rows in (np.eye(n), np.ones((n, 4))):
        made = layout(neighbours, principal_plane(rows))
        assert made.shape == (n, 2)
        assert np.isfinite(made).all()


def test_turning_a_map_undoes_a_turn():
    points = np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32)
    turn = np.array([[0.6, 0.8], [0.8, -0.6]], np.float32)
    assert np.allclose((points @ turn) @ rotation(points @ turn, points), points, atol=1e-5)
