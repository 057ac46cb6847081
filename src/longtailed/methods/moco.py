"""MoCo: features learnt by telling images apart, before any label is used."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import get_ema_multi_avg_fn

from longtailed.data.setting_types import Positive, Share, Size
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.losses.gathering import of_all_processes
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Method, Progress, Run
from longtailed.methods.rotation import Images
from longtailed.nn import Network


def moco_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return [q.k, q.queue] / temperature, [N, 1 + K]: the positive pair comes first.

    Args:
        query, key: embeddings [N, d] of two views of the same images, of norm 1.
        queue: embeddings [d, K] of other images.
        temperature: above 0.
    """
    with torch.autocast(query.device.type, enabled=False):  # in 16 bits neighbours would tie
        positive = (query * key).sum(dim=1, keepdim=True)
        return torch.cat([positive, query @ queue], dim=1) / temperature


class Encoder(nn.Module):
    """A backbone and MoCo v2's head of two layers: images -> embeddings [N, d] of norm 1."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings, float32."""
        return F.normalize(full_precision(self.head(self.backbone(images))), dim=1)


class MoCo(Method):
    """Self-supervised pre-training by momentum contrast (arXiv 1911.05722, v2: 2003.04297).

    A query (one view of an image) is compared with its key (another view) and with the keys of
    earlier images, which wait in a queue: cross-entropy of `moco_logits` with the key as target.
    Keys come from a copy of the encoder that follows the trained one, key <- m key + (1 - m)
    query, once a step; its batch statistics are its own. Labels are not used; the classifier is
    left as it is, so predictions mean nothing until another stage trains it.

    Batch-norm must not tell the network which images came together: if a query and its key were
    normalised in one batch, its statistics would give the pair away. The authors train on several
    GPUs and shuffle the keys' images among them. Here each process draws its keys' images in a
    random order and encodes them in `key_groups` groups, each normalised by itself, while its
    queries are normalised as one batch. This does the same on one process and on several and
    needs no images sent between them; synchronised statistics would cost a message a layer.
    Several processes share one queue: each adds the keys of all.

    Departure: the key encoder follows after the optimiser's step rather than before the next
    one's keys, which are the same weights.

    Args:
        network: the network whose backbone is trained.
        counts: training images per class [C].
        queue_size: K, a multiple of the batch over all processes, as the authors ask for. (An
            epoch's last, smaller batch, which they leave out, goes round the queue's end.)
        momentum: m.
        temperature: divides the logits.
        embedding_dim: d.
        key_groups: groups in which a process's keys are normalised, of equal size and at least two
            images; 1 for one batch.
        images: the split whose images are used: "train" or "unlabelled".
        views: the augmentations of the query and of the key.
    """

    label_free = True
    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        queue_size: Size = 4096,
        momentum: Share = 0.99,
        temperature: Positive = 0.1,
        embedding_dim: Size = 128,
        key_groups: Size = 4,
        images: Images = "train",
        views: tuple[str, str] = ("sim", "sim"),
    ) -> None:
        super().__init__(network, counts)
        self.streams = {"train": Stream(views=views, split=images)}
        self.momentum, self.temperature = momentum, temperature
        self.key_groups = key_groups
        self.network.head.requires_grad_(False)
        num_features = network.backbone.num_features
        self.projection = nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.ReLU(inplace=True),
            nn.Linear(num_features, embedding_dim),
        )
        self.key_encoder = copy.deepcopy(Encoder(network.backbone, self.projection))
        self.key_encoder.requires_grad_(False)
        queue = F.normalize(torch.randn(embedding_dim, queue_size), dim=0)
        self.register_buffer("queue", queue)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._keys = torch.zeros(0, embedding_dim)  # of the current step

    def check(self, sizes: Mapping[str, Sequence[int]], batch_size: int) -> None:
        """Raise `LongTailedError` unless the batches, which no split is too small for, fit."""
        share = sum(sizes[self.streams["train"].split]) // _processes()
        self._check_batch(min(batch_size // _processes(), max(1, share)))

    def begin(self, run: Run) -> None:
        """Let the keys start from the network as this stage finds it."""
        self.key_encoder.load_state_dict(self._query_encoder().state_dict())

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the cross-entropy of each query's own key among all keys."""
        queries, keys = batches["train"].images
        query = self._query_encoder()(queries)
        key = self._keys = self._encode_keys(keys, progress.generator)
        logits = moco_logits(query, key, self.queue, self.temperature)
        return {"moco": F.cross_entropy(logits, torch.zeros_like(batches["train"].labels))}

    def _query_encoder(self) -> Encoder:
        return Encoder(self.network.backbone, self.projection)

    def _check_batch(self, images: int) -> None:
        batch, size = images * _processes(), self.queue.shape[1]
        if size % batch:
            raise LongTailedError(
                f"a queue of {size} keys cannot be filled with batches of {batch}; set queue_size "
                f"to a multiple of {batch}."
            )
        groups = self.key_groups
        if groups > 1 and (images % groups or images < 2 * groups):
            fitting = [str(k) for k in range(1, images // 2 + 1) if images % k == 0] or ["1"]
            raise LongTailedError(
                f"{images} images of a batch cannot be normalised in {groups} equal groups of at "
                f"least two; set key_groups to one of {', '.join(fitting)}."
            )

    @torch.no_grad()
    def _encode_keys(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the keys [N, d]; batch-norm sees the images in random groups."""
        order = torch.rand(len(images), generator=generator, device=generator.device).argsort()
        groups = max(1, min(self.key_groups, len(images) // 2))  # fewer in a partial batch
        keys = [self.key_encoder(part) for part in images[order].tensor_split(groups)]
        return torch.cat(keys)[order.argsort()]

    def after_step(self, progress: Progress) -> None:
        """Put the keys into the queue in place of the oldest; let the key encoder follow."""
        keys = of_all_processes(self._keys)
        places = torch.arange(len(keys), device=keys.device) + self.pointer
        self.queue.index_copy_(1, places % self.queue.shape[1], keys.T)
        self.pointer.copy_((self.pointer + len(keys)) % self.queue.shape[1])
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the key encoder's parameters towards the query encoder's."""
        own: list[Tensor] = list(self.key_encoder.parameters())
        average = get_ema_multi_avg_fn(self.momentum)  # type: ignore[no-untyped-call]
        average(own, list(self._query_encoder().parameters()), 0)  # the 0 is not used


def _processes() -> int:
    distributed = torch.distributed
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1
