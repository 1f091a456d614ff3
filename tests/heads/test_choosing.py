"""What `joint` trains by itself: chosen by evidence, the same for every seed, and nothing where nothing can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heads import Choice, FractalHead, choose, choosing, fit_many
from heads.choosing import _epochs_for, _is_better
from heads.choosing import choose as choose_among
from heads.closed_form import closed_form_head
from heads.knn import prefix_neighbours, vote
from heads.training.inputs import checked_inputs
from heads.training.validation import folds_of
from tests.heads.conftest import clusters


def test_the_choice_is_made_without_a_seed_and_said_with_its_reason():
    (features, labels), validation = clusters(240), clusters(250, seed=1)
    choice = choose(features, labels, validation=validation)
    assert choice == choose(features, labels, validation=validation)
    assert "250 validation rows" in choice.reason
    results = fit_many(features, labels, seeds=[1, 2], validation=validation)
    assert {result.chosen["reason"] for result in results} == {choice.reason}
    assert {result.best_epoch for result in results} == {choice.epochs}
    assert len(results) == (1 if choice.closed_form else 2)


@pytest.mark.parametrize("labels", [np.arange(30), np.zeros(2, int)], ids=["each its own class", "two rows"])
def test_where_too_few_rows_share_a_class_the_closed_form_is_taken_and_every_figure_is_one(labels):
    features = np.random.default_rng(0).standard_normal((len(labels), 24))
    (joint,), (lda,) = (fit_many(features, labels, seeds=[0], method=method) for method in ("joint", "lda"))
    assert joint.chosen["epochs"] == 0
    assert "too few rows share a finest label" in joint.chosen["reason"]
    for scores in (joint.chosen["scores"], lda.chosen["scores"]):
        assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize("closed", ["lda", "pca", "features"])
def test_a_chosen_closed_form_is_one_head_that_says_whose_it_is(closed):
    features, labels = clusters(240)
    nothing = Choice("linear", 0, "told", {}, closed)
    (result,) = fit_many(features, labels, seeds=[1, 2], choice=nothing, device="cpu")  # a GPU promises no bits
    (same,) = fit_many(features, labels, seeds=[1], method=closed, device="cpu")
    assert result.head.method == "joint"
    assert torch.equal(result.head.weights, same.head.weights)
    assert result.chosen["reason"] == "told"


def test_classes_of_three_texts_are_not_trained_on():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 3)
    features = rng.normal(size=(30, 24))[labels] + 1.5 * rng.normal(size=(90, 24))
    choice = choose(features.astype(np.float32), np.stack([labels // 6, labels], 1))
    assert choice.closed_form
    said = "since no candidate is better in cross-validation on 90 training rows"
    assert choice.reason.startswith(f"{choice.closed}, {said}")
    untrained = {name: choice.scores[name] for name in ("lda", "pca", "features")}
    assert choice.closed == max(untrained, key=untrained.__getitem__)


@pytest.mark.parametrize(("gains", "better"), [((0.3, 0.1), True), ((0.01, -0.01), False), ((0.5, -0.2), False)])
def test_a_candidate_must_gain_more_than_luck_and_lose_nowhere(gains, better):
    """400 rows at two prefixes and one level; of the second, the gain is what it loses more or less often."""
    rng = np.random.default_rng(0)
    standing = torch.from_numpy((rng.random((2, 1, 400)) < 0.5).astype(np.float32))
    found = standing.clone()
    for j, gain in enumerate(gains):
        changed = torch.from_numpy(rng.random(400) < abs(gain))
        found[j, 0, changed] = float(gain > 0)
    assert _is_better(found, standing, every_cell=True) is better


def test_more_classes_take_more_epochs():
    few, many = (checked_inputs(*clusters(400, branching=(2, n)), None, torch.device("cpu")) for n in (3, 30))
    assert 3 == _epochs_for(few) < _epochs_for(many) <= 16


@pytest.mark.parametrize("short_gains", [True, False])
def test_training_is_given_up_only_after_the_whole_fit_gained_nothing_either(monkeypatch, short_gains):
    """One epoch of many rows may be behind the closed form where all epochs are far ahead."""
    monkeypatch.setattr("heads.choosing.ROWS", 100)
    inputs = checked_inputs(
        *clusters(400, dim=64, noise=3), clusters(250, dim=64, noise=3, seed=1), torch.device("cpu")
    )
    tried = []

    def train(part, head, epochs):
        tried.append(epochs)
        good = epochs > 1 or (epochs == 1 and short_gains)
        return closed_form_head("lda" if good else "features", part)[0]

    choice = choose_among(inputs, train)
    whole = _epochs_for(inputs)
    assert tried == ([0, 1] if short_gains else [0, 1, whole])
    assert (choice.head, choice.epochs) == ("mlp", whole)
    assert f"mlp, {'1 epoch' if short_gains else f'{whole} epochs'}, gains" in choice.reason


def test_of_many_rows_left_out_only_some_are_judged(monkeypatch):
    """What judges is a matrix of left-out by kept rows: of 100,000 rows it would not fit."""
    monkeypatch.setattr("heads.training.inputs.JUDGING", 20)
    assert "in cross-validation on 60 training rows" in choose(*clusters(400)).reason


def test_two_rows_per_class_are_judged_as_a_gallery_of_two_would():
    """Noise in few directions, which lda removes. Left-out rows have one row of their class to find, others two."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(140), 2)
    centres = rng.normal(size=(140, 12)) @ rng.normal(size=(12, 24)) / 12**0.5
    nuisance = 0.3 * rng.normal(size=(3, 24))

    def drawn():
        noise = 0.4 * rng.normal(size=(280, 24)) + rng.normal(size=(280, 3)) @ nuisance
        return (centres[labels] + noise).astype(np.float32)

    features, queries = drawn(), drawn()
    choice = choose(features, labels)
    right = {
        name: (knn_labels(fit_many(features, labels, seeds=[0], method=name)[0].head, features, labels, queries))
        for name in ("lda", "pca", "features")
    }
    accuracy = {name: (answers == labels).mean() for name, answers in right.items()}
    assert max(accuracy, key=accuracy.__getitem__) == "lda"
    assert choice.closed == "lda"


def test_rows_drawn_at_random_are_judged_as_new_ones_will_be():
    """Two rows per class on average, many alone: a candidate's score is near its accuracy on new rows, some unknown."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 24))[np.arange(200) // 10] + 0.7 * rng.normal(size=(200, 24))

    def drawn(rows):
        finest = rng.integers(0, 200, rows)
        features = centres[finest] + 0.5 * rng.normal(size=(rows, 24))
        return features.astype(np.float32), np.stack([finest // 10, finest], 1)

    (features, labels), (queries, asked) = drawn(400), drawn(2000)
    choice = choose(features, labels)
    for name in ("lda", "pca"):
        head = fit_many(features, labels, seeds=[0], method=name)[0].head
        found = prefix_neighbours(head.embed(queries), head.embed(features), head.scale_dim, 5)
        accuracy = float((vote(*found, labels) == asked).mean())
        assert abs(choice.scores[name] - accuracy) < 0.05, name


def knn_labels(head, features, labels, queries):
    """Labels by five neighbours on the full vector."""
    found = prefix_neighbours(head.embed(queries), head.embed(features), head.scale_dim, 5)
    return vote(*found, labels[:, None])[-1, :, 0]


def test_a_few_rows_go_through_a_candidate_at_a_time(monkeypatch):
    """The hidden layer of a million rows would take 8 GB."""
    (features, labels), validation = clusters(240), clusters(250, seed=1)
    at_once, sizes, forward = choose(features, labels, validation=validation), [], FractalHead.forward

    def noted(head, rows):
        sizes.append(len(rows))
        return forward(head, rows)

    monkeypatch.setattr(FractalHead, "forward", noted)
    monkeypatch.setattr(choosing, "_ROWS_AT_A_TIME", 100)
    assert choose(features, labels, validation=validation).scores == pytest.approx(at_once.scores, abs=0.005)
    assert set(sizes) == {100, 40, 250}


@pytest.mark.parametrize("times", [1, 3])
def test_rows_that_stand_several_times_are_not_judged_by_their_doubles(times):
    generator = np.random.default_rng(0)
    features = np.tile(generator.normal(size=(90, 24)).astype(np.float32), (times, 1))
    labels = np.tile(generator.integers(0, 5, 90), times)  # labels that nothing tells
    scores = choose(features, labels).scores
    assert all(score < 0.4 for score in scores.values())


def test_folds_part_no_text_and_are_those_of_rows_where_all_differ():
    generator = np.random.default_rng(0)
    features, labels = torch.from_numpy(generator.normal(size=(60, 8))).float(), torch.arange(60)[:, None] % 4
    doubled = torch.cat([features, features[:20]])
    seen = []
    for split in folds_of(doubled, torch.cat([labels, labels[:20]]), 3):
        kept, left_out = split.kept, split.left_out
        assert not set(map(tuple, doubled[kept].tolist())) & set(map(tuple, doubled[left_out].tolist()))
        assert sorted([*kept.tolist(), *left_out.tolist()]) == list(range(80))
        seen += left_out.tolist()
    assert sorted(seen) == list(range(80))
    same = torch.ones(40, 8)
    assert all(len(split.kept) and len(split.left_out) for split in folds_of(same, labels[:40], 5))
