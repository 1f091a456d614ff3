"""The methods' tables against the numbers of the design, written out; and the settings they are trained with."""

from __future__ import annotations

import math

import pytest

from heads.errors import HeadsError
from heads.methods import METHODS, TRAINER, View, hyperparameters, keep_probabilities, prefix_probabilities

PUBLISHED = {"trainer": TRAINER, "epochs": 5, "batch_size": 24, "lr": 1e-4, "schedule": "constant"}
TABLES = [name for name, method in METHODS.items() if method.supervise is not None]


def table(method, scales, levels):
    """{view: (weight, rows)} of a method whose terms have different views."""
    terms = METHODS[method].supervise(scales, levels)
    assert len({term.view for term in terms}) == len(terms)
    return {term.view: (term.weight, term.levels) for term in terms}


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("scales", range(1, 7))
@pytest.mark.parametrize("method", TABLES)
def test_every_row_of_every_table_is_a_share_of_levels(method, scales, levels):
    for term in METHODS[method].supervise(scales, levels):
        assert len(term.levels) == scales
        for row in term.levels:
            assert len(row) == levels
            assert min(row) >= 0
            assert math.isclose(sum(row), 1)
        assert all(term.levels[j][level] > 0 for j, level in _positive_places(term, scales))


def _positive_places(term, scales):
    """(prefix, level) from which positives are drawn, where the term may show that prefix."""
    rule = term.positive_levels(scales)
    if term.view is View.SAMPLED:
        return list(enumerate(rule))
    return [(scales - 1 if term.view is View.DROPPED else term.view - 1, rule[0])]


@pytest.mark.parametrize("scales", range(1, 7))
def test_v5_with_two_levels_is_the_published_one_at_every_prefix(scales):
    tables = table("v5", scales, 2)
    assert tables[View.SAMPLED] == (0.6, ((1.0, 0.0),) * scales)
    assert tables[View.DROPPED] == (1.0, ((0.0, 1.0),) * scales)


@pytest.mark.parametrize(
    ("scales", "levels", "expected"),
    [
        (4, 3, [(1, 0, 0), (2 / 3, 1 / 3, 0), (1 / 3, 2 / 3, 0), (0, 1, 0)]),
        (4, 4, [(1, 0, 0, 0), (1 / 3, 2 / 3, 0, 0), (0, 2 / 3, 1 / 3, 0), (0, 0, 1, 0)]),
        (3, 3, [(1, 0, 0), (1 / 2, 1 / 2, 0), (0, 1, 0)]),
        (3, 4, [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)]),
        (2, 4, [(1, 0, 0, 0), (0, 0, 1, 0)]),
        (5, 3, [(1, 0, 0), (3 / 4, 1 / 4, 0), (1 / 2, 1 / 2, 0), (1 / 4, 3 / 4, 0), (0, 1, 0)]),
        (1, 3, [(1, 0, 0)]),
    ],
)
def test_v5_blends_the_levels_above_the_finest_and_inverted_reverses_them(scales, levels, expected):
    (full_weight, full), (weight, rows) = table("v5", scales, levels).values()
    assert (full_weight, full, weight) == (1.0, ((*[0.0] * (levels - 1), 1.0),) * scales, 0.6)
    assert rows == tuple(pytest.approx(row) for row in expected)
    assert table("inverted", scales, levels) == {
        View.DROPPED: (1.0, tuple(row[::-1] for row in full)),
        View.SAMPLED: (0.6, tuple(row[::-1] for row in rows)),
    }


def test_a_blended_prefix_takes_its_positive_from_the_finer_level():
    v5, inverted = (METHODS[name].supervise(4, 3) for name in ("v5", "inverted"))
    assert [term.positive_levels(4) for term in v5] == [(2, 2, 2, 2), (0, 1, 1, 1)]
    assert [term.positive_levels(4) for term in inverted] == [(0, 0, 0, 0), (2, 2, 2, 1)]


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_mrl_teaches_the_finest_level_to_every_prefix_as_often_as_v5_draws_it(levels):
    fine = ((*[0.0] * (levels - 1), 1.0),) * 4
    expected = {View.DROPPED: 1.0, 1: 0.24, 2: 0.18, 3: 0.12, 4: 0.06}
    found = table("mrl", 4, levels)
    assert {view: weight for view, (weight, _) in found.items()} == pytest.approx(expected)
    assert {rows for _, rows in found.values()} == {fine}


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_no_prefix_sees_the_full_vector_alone(levels):
    assert table("no-prefix", 4, levels) == {
        View.DROPPED: (1.0, ((*[0.0] * (levels - 1), 1.0),) * 4),
        4: (0.6, ((1.0, *[0.0] * (levels - 1)),) * 4),
    }


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_uniform_weighs_all_levels_alike_at_every_prefix(levels):
    for view, weight in ((View.DROPPED, 1.0), (View.SAMPLED, 0.6)):
        terms = [term for term in METHODS["uniform"].supervise(4, levels) if term.view is view]
        for j in range(4):
            by_level = [sum(term.weight * term.levels[j][level] for term in terms) for level in range(levels)]
            assert by_level == pytest.approx([weight / levels] * levels)


def test_probabilities_are_the_published_four_and_sum_to_one_for_any_number_of_prefixes():
    assert prefix_probabilities(4) == (0.4, 0.3, 0.2, 0.1)
    assert keep_probabilities(4) == (0.95, 0.9, 0.8, 0.7)
    for scales in range(1, 7):
        drawn, kept = prefix_probabilities(scales), keep_probabilities(scales)
        assert math.isclose(sum(drawn), 1)
        assert list(drawn) == sorted(drawn, reverse=True)
        assert list(kept) == sorted(kept, reverse=True)
        assert len(drawn) == len(kept) == scales
        assert kept[0] == 0.95


@pytest.mark.parametrize("method", TABLES)
def test_published_settings_are_the_default(method):
    assert hyperparameters(method) == PUBLISHED


def test_each_setting_can_be_turned_and_a_default_spelled_out_is_the_same_settings():
    turned = hyperparameters("mrl", epochs=2, batch_size=8, lr=1e-3, schedule="one-cycle")
    assert turned == {"trainer": TRAINER, "epochs": 2, "batch_size": 8, "lr": 1e-3, "schedule": "one-cycle"}
    assert hyperparameters("joint")["schedule"] == "one-cycle"
    assert hyperparameters("joint", schedule="one-cycle") == hyperparameters("joint")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("batch_size", 1), ("lr", 0.0), ("lr", float("nan")), ("lr", float("inf")), ("schedule", "cosine")],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_value(setting, value):
    with pytest.raises(HeadsError, match=setting) as error:
        hyperparameters("v5", **{setting: value})
    assert repr(value) in str(error.value)
    assert error.value.remedy


def test_an_unknown_method_is_named():
    with pytest.raises(HeadsError, match="'v6'") as error:
        hyperparameters("v6")
    assert "v5" in error.value.remedy
