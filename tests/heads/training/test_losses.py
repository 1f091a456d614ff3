"""Every loss and its gradient against loops over samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.training import losses
from tests.heads import reference

CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def vectors(rows, dim=12, seed=0):
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def leaf(tensor):
    return tensor.clone().requires_grad_()


def check(found, expected, *sources):
    """Compare a loss, and its gradient by what it was computed from, with a slow one."""
    own = torch.autograd.grad(found, sources, retain_graph=True, materialize_grads=True)
    slow = torch.autograd.grad(expected, sources, materialize_grads=True) if expected.requires_grad else None
    torch.testing.assert_close(found, expected, check_dtype=False, **CLOSE)
    for one, gradient in zip(own, slow or map(torch.zeros_like, sources), strict=True):
        torch.testing.assert_close(one, gradient, **CLOSE)


def test_contrast_is_info_nce_in_one_direction():
    a, p = leaf(reference.unit(vectors(7))), leaf(reference.unit(vectors(7, seed=1)))
    check(losses.contrast(a @ p.T, torch.ones(1)), reference.info_nce(a, p, [0] * 7), a, p)


def margin_weights(labels):
    """Weights of positives and negatives as means, [B, B] both."""
    same = labels[:, None] == labels[None]
    negatives = (~same).double()
    counts = negatives.sum(1, keepdim=True)
    positives = (same & ~torch.eye(len(labels), dtype=torch.bool) & (counts > 0)).double()
    return positives / positives.sum().clamp(min=1), negatives / counts.clamp(min=1)


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_margin_equals_loops_whatever_the_labels(labels, seed):
    labels = torch.tensor(labels)
    a = leaf(reference.unit(vectors(len(labels), dim=5, seed=seed)))
    positives, negatives = margin_weights(labels)
    similarities = a @ a.T
    found = losses.margin(similarities[None, None], positives[None, None], negatives[None, None])
    check(found[0], reference.margin(a, labels), a)

    anchors, others = positives.nonzero(as_tuple=True)
    coefficients = positives[anchors, others][:, None] * negatives[anchors]
    found = losses.margin_of_pairs(similarities, anchors, anchors * len(labels) + others, coefficients)
    check(found, reference.margin(a, labels), a)


def test_classification_is_cross_entropy_where_a_label_is_known():
    logits, labels = leaf(vectors(6, 4)), torch.tensor([0, 3, -1, 1, 2, 0])
    found = losses.classification(logits[None], labels[None])
    assert found[0, 2] == 0
    check(found.mean(), reference.cross_entropy(lambda rows: rows, logits, labels), logits)


@pytest.mark.parametrize("itself", [True, False])
def test_prefix_cosines_are_those_of_cut_vectors(itself):
    left, right = leaf(vectors(5)), leaf(vectors(3, seed=1))
    other = left if itself else right
    upstream = torch.randn(4, 5, len(other), dtype=torch.float64)
    expected = torch.stack([reference.unit(left[:, :dim]) @ reference.unit(other[:, :dim]).T for dim in (3, 6, 9, 12)])
    found = losses.prefix_cosines(left[None], other[None], 4, 0.1)
    torch.testing.assert_close(found[0], expected / 0.1, **CLOSE)
    check((found[0] * upstream).sum(), (expected / 0.1 * upstream).sum(), left, right)
