"""RSG's pairing: which head sample lends its variation to which tail sample of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Positions in the batch: pair p joins `head[p mod D]` [D] and `tail[p]` [L].

    The first `number` pairs are meant, of which `valid` [L] is True; `generated` [L] marks those
    whose row is a new sample, not a copy of the tail sample (see `pad_pairs`). `heads` is how many
    head samples the batch has.
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
    p < m * max(1, int(M * strength / m)); there are none if m = 0. Random only as the batch is.

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
    """Return the meant pairs alone, each head sample once; reads their numbers on the host."""
    number, heads = torch.stack((pairs.number, pairs.heads)).tolist()
    kept, distinct = slice(number), slice(min(number, heads))
    return pairs._replace(
        head=pairs.head[distinct],
        tail=pairs.tail[kept],
        valid=pairs.valid[kept],
        generated=pairs.generated[kept],
    )


def pad_pairs(pairs: Pairs, batch_size: int) -> Pairs:
    """Return the pairs with the entries beyond the meant ones made to repeat the enlarged batch.

    The entries are spread evenly over its B + number rows: an original sample is one that is not
    `generated`, with its position in `tail`; a generated one is the same pair again. So batch
    normalisation in later stages sees originals and new samples in the right proportion.
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
