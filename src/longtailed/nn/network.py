"""Network: a staged backbone and a classifier head, built by name.

State-dict keys of a network: `backbone.` followed by the backbone's keys (see `cifar_resnet` and
`timm_backbone`), `head.weight` [C, A] and, for a linear head with bias, `head.bias` [C].
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Literal

from torch import Tensor, nn

from longtailed.errors import LongTailedError, unknown_name
from longtailed.nn.backbone import Backbone
from longtailed.nn.cifar_densenet import CIFAR_DENSENETS, CifarDenseNet
from longtailed.nn.cifar_resnet import CIFAR_RESNETS, CifarResNet, kaiming_initialize
from longtailed.nn.cifar_resnext import CIFAR_RESNEXTS, CifarResNeXt
from longtailed.nn.heads import HEADS, CosineHead, LinearHead
from longtailed.nn.timm_backbone import TimmBackbone, timm_names

TIMM_PREFIX = "timm:"
HEAD_INITS = ("auto", "default", "kaiming")

# The networks for small images: the class and what its first argument is for each name.
SMALL_NETWORKS: dict[str, tuple[type[CifarResNet | CifarDenseNet | CifarResNeXt], int]] = {
    **{name: (CifarResNet, blocks) for name, blocks in CIFAR_RESNETS.items()},
    **{name: (CifarDenseNet, layers) for name, layers in CIFAR_DENSENETS.items()},
    **{name: (CifarResNeXt, blocks) for name, blocks in CIFAR_RESNEXTS.items()},
}


class Network(nn.Module):
    """A backbone and a head: images [N, 3, H, W] -> features [N, A] -> logits [N, C].

    >>> network = build_network("resnet8", num_classes=10, width=0.5)
    >>> network.num_parameters()
    19218
    """

    def __init__(self, backbone: Backbone, head: LinearHead | CosineHead) -> None:
        super().__init__()
        if head.in_features != backbone.num_features:
            raise LongTailedError(
                f"the head takes {head.in_features} features, but the backbone gives "
                f"{backbone.num_features}."
            )
        self.backbone = backbone
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """Return the features [N, A] of images [N, 3, H, W]."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, C] of images [N, 3, H, W]."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def use_head(self, kind: str) -> None:
        """Give the network a head of this kind (a key of `HEADS`), a new one unless it has one.

        New weights are drawn as `build_network` draws them.
        """
        if type(self.head) is not HEADS[kind]:
            old = self.head
            new = _build_head(kind, self.backbone, old.out_features, {})
            self.head = new.to(old.weight.device)

    def num_parameters(self) -> int:
        """Return the number of parameters, trainable or not."""
        return sum(parameter.numel() for parameter in self.parameters())


def list_networks() -> dict[str, str]:
    """Return the names of the networks for small images, each with a description.

    Every timm model is a network too, under its timm name, e.g. `resnet50` or `timm:resnet50`.
    """
    described = {
        name: f"{name.replace('resnet', 'ResNet-')} for small images, "
        f"{blocks} {'block' if blocks == 1 else 'blocks'} in each of 3 stages"
        for name, blocks in CIFAR_RESNETS.items()
    }
    described |= {
        name: f"{name.replace('densenet', 'DenseNet-')} for small images, "
        f"{layers} layers that add 12 channels each in each of 3 stages"
        for name, layers in CIFAR_DENSENETS.items()
    }
    described |= {
        name: f"{name.replace('resnext', 'ResNeXt-')} (8x64d) for small images, "
        f"{blocks} blocks in each of 3 stages"
        for name, blocks in CIFAR_RESNEXTS.items()
    }
    return described


def build_network(
    name: str,
    num_classes: int,
    head: str = "linear",
    pretrained: bool = False,
    image_size: int | None = None,
    head_options: Mapping[str, Any] | None = None,
    head_init: Literal["auto", "default", "kaiming"] = "auto",
    **options: Any,
) -> Network:
    """Return the network called `name`, with new weights for its head.

    `name` is one of `list_networks()` or the name of a timm model, with or without `timm:` before
    it. `head` is one of `HEADS`, `head_options` are its further arguments (`bias` or `scale`).
    `pretrained` and `image_size` (pixels) concern timm models, see `TimmBackbone`; the networks for
    small images take every size. `options` go to the backbone: `width` for those,
    `weights` and timm's own options for a timm model.

    `head_init` says how a linear head's weight W [C, A] starts: "default" is `nn.Linear`'s (uniform
    within 1/sqrt(A), so std 1/sqrt(3 A)), "kaiming" is normal with std sqrt(2/A), and "auto" is
    "kaiming" for a CIFAR ResNet or ResNeXt, else "default". A cosine head has one start only.

    Weights are drawn from torch's default generator: seed it for a reproducible network.

    Raises `LongTailedError` for an unknown name or option, "kaiming" for a cosine head, and for
    pretrained weights that cannot be loaded.
    """
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    if head_init not in HEAD_INITS:
        raise unknown_name("head_init", head_init, HEAD_INITS)
    if head_init == "kaiming" and head != "linear":
        raise LongTailedError(f"head_init 'kaiming' is for a linear head, not a {head} one.")
    if num_classes < 1:
        raise LongTailedError(f"a network needs at least one class, not {num_classes}.")
    backbone = _build_backbone(name, pretrained, image_size, options)
    return Network(
        backbone, _build_head(head, backbone, num_classes, head_options or {}, head_init)
    )


def _build_head(
    kind: str,
    backbone: Backbone,
    num_classes: int,
    options: Mapping[str, Any],
    init: str = "auto",
) -> LinearHead | CosineHead:
    try:
        classifier = HEADS[kind](backbone.num_features, num_classes, **options)
    except TypeError as error:
        raise LongTailedError(
            f"a {kind} head does not take the options {sorted(options)}: {error}."
        ) from error
    _initialize(classifier, backbone, init)
    return classifier


def _initialize(head: nn.Module, backbone: Backbone, init: str) -> None:
    if init == "default":
        return
    if init == "kaiming" or isinstance(backbone, CifarResNet | CifarResNeXt):
        kaiming_initialize(head)
    if isinstance(backbone, CifarResNeXt) and "bias" in dict(head.named_parameters()):
        nn.init.zeros_(head.get_parameter("bias"))


def _build_backbone(
    name: str, pretrained: bool, image_size: int | None, options: dict[str, Any]
) -> Backbone:
    if name in SMALL_NETWORKS:
        if pretrained:
            raise LongTailedError(f"there are no pretrained weights for {name}; train it instead.")
        unknown = sorted(set(options) - {"width"})
        if unknown:
            raise LongTailedError(f"{name} has no option {unknown[0]!r}; it takes only 'width'.")
        backbone, depth = SMALL_NETWORKS[name]
        width = options.get("width", 1.0)
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < inf:
            raise LongTailedError(
                f"option 'width' of {name} cannot be {width!r}: a number above 0 is needed."
            )
        return backbone(depth, **options)
    timm_name = name.removeprefix(TIMM_PREFIX)
    known = timm_names()
    if timm_name.split(".")[0] not in known:
        raise unknown_name("network", name, [*SMALL_NETWORKS, *known], listing="networks")
    return TimmBackbone(timm_name, pretrained=pretrained, image_size=image_size, **options)
