"""Use losses, samplers and metrics in a training loop of your own.

    python examples/losses_alone.py

Nothing but plain PyTorch trains a small network on long-tailed digits, four times: as usual, with
class-balanced sampling, with logit adjustment, and with LDAM and class-balanced weights. About 5
seconds on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longtailed.data import ImageSet, load_imageset, make_long_tailed, make_sampler
from longtailed.losses import class_balanced_weights, ldam_loss, logit_adjusted_loss
from longtailed.metrics import shot_accuracy
from longtailed.nn import CosineHead

BATCH = 32
Loss = Callable[[Tensor, Tensor], Tensor]


def small_network(num_classes: int, cosine: bool) -> nn.Module:
    """Return two convolutions and a head; LDAM's margins need the cosines of a cosine head."""
    head = CosineHead(128, num_classes) if cosine else nn.Linear(128, num_classes)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        head,
    )


def pixels(imageset: ImageSet) -> tuple[Tensor, Tensor]:
    """Return images [N, 3, 8, 8] in -1..1 and labels [N]."""
    return imageset.pixels() / 127.5 - 1, torch.from_numpy(imageset.labels)


def train(train_set: ImageSet, loss: Loss, sampling: str, cosine: bool, epochs: int) -> nn.Module:
    """Return a network trained with the loss on images drawn by the sampler."""
    torch.manual_seed(0)
    model = small_network(train_set.num_classes, cosine)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    sampler = make_sampler(sampling, train_set.labels, train_set.num_classes, seed=0)
    images, labels = pixels(train_set)
    for epoch in range(epochs):
        for batch in torch.from_numpy(sampler.indices(epoch, epochs)).split(BATCH):
            optimizer.zero_grad()
            loss(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def main(epochs: int = 20) -> None:
    """Train in four ways and print the accuracy of classes with many, medium and few images."""
    train_set = make_long_tailed(load_imageset("digits", "train"), imbalance_ratio=50)
    counts = train_set.class_counts
    weights = class_balanced_weights(counts)
    ways: dict[str, tuple[Loss, str, bool]] = {
        "cross-entropy": (cross_entropy, "instance", False),
        "balanced sampling": (cross_entropy, "class-balanced", False),
        "logit adjustment": (
            lambda logits, labels: logit_adjusted_loss(logits, labels, counts),
            "instance",
            False,
        ),
        "LDAM, weighted": (
            lambda logits, labels: ldam_loss(logits, labels, counts, class_weights=weights),
            "instance",
            True,
        ),
    }
    images, labels = pixels(load_imageset("digits", "test"))
    print(f"{'':18} {'many':>6} {'medium':>6} {'few':>6}")
    for name, (loss, sampling, cosine) in ways.items():
        model = train(train_set, loss, sampling, cosine, epochs)
        with torch.no_grad():
            predictions = model(images).argmax(dim=1)
        shots = shot_accuracy(predictions, labels, counts, groups="auto")
        print(f"{name:18} {shots.many:6.1%} {shots.medium:6.1%} {shots.few:6.1%}")
    print(shots.rule)


if __name__ == "__main__":
    main()
