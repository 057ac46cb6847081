"""Features of whole splits, computed once for as long as the backbone stays as it is."""

from __future__ import annotations

from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtailed.data import ImageSet, Splits
from longtailed.nn import Network

SMALL = 64  # pixels


def pass_batch_size(imageset: ImageSet, device: torch.device) -> int:
    """Return how many images a batch of a pass without gradients has on one process.

    On a GPU 512, and 2,048 of small images. On a CPU 128: with ResNet-32 on two cores that is a
    third faster than 512, whose maps leave the caches.
    """
    if device.type != "cuda":
        return 128
    images = imageset.images
    return 2048 if isinstance(images, Tensor) and images.shape[-1] <= SMALL else 512


class FeatureStore:
    """A backbone's features of whole splits, with the view and mode of an evaluation.

    The features of a split are computed on the first request; each process computes its share.
    They are kept until the backbone's weights or statistics change, so that stages and evaluations
    on the same frozen backbone share them.
    """

    def __init__(self, splits: Splits, fabric: Fabric) -> None:
        self.splits, self.fabric = splits, fabric
        self._weights: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}

    def of(self, network: Network, split: str) -> Tensor:
        """Return the features [N, A] of a split's images, float32, in its order."""
        weights = network.backbone.state_dict()
        if not _equal(weights, self._weights):
            self._weights = {name: tensor.clone() for name, tensor in weights.items()}
            self._features = {}
        if split not in self._features:
            self._features[split] = self._compute(network, split)
        return self._features[split]

    @torch.no_grad()
    def _compute(self, network: Network, split: str) -> Tensor:
        fabric, backbone, imageset = self.fabric, network.backbone, self.splits.imageset(split)
        features = torch.zeros(len(imageset), backbone.num_features, device=fabric.device)
        batches = self.splits.scan(
            split,
            pass_batch_size(imageset, fabric.device),
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        was_training = backbone.training
        backbone.eval()
        try:
            for batch in batches:
                with fabric.autocast():
                    features[batch.index] = network.features(batch.images[0]).float()
        finally:
            backbone.train(was_training)
        if fabric.world_size > 1:  # each process has filled in the rows of its images
            features = cast(Tensor, fabric.all_reduce(features, reduce_op="sum"))
        return features


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.device == other[name].device and torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )
