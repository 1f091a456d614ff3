"""The slow obvious versions: the head of `torch.nn` modules, losses as loops over samples, written from the design."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


class PlainBlock(nn.Module):
    """A pre-norm transformer block with all of its self-attention, query and key too."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads=2, batch_first=True)
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, state, dropout=None):
        token = self.norm1(state)[:, None]
        state = state + self.attention(token, token, token)[0][:, 0]
        active = functional.gelu(self.expand(self.norm2(state)))
        return state + self.contract(active if dropout is None else active * dropout)


class PlainHead(nn.Module):
    """The head of section 7, from modules."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.input = nn.Linear(shape.inputs, shape.width if shape.transformer else shape.dim)
        self.block = nn.ModuleList(PlainBlock(shape.width, shape.hidden) for _ in range(shape.blocks))
        scales = range(shape.scales if shape.transformer else 0)
        self.norm = nn.ModuleList(nn.LayerNorm(shape.width) for _ in scales)
        self.scale = nn.ModuleList(nn.Linear(shape.width, shape.scale_dim) for _ in scales)
        self.classifier = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(shape.dim), nn.Linear(shape.dim, count)) for count in shape.classes
        )

    def forward(self, features, dropout=None):
        """Concatenated blocks, not normalised; `dropout` multipliers [scales, R, F]."""
        projected = self.input(features)
        if not self.shape.transformer:
            return projected
        state, outputs = projected, []
        for i in range(self.shape.scales):
            block = self.block[0 if self.shape.shared else i]
            state = block(state, None if dropout is None else dropout[i]) + 0.1 / (1 + 0.3 * i) * projected
            outputs.append(self.scale[i](self.norm[i](state)))
        return torch.cat(outputs, 1)

    def modules_by_name(self):
        """The package's tensor names to the parameters here; value is a third of the attention's projection."""
        found = {"input": self.input}
        for i, block in enumerate(self.block):
            found |= {f"block.{i}.{name}": getattr(block, name) for name in ("norm1", "norm2", "expand", "contract")}
            found[f"block.{i}.output"] = block.attention.out_proj
        for i, (norm, linear) in enumerate(zip(self.norm, self.scale, strict=True)):
            found |= {f"scale.{i}.norm": norm, f"scale.{i}.linear": linear}
        for i, (norm, linear) in enumerate(self.classifier):
            found |= {f"classifier.{i}.norm": norm, f"classifier.{i}.linear": linear}
        return found

    def parts(self, name):
        """(parameter, rows of it) that the package calls `name`."""
        module, _, kind = name.rpartition(".")
        if module.endswith(".value"):
            attention = self.block[int(module.split(".")[1])].attention
            third = slice(2 * self.shape.width, None)
            return (attention.in_proj_weight if kind == "weight" else attention.in_proj_bias), third
        return getattr(self.modules_by_name()[module], kind), slice(None)

    def take(self, tensors):
        """Copy weights from the package's tensors by name."""
        with torch.no_grad():
            for name, tensor in tensors.items():
                parameter, rows = self.parts(name)
                parameter[rows] = tensor
        return self

    def gradients(self, names):
        """Gradients under the package's names, zeros where there is none."""
        found = {}
        for name in names:
            parameter, rows = self.parts(name)
            found[name] = torch.zeros_like(parameter)[rows] if parameter.grad is None else parameter.grad[rows]
        return found


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def info_nce(anchors, positives):
    total = 0.0
    for i, anchor in enumerate(anchors):
        scores = [anchor @ positive / 0.07 for positive in positives]
        total = total + torch.logsumexp(torch.stack(scores), 0) - scores[i]
    return total / len(anchors)


def margin(anchors, labels):
    terms = []
    for i, a in enumerate(anchors):
        negatives = [n for k, n in enumerate(anchors) if labels[k] != labels[i]]
        for k, p in enumerate(anchors):
            if k != i and labels[k] == labels[i] and negatives:
                terms.append(sum(torch.relu(a @ n - a @ p + 0.2) for n in negatives) / len(negatives))
    return sum(terms) / len(terms) if terms else torch.zeros((), dtype=anchors.dtype)


def cross_entropy(classifier, anchors, labels):
    total = 0.0
    for anchor, label in zip(anchors, labels, strict=True):
        total = total - classifier(anchor[None])[0].log_softmax(0)[label]
    return total / len(anchors)


def three_terms(head, level, anchors, positives, labels):
    own = labels[:, level]
    return (
        info_nce(anchors, positives) + 0.5 * margin(anchors, own) + cross_entropy(head.classifier[level], anchors, own)
    )


def without_blocks(full, seen):
    """Full vectors with the blocks that `seen` [B, J] denies set to zero, normalised."""
    width = full.shape[1] // seen.shape[1]
    return unit(torch.stack([row * mask.repeat_interleave(width) for row, mask in zip(full, seen, strict=True)]))


def prefixes(full, lengths):
    """Per sample, the first `lengths[i]` blocks of four, zero-padded, normalised."""
    rows = []
    for row, length in zip(full, lengths, strict=True):
        padded = torch.zeros_like(row)
        padded[: length * len(row) // 4] = row[: length * len(row) // 4]
        rows.append(padded)
    return unit(torch.stack(rows))


def v5_loss(head, anchors, fine, coarse, labels, seen, drawn):
    """V5 with two levels, of concatenated blocks of anchors and of their two positives each; `drawn` counts blocks."""
    full = three_terms(head, 1, without_blocks(anchors, seen), unit(fine), labels)
    return full + 0.6 * three_terms(head, 0, prefixes(anchors, drawn), unit(coarse), labels)


def mrl_loss(head, anchors, fine, labels, seen):
    """MRL, on the finest of two levels."""
    loss = three_terms(head, 1, without_blocks(anchors, seen), unit(fine), labels)
    for j, drawn in enumerate((0.4, 0.3, 0.2, 0.1), start=1):
        loss = loss + 0.6 * drawn * three_terms(head, 1, prefixes(anchors, [j] * len(anchors)), unit(fine), labels)
    return loss


def supervised_contrast(rows, labels, level_weights, temperature):
    """All in-batch positives at each level, outside the logarithm; a mean over rows."""
    total = 0.0
    for level, weight in enumerate(level_weights):
        for i, row in enumerate(rows):
            scores = {k: row @ other / temperature for k, other in enumerate(rows) if k != i}
            rivals = torch.logsumexp(torch.stack(list(scores.values())), 0)
            own = [k for k in scores if labels[k, level] == labels[i, level]]
            if own:
                total = total - weight * sum(scores[k] - rivals for k in own) / len(own)
    return total / len(rows)


def proxy_softmax(rows, labels, proxies, temperature):
    total = 0.0
    for row, label in zip(rows, labels, strict=True):
        scores = torch.stack([row @ unit(proxy) / temperature for proxy in proxies])
        total = total - scores.log_softmax(0)[label]
    return total / len(rows)


def clipped_adamw(head, lr):
    """The published optimiser, stepping once a call after clipping the whole gradient to length 1."""
    parameters = list(head.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, foreach=False, fused=False)

    def step(loss):
        optimiser.zero_grad()
        loss.backward()
        length = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None))
        for p in parameters:
            if p.grad is not None:
                p.grad *= min(1.0, 1.0 / (length + 1e-6))
        optimiser.step()

    return step
