"""Put RSG, the rare-class sample generator, inside a network of your own.

    python examples/rsg_inside.py

Between two layers the generator appends new samples of rare classes to the feature maps and labels
(arXiv 2106.09859). Early in training it only learns its centres; then it generates. What is
deployed is the network without it. About 5 seconds on two CPU cores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import longtailed as lt

CESC_WEIGHT, MV_WEIGHT = 0.1, 0.01  # as published


class YourNetwork(nn.Module):
    """Three convolutions and a head; RSG works after the second one."""

    def __init__(self, num_classes: int, head_classes: list[int]) -> None:
        super().__init__()
        self.early = nn.Sequential(convolution(3, 32, stride=1), convolution(32, 64, stride=2))
        self.late = nn.Sequential(
            convolution(64, 64, stride=2), nn.Flatten(), nn.Linear(256, num_classes)
        )
        self.generator = lt.methods.RareSampleGenerator(num_classes, 64, head_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits: RSG is not part of what is deployed."""
        logits: Tensor = self.late(self.early(images.float() / 127.5 - 1))
        return logits

    def loss(self, images: Tensor, labels: Tensor, generate: bool) -> Tensor:
        """Return the cross-entropy of the enlarged batch and the generator's own losses."""
        maps = self.early(images.float() / 127.5 - 1)
        maps, labels, centres, vectors = self.generator(maps, labels, generate)
        loss = cross_entropy(self.late(maps), labels)
        total: Tensor = loss + CESC_WEIGHT * centres + MV_WEIGHT * vectors
        return total


def convolution(channels: int, out: int, stride: int) -> nn.Sequential:
    """Return a convolution with normalisation and ReLU."""
    layer = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


def main(epochs: int = 20) -> None:
    """Train and print the accuracy of classes with many, medium and few images."""
    torch.manual_seed(0)
    train = lt.make_long_tailed(lt.load_imageset("digits"), imbalance_ratio=50)
    network = YourNetwork(train.num_classes, head_classes=[0, 1])  # the two largest
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(0.6 * epochs)), gamma=0.01)
    loader = DataLoader(train, 32, shuffle=True, drop_last=True)
    generated = max(1, round(0.8 * epochs))  # begin after the rate has dropped to a hundredth
    for epoch in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            network.loss(images, labels, generate=epoch >= generated).backward()
            optimizer.step()
        schedule.step()

    test = lt.load_imageset("digits", "test")
    network.eval()
    with torch.no_grad():
        predictions = network(test.pixels()).argmax(dim=1)
    shots = lt.metrics.shot_accuracy(predictions, test.labels, train.class_counts, groups="auto")
    print(f"many {shots.many:.1%}, medium {shots.medium:.1%}, few {shots.few:.1%}")


if __name__ == "__main__":
    main()
