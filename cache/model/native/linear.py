"""Linear maps of a BERT: oneDNN's on a CPU that has it, torch's elsewhere.

On a CPU torch multiplies float32 by MKL, which uses half the vector width of an AMD processor: 107 GFLOP/s on a core of
an EPYC (Zen 5), where oneDNN reaches 240. torch brings oneDNN along for bfloat16 and for what its compiler makes of
float32; the operation is the compiler's. It reads weights packed beforehand and applies GELU while the result is in
the cache. Adding the residual there too was tried: it costs a millisecond a call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

_PACKED_ROWS = 2048  # nodes that weights are laid out for; others may come


class Linear:
    """The map of rows [n, in] to [n, out], with GELU behind it where that is asked for."""

    def __init__(self, weight: Tensor, bias: Tensor, *, activated: bool = False) -> None:
        """Pack a weight [out, in], its bias [out] beside it, where oneDNN multiplies."""
        self._weight, self._bias, self._activated = weight, bias, activated
        self._packed = weight.device.type == "cpu" and _onednn_takes(weight.dtype)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return [n, out], in the dtype of the weight."""
        if self._packed:
            kind, how = ("gelu", "none") if self._activated else ("none", "")
            found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, kind, [], how)
            return found
        found = linear(rows, self._weight, self._bias)
        return gelu(found) if self._activated else found


def _onednn_takes(dtype: torch.dtype) -> bool:
    """Whether this torch has the operations of its compiler's oneDNN, and this processor the number format."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False  # builds for some processors have none of them
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
