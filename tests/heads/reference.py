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
    """The head, from modules."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.input = nn.Linear(shape.inputs, shape.width if shape.transformer else shape.dim)
        self.block = nn.ModuleList(PlainBlock(shape.width, shape.hidden) for _ in range(shape.blocks))
        scales = range(shape.scales if shape.transformer else 0)
        self.norm = nn.ModuleList(nn.LayerNorm(shape.width) for _ in scales)
        self.scale = nn.ModuleList(nn.Linear(shape.width, shape.scale_dim) for _ in scales)
        if shape.mlp:
            self.expand, self.contract = nn.Linear(shape.inputs, shape.mlp), nn.Linear(shape.mlp, shape.dim)
        proxies = shape.proxy_temperature is not None
        self.classifier = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(shape.dim), nn.Linear(shape.dim, count))
            for count in shape.classes
            if not proxies
        )
        self.proxies = nn.ParameterList(torch.zeros(count, shape.dim) for count in shape.classes if proxies)

    def forward(self, features, dropout=None):
        """Concatenated blocks, not normalised; `dropout` multipliers [scales, R, F]."""
        projected = self.input(features)
        if self.shape.mlp:
            active = nn.functional.gelu(self.expand(nn.functional.layer_norm(features, features.shape[-1:])))
            return projected + self.contract(active if dropout is None else active * dropout[0])
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
        if self.shape.mlp:
            found |= {"mlp.expand": self.expand, "mlp.contract": self.contract}
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
        if module == "proxies":
            return self.proxies[int(kind)], slice(None)
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


def info_nce(anchors, positives, labels):
    """An anchor without the label (-1) that its positive was to share is no anchor, but its positive is a negative."""
    total = 0.0
    for i, anchor in enumerate(anchors):
        if labels[i] < 0:
            continue
        scores = [anchor @ positive / 0.07 for positive in positives]
        total = total + torch.logsumexp(torch.stack(scores), 0) - scores[i]
    return total / len(anchors)


def margin(anchors, labels):
    terms = []
    for i, a in enumerate(anchors):
        negatives = [n for k, n in enumerate(anchors) if labels[k] != labels[i] and labels[k] >= 0]
        for k, p in enumerate(anchors):
            if k != i and labels[k] == labels[i] >= 0 and negatives:
                terms.append(sum(torch.relu(a @ n - a @ p + 0.2) for n in negatives) / len(negatives))
    return sum(terms) / len(terms) if terms else torch.zeros((), dtype=anchors.dtype)


def cross_entropy(classifier, anchors, labels):
    total = 0.0
    for anchor, label in zip(anchors, labels, strict=True):
        if label >= 0:
            total = total - classifier(anchor[None])[0].log_softmax(0)[label]
    return total / len(anchors)


def three_terms(head, level, anchors, positives, labels):
    own = labels[:, level]
    return (
        info_nce(anchors, positives, own)
        + 0.5 * margin(anchors, own)
        + cross_entropy(head.classifier[level], anchors, own)
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


def blended_terms(head, shares, anchors, positives, labels):
    """Three terms where sample i learns level l with share `shares[i][l]`, its pairs in the margin's mean likewise."""
    own = [labels[i, finest(one)] for i, one in enumerate(shares)]
    loss, margins, pairs = info_nce(anchors, positives, own), 0.0, 0.0
    for i, a in enumerate(anchors):
        for level, share in enumerate(shares[i]):
            if labels[i, level] < 0:
                continue
            if share:
                loss = loss + share * cross_entropy(head.classifier[level], a[None], labels[i, level][None]) / len(
                    anchors
                )
            same = [k for k in range(len(anchors)) if labels[k, level] == labels[i, level]]
            others = [n for k, n in enumerate(anchors) if k not in same and labels[k, level] >= 0]
            for k in same:
                if share and others and k != i:
                    hinges = [torch.relu(a @ n - a @ anchors[k] + 0.2) for n in others]
                    margins, pairs = margins + share * sum(hinges) / len(others), pairs + share
    return loss + 0.5 * margins / pairs if pairs else loss


def shares_of_prefix(j, count, levels):
    """V5's levels for prefix j (from 1) of `count`: the two around (j-1)(L-2)/(J-1), the nearer the heavier."""
    place = (j - 1) * (levels - 2) / (count - 1)
    shares, lower = [0.0] * levels, math.floor(place)
    shares[lower] = 1 - (place - lower)
    if place > lower:
        shares[lower + 1] = place - lower
    return shares


def finest(shares):
    return max(level for level, share in enumerate(shares) if share)


class Step:
    """One step of a method on one drawn batch, as the design tells it; `loss` of a PlainHead.

    :param features: [n, H] of all training rows, `labels` [n, L] theirs.
    :param drawn: anchors [B], uniform [K, B] numbers that choose positives, prefixes [B] from 0, kept [B, J], and the
        feed-forward multipliers [scales, R, F] of anchors, then positives kind by kind; None without dropout.
    """

    def __init__(self, method, features, labels, drawn):
        self.method, self.features, self.all_labels, self.drawn = method, features, labels, drawn
        self.labels = labels[drawn.anchors]
        self.levels, self.blocks = labels.shape[1], drawn.kept.shape[1]

    def loss(self, head):
        return getattr(self, self.method.replace("-", "_"))(head)

    def v5(self, head):
        return self._full_and_prefixes(head, lambda shares: shares)

    def inverted(self, head):
        return self._full_and_prefixes(head, lambda shares: shares[::-1])

    def _full_and_prefixes(self, head, turned):
        lengths = [int(j) + 1 for j in self.drawn.prefixes]
        shares = [turned(shares_of_prefix(j, self.blocks, self.levels)) for j in lengths]
        last = finest(turned([0.0] * (self.levels - 1) + [1.0]))
        anchors, partners, others = self._embedded(head, [[last] * len(lengths), [finest(one) for one in shares]])
        full = three_terms(head, last, without_blocks(anchors, self.drawn.kept), unit(partners), self.labels)
        return full + 0.6 * blended_terms(head, shares, prefixes(anchors, lengths), unit(others), self.labels)

    def mrl(self, head):
        last, size = self.levels - 1, len(self.labels)
        anchors, partners = self._embedded(head, [[last] * size])
        loss = three_terms(head, last, without_blocks(anchors, self.drawn.kept), unit(partners), self.labels)
        for j, probability in enumerate((0.4, 0.3, 0.2, 0.1), start=1):
            terms = three_terms(head, last, prefixes(anchors, [j] * size), unit(partners), self.labels)
            loss = loss + 0.6 * probability * terms
        return loss

    def no_prefix(self, head):
        last, size = self.levels - 1, len(self.labels)
        anchors, fine, coarse = self._embedded(head, [[last] * size, [0] * size])
        full = three_terms(head, last, without_blocks(anchors, self.drawn.kept), unit(fine), self.labels)
        return full + 0.6 * three_terms(head, 0, unit(anchors), unit(coarse), self.labels)

    def uniform(self, head):
        anchors, *partners = self._embedded(head, [[level] * len(self.labels) for level in range(self.levels)])
        shown = prefixes(anchors, [int(j) + 1 for j in self.drawn.prefixes])
        loss = 0.0
        for level, others in enumerate(partners):
            full = three_terms(head, level, without_blocks(anchors, self.drawn.kept), unit(others), self.labels)
            loss = loss + (full + 0.6 * three_terms(head, level, shown, unit(others), self.labels)) / self.levels
        return loss

    def joint_finest(self, head):
        return self.joint(head, levels=[self.levels - 1])

    def joint_contrast(self, head):
        return self.joint(head, proxies=0)

    def joint(self, head, proxies=4, levels=None):
        """Prefixes weigh the same, levels from 0.15 to 1; temperatures 0.1 and 0.08. A quarter of the partners are of
        the level above the finest; proxies weigh four times.
        """
        size, last = len(self.labels), self.levels - 1
        near = round(0.25 * size)
        anchors, partners = self._embedded(head, [[max(0, last - 1)] * near + [last] * (size - near)])
        rows, labels = torch.cat([anchors, partners]), self.all_labels[self.rows]
        level_weights = [0.15 + 0.85 * level / last for level in range(self.levels)]
        level_weights = [w if levels is None or at in levels else 0.0 for at, w in enumerate(level_weights)]
        loss = 0.0
        for j in range(1, self.blocks + 1):
            dim = rows.shape[1] * j // self.blocks
            cut = unit(rows[:, :dim])
            terms = supervised_contrast(cut, labels, level_weights, 0.1)
            for level, weight in enumerate(level_weights):
                terms = terms + proxies * weight * proxy_softmax(
                    cut, labels[:, level], head.proxies[level][:, :dim], 0.08
                )
            loss = loss + terms / self.blocks
        return loss

    def _embedded(self, head, kinds):
        """Concatenated blocks of the anchors, and of their positives, one kind after the other."""
        self.rows = [int(row) for row in self.drawn.anchors]
        for levels, numbers in zip(kinds, self.drawn.uniform, strict=True):
            drawn = zip(self.drawn.anchors, levels, numbers, strict=True)
            self.rows += [another_of_its_class(self._known(level, row), row, u) for row, level, u in drawn]
        dropout = None if self.drawn.dropout is None else self.drawn.dropout.to(self.features.dtype)
        return head(unit(self.features[self.rows]), dropout).split(len(self.labels))

    def _known(self, level, row):
        """Labels of a level, or of the deepest one above at which the row has a label."""
        while self.all_labels[row, level] < 0:
            level -= 1
        return self.all_labels[:, level]


def another_of_its_class(column, row, number):
    """The row whose place in the class is as far behind this row's, all the way round, as a number in [0, 1) says."""
    members = [k for k, label in enumerate(column) if label == column[row]]
    return members[(members.index(int(row)) + 1 + int(number * (len(members) - 1))) % len(members)]


def supervised_contrast(rows, labels, level_weights, temperature):
    """All in-batch positives at each level, outside the logarithm; a mean over rows."""
    total = 0.0
    for level, weight in enumerate(level_weights):
        for i, row in enumerate(rows):
            scores = {k: row @ other / temperature for k, other in enumerate(rows) if k != i}
            rivals = torch.logsumexp(torch.stack(list(scores.values())), 0)
            own = [k for k in scores if labels[k, level] == labels[i, level] >= 0]
            if own:
                total = total - weight * sum(scores[k] - rivals for k in own) / len(own)
    return total / len(rows)


def proxy_softmax(rows, labels, proxies, temperature):
    total = 0.0
    for row, label in zip(rows, labels, strict=True):
        if label < 0:
            continue
        scores = torch.stack([row @ unit(proxy) / temperature for proxy in proxies])
        total = total - scores.log_softmax(0)[label]
    return total / len(rows)


def clipped_adamw(head, lr):
    """The published optimiser, stepping once a call after clipping the whole gradient to length 1; gives its length."""
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
        return length

    return step
