"""Use a loss and a sampler in a module with Lightning's hooks.

    python examples/lightning_module.py

LDAM with progressively balanced sampling (arXiv 1906.07413, 1910.09217) on long-tailed digits. The
class has the hooks of a `LightningModule`: derive it from that and give it to a `Trainer`, which
calls `set_epoch` itself; here Fabric and ten lines take the Trainer's place, so that Lightning need
not be installed. Both leave our sampler as it is with several processes: it shares an epoch among
them. About 5 seconds on two CPU cores.
"""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

import longtailed as lt


class Classifier(nn.Module):  # with Lightning: L.LightningModule
    """A network and the LDAM loss for its classes; images come as uint8."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.network = lt.build_network("resnet8", len(counts), head="cosine")
        self.criterion = lt.losses.LDAMLoss(counts)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, cosines in -1..1."""
        logits: Tensor = self.network(images.float() / 127.5 - 1)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        loss: Tensor = self.criterion(self(images), labels)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)


def main(epochs: int = 20) -> None:
    """Train and print the accuracy of classes with many, medium and few images."""
    torch.manual_seed(0)
    train = lt.make_long_tailed(lt.load_imageset("digits"), imbalance_ratio=50)
    sampler = lt.make_sampler("progressive", train.labels, train.num_classes, epochs=epochs)
    module = Classifier(train.class_counts)

    fabric = Fabric(accelerator="auto", devices=1)
    fabric.launch()
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    model.mark_forward_method("training_step")
    loader = fabric.setup_dataloaders(DataLoader(train, 32, sampler=sampler, drop_last=True))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for step, batch in enumerate(loader):
            optimizer.zero_grad()
            fabric.backward(model.training_step(batch, step))
            optimizer.step()

    test = lt.load_imageset("digits", "test")
    model.eval()
    with torch.no_grad():
        predictions = model(test.pixels().to(fabric.device)).argmax(dim=1)
    shots = lt.metrics.shot_accuracy(predictions, test.labels, train.class_counts, groups="auto")
    print(f"many {shots.many:.1%}, medium {shots.medium:.1%}, few {shots.few:.1%}")


if __name__ == "__main__":
    main()
