"""Networks that a caller gives in Python, in place of a name."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from longtailed.errors import LongTailedError
from longtailed.nn.backbone import Backbone
from longtailed.nn.heads import HEADS
from longtailed.nn.network import Network

PREFIX = "given://"  # begins the name of a recipe's network that was given


class ModuleBackbone(Backbone):
    """Any module that turns images [N, 3, H, W] into features, as a backbone of one stage.

    The module returns features [N, A], or maps [N, A, H, W], which are averaged over the pixels.
    Methods that work between stages need a `Backbone` with stages instead.
    """

    spatial = False

    def __init__(self, module: nn.Module, num_features: int) -> None:
        super().__init__()
        self.module = module
        self.num_features, self.stage_channels = num_features, (num_features,)

    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return what the module makes of images."""
        out: Tensor = self.module(maps)
        return out

    def pool(self, maps: Tensor) -> Tensor:
        """Return the features [N, A]."""
        return maps.mean(dim=(2, 3)) if maps.ndim == 4 else maps


def name_of(module: nn.Module) -> str:
    """Return what stands for a given module as the network of a recipe: `PREFIX` and its class."""
    return PREFIX + type(module).__name__


def network_of(module: nn.Module, num_classes: int, head: str, image_size: int) -> Network:
    """Return a network with a copy of the caller's module and, unless it has one, a new head.

    `module` is a `Network`, a `Backbone`, or a module that turns images [N, 3, H, W] into features
    [N, A] or maps [N, A, H, W]. `head` is a key of `HEADS`; its weight [C, A] is drawn as
    `nn.Linear`'s or, for a cosine head, as its own, from torch's default generator.

    Raises `LongTailedError` for a network for another number of classes, and for a module that
    fails on images of `image_size`, that gives something else, or that seems to be a classifier
    (C numbers an image).
    """
    module = copy.deepcopy(module)
    if isinstance(module, Network):
        if module.head.out_features != num_classes:
            raise LongTailedError(
                f"the given network is for {module.head.out_features} classes, but there are "
                f"{num_classes}."
            )
        return module
    if not isinstance(module, Backbone):
        module = ModuleBackbone(module, _count_features(module, num_classes, image_size))
    return Network(module, HEADS[head](module.num_features, num_classes))


def _count_features(module: nn.Module, num_classes: int, image_size: int) -> int:
    """Return the number A of features that a module gives, found by trying it."""
    name, training = type(module).__name__, module.training
    try:
        with torch.no_grad():
            out = module.eval()(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:  # of the caller's module: any type
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise LongTailedError(
            f"{name} fails on images [2, 3, {image_size}, {image_size}]: {reason}."
        ) from error
    module.train(training)
    if not isinstance(out, Tensor) or out.ndim not in (2, 4) or len(out) != 2:
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise LongTailedError(
            f"{name} must give features [N, A] or maps [N, A, H, W] for N images; for 2 it gives "
            f"{found}."
        )
    if out.shape[1] == num_classes and out.ndim == 2:
        raise LongTailedError(
            f"{name} gives {num_classes} numbers an image, as many as there are classes, and so "
            "seems to be a classifier; take its last layer off (such as fc = nn.Identity()), for "
            "the head is built here."
        )
    return int(out.shape[1])


def module_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module: classes, names and values of what it consists of."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__qualname__}\n".encode())
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
