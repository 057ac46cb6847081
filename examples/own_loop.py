"""Train with a method of the library in a loop of your own.

    python examples/own_loop.py

ISDA on long-tailed digits, with a plain `DataLoader`, optimiser and loop. `fit` does the same and
adds resume, schedules, evaluation and capture. Methods that collect statistics of the whole train
set between epochs (RISDA) or freeze parts at the start (cRT, ...) also need their `begin` and
`end_epoch`, which take a `Run`: leave those to `fit`. About 5 seconds on two CPU cores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import longtailed as lt

BATCH = 32


def normalized(images: Tensor) -> Tensor:
    """Return uint8 images as floats in -1..1."""
    return images.float() / 127.5 - 1


def accuracy(method: lt.Method, test: lt.ImageSet, counts: list[int]) -> str:
    """Return the accuracy for classes with many, medium and few images, as text."""
    method.eval()
    with torch.no_grad():
        predictions = method.predict(normalized(test.pixels())).argmax(dim=1)
    shots = lt.metrics.shot_accuracy(predictions, test.labels, counts, groups="auto")
    return f"many {shots.many:.1%}, medium {shots.medium:.1%}, few {shots.few:.1%}"


def main(epochs: int = 20) -> None:
    """Train ISDA and print its accuracy."""
    torch.manual_seed(0)
    train = lt.make_long_tailed(lt.load_imageset("digits"), imbalance_ratio=50)
    sampler = lt.make_sampler("instance", train.labels, train.num_classes)
    loader = DataLoader(train, BATCH, sampler=sampler, drop_last=True)

    network = lt.build_network("resnet8", train.num_classes)
    method = lt.build_method("isda", network, train.class_counts)
    optimizer = torch.optim.SGD(method.parameter_groups(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    progress = lt.methods.Progress(epochs, len(loader), torch.Generator())

    for epoch in range(epochs):
        method.train()
        sampler.set_epoch(epoch)
        progress.enter(
            epoch, float(schedule.get_last_lr()[0])
        )  # ISDA's strength grows with the epochs
        for step, (images, labels) in enumerate(loader):
            progress.begin_step(step)
            index = torch.zeros_like(labels)  # positions in the set: ISDA does not use them
            batch = lt.data.Batch((normalized(images),), labels, index)
            terms = method({"train": batch}, progress)
            optimizer.zero_grad()
            torch.stack([*terms.values()]).sum().backward()
            optimizer.step()
            method.after_step(progress)
        schedule.step()
    print(accuracy(method, lt.load_imageset("digits", "test"), train.class_counts))


if __name__ == "__main__":
    main()
