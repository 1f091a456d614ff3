"""Closed-form heads: scikit-learn's discriminants, nested prefixes, one pass, and what is chosen from the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heads import fit, fit_many, load, save
from heads.closed_form import discriminants, linear_map, with_shrinkage
from heads.training.inputs import checked_inputs, part_of_inputs
from heads.training.scatter import scatter_of
from tests.heads.conftest import clusters

METHODS = ("lda", "pca", "features")


def scatter(features, labels):
    return scatter_of(torch.from_numpy(features), torch.from_numpy(labels), tuple(labels.max(axis=0) + 1))


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.3, 0.9]))
@settings(max_examples=10, deadline=None)
def test_one_level_gives_scikit_learns_discriminants(seed, shrinkage):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels = clusters(200, branching=(7,), seed=seed)
    found = discriminants(scatter(features, labels), shrinkage, 6).numpy()
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(features.astype(float), labels[:, 0])
    for ours, other in zip(found.T, theirs.scalings_[:, :6].T, strict=True):
        assert abs(ours @ other) / np.linalg.norm(ours) / np.linalg.norm(other) == pytest.approx(1, abs=1e-7)


def test_a_scatter_is_what_slow_sums_give_and_subtracts():
    features, labels = clusters(90)
    labels[::4, 2], labels[::8, 1] = -1, -1
    whole, part = scatter(features, labels), slice(0, 30)
    counts = tuple(labels.max(axis=0) + 1)
    kept = whole.minus(scatter_of(torch.from_numpy(features[part]), torch.from_numpy(labels[part]), counts))
    for found, rows, own in ((whole, features, labels), (kept, features[30:], labels[30:])):
        rows = rows.astype(float)
        within, between = np.zeros((16, 16)), np.zeros((16, 16))
        for row, path in zip(rows, own, strict=True):
            same = (own == path).all(axis=1)
            gap = row - rows[same].mean(axis=0)
            within += np.outer(gap, gap) / len(rows)
        for level in range(3):
            known = own[:, level] >= 0
            for row_label in own[known, level]:
                gap = rows[own[:, level] == row_label].mean(axis=0) - rows[known].mean(axis=0)
                between += np.outer(gap, gap) / known.sum()
        np.testing.assert_allclose(found.within, within, atol=1e-8)
        np.testing.assert_allclose(found.between, between, atol=1e-8)


def test_sums_go_along_with_their_rows_and_with_no_others(monkeypatch):
    features, labels = clusters(120)
    inputs = checked_inputs(features, labels, None, torch.device("cpu"))
    settled = with_shrinkage(inputs)
    kept, held = torch.arange(0, 90), torch.arange(90, 120)
    alone = part_of_inputs(replace(inputs, shrinkage=settled.shrinkage), kept, held)
    found = linear_map("lda", part_of_inputs(settled, kept, held), 64)
    assert torch.equal(found.weight, linear_map("lda", alone, 64).weight)
    expected = linear_map("lda", replace(settled, scatter=None), 64)
    monkeypatch.setattr("heads.closed_form.scatter_of", None)  # the rows are not summed again
    assert torch.equal(linear_map("lda", settled, 64).weight, expected.weight)


@pytest.mark.parametrize("missing", [0, 0.3])
@pytest.mark.parametrize("method", ["lda", "pca"])
def test_of_fewer_rows_than_dimensions_nothing_is_left_to_rounding(method, missing):
    """Turned features are the same features: directions chosen by rounding gave other neighbours for each turn."""
    generator = np.random.default_rng(0)
    features, labels = clusters(40, branching=(3, 3), noise=1.0, dim=48)
    labels[generator.random(len(labels)) < missing, 1] = -1
    new = clusters(30, branching=(3, 3), noise=1.0, dim=48, seed=5)[0]
    turn = np.linalg.qr(generator.standard_normal((48, 48)))[0]
    cosines = []
    for rows, queries in ((features, new), ((features @ turn), (new @ turn))):
        head = fit_many(rows, labels, seeds=[0], method=method)[0].head
        cosines.append(head.embed(queries) @ head.embed(rows).T)
    np.testing.assert_allclose(cosines[0], cosines[1], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_shorter_embedding_is_the_beginning_of_a_longer_one(three_levels, method):
    (features, labels), (held, _) = three_levels
    head = fit(features, labels, method=method)
    full = head.embed(held)
    for dim in head.dims:
        cut = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(head.embed(held, dim), cut, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_there_is_one_head_whatever_the_seeds_and_it_is_saved_like_any(three_levels, tmp_path, method):
    (features, labels), (held, held_labels) = three_levels
    (result,) = fit_many(features, labels, seeds=[3, 4], method=method)
    assert (result.seed, result.best_epoch) == (0, 0)
    assert result.chosen["reason"]
    save(result.head, tmp_path, {})
    loaded = load(tmp_path)
    assert np.array_equal(loaded.embed(held), result.head.embed(held))
    fine = loaded.classify(held)[-1].argmax(axis=1)
    assert (fine == held_labels[:, -1]).mean() > 0.5  # twelve classes


def test_pca_is_scikit_learns():
    from sklearn.decomposition import PCA

    features, labels = clusters(300)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    ours = fit(features, labels, method="pca").embed(features)[:, :16]
    theirs = PCA(16).fit_transform(units.astype(float))
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)


def test_dimensions_beyond_the_discriminants_hold_principal_components_of_the_rest():
    features, labels = clusters(400, dim=24, branching=(4,))
    found = discriminants(scatter(features, labels), 0.1, 20).numpy()
    leading, rest = found[:, :3], found[:, 3:]
    assert np.abs(leading.T @ rest).max() < 1e-8 * np.abs(leading).max() * np.abs(rest).max() * 24
    assert np.linalg.matrix_rank(found) == 20


def test_rows_without_finer_labels_take_part_where_they_have_labels(three_levels):
    (features, labels), (held, held_labels) = three_levels
    short = labels.copy()
    short[::3, 2] = -1
    head = fit(features, short, method="lda")
    coarse = head.classify(held)[0].argmax(axis=1)
    assert (coarse == held_labels[:, 0]).mean() > 0.6
