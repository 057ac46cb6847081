"""Similar samples put into the training images of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from longtailed.data import ImageSet, mix_similar_samples
from longtailed.data.image_record import fingerprint, record_images
from longtailed.errors import LongTailedError
from longtailed.recipes.similar import Similar


def with_similar_samples(
    train: ImageSet, wanted: Similar, seed: int
) -> tuple[ImageSet, dict[str, Any]]:
    """Return the training images with the similar samples that a recipe wants, and a note on it.

    The pixels are copied first, so no other set that shares them changes. The note says how many
    images were mixed and what the fingerprint was before.

    Raises `LongTailedError` unless the images are decoded in memory.
    """
    if not train.in_memory:
        raise LongTailedError(
            f"{train.name}: similar samples are mixed of pixels in memory, but these images are "
            "files that are decoded one at a time; store small images of one size as parquet."
        )
    last = train.num_classes - 1
    tail = last if wanted.tail_class is None else wanted.tail_class
    pixels = train.pixels().numpy()
    rows, mixed = mix_similar_samples(
        pixels, train.labels, wanted.head_classes, tail, wanted.fraction,
        wanted.head_weight, seed, wanted.rounding,
    )  # fmt: skip
    labels = train.labels
    if wanted.mode == "append":
        pixels, labels = np.concatenate([pixels, mixed]), np.concatenate([labels, labels[rows]])
    else:
        pixels[rows] = mixed
    edited = replace(
        train,
        images=torch.from_numpy(pixels),
        labels=labels,
        indices=np.arange(len(labels)),
        groups=None,  # a mixed image comes from two
    )
    note = {
        **wanted.model_dump(mode="json"),
        "tail_class": tail,
        "images": len(rows),
        "sha256_before": fingerprint(record_images({"train": train})),
    }
    return edited, note
