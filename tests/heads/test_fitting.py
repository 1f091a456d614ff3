"""`fit` and `fit_many` as called: the same bits in whatever company, the epoch kept, and what stops a fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from heads import HeadsError, fit, fit_logistic, fit_many
from heads.training.sampling import Classes
from tests.heads.conftest import clusters


@pytest.fixture
def threads():
    """Sets the library's number of threads; `one_thread` puts it back."""
    return torch.set_num_threads


def weights(results):
    return {result.seed: result.head.weights for result in results}


@pytest.mark.parametrize("method", ["v5", "joint"])
def test_a_seed_s_bits_depend_neither_on_its_company_nor_on_threads(two_levels, threads, method):
    """On a CPU, whose products one thread makes whatever their number; a GPU multiplies the seeds' weights together."""
    (features, labels), validation = two_levels
    settings = {"method": method, "epochs": 1, "batch_size": 24, "validation": validation, "device": "cpu"}
    expected = fit_many(features, labels, seeds=[5], **settings)[0].head.weights
    for count, seeds in ((2, [5]), (1, [9, 5]), (2, [5, 9, 3])):
        threads(count)
        found = weights(fit_many(features, labels, seeds=seeds, **settings))
        assert list(found) == seeds
        assert torch.get_num_threads() == count
        assert torch.equal(found[5], expected), (count, seeds)
        assert not any(torch.equal(found[seed], expected) for seed in seeds if seed != 5)


@pytest.mark.parametrize("threads_used", [1, 2])
@pytest.mark.parametrize("seeds", [[4], [4, 6, 8]])
def test_a_loss_that_is_not_finite_stops_the_fit_and_says_where(two_levels, threads, seeds, threads_used):
    (features, labels), _ = two_levels
    threads(threads_used)
    with pytest.raises(
        HeadsError, match=r"loss of mrl, seed (4|6|8), is not finite at step 2 of \d+, epoch 1"
    ) as error:
        fit_many(features, labels, method="mrl", seeds=seeds, lr=1e38)
    assert "lr" in error.value.remedy
    assert torch.get_num_threads() == threads_used


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e300, 1e30])  # the last's square is beyond float32
def test_a_feature_that_cannot_be_used_is_named_before_anything_is_trained(two_levels, broken):
    (features, labels), _ = two_levels
    features = features.astype(np.float64)
    features[17, 3] = broken
    with pytest.raises(HeadsError, match="row 17 of features"):
        fit(features, labels, method="v5", epochs=1)


@pytest.mark.parametrize("method", ["lda", "joint", "mrl"])
def test_one_row_is_refused_by_every_method(two_levels, method):
    (features, labels), _ = two_levels
    with pytest.raises(HeadsError, match="one training row") as error:
        fit(features[:1], labels[:1], method=method)
    assert "two rows" in error.value.remedy


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-126])
def test_the_length_of_features_does_not_count_however_small(two_levels, scale):
    (features, labels), (held, _) = two_levels
    small = (features * np.float32(scale)).astype(np.float32)
    assert small.any(axis=1).all()
    for method in ("lda", "mrl"):
        expected, found = (fit(rows, labels, method=method, epochs=1) for rows in (features, small))
        np.testing.assert_allclose(found.embed(held * np.float32(scale)), expected.embed(held), atol=1e-3)
    paths = [fit_logistic(rows, labels, penalties=[30.0]).predict(held) for rows in (features, small)]
    assert (paths[0] == paths[1]).mean() > 0.99


@pytest.fixture(scope="module")
def overfitted():
    """A fit whose validation is best somewhere in the middle, and what it was given."""
    (features, labels), held = (
        clusters(72, branching=(3, 3), noise=1.5),
        clusters(200, branching=(3, 3), seed=1, noise=1.5),
    )
    settings = {"method": "v5", "batch_size": 24, "lr": 2e-3, "seeds": [2]}
    (result,) = fit_many(features, labels, validation=held, epochs=8, **settings)
    return result, features, labels, held, settings


def test_the_epoch_kept_is_the_last_of_the_best_validation_score(overfitted):
    result, features, labels, _, settings = overfitted
    scores = [row["score"] for row in result.history]
    assert len(scores) - scores[::-1].index(max(scores)) == result.best_epoch
    assert 1 <= result.best_epoch < len(scores)
    (until,) = fit_many(features, labels, epochs=result.best_epoch, **settings)  # keeps its last epoch
    assert torch.equal(result.head.weights, until.head.weights)


def test_of_epochs_that_score_alike_the_later_is_kept():
    data = clusters(216, branching=(3, 3), noise=0.01)
    (result,) = fit_many(*data, seeds=[1], method="mrl", validation=data, epochs=3)
    assert [row["score"] for row in result.history] == [2.0] * 3
    assert result.best_epoch == 3


def test_fewer_validation_texts_than_can_tell_select_nothing(overfitted):
    result, features, labels, (held, held_labels), settings = overfitted
    (few,) = fit_many(features, labels, validation=(held[:199], held_labels[:199]), epochs=8, **settings)
    assert few.best_epoch == 8 != result.best_epoch
    assert None not in [row["score"] for row in few.history]


def test_a_score_is_leave_one_out_accuracy_of_level_0_and_the_finest_on_the_full_vector(overfitted):
    from sklearn.neighbors import KNeighborsClassifier

    result, _, _, (held, held_labels), _ = overfitted
    vectors = result.head.embed(held)
    right = np.zeros(2)
    for i in range(len(vectors)):
        others = np.arange(len(vectors)) != i
        for level in (0, 1):
            near = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
            distances, rows = near.fit(vectors[others], held_labels[others, level]).kneighbors(vectors[i : i + 1])
            votes = held_labels[others, level][rows[0]]
            tally = [(votes == c) @ np.array([1.0] * 5) + (votes == c) @ (1 - distances[0]) / 1e3 for c in range(9)]
            right[level] += np.argmax(tally) == held_labels[i, level]
    row = result.history[result.best_epoch - 1]
    assert [row["accuracy_0"], row["accuracy_1"]] == pytest.approx(right / len(vectors))
    assert row["score"] == pytest.approx(right.sum() / len(vectors))


def test_history_has_a_row_an_epoch(overfitted):
    result = overfitted[0]
    assert [row["epoch"] for row in result.history] == list(range(1, 9))
    for row in result.history:
        assert list(row) == ["epoch", "loss", "lr", "score", "accuracy_0", "accuracy_1"]
        assert row["lr"] == pytest.approx(2e-3)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_without_validation_the_last_epoch_is_kept_and_a_cycle_s_rate_is_in_the_history(three_levels):
    (features, labels), _ = three_levels
    (result,) = fit_many(features, labels, seeds=[1], method="v5", epochs=3, lr=1e-3, schedule="one-cycle")
    assert result.best_epoch == 3
    assert [row["score"] for row in result.history] == [None] * 3
    assert [row["accuracy_2"] for row in result.history] == [None] * 3
    rates = [row["lr"] for row in result.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-3 / 250_000, rel=1e-3)


def test_a_schedule_changes_what_is_trained_and_an_unknown_one_is_refused(two_levels):
    (features, labels), _ = two_levels
    default, constant, cycle = (
        fit(features, labels, method="mrl", epochs=1, schedule=schedule).weights
        for schedule in (None, "constant", "one-cycle")
    )
    assert torch.equal(default, constant)
    assert not torch.equal(default, cycle)
    with pytest.raises(HeadsError, match="'step'") as error:
        fit(features, labels, schedule="step")
    assert "one-cycle" in error.value.remedy


def test_progress_is_told_in_the_caller_s_thread_and_ends_at_the_last_step(two_levels, threads):
    (features, labels), _ = two_levels
    threads(2)
    told = []
    fit_many(
        features,
        labels,
        seeds=[1, 2, 3],
        method="mrl",
        epochs=2,
        progress=lambda p: told.append((p.epoch, p.step, p.steps, threading.current_thread())),
    )
    assert {thread for *_, thread in told} == {threading.main_thread()}
    places = [(epoch, step) for epoch, step, *_ in told]
    assert places == sorted(set(places))
    assert places[-1] == (2, told[-1][2])


def test_an_interrupted_progress_stops_every_seed(two_levels, threads):
    (features, labels), _ = two_levels
    threads(2)

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_many(features, labels, seeds=[1, 2, 3], method="mrl", epochs=10_000, progress=interrupt)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_the_last_step_of_an_epoch_breaks_are_not_a_head(validated):
    data = clusters(40, branching=(2, 2))
    with pytest.raises(HeadsError, match="weights of v5, seed 3, are not finite after epoch 1"):
        fit_many(
            *data, seeds=[3], validation=data if validated else None, lr=1e38, epochs=1, batch_size=40, method="v5"
        )


@pytest.mark.parametrize("method", ["v5", "mrl", "joint"])
def test_complete_labels_train_the_same_bits_as_without_masks_for_missing_ones(method, monkeypatch):
    data = clusters(60, branching=(2, 2, 2))
    settings = {"method": method, "seeds": [3], "epochs": 1, "batch_size": 20, "head": "linear"}
    whole = fit_many(*data, **settings)[0]
    made = Classes.__init__

    def masked(self, *arguments, **named):
        made(self, *arguments, **named)
        self.complete = False

    monkeypatch.setattr(Classes, "__init__", masked)
    again = fit_many(*data, **settings)[0]
    assert torch.equal(whole.head.weights, again.head.weights)


@pytest.mark.parametrize("method", ["v5", "mrl"])
def test_features_that_mostly_point_one_way_are_centred_and_the_head_keeps_the_centre(two_levels, method):
    """As those of a decoder's inner layers do; features that point everywhere are taken as they are."""
    from sklearn.neighbors import KNeighborsClassifier

    def accuracy(shift):
        (train, train_labels), (test, test_labels) = two_levels
        result = fit_many(train + shift, train_labels, seeds=[1], method=method, epochs=8, lr=1e-3, device="cpu")[0]
        head, chosen = result.head, result.chosen
        voters = KNeighborsClassifier(1).fit(head.embed(train + shift), train_labels[:, -1])
        return head.centre, chosen, voters.score(head.embed(test + shift), test_labels[:, -1])

    rows = two_levels[0][0]
    shift = np.zeros(rows.shape[1], np.float32)
    shift[0] = 20 * np.linalg.norm(rows, axis=1).mean()
    nothing, not_chosen, plain = accuracy(0 * shift)
    centre, chosen, shifted = accuracy(shift)
    units = (rows + shift) / np.linalg.norm(rows + shift, axis=1, keepdims=True)
    assert nothing is None
    assert not not_chosen
    assert np.allclose(centre, units.mean(axis=0), atol=1e-6)
    assert chosen["centred"]
    assert shifted > plain - 0.05


def test_seeds_of_numpy_are_seeds_and_one_number_is_no_list(two_levels):
    (features, labels), _ = two_levels
    results = fit_many(features, labels, seeds=np.array([5, 9]), method="mrl", epochs=1)
    assert [result.seed for result in results] == [5, 9]
    assert all(type(result.seed) is int for result in results)
    with pytest.raises(HeadsError, match="seeds is 3"):
        fit_many(features, labels, seeds=3, method="mrl", epochs=1)


def test_validation_that_is_no_pair_is_refused(two_levels):
    (features, labels), _ = two_levels
    for given in ((features,), features, (features, labels, labels), "both"):
        with pytest.raises(HeadsError, match="validation is no pair") as error:
            fit_many(features, labels, seeds=[1], method="mrl", epochs=1, validation=given)
        assert error.value.remedy
