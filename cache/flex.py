"""Tries compiled: FlexAttention with the trie's block structure and fused kernels, for one size of batch.

The batch's mask lies in buffers that the next batch overwrites, so that nothing is compiled or guarded anew; it is laid
out on the host (`cache.masks.fixed_size_trie`) while the device computes the batch before, and one asynchronous copy
moves it. Batches are padded to the one size; a node of padding is a leaf that sees itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, FlexKernelOptions, flex_attention

from cache.kernels import compiled
from cache.masks import BLOCK, INT32_FIELDS, layout_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from cache.decoder import Decoder
    from cache.packing import Batch

_OPTIONS: FlexKernelOptions = {"ROWS_GUARANTEED_SAFE": True}


class CompiledTries:
    """A decoder compiled for tries of `size` nodes on one GPU; also its attention plan (`cache.attention.Plan`)."""

    def __init__(self, decoder: Decoder, size: int, device: str) -> None:
        """Allocate the buffers; kernels are compiled by the first batch."""
        self.size = size
        self._decoder = decoder
        self._kernels = compiled()
        self._flex = torch.compile(flex_attention, dynamic=False)
        sizes = layout_sizes(size)
        lengths = [int(np.prod(shape)) for shape in sizes]
        self._buffer = torch.zeros(sum(lengths), dtype=torch.int32, device=device)
        parts = torch.split(self._buffer, lengths)
        self._fields = {name: part.view(shape) for name, part, shape in zip(INT32_FIELDS, parts, sizes, strict=True)}
        self._masks: dict[int | None, BlockMask] = {}

    def states(self, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the pooled states of a batch that carries its layout; see `Decoder.states`."""
        assert batch.layout32 is not None
        assert batch.last is not None
        self._buffer.copy_(self._pinned(batch.layout32), non_blocking=True)
        at = self._pinned(batch.last).to(self._buffer.device, non_blocking=True)
        fields = self._fields
        return self._decoder.states(fields["ids"], fields["positions"], self, at, layers, self._kernels)

    def _pinned(self, array: NDArray[np.generic]) -> Tensor:
        """Return an array in memory that the device copies from by itself."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._buffer.is_cuda else tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Attend every node to its ancestors; see `cache.attention.Plan`."""
        shared = query.shape[1] // key.shape[1]
        if shared & (shared - 1):  # the kernel shares key heads in powers of two
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        out: Tensor = self._flex(
            query,
            key,
            value,
            block_mask=self._mask(window),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            kernel_options=_OPTIONS,
        )
        return out.transpose(1, 2)

    def _mask(self, window: int | None) -> BlockMask:
        if window not in self._masks:
            ends, depths = self._fields["ends"], self._fields["positions"]
            width = window or 0

            def ancestor(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return (key <= query) & (query < ends[key])

            def near_ancestor(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return (key <= query) & (query < ends[key]) & (depths[query] - depths[key] < width)

            counts, order, full_counts, full_order = (self._fields[name][None, None] for name in INT32_FIELDS[3:])
            self._masks[window] = BlockMask.from_kv_blocks(
                counts,
                order,
                full_counts,
                full_order,
                BLOCK_SIZE=BLOCK,
                mask_mod=ancestor if window is None else near_ancestor,
            )
        return self._masks[window]
