"""Classifier heads: features [N, A] -> logits [N, C]; both keep their weight as `weight` [C, A]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError


class LinearHead(nn.Linear):
    """Linear classifier: logits = x W^T + b, with `weight` W [C, A] and `bias` b [C].

    Initialised as `nn.Linear`; `build_network` draws the weight of the head of a CIFAR ResNet or
    ResNeXt from the Kaiming normal distribution instead, and sets a ResNeXt's bias to 0, unless
    its `head_init` is "default".
    """

    def __init__(self, num_features: int, num_classes: int, bias: bool = True) -> None:
        super().__init__(num_features, num_classes, bias=bias)


class CosineHead(nn.Module):
    """Cosine classifier: logits = scale * x/|x| (W/|W|)^T, with `weight` W [C, A] and no bias.

    x/|x| divides each feature vector, W/|W| each row of W, by its Euclidean norm (at least 1e-12),
    so the logits lie in -scale..scale. Computed in float32 also under autocast, because the
    differences between cosines that margins and scales enlarge are lost in 16 bits.

    The weight starts uniform in -1..1 with every row scaled to norm 1, drawn from torch's default
    generator. Paper: LDAM, arXiv 1906.07413. The authors keep the transposed weight [A, C] and
    leave the scale to the loss; here the layout is that of `LinearHead`, so that code which reads
    `head.weight` need not know which head it is.
    """

    def __init__(self, num_features: int, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise LongTailedError(f"a cosine head needs a scale above 0, not {scale}.")
        self.in_features = num_features
        self.out_features = num_classes
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.div_(self.weight.norm(dim=1, keepdim=True))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [N, C] of features [N, A]."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            directions = functional.normalize(features.to(dtype), dim=1)
            prototypes = functional.normalize(self.weight.to(dtype), dim=1)
            return self.scale * functional.linear(directions, prototypes)

    def extra_repr(self) -> str:
        """Return the sizes, for printing the module."""
        return f"{self.in_features}, {self.out_features}, scale={self.scale}"


HEADS: dict[str, type[LinearHead] | type[CosineHead]] = {
    "linear": LinearHead,
    "cosine": CosineHead,
}
