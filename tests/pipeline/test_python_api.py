"""The functions of the packages `cache` and `heads` from Python, on real MiniLM weights."""

import numpy as np
import pytest

from cache import embed
from heads import HeadsError, fit, load, save
from tests.pipeline.small_dataset import rows

DOMAINS = sorted({row[1] for row in rows()})
INTENTS = sorted({row[2] for row in rows()})


@pytest.fixture(scope="module")
def labelled():
    texts = [row[0] for row in rows()]
    labels = np.array([(DOMAINS.index(row[1]), INTENTS.index(row[2])) for row in rows()])
    train = np.array([row[3] == "train" for row in rows()])
    return texts, labels, train


@pytest.fixture(scope="module")
def features(labelled, tmp_path_factory):
    texts, _, _ = labelled
    store = tmp_path_factory.mktemp("store") / "features"
    first = embed(texts, backbone="minilm", store=store)
    shards = sorted(store.glob("*/*.h5"))
    again = embed(texts, backbone="minilm", store=store)
    assert sorted(store.glob("*/*.h5")) == shards  # the second call computed nothing
    assert np.array_equal(first, again)
    return first


def test_embed_gives_one_row_a_text_in_order(labelled, features):
    texts, _, _ = labelled
    assert features.shape == (len(texts), 384)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("method", ["v5", "mrl", "joint"])
def test_fit_embed_and_load(labelled, features, tmp_path, method):
    _, labels, train = labelled
    head = fit(features[train], labels[train], method=method, validation=(features[~train], labels[~train]), epochs=3)
    full = head.embed(features)
    for dim in (64, 128, 192, 256):
        prefix = head.embed(features, dim=dim)
        cut = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        assert prefix.shape == (len(features), dim)
        np.testing.assert_allclose(prefix, cut, atol=2e-6)
    save(head, tmp_path, {"note": "kept"})
    loaded = load(tmp_path)
    assert loaded.record["note"] == "kept"
    assert np.array_equal(loaded.embed(features), full)
    for probabilities, again in zip(head.classify(features, dim=64), loaded.classify(features, dim=64), strict=True):
        assert np.array_equal(probabilities, again)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_seed_gives_the_same_bits_again_and_another_seed_others(labelled, features):
    _, labels, train = labelled
    one, same, other = (
        fit(features[train], labels[train], method="mrl", epochs=1, seed=seed).embed(features) for seed in (7, 7, 8)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_features_of_another_width_are_refused(labelled, features):
    _, labels, train = labelled
    head = fit(features[train], labels[train], method="mrl", epochs=1)
    with pytest.raises(HeadsError, match="384"):
        head.embed(features[:, :100])
    with pytest.raises(HeadsError):
        fit(np.full((10, 4), np.nan, np.float32), labels[:10], method="mrl")
