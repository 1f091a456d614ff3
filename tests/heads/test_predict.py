"""Labels that are always a path of the tree, against a slow walk over all paths."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from heads import HeadsError, fit, load, save
from tests.heads.conftest import clusters


@pytest.mark.parametrize("ended", [None, 2, 1])
@pytest.mark.parametrize("method", ["v5", "mrl", "joint", "lda"])
def test_the_best_path_is_what_a_walk_over_all_paths_finds(three_levels, method, ended):
    (features, labels), (held, _) = three_levels
    if ended:  # classes without children
        labels = labels.copy()
        labels[labels[:, 0] == 2, ended:] = -1
    head = fit(features, labels, method=method, epochs=2, batch_size=24)
    found = head.predict(held, 128)
    np.testing.assert_array_equal(head.decode(held, 128), found.labels)
    columns = head.classify(held, 128)
    paths = sorted({tuple(path) for path in labels.tolist()})
    for row in range(len(held)):
        scores = []
        for path in paths:
            total, last = 0.0, -np.inf
            for level in (level for level in range(3) if head.labelling.supervised[level]):
                last = np.log(columns[level][row, path[level]]) if path[level] >= 0 else last
                total += last
            scores.append(total)
        odds = np.exp(scores - np.max(scores))
        odds /= odds.sum()
        best = paths[int(np.argmax(odds))]
        assert tuple(found.labels[row]) == best
        for level in range(3):
            through = sum(odd for odd, path in zip(odds, paths, strict=True) if path[level] == best[level])
            expected = through if best[level] >= 0 else np.nan
            assert found.probability[row, level] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_labels_come_back_as_they_were_given(tmp_path):
    features, labels = clusters(240)
    words = np.array([["abc"[a], f"b{b}", f"c{c:02}"] for a, b, c in labels.tolist()], dtype=object)
    words[::5, 2] = None
    huge = np.where(words == None, -1, 0) + labels * 10**9  # noqa: E711
    huge[words == None] = -1  # noqa: E711
    by_word, by_number = (fit(features, given, method="lda", device="cpu") for given in (words, huge))
    assert torch.equal(by_word.weights, by_number.weights)
    save(by_word, tmp_path, {})
    answers = load(tmp_path).predict(features).labels
    np.testing.assert_array_equal(load(tmp_path).decode(features), answers)
    assert set(answers[:, 0]) <= {"a", "b", "c"}
    numbers = by_number.predict(features).labels
    assert (numbers[:, 0] == labels[:, 0] * 10**9).mean() > 0.6


def test_missing_labels_are_missing_however_they_are_written():
    features, labels = clusters(240)
    deep = labels[:, 2].astype(float)
    deep[::5] = np.nan
    whole = np.where(np.isnan(deep), -1, deep).astype(int)
    areas = labels[:, 0]
    words = [f"c{c}" for c in whole]
    expected = fit(features, np.stack([areas, whole], 1), method="lda").weights
    for given in (
        np.stack([areas.astype(float), deep], 1),
        pd.DataFrame({"a": areas, "c": pd.array(np.where(whole < 0, None, whole), dtype="Int64")}),
        zip(areas, deep, strict=True),
        [[str(a), float("nan") if c < 0 else words[n]] for n, (a, c) in enumerate(zip(areas, whole, strict=True))],
        np.array([[str(a), pd.NA if c < 0 else int(c)] for a, c in zip(areas, whole, strict=True)], object),
    ):
        head = fit(features, given, method="lda")
        assert head.weights.shape == expected.shape
        assert head.shape.classes == (len(set(areas)), len(set(whole)) - 1)
    with pytest.raises(HeadsError, match="rows of different lengths"):
        fit(features, [[0, 1]] * 239 + [[0]], method="lda")
    with pytest.raises(HeadsError, match="dtype float64"):
        fit(features, labels + 0.5, method="lda")


def test_ordinary_inputs_and_copies(two_levels):
    (features, labels), (held, _) = two_levels
    rows = torch.from_numpy(features)
    head = fit(rows.requires_grad_(), torch.from_numpy(labels), method="v5", epochs=1, device=torch.device("cpu"))
    expected = head.embed(held)
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert np.array_equal(copied.embed(torch.from_numpy(held)), expected)
    half = copy.deepcopy(head).half().embed(torch.from_numpy(held).bfloat16())
    assert np.isfinite(half).all()
    assert np.abs(half - expected).max() < 0.05


def test_a_head_whose_weights_are_no_numbers_is_named(two_levels):
    (features, labels), (held, _) = two_levels
    head = fit(features, labels, method="v5", epochs=1)
    head.record["id"] = "abc123"
    head.weights[0] = float("nan")
    for ask in (head.embed, head.classify, head.predict):
        with pytest.raises(HeadsError, match=r"v5 head .* of run abc123"):
            ask(held)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
        ({"lr": "1e-3"}, "lr is '1e-3'"),
        ({"seed": "a"}, "seed 'a'"),
        ({"seed": 1.0}, "seed 1.0"),
        ({"classes": [3, 10**9]}, r"classes are \[3, 1000000000\]"),
    ],
)
def test_settings_of_another_kind_are_named(two_levels, settings, problem):
    (features, labels), _ = two_levels
    with pytest.raises(HeadsError, match=problem):
        fit(features, labels, **{"method": "v5", "epochs": 1, **settings})


def test_whole_numbers_of_numpy_are_whole_numbers(two_levels):
    (features, labels), (held, _) = two_levels
    plain = fit(features, labels, method="v5", epochs=1, seed=3, batch_size=16)
    same = fit(features, labels, method="v5", epochs=np.int64(1), seed=np.int32(3), batch_size=np.int16(16))
    assert np.array_equal(plain.embed(held, dim=64), same.embed(held, dim=np.int64(64)))
    with pytest.raises(HeadsError, match=r"dim is 64\.0"):
        plain.embed(held, dim=64.0)


def test_masked_values_are_not_taken_for_numbers(two_levels):
    (features, labels), _ = two_levels
    with pytest.raises(HeadsError, match="features have masked values"):
        fit(np.ma.array(features, mask=features > 0.5), labels, method="v5", epochs=1)
