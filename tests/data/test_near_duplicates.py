"""Near-duplicates: found in memory and in files, counted by class and split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from longtailed.data import ImageSet, count_near_duplicates, load_imageset
from longtailed.data import near_duplicates as module


def picture(number: int, side: int = 48) -> Image.Image:
    """Return a smooth random picture, the same for the same number."""
    small = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def in_memory(numbers: list[int], labels: list[int], noise: int = 0) -> ImageSet:
    random = np.random.default_rng(noise)
    pixels = np.stack([np.asarray(picture(n, 32)).transpose(2, 0, 1) for n in numbers])
    noisy = np.clip(pixels + random.integers(-noise, noise + 1, pixels.shape), 0, 255)
    return ImageSet(
        torch.from_numpy(noisy.astype(np.uint8)), np.array(labels), ("ant", "bee"), name="pictures"
    )


def test_counts_within_and_across_classes_and_splits():
    train = in_memory([0, 0, 1, 2, 2, 3, 4, 5], [0, 0, 0, 0, 1, 1, 1, 1], noise=4)
    test = in_memory([3, 9, 1], [1, 0, 1], noise=6)
    found = count_near_duplicates({"train": train, "test": test})
    # Pictures 0, 1, 2 and 3 are there twice.
    assert found["images"] == 8
    assert found["within_class"] == 2
    assert found["across_classes"] == 4
    assert found["across_splits"] == {"test in train": 2}
    for one, other in found["examples"][:2]:  # those of different splits come first
        assert {one[0], other[0]} == {"train", "test"}


def test_copies_in_files_are_found_and_other_pictures_are_not(tmp_path):
    changes = {
        "jpeg": lambda image: image,
        "smaller": lambda image: image.resize((30, 30)),
        "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    }
    for number in range(12):
        for split, name in (("train", "a"), ("test", "b")):
            (tmp_path / split / "ant").mkdir(parents=True, exist_ok=True)
            picture(number if split == "train" else 100 + number).save(
                tmp_path / split / "ant" / f"{name}{number}.png"
            )
    for number, (name, change) in enumerate(changes.items()):
        change(picture(number)).save(tmp_path / "test" / "ant" / f"{name}.jpg", quality=50)
    sets = {split: load_imageset(tmp_path, split) for split in ("train", "test")}
    (tmp_path / "train" / "ant" / "a11.png").write_bytes(b"no picture")  # left out
    found = count_near_duplicates(sets)
    assert found["across_splits"] == {"test in train": 3}
    assert found["images"] == 6
    names = {name for pair in found["examples"] for _, name, _ in pair}
    assert {name.rsplit("/", 1)[1] for name in names} >= {"jpeg.jpg", "a0.png"}


def test_pairs_are_those_of_all_with_all(monkeypatch):
    """Whatever the bands and blocks, each pair that a full comparison finds is found once."""
    monkeypatch.setattr(module, "_MATRIX", 64)
    random = np.random.default_rng(0)
    bits = random.random((40, 64)) < 0.5
    bits[:, 0] = False
    copies = np.repeat(bits, 3, axis=0)
    for row in copies:
        row[random.choice(np.arange(1, 64), random.integers(0, 6), replace=False)] ^= True
    thumbnails = np.zeros((len(copies), 768), np.uint8)  # blank: the hash alone decides
    found = module._near_pairs(copies, thumbnails, lambda left, right: np.ones(len(left), bool))
    pairs = [
        pair for left, right in found for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]
    distance = (copies[:, None] != copies[None]).sum(axis=2)
    wanted = np.argwhere(np.triu(distance <= module.MOST_BITS, 1))
    assert sorted(tuple(sorted(pair)) for pair in pairs) == sorted(map(tuple, wanted.tolist()))


def test_many_equal_images_are_counted_without_their_pairs(monkeypatch):
    blank = torch.zeros(3000, 3, 8, 8, dtype=torch.uint8)
    compared = []
    near_pairs = module._near_pairs
    monkeypatch.setattr(
        module, "_near_pairs", lambda *given: compared.append(len(given[0])) or near_pairs(*given)
    )
    found = count_near_duplicates({"train": ImageSet(blank, np.zeros(3000, int), ("a",))})
    assert compared == [1]
    assert (found["images"], found["within_class"], found["across_classes"]) == (3000, 3000, 0)


@pytest.mark.parametrize(("levels", "images"), [((10, 12), 2), ((0, 255), 0)])
def test_blank_images_are_alike_unless_one_is_black_and_one_white(levels, images):
    pixels = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(2, 3, 8, 8)
    found = count_near_duplicates({"train": ImageSet(pixels, np.array([0, 0]), ("a",))})
    assert found["images"] == images


def test_a_crowd_that_looks_alike_is_counted_without_all_its_pairs(monkeypatch):
    """A camera that stands still: of 600 frames each looks like each."""
    compared = []
    look_alike = module._look_alike
    monkeypatch.setattr(
        module, "_look_alike", lambda *pair: compared.append(len(pair[0])) or look_alike(*pair)
    )
    train = in_memory([0] * 500, [0, 1] * 250, noise=6)
    test = in_memory([0] * 100, [1] * 100, noise=7)
    found = count_near_duplicates({"train": train, "test": test})
    assert (found["images"], found["within_class"], found["across_classes"]) == (600, 600, 600)
    assert found["across_splits"] == {"test in train": 100}
    assert [one[0] for one, _ in found["examples"]] != [other[0] for _, other in found["examples"]]
    assert sum(compared) < 600 * 599 / 2 / 10
