"""The handwritten digits that scikit-learn ships: 1,797 images of 8x8, no download."""

from __future__ import annotations

import numpy as np
import torch

from longtailed.data.imageset import ImageSet
from longtailed.data.sources.names import choose_split

DIGITS_SPLITS = ("train", "test")
TEST_FRACTION = 0.3


def load_digits(split: str) -> ImageSet:
    """Return the digits as uint8 RGB [N, 3, 8, 8]; grey 0..16 becomes 0..255.

    The split is fixed and stratified: 30 % of each class, drawn with `RandomState(0)`, are test.
    """
    from sklearn import datasets  # here, because it takes seconds to import

    data = datasets.load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    random = np.random.RandomState(0)
    in_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        in_test[random.permutation(members)[: round(TEST_FRACTION * len(members))]] = True
    rows = choose_split(
        "digits", {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}, split
    )
    images = torch.from_numpy(grey[rows])[:, None].repeat(1, 3, 1, 1)
    names = tuple(str(digit) for digit in range(10))
    return ImageSet(images, labels[rows], names, name=f"digits ({split})")
