"""RSG's contrastive module: tells whether two feature maps belong to the same class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

DIFFERENT, SAME = 0, 1  # what the two logits stand for


class ContrastiveCritic(nn.Module):
    """Two maps -> logits [P, 2] for "different class" (index 0) and "same class" (index 1).

    fc(mean_hw(conv2(relu(conv1(cat(u, v)))))) with conv1 1x1, 2C -> D, and conv2 3x3, D -> D, with
    a border of zeros. There is nothing between conv2 and the mean over the pixels, so both
    together are linear in what they are given: the mean of conv2's output is its weight times the
    sums of the hidden map over nine windows (all rows, all but the first, all but the last; the
    same for columns), which costs 9 D^2 instead of 9 D^2 H W multiplications a pair.

    Initial weights: convolutions Kaiming normal (fan-in, gain sqrt 2), fc standard normal,
    biases 0.
    Paper: arXiv 2106.09859. Departure from the authors' code: the mean over the pixels is global,
    not a pooling of the size of one input resolution.
    """

    def __init__(self, channels: int, dim: int = 256) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, dim, 1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.fc = nn.Linear(dim, 2)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights anew; None means torch's default generator."""
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
        nn.init.normal_(self.fc.weight, generator=generator)
        for bias in (self.conv1.bias, self.conv2.bias, self.fc.bias):
            bias.zero_()  # type: ignore[union-attr]

    def forward(self, first: Tensor, second: Tensor, frozen: bool = False) -> Tensor:
        """Return logits [P, 2] of maps u and v [P, H, W, C], channels last.

        With `frozen` no gradient reaches this module's parameters, only the maps.
        """
        pairs, height, width, channels = first.shape
        held = {n: p.detach() if frozen else p for n, p in self.named_parameters()}
        of_first, of_second = held["conv1.weight"].flatten(1).chunk(2, dim=1)
        hidden = torch.addmm(
            functional.linear(first.reshape(-1, channels), of_first, held["conv1.bias"]),
            second.reshape(-1, channels),
            of_second.t(),
        )
        hidden = hidden.relu_().view(pairs, height * width, -1)
        sums = torch.matmul(windows(height, width, hidden), hidden)
        taps = held["conv2.weight"].permute(0, 2, 3, 1).flatten(1)
        means = sums.flatten(1) / (height * width)
        pooled = functional.linear(means, taps, held["conv2.bias"])
        return functional.linear(pooled, held["fc.weight"], held["fc.bias"])


def windows(height: int, width: int, like: Tensor) -> Tensor:
    """Return which pixels each tap of a 3x3 convolution, border 1, meets: 0 or 1, [9, H * W].

    The first tap never meets the last row (or column), the third never the first.
    """
    rows, columns = (like.new_ones(3, size) for size in (height, width))
    for taps in (rows, columns):  # by zero_(): a number assigned would be copied from the host
        taps[0, -1:].zero_()
        taps[2, :1].zero_()
    return (rows[:, None, :, None] * columns[None, :, None, :]).reshape(9, height * width)
