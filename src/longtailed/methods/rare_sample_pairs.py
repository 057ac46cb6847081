"""RSG's pairing: which head sample's variation is added to which tail sample of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Which samples of a batch are paired; pair p joins `head[p mod D]` and `tail[p]`.

    head: positions of head samples in the batch [D].
    tail: positions of tail samples [L].
    valid: True for the pairs of this batch, the first `number` entries of [L]. The others are
        padding: they give all batches the same length L.
    generated: True where a pair makes a new sample, False where the padding copies the sample at
        `tail[p]` (see `pad_pairs`), [L].
    number: how many pairs this batch has, 0-d.
    heads: how many head samples it has, 0-d.
    """

    head: Tensor
    tail: Tensor
    valid: Tensor
    generated: Tensor
    number: Tensor
    heads: Tensor


def same_class_pairs(labels: Tensor) -> Tensor:
    """Return which of the contrastive pairs (i, i + B // 2) have equal labels [B]: bool [B // 2].

    The last sample of an odd batch is in no pair.
    """
    half = len(labels) // 2
    return labels[:half] == labels[half : 2 * half]


def most_pairs(batch_size: int, strength: float) -> int:
    """Return the largest number of pairs that a batch of this size can have: L."""
    return max(int((batch_size - 1) * strength), batch_size // 2)


def pair_samples(is_head: Tensor, strength: float = 1.0) -> Pairs:
    """Return the pairs of a batch, sample i of which is of a head class where `is_head[i]` [B].

    With the positions of head and tail samples in increasing order, nh and nt of them,
    m = min(nh, nt), M = max(nh, nt): pair p joins head p mod nh and tail p mod nt, for
    p < m * max(1, int(M * strength / m)); there are none if m = 0. Nothing is drawn here: the
    pairing is random because the order of the batch is.

    Here D = L, which depends on B and the strength alone, and nothing is read on the host.
    Paper: arXiv 2106.09859. The rule is that of the authors' loops over chunks, in one line; it
    goes on for a strength above 1, where their code stops at an empty chunk.
    """
    size = len(is_head)
    order = torch.argsort(is_head.logical_not().to(torch.uint8), stable=True)  # heads, then tails
    heads = is_head.sum()
    tails = size - heads
    fewer, more = torch.minimum(heads, tails), torch.maximum(heads, tails)
    chunks = (more.double() * strength / fewer.clamp_min(1)).long().clamp_min(1)
    pair = torch.arange(most_pairs(size, strength), device=is_head.device)
    head = order[pair % heads.clamp_min(1)]
    tail = order[(heads + pair % tails.clamp_min(1)).clamp_max(size - 1)]
    valid = pair < chunks * fewer
    return Pairs(head, tail, valid, valid, chunks * fewer, heads)


def trim_pairs(pairs: Pairs) -> Pairs:
    """Return the pairs without padding, each head sample once; reads their numbers on the host."""
    number, heads = torch.stack((pairs.number, pairs.heads)).tolist()
    kept, distinct = slice(number), slice(min(number, heads))
    return pairs._replace(
        head=pairs.head[distinct],
        tail=pairs.tail[kept],
        valid=pairs.valid[kept],
        generated=pairs.generated[kept],
    )


def pad_pairs(pairs: Pairs, batch_size: int) -> Pairs:
    """Return the pairs with their padding filled: it repeats rows of the enlarged batch.

    The enlarged batch has B original and `number` generated rows. The padding repeats them at even
    distances, so that batch normalisation in later stages sees both kinds in the right
    proportion. To repeat an original row, an entry holds its position in `tail` and is not
    `generated`; to repeat a generated row, an entry holds the same pair again.
    """
    length = len(pairs.head)
    beyond = torch.arange(length, device=pairs.head.device) - pairs.number
    row = beyond * (batch_size + pairs.number) // (length - pairs.number).clamp_min(1)
    again = (row - batch_size).clamp(0, length - 1)
    original = ~pairs.valid & (row < batch_size)
    head = torch.where(pairs.valid, pairs.head, pairs.head[again])
    tail = torch.where(pairs.valid, pairs.tail, pairs.tail[again])
    tail = torch.where(original, row, tail)
    return pairs._replace(head=head, tail=tail, generated=~original)
