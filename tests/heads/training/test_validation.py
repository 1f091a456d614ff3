"""The selection of an epoch ranks in one matrix what the search for large galleries finds: equal answers, ties too."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.knn import prefix_neighbours, vote
from heads.training import validation
from heads.training.inputs import fixed_sample
from heads.training.validation import NEIGHBOURS, accuracies


@settings(deadline=None, max_examples=80, database=None)
@given(data=st.data(), rows=st.integers(2, 40), classes=st.integers(1, 6), seed=st.integers(0, 99))
def test_accuracies_are_those_of_the_search_and_the_vote(data, rows, classes, seed):
    generator = np.random.default_rng(seed)
    # few distinct values: equal directions, equal similarities and rows of zeros are the rule
    embeddings = data.draw(st.sampled_from([1, 2, 1000])) * generator.integers(-1, 2, (rows, 4)).astype(np.float32)
    if data.draw(st.booleans()):
        embeddings += generator.normal(size=embeddings.shape).astype(np.float32)
    labels = generator.integers(0, classes, (rows, 2))
    found = prefix_neighbours(embeddings, embeddings, 4, NEIGHBOURS, exclude="same-row")
    expected = (vote(found.indices, found.similarities, labels)[0] == labels).mean(axis=0)
    got = accuracies(torch.from_numpy(embeddings), torch.from_numpy(labels))
    assert got.tolist() == expected.tolist()


def test_the_texts_that_select_are_the_same_every_time_and_a_thousand_at_most():
    assert fixed_sample(7).tolist() == list(range(7))
    assert len(fixed_sample(5000)) == 1000
    assert fixed_sample(5000).tolist() == fixed_sample(5000).tolist()


def test_queries_in_blocks_are_answered_as_at_once(monkeypatch):
    """The similarities of a million rows to 1,000 queries would take 4 GB."""
    generator = torch.Generator().manual_seed(0)
    gallery, queries = (torch.randn(n, 8, generator=generator) for n in (50, 23))
    labels, asked = (torch.randint(-1, 4, (n, 2), generator=generator) for n in (50, 23))
    whole = validation.gallery_accuracies(gallery, labels, queries, asked, (4, 8))
    shapes, zeros = [], torch.zeros

    def noted(*shape, **options):
        shapes.append(shape)
        return zeros(*shape, **options)

    monkeypatch.setattr(torch, "zeros", noted)
    monkeypatch.setattr(validation, "_CELLS", 500)
    torch.testing.assert_close(
        validation.gallery_accuracies(gallery, labels, queries, asked, (4, 8)), whole, rtol=0, atol=0, equal_nan=True
    )
    assert shapes == [(10, 50), (10, 50), (3, 50)]
    assert validation.gallery_accuracies(gallery, labels, queries[:0], asked[:0], (4, 8)).shape == (2, 2, 0)
