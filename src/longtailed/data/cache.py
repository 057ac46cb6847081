"""Image files decoded once into one uint8 tensor, for training from memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from longtailed.data.augment.geometry import CenterCrop, Resize
from longtailed.data.imageset import ImageSet
from longtailed.data.sources.files import map_threads


def decode_resized(imageset: ImageSet, side: int) -> ImageSet:
    """Return the set with its images decoded to uint8 [N, 3, side, side].

    Each image is resized (antialiased) so that its shorter side is `side`, then cut to the centre
    square: what lies outside is lost to later random crops, a departure from decoding each time.

    Raises `LongTailedError` naming an image that cannot be decoded.
    """
    pixels = torch.empty((len(imageset), 3, side, side), dtype=torch.uint8)
    resize, crop = Resize(side), CenterCrop(side)
    unused = torch.Generator()

    def decode(position: int) -> None:
        image = imageset.decode(position)
        pixels[position] = crop.load(resize.load(image, unused), unused)

    map_threads(decode, range(len(imageset)))
    return replace(imageset, images=pixels, indices=np.arange(len(imageset), dtype=np.int64))
