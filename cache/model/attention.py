"""Attention over packed texts, run inside transformers' own models through their attention interface.

A model loaded with `attn_implementation=INTERFACE` hands query, key and value of the one long packed sequence to
`attend`, which asks the attention plan of the batch. Three plans, none of which builds a nodes x nodes mask:

- `Runs`: bidirectional texts, sorted by length, as runs of equal length: a run is a rectangle without padding, so that
  the fastest kernel runs unmasked and a text cannot see another at all.
- `Blocks`: a trie, eagerly: blocks of queries against the blocks of keys that they can see, grouped by how many these
  are, with one mask per block pair.
- `Chain`: one text alone, plainly causal.

On a GPU the native layers attend to a trie in a fused kernel instead (`cache.model.native.triton_ops`).

The alternative for tries, a dense mask, costs 2 GB at 32,768 nodes and computes a hundred times what is visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cache.batching.block_mask import block_lists, padded_ends, visible_blocks

INTERFACE = "packed_texts"
_BLOCK = 64  # nodes
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


class Plan(Protocol):
    """Who sees whom in one packed sequence."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Return the attention output [1, nodes, heads, dim] of query, key, value [1, heads, nodes, dim]."""


class CannotPack(Exception):
    """A backbone's attention has a term that the plans do not compute; the padded path does."""


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: Any = None,
    plan: Plan | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Answer transformers' attention interface from the batch's plan.

    :raises CannotPack: the model did not pass the plan on, or asks for a term that no plan computes.
    """
    if plan is None or any(rest.get(name) is not None for name in _UNSUPPORTED):
        raise CannotPack("this attention is more than softmax(QK)V over visible keys")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plan.attend(query, key, value, scale, sliding_window), None


def register() -> None:
    """Make `attend` known to transformers; its models then build no mask of their own for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, attend)


@dataclass(frozen=True)
class Runs:
    """Packed texts in runs of equal length: each run is (first node, texts, length of each)."""

    runs: tuple[tuple[int, int, int], ...]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attend within each text.

        :raises CannotPack: the layer has a local window, which a bidirectional run does not know.
        """
        if window is not None:
            raise CannotPack("local attention in a bidirectional backbone")
        parts = [self._run(query, key, value, scale, *run) for run in self.runs]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]

    @staticmethod
    def _run(query: Tensor, key: Tensor, value: Tensor, scale: float, start: int, texts: int, length: int) -> Tensor:
        """Return [texts * length, heads, dim] of one run."""

        def rectangle(packed: Tensor) -> Tensor:
            heads, _, dim = packed.shape[1:]
            return packed[0, :, start : start + texts * length].view(heads, texts, length, dim).transpose(0, 1)

        gqa = query.shape[1] != key.shape[1]
        q, k, v = (rectangle(packed) for packed in (query, key, value))
        out = scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=gqa)
        return out.transpose(1, 2).reshape(texts * length, query.shape[1], query.shape[3])


@dataclass(frozen=True)
class Blocks:
    """A trie for eager attention: `ends` and `depths` int64 [nodes] on the device, the groups of its query blocks.

    A group is (query nodes [g, block], key nodes [g, seen]): g blocks of queries that see equally many blocks of keys.
    """

    ends: Tensor
    depths: Tensor
    groups: tuple[tuple[Tensor, Tensor], ...]
    restore: Tensor
    masks: dict[tuple[int, int | None, torch.dtype], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, end: NDArray[np.int64], depths: NDArray[np.int64], device: str) -> Blocks:
        """Group the query blocks of a trie by how many key blocks they see."""
        size = -(-len(end) // _BLOCK) * _BLOCK
        starts, blocks = block_lists(visible_blocks(padded_ends(end, size), _BLOCK, _BLOCK)[0])
        counts = np.diff(starts)
        inside = np.arange(_BLOCK)
        groups, order = [], []
        for count in np.unique(counts):
            queries = np.flatnonzero(counts == count)
            nodes = queries[:, None] * _BLOCK + inside
            seen = blocks[starts[queries][:, None] + np.arange(count)].astype(np.int64)
            keys = (seen[:, :, None] * _BLOCK + inside).reshape(len(queries), -1)
            groups.append((torch.from_numpy(nodes).to(device), torch.from_numpy(keys).to(device)))
            order.append(nodes.ravel())
        restore = np.argsort(np.concatenate(order))[: len(end)]
        ends = torch.from_numpy(padded_ends(end, size)).to(device)
        padded = torch.from_numpy(np.append(depths, np.zeros(size - len(end), np.int64))).to(device)
        return cls(ends, padded, tuple(groups), torch.from_numpy(restore).to(device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attend each group's queries to its keys; query heads of one key head are folded into the queries."""
        heads, nodes, dim = query.shape[1:]
        kv_heads = key.shape[1]
        fold = heads // kv_heads
        parts = []
        for number, (rows, columns) in enumerate(self.groups):
            groups, block = rows.shape
            # the last block may reach past the nodes: its spare rows repeat the last node and are dropped again
            q = query[0].index_select(1, rows.clamp(max=nodes - 1).view(-1))
            q = q.view(kv_heads, fold, groups, block, dim).permute(2, 0, 1, 3, 4).reshape(groups, kv_heads, -1, dim)
            at = columns.clamp(max=nodes - 1).view(-1)
            k, v = (x[0].index_select(1, at).view(kv_heads, groups, -1, dim).transpose(0, 1) for x in (key, value))
            mask = self._mask(number, window, query.dtype, fold)
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            out = out.view(groups, kv_heads, fold, block, dim).permute(0, 3, 1, 2, 4)
            parts.append(out.reshape(groups * block, heads, dim))
        return torch.cat(parts).index_select(0, self.restore)[None]

    def _mask(self, number: int, window: int | None, dtype: torch.dtype, fold: int) -> Tensor:
        """Return the additive mask [g, 1, fold * block, seen] of a group, made once per batch and window."""
        known = self.masks.get((number, window, dtype))
        if known is None:
            rows, columns = self.groups[number]
            q, k = rows[:, :, None], columns[:, None, :]
            seen = (k <= q) & (q < self.ends[columns][:, None, :])
            if window is not None:
                seen &= self.depths[rows][:, :, None] - self.depths[columns][:, None, :] < window
            known = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
            known = known[:, None].repeat(1, 1, fold, 1)
            self.masks[number, window, dtype] = known
        return known


class Chain:
    """One text alone: plainly causal, so that its length costs no mask."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attend causally; a local window narrower than the text takes a band mask."""
        gqa, nodes = query.shape[1] != key.shape[1], query.shape[2]
        if window is None or nodes <= window:
            out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=gqa)
        else:
            band = torch.ones(nodes, nodes, dtype=torch.bool, device=query.device).tril().triu(1 - window)
            out = scaled_dot_product_attention(query, key, value, attn_mask=band, scale=scale, enable_gqa=gqa)
        return out.transpose(1, 2)
