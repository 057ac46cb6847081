"""Small data and networks that many tests share."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes share the cores; children obey too

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from longtailed.data import ImageSet, Splits, parse_view
from longtailed.nn import Network, build_network

torch.set_num_threads(1)


def make_imageset(counts: list[int], side: int = 16, seed: int = 0) -> ImageSet:
    """Return noisy images whose colour tells their class, so that a few steps learn them.

    Up to 8 classes have colours of their own."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    corners = (np.arange(len(counts))[:, None] >> np.arange(3)) & 1  # of the colour cube
    colours = (60 + 130 * corners)[:, :, None, None]
    noise = generator.normal(0, 25, size=(len(labels), 3, side, side))
    pixels = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return ImageSet(torch.from_numpy(pixels), labels, names, name="synthetic")


def make_splits(counts: list[int], side: int = 16, **changes: object) -> Splits:
    """Return train, holdout and test splits of `make_imageset`."""
    settings: dict[str, object] = {
        "sets": {
            "train": make_imageset(counts, side, seed=1),
            "holdout": make_imageset([4] * len(counts), side, seed=2),
            "test": make_imageset([8] * len(counts), side, seed=3),
        },
        "views": {
            "standard": parse_view("pad_crop(2), flip"),
            "strong": parse_view("pad_crop(2), flip"),
            "sim": parse_view("pad_crop(3), flip, grayscale"),
            "test": parse_view(""),
        },
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    return Splits(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


@pytest.fixture
def splits() -> Splits:
    return make_splits([24, 12, 6, 3])


@pytest.fixture
def small_network() -> Callable[..., Network]:
    def build(num_classes: int = 4, head: str = "linear", seed: int = 0) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network("resnet8", num_classes, head=head, width=0.5)

    return build


@pytest.fixture
def imageset_of() -> Callable[..., ImageSet]:
    return make_imageset


@pytest.fixture
def splits_of() -> Callable[..., Splits]:
    return make_splits
