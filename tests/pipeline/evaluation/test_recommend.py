"""Advice follows the paired comparison: who is first, who shares the place, who is worse, and whether training paid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.comparison import Entry, compare, overall
from pipeline.evaluation.ranking import ranking, rankings
from pipeline.evaluation.recommend import Answer, advice, answer, classifier_ahead
from pipeline.evaluation.statistics import Estimate
from tests.pipeline.evaluation.predicted import identity, predicted

LEVELS = ("domain", "intent")


def entry(method, shares, *, seed=1, texts=400, errors=0, untrained=False):
    """A run; methods with the same `errors` err on the same texts as far as they err."""
    return Entry(method, None if untrained else seed, predicted(shares, texts=texts, seed=errors), untrained)


HIGH, MIDDLE, LOW = [[0.95, 0.85]] * 4, [[0.93, 0.83]] * 4, [[0.85, 0.65]] * 4


def test_the_same_difference_is_significant_only_where_the_same_texts_show_it():
    """Two points of 400 texts: intervals of either overlap, and yet the paired one excludes zero."""
    paired = overall([entry("a", HIGH), entry("b", MIDDLE)])[0]
    assert paired.leader == 1
    assert "take a (mean accuracy" in advice([entry("a", HIGH), entry("b", MIDDLE)], LEVELS)[0]
    apart = [entry("a", HIGH, errors=1, texts=100), entry("b", MIDDLE, errors=2, texts=100)]
    assert overall(apart)[0].leader == 0
    assert "no significant difference between a and b" in advice(apart, LEVELS)[0]


@pytest.mark.parametrize("order", [("v5", "mrl"), ("mrl", "v5")])
def test_equal_methods_share_the_first_place_in_any_order(order):
    choice, _, shortest = advice([entry(name, HIGH) for name in order], LEVELS)
    assert "no significant difference" in choice
    assert "take" not in choice
    assert shortest.count("no significant difference from") == 2


def test_a_few_texts_are_said_to_be_too_few():
    (said,) = advice([entry("v5", HIGH, texts=3), entry("mrl", HIGH, texts=3)], LEVELS)
    assert said.startswith("3 test texts are too few to compare methods")


def test_nothing_is_advised_where_no_answer_is_right_or_all_are_the_same():
    entries = [entry("v5", [[0.9, 0.0]] * 4), entry("features*", [[0.8, 0.0]] * 4, untrained=True)]
    assert advice(entries, LEVELS) == [
        "No method finds the intent of any test text, so nothing is advised: are these labels in the training split?"
    ]
    assert answer(entries) is None
    ones = [replace(one, predictions=replace(one.predictions, labels=one.predictions.labels * 0)) for one in entries]
    assert "the same labels" in advice(ones, LEVELS)[0]
    assert answer(ones) is None


def test_training_that_did_not_pay_is_the_headline():
    for best, word in ((HIGH, "significantly better"), (MIDDLE, "no significant difference")):
        entries = [entry("v5", LOW), entry("joint", MIDDLE), entry("pca*", best, untrained=True)]
        headline, prefixes, _ = advice(entries, LEVELS)
        assert headline.startswith("Training did not pay here: pca*")
        assert word in headline
        assert "v5 is worse than pca*" in headline
        assert prefixes.startswith("Smallest prefix of pca*")
    paid = advice([entry("joint", HIGH), entry("pca*", LOW, untrained=True)], LEVELS)[0]
    assert paid.startswith("One embedding for every level: take joint")
    assert "worse: pca* -15.0 points" in paid


def test_the_headline_is_never_weaker_than_the_rows_it_rests_on():
    entries = [entry("v5", LOW), entry("mrl", MIDDLE), entry("joint", HIGH), entry("pca*", LOW, untrained=True)]
    found = ranking(overall(entries))
    assert found.best == "joint"
    for row in (row.seen_from("joint") for row in overall(entries) if "joint" in (row.a, row.b)):
        assert (row.b in {worse.b for worse in found.worse}) == (row.leader > 0)
    for (dim, level), at in rankings(compare(entries), LEVELS).items():
        rows = [r for r in compare(entries) if (r.dim, r.level) == (dim, LEVELS.index(level))]
        assert at.value == max(max(row.mean_a, row.mean_b) for row in rows)


def test_full_vectors_of_two_lengths_are_compared_too():
    """Features have 384 dimensions, heads 256: what both have is compared, and each in full."""
    long = predicted([[0.9, 0.8]] * 5, dims=(64, 128, 192, 256, 384))
    rows = compare([entry("joint", HIGH, errors=0), Entry("features*", None, long, True)])
    assert {(row.dim, row.dim_b) for row in rows} == {(d, d) for d in (64, 128, 192, 256)} | {(256, 384)}
    assert {row.metric for row in rows} == {"accuracy"}  # S is of other ends
    flipped = rows[-1].seen_from("features*")
    assert (flipped.dim, flipped.dim_b, flipped.mean_difference) == (384, 256, -rows[-1].mean_difference)


def test_a_method_without_a_seed_is_tested_in_one_sample():
    runs = [entry("joint", np.array(HIGH) - 0.01 * seed, seed=seed, errors=seed) for seed in (1, 2, 3)]
    row = overall([*runs, entry("pca*", LOW, untrained=True)])[0]
    assert row.n == 3
    assert row.ci95 is not None
    assert row.interval[0] <= min(row.ci95[0], row.texts_ci95[0])
    assert row.interval[1] >= max(row.ci95[1], row.texts_ci95[1])


def test_texts_without_a_finest_label_count_on_the_levels_they_have():
    whole = predicted([[0.9, 0.6]] * 4, texts=200)
    lacking = np.arange(200) % 2 == 0
    labels = whole.labels.copy()
    labels[lacking, 1] = -1
    partly = replace(whole, labels=labels)
    expected = (whole.predicted[0, ~lacking, 1] == whole.labels[~lacking, 1]).mean()
    assert compare([Entry("a", 1, partly), Entry("b", 1, partly)])[1].mean_a == pytest.approx(expected)
    low, high = partly.score(identity()).prefixes[0].levels[1].ci95
    assert low < expected < high


def closed(method, shares):
    return replace(entry(method, shares, untrained=True), untrained=False, closed_form=True)


def test_a_closed_form_is_compared_with_every_seed_and_takes_no_training():
    trained = [entry("v5", MIDDLE, seed=seed, errors=seed) for seed in (1, 2)]
    rows = overall([*trained, closed("lda", HIGH), closed("joint", LOW)])
    assert {(row.a, row.b, row.n) for row in rows} == {("v5", "lda", 2), ("v5", "joint", 2), ("lda", "joint", 1)}
    found = answer([*trained, closed("lda", HIGH), closed("joint", LOW)])
    assert (found.method, found.pays, found.rival) == ("lda", False, "v5")
    assert found.sentence(LEVELS).startswith(
        "Training did not pay here. Use linear discriminants (lda) at 64 dims: 95 / 85 %"
    )
    assert "Use joint (which trained nothing here) at" in answer([*trained, closed("joint", HIGH)]).sentence(LEVELS)


def test_the_answer_says_what_the_full_vector_adds_and_of_many_levels_the_two_ends():
    rising = entry("joint", [[0.95, 0.85], [0.95, 0.855], [0.95, 0.8575], [0.959, 0.8595]], texts=40_000)
    assert answer([rising]).sentence(LEVELS) == (
        "Use joint at 64 dims: 95 / 85 % (domain / intent), 4 times smaller. All 256 dims add 0.9 / 0.9 points."
    )
    steep = entry("joint", [[0.95, 0.5], [0.95, 0.6], [0.95, 0.7], [0.95, 0.8]])
    assert (
        answer([steep])
        .sentence(LEVELS)
        .endswith("(domain / intent). A shorter prefix loses more than one point on intent.")
    )
    accuracies = (0.95, 0.9, 0.8, 0.998)
    flat = Answer("joint", True, 64, 256, accuracies, (Estimate(0.0, -0.01, 0.01, None, 1),) * 4, (64,) * 4, None)
    assert flat.sentence(("a", "b", "c", "d")) == (
        "Use joint at 64 dims: 95 / 99.8 % (a / d), 4 times smaller. With all 256 dims 0.0 / 0.0 points: "
        "no significant difference."
    )


def test_no_vector_is_called_small_that_is_as_long_as_the_features():
    def found(width):
        given = Entry("features*", None, predicted(LOW[:1], dims=(width,)), untrained=True)
        return answer([entry("joint", HIGH), given]).sentence(LEVELS)

    assert ", 4 times smaller than all 256 dims but not than the features, which have 48. " in found(48)
    assert ", 4 times smaller. " in found(384)


def gain(points, half):
    return Estimate(points / 100, (points - half) / 100, (points + half) / 100, None, 1)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((gain(0.5, 0.6), gain(-0.2, 0.3)), "With all 256 dims +0.5 / -0.2 points: no significant difference."),
        ((gain(0.5, 0.4), gain(0.8, 0.1)), "All 256 dims add 0.5 / 0.8 points."),
        ((gain(0.5, 0.6), gain(0.8, 0.1)), "All 256 dims change that by +0.5 / +0.8 points, significantly on b alone."),
        ((gain(-0.5, 0.4), gain(0.8, 0.1)), "All 256 dims change that by -0.5 / +0.8 points."),
    ],
)
def test_what_the_full_vector_adds_is_claimed_only_where_the_interval_says_so(gains, said):
    assert Answer("joint", True, 64, 256, (0.9, 0.8), gains, (64, 64), None).sentence(("a", "b")).endswith(said)


def test_a_gain_that_other_texts_might_not_show_is_no_gain():
    few = entry("joint", [[0.95, 0.85], [0.95, 0.855], [0.95, 0.8575], [0.955, 0.8575]])
    assert answer([few]).sentence(LEVELS).endswith("With all 256 dims +0.5 / +0.8 points: no significant difference.")


def test_a_few_test_texts_are_named_where_they_could_hide_what_training_does():
    few = [entry("v5", HIGH, texts=40), entry("pca*", HIGH, texts=40, errors=1, untrained=True)]
    assert answer(few).sentence(LEVELS).startswith("Training did not pay here, as far as 40 test texts can tell. Use ")
    many = [entry("v5", HIGH, texts=4000), entry("pca*", HIGH, texts=4000, errors=1, untrained=True)]
    assert answer(many).sentence(LEVELS).startswith("Training did not pay here. Use ")


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_methods_the_plainest_is_advised_whatever_the_order_of_the_runs(turned):
    """The closed form that joint chose where little was to be learned is lda: the simpler is named, no copy a rival."""
    entries = [
        *(entry("joint", HIGH, seed=seed) for seed in (1, 2, 3)),
        closed("lda", HIGH),
        entry("v5", MIDDLE, seed=1),
        entry("pca*", LOW, untrained=True),
    ]
    found = answer(entries[::-1] if turned else entries)
    assert (found.method, found.rival) == ("lda", "v5")
    assert advice(entries[::-1] if turned else entries, LEVELS)[:2] == advice(entries, LEVELS)[:2]


def test_a_classifier_that_labels_better_than_the_advised_vectors_is_said_with_its_levels():
    flat = Entry("logistic", None, predicted([[0.95, 0.85]], texts=400, seed=0), True)
    flat = replace(flat, predictions=replace(flat.predictions, dims=(384,)))
    (said,) = classifier_ahead(compare([entry("joint", [[0.95, 0.75]] * 4), flat]), "joint", LEVELS)
    assert "intent -10.0 points [" in said and "domain" not in said
    assert classifier_ahead(compare([entry("joint", HIGH), flat]), "joint", LEVELS) == []
    assert classifier_ahead(compare([entry("joint", HIGH), entry("lda", LOW)]), "joint", LEVELS) == []


def test_no_method_is_advised_that_another_beats_on_the_seed_that_both_have():
    """v5 has the highest mean of five seeds, and on the one seed that mrl has too, mrl is ahead by far."""
    given = []
    for seed, share in zip((1, 2, 3, 4, 5), (0.7, 0.95, 0.95, 0.95, 0.95), strict=True):
        given.append(Entry("v5", seed, predicted(np.full((4, 2), share), texts=1000, seed=seed)))
    given.append(Entry("mrl", 1, predicted(np.full((4, 2), 0.8), texts=1000, seed=1)))
    given.append(Entry("features*", None, predicted(np.full((4, 2), 0.5), texts=1000), untrained=True))
    found = answer(given)
    said = " ".join(advice(given, ("domain", "intent")))
    assert found.method == "mrl", said
    assert "no significant difference between v5 and mrl" not in said


def test_one_prefix_is_not_said_to_have_shorter_ones():
    only = Answer("joint", True, 64, 64, (0.9, 0.8), (Estimate(0.0, 0.0, 0.0, None, 1),) * 2, (), None)
    assert only.sentence(("a", "b")) == "Use joint at 64 dims: 90 / 80 % (a / b)."
