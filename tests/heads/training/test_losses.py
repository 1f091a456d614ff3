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


def test_contrast_is_info_nce_in_one_direction():
    a, p = leaf(reference.unit(vectors(7))), reference.unit(vectors(7, seed=1))
    expected = reference.info_nce(a, p, [0] * 7)
    expected.backward()
    loss, gradient = losses.contrast((a.detach() @ p.T)[None], torch.ones(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(loss[0], expected.detach(), **CLOSE)
    torch.testing.assert_close(gradient[0] @ p, a.grad, **CLOSE)


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
    expected = reference.margin(a, labels)
    if expected.requires_grad:
        expected.backward()
    gradient = torch.zeros_like(a) if a.grad is None else a.grad
    positives, negatives = margin_weights(labels)
    similarities = a.detach() @ a.detach().T

    loss, by = losses.margin(similarities[None], positives[None], negatives[None])
    torch.testing.assert_close(loss[0], expected.detach(), **CLOSE)
    torch.testing.assert_close((by[0] + by[0].T) @ a.detach(), gradient, **CLOSE)

    anchors, others = positives.nonzero(as_tuple=True)
    coefficients = positives[anchors, others][:, None] * negatives[anchors]
    loss, by = losses.margin_of_pairs(similarities, anchors, anchors * len(labels) + others, coefficients)
    torch.testing.assert_close(loss, expected.detach(), **CLOSE)
    torch.testing.assert_close((by + by.T) @ a.detach(), gradient, **CLOSE)


def test_classification_is_weighted_cross_entropy():
    logits, labels, weights = leaf(vectors(6, 4)), torch.tensor([0, 3, 1, 1, 2, 0]), torch.rand(6).double()
    expected = (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    expected.backward()
    loss, gradient = losses.classification(logits.detach()[None], labels[None], weights[None])
    torch.testing.assert_close(loss[0], expected.detach(), **CLOSE)
    torch.testing.assert_close(gradient[0], logits.grad, **CLOSE)


def test_normalising_and_its_gradient_leave_a_zero_vector_alone():
    x = leaf(vectors(4))
    upstream = vectors(4, seed=1)
    (reference.unit(x) * upstream).sum().backward()
    units, inverse = losses.normalise(x.detach())
    torch.testing.assert_close(units, reference.unit(x).detach())
    torch.testing.assert_close(losses.normalise_backward(units, inverse, upstream), x.grad, **CLOSE)
    assert losses.normalise(torch.zeros(2, 3))[0].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("itself", [True, False])
def test_prefix_cosines_and_their_gradient(itself):
    left, right = leaf(vectors(5)), leaf(vectors(3, seed=1))
    other = left if itself else right
    upstream = torch.randn(4, 5, len(other), dtype=torch.float64)
    expected = torch.stack(
        [reference.unit(left[:, : 3 * j]) @ reference.unit(other[:, : 3 * j]).T for j in range(1, 5)]
    )
    (expected * upstream).sum().backward()

    def blocks(tensor):
        return tensor.detach().view(len(tensor), 4, 3).permute(1, 0, 2)[None]

    def whole(tensor):
        return tensor[0].permute(1, 0, 2).flatten(1)

    found = losses.prefix_cosines(blocks(left), blocks(other), 0.1)
    torch.testing.assert_close(found.scores[0], expected.detach() / 0.1, **CLOSE)
    by_scores = 0.1 * upstream[None]
    by_left, by_right = losses.prefix_cosines_backward(blocks(left), blocks(other), found, by_scores, 0.1)
    torch.testing.assert_close(whole(by_left + by_right if itself else by_left), left.grad, **CLOSE)
    if not itself:
        torch.testing.assert_close(whole(by_right), right.grad, **CLOSE)
