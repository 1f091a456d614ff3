"""A decoder's work between its matrix products on a GPU: four Triton kernels, each one pass over memory.

Three are the functions of `cache.model.native.ops` in one read and one write, computed in float32 whatever they read
and write; the rotation overwrites its input. The fourth is attention over a trie: a program takes a tile of queries,
for two heads that share their keys, walks the list of key blocks that the tile can see
(`cache.batching.block_mask.block_lists`) and needs one comparison for its mask. Shapes of batches are arguments, not
constants: nothing is padded, nothing compiled anew, and what is compiled (seconds, once a machine) Triton keeps on
disk. The alternative, FlexAttention and torch.compile, was measured first: one size of batch, 12 s of compilation, and
a tenth slower.
"""
# Triton's language is Python by its letters only: no annotations, no types
# ruff: noqa: ANN001, ANN202
# mypy: ignore-errors

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import torch

from cache.batching.block_mask import KEY_BLOCK, QUERY_BLOCK
from cache.model.native.ops import Kernels

if TYPE_CHECKING:
    from torch import Tensor

triton = importlib.import_module("triton")
tl = importlib.import_module("triton.language")
constexpr = tl.constexpr

_LOG2_E = 1.4426950408889634
_GATE_WIDTH = 1024


@triton.jit
def _rms_norm(states, weight, out, eps, WIDTH: constexpr, PADDED: constexpr):
    column = tl.arange(0, PADDED)
    at = tl.program_id(0).to(tl.int64) * WIDTH + column
    inside = column < WIDTH
    x = tl.load(states + at, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps) * w
    tl.store(out + at, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(
    joint, cos, sin, norms, eps, ROW: constexpr, HEADS: constexpr, PADDED: constexpr, HALF: constexpr, NORM: constexpr
):
    node = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, PADDED)[:, None]
    dim = tl.arange(0, HALF)[None, :]
    first = joint + node * ROW + head * (2 * HALF) + dim
    inside = (head < HEADS) & (dim >= 0)
    a = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(first + HALF, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + eps)[:, None]
        weight = norms + head * (2 * HALF) + dim
        a = a * scale * tl.load(weight, mask=inside, other=0.0).to(tl.float32)
        b = b * scale * tl.load(weight + HALF, mask=inside, other=0.0).to(tl.float32)
    table = node * (2 * HALF) + dim
    c = tl.load(cos + table)
    s = tl.load(sin + table + HALF)
    tl.store(first, (a * c - b * s).to(joint.dtype.element_ty), mask=inside)
    tl.store(first + HALF, (b * c + a * s).to(joint.dtype.element_ty), mask=inside)


@triton.jit
def _gate(both, out, WIDTH: constexpr, BLOCK: constexpr):
    node = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    first = tl.load(both + node * 2 * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(both + node * 2 * WIDTH + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    value = first / (1.0 + tl.exp(-first)) * second
    tl.store(out + node * WIDTH + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _walk(
    acc, peak, total, q, node, keys, values, ends, depths, starts, blocks, tile, nodes, scale, window,
    ROW: constexpr, DIM: constexpr, KEYS: constexpr, MASKED: constexpr, WINDOWED: constexpr,
):  # fmt: skip
    """Add the key blocks of one list to a tile's running softmax."""
    dim = tl.arange(0, DIM)
    last = tl.load(starts + tile + 1)
    for i in range(tl.load(starts + tile), last):
        key = tl.load(blocks + i) * KEYS + tl.arange(0, KEYS)
        inside = key < nodes
        at = key * ROW
        k = tl.load(keys + at[None, :] + dim[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(q, k) * scale
        if MASKED:
            end = tl.load(ends + key, mask=inside, other=0)
            seen = (key[None, :] <= node[:, None]) & (node[:, None] < end[None, :])
            if WINDOWED:
                depth = tl.load(depths + node, mask=node < nodes, other=0)
                near = depth[:, None] - tl.load(depths + key, mask=inside, other=0)[None, :]
                seen = seen & (near < window)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen nothing yet
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(peak - base)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(values + at[:, None] + dim[None, :], mask=inside[:, None], other=0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
        peak = higher
    return acc, peak, total


@triton.jit(do_not_specialize=["nodes", "window"])  # a number of nodes that 16 divides is no reason to compile anew
def _attend(
    joint, out, ends, depths, starts, blocks, full_starts, full_blocks, nodes, scale, window,
    HEADS: constexpr, KV_HEADS: constexpr, DIM: constexpr, FOLD: constexpr, QUERIES: constexpr, KEYS: constexpr,
    WINDOWED: constexpr,
):  # fmt: skip
    tile, group = tl.program_id(0), tl.program_id(1)
    kv_head = group // (HEADS // KV_HEADS // FOLD)
    row_of = tl.arange(0, FOLD * QUERIES)
    node = tile * QUERIES + row_of % QUERIES
    head = group * FOLD + row_of // QUERIES
    dim = tl.arange(0, DIM)
    inside = (node < nodes)[:, None]
    width: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    at = node.to(tl.int64) * width + head * DIM
    q = tl.load(joint + at[:, None] + dim[None, :], mask=inside, other=0.0)
    keys = joint + (HEADS + kv_head) * DIM
    values = keys + KV_HEADS * DIM
    acc = tl.zeros([FOLD * QUERIES, DIM], tl.float32)
    peak = tl.full([FOLD * QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([FOLD * QUERIES], tl.float32)
    acc, peak, total = _walk(
        acc, peak, total, q, node, keys, values, ends, depths, starts, blocks, tile, nodes, scale, window,
        width, DIM, KEYS, True, WINDOWED,
    )  # fmt: skip
    acc, peak, total = _walk(
        acc, peak, total, q, node, keys, values, ends, depths, full_starts, full_blocks, tile, nodes, scale, window,
        width, DIM, KEYS, False, False,
    )  # fmt: skip
    at = node.to(tl.int64) * (HEADS * DIM) + head * DIM
    tl.store(out + at[:, None] + dim[None, :], (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)


class FusedKernels(Kernels):
    """The same in Triton's kernels."""

    def rms_norm(self, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return states [nodes, H] normalised."""
        nodes, width = states.shape
        out = torch.empty_like(states)
        _rms_norm[nodes,](states, weight, out, eps, width, triton.next_power_of_2(width), num_warps=4)
        return out

    def gate(self, both: Tensor) -> Tensor:
        """Return silu(first half) * second half of [nodes, 2 * width]."""
        nodes, width = both.shape[0], both.shape[1] // 2
        out = both.new_empty(nodes, width)
        _gate[nodes, triton.cdiv(width, _GATE_WIDTH)](both, out, width, _GATE_WIDTH, num_warps=4)
        return out

    def attend(
        self,
        joint: Tensor,
        heads: tuple[int, int],
        rotary: tuple[Tensor, Tensor],
        norms: Tensor | None,
        eps: float,
        plan: dict[str, Tensor],
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Rotate query and key heads of `joint` in place and attend; `plan` is what `HostTrie.on` gives."""
        query_heads, kv_heads = heads
        nodes, dim = len(joint), joint.shape[1] // (query_heads + 2 * kv_heads)
        turned = query_heads + kv_heads
        _rotate[nodes,](
            joint, *rotary, joint if norms is None else norms, eps, joint.shape[1], turned,
            triton.next_power_of_2(turned), dim // 2, norms is not None, num_warps=4,
        )  # fmt: skip
        out = joint.new_empty(nodes, query_heads * dim)
        fold = 2 if (query_heads // kv_heads) % 2 == 0 else 1
        grid = (triton.cdiv(nodes, QUERY_BLOCK), query_heads // fold)
        lists = ("ends", "positions", "starts", "blocks", "full_starts", "full_blocks")
        _attend[grid](
            joint, out, *(plan[name] for name in lists),
            nodes, scale * _LOG2_E, window or 0, query_heads, kv_heads, dim, fold, QUERY_BLOCK, KEY_BLOCK,
            window is not None, num_warps=4, num_stages=3,
        )  # fmt: skip
        return out
