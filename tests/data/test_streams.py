"""Feeds: memory and files give the same batches, steps can be reached directly, ranks share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longtailed.data import ImageFiles, ImageSet, Splits, Stream, View, decode_resized, parse_view
from longtailed.errors import LongTailedError

VIEWS = {
    "standard": parse_view("resized_crop(16), flip"),
    "plain": parse_view("center_crop(16)"),
    "test": parse_view("center_crop(16)"),
}


@pytest.fixture
def on_disk(tmp_path) -> ImageSet:
    generator = np.random.default_rng(0)
    paths = []
    for number in range(30):
        pixels = generator.integers(0, 256, size=(20, 20, 3), dtype=np.uint8)
        paths.append(f"{number:02d}.png")
        Image.fromarray(pixels).save(tmp_path / paths[-1])
    labels = np.arange(30) % 3
    return ImageSet(ImageFiles(tmp_path, paths), labels, ("a", "b", "c"), name="files")


def splits_from(imageset: ImageSet, workers: int = 0, **views: View) -> Splits:
    return Splits({"train": imageset}, {**VIEWS, **views}, (0.5,) * 3, (0.25,) * 3, workers=workers)


def collect(feed, epoch: int = 0, first_step: int = 0):
    return [(b.images, b.labels, b.index) for b in feed.epoch(epoch, 10, first_step)]


def assert_equal(ours, theirs) -> None:
    assert len(ours) == len(theirs) > 0
    for (images, labels, index), (other_images, other_labels, other_index) in zip(
        ours, theirs, strict=True
    ):
        assert torch.equal(labels, other_labels)
        assert torch.equal(index, other_index)
        for one, other in zip(images, other_images, strict=True):
            assert torch.equal(one, other)


def test_files_and_memory_agree_where_nothing_is_random(on_disk):
    stream = Stream(views=("plain",))
    in_memory = decode_resized(on_disk, 20)
    assert in_memory.in_memory
    feeds = [splits_from(s).open("train", stream, 8, seed=1) for s in (on_disk, in_memory)]
    assert_equal(*(collect(feed) for feed in feeds))


@pytest.mark.parametrize("workers", [0, 1])
def test_decoding_in_workers_changes_nothing(on_disk, workers):
    stream = Stream(views=("standard", "plain"))
    feeds = [splits_from(on_disk, w).open("train", stream, 8, seed=1) for w in (0, workers)]
    first, second = (collect(feed) for feed in feeds)
    assert_equal(first, second)
    assert first[0][0][0].shape == (8, 3, 16, 16)
    assert_equal(collect(feeds[1], epoch=0), first)  # workers live on and can start over


@pytest.mark.parametrize("in_memory", [True, False])
def test_any_step_can_be_reached_directly(on_disk, in_memory):
    imageset = decode_resized(on_disk, 20) if in_memory else on_disk
    feed = splits_from(imageset).open("train", Stream(), 8, seed=1)
    assert feed.steps == 3
    assert_equal(collect(feed, epoch=2)[1:], collect(feed, epoch=2, first_step=1))


def test_every_draw_of_a_file_is_augmented_anew(on_disk):
    rare = on_disk.subset([*range(0, 30, 3), 1])  # 10 images of one class, and 1 of another
    splits = splits_from(rare, crop=parse_view("resized_crop(16)"))
    feed = splits.open("train", Stream(views=("crop",), sampler="class-balanced"), 11, seed=1)
    ((images, _, index),) = collect(feed)
    crops = images[0][index == 10]
    assert len(torch.unique(crops, dim=0)) == len(crops) > 2


@pytest.mark.parametrize("in_memory", [True, False])
def test_without_drop_last_an_epoch_holds_every_image(on_disk, in_memory):
    imageset = decode_resized(on_disk, 20) if in_memory else on_disk
    feed = splits_from(imageset).open("train", Stream(), 8, seed=1, drop_last=False)
    batches = collect(feed, epoch=2)
    assert feed.steps == 4
    assert [len(labels) for _, labels, _ in batches] == [8, 8, 8, 6]
    assert sorted(torch.cat([index for _, _, index in batches]).tolist()) == list(range(30))
    assert_equal(batches[3:], collect(feed, epoch=2, first_step=3))
    kept = splits_from(imageset).open("train", Stream(), 8, seed=1)
    assert_equal(batches[:3], collect(kept, epoch=2))


def test_a_single_image_makes_no_batch(on_disk):
    feed = splits_from(on_disk.subset(range(25))).open("train", Stream(), 8, 1, drop_last=False)
    assert [len(labels) for _, labels, _ in collect(feed)] == [8, 8, 8]


def test_processes_share_the_partial_batch(on_disk):
    splits = splits_from(on_disk)
    feeds = [
        splits.open("train", Stream(), 8, seed=1, rank=rank, world_size=2, drop_last=False)
        for rank in (0, 1)
    ]
    for feed in feeds:
        assert [len(labels) for _, labels, _ in collect(feed)] == [4, 4, 4, 3]


def test_epochs_and_seeds_differ(on_disk):
    splits = splits_from(on_disk)
    feed, other = (splits.open("train", Stream(), 8, seed=s) for s in (1, 2))
    orders = [feed.order(0, 10), feed.order(1, 10), other.order(0, 10)]
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_two_views_of_one_image_differ_and_share_the_label(on_disk):
    feed = splits_from(on_disk).open("train", Stream(views=("standard", "standard")), 8, seed=1)
    (one, two), labels, index = collect(feed)[0]
    assert not torch.equal(one, two)
    assert torch.equal(labels, torch.from_numpy(on_disk.labels)[index])


def test_endless_feed_goes_on_after_an_epoch(on_disk):
    feed = splits_from(on_disk).open("train", Stream(views=("plain",)), 8, seed=1)
    endless = feed.endless_draws(10)
    batches = [next(endless).tensors[0] for _ in range(5)]
    expected = [index for epoch in (0, 1) for _, _, index in collect(feed, epoch)]
    assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=False))
    resumed = feed.endless_draws(10, first_step=4)
    assert torch.equal(next(resumed).tensors[0], batches[4])


def test_processes_share_an_epoch_without_overlap(on_disk):
    splits = splits_from(on_disk)
    feeds = [splits.open("train", Stream(), 10, seed=1, rank=r, world_size=2) for r in (0, 1)]
    assert feeds[0].steps == feeds[1].steps == 3
    seen = np.concatenate([feed.order(0, 10).ravel() for feed in feeds])
    assert sorted(seen) == list(range(30))


def test_scan_sees_every_image_once_in_order(on_disk):
    splits = splits_from(on_disk)
    batches = list(splits.scan("train", batch_size=8))
    assert torch.cat([b.index for b in batches]).tolist() == list(range(30))
    shares = [b.index for r in (0, 1) for b in splits.scan("train", 8, rank=r, world_size=2)]
    assert sorted(torch.cat(shares).tolist()) == list(range(30))


def test_deferred_sampler_begins_when_it_should(on_disk):
    skewed = on_disk.subset([*range(0, 30, 3), 1, 2])  # 10, 1 and 1 images
    stream = Stream(sampler="class-balanced", sampler_start=0.8)
    feed = splits_from(skewed).open("train", stream, 12, seed=1)
    early, late = feed.order(7, 10).ravel(), feed.order(8, 10).ravel()
    assert sorted(early) == list(range(12))
    assert (skewed.labels[late] == 0).mean() < 0.7


def test_a_small_set_gives_smaller_batches_rather_than_none(on_disk):
    feed = splits_from(on_disk.subset([0, 1, 2])).open("train", Stream(), 8, seed=1)
    assert (feed.batch_size, feed.steps) == (3, 1)


def test_bad_requests_are_one_sentence(on_disk):
    splits = splits_from(on_disk)
    with pytest.raises(LongTailedError, match="unknown view 'standrad'; did you mean 'standard'"):
        splits.open("train", Stream(views=("standrad",)), 8, seed=1)
    with pytest.raises(LongTailedError, match="unknown split 'meta'"):
        splits.open("train", Stream(split="meta"), 8, seed=1)
    with pytest.raises(LongTailedError, match="has no images"):
        splits_from(on_disk.subset([])).open("train", Stream(), 8, seed=1)
    with pytest.raises(LongTailedError, match="unknown sampler 'balanced'"):
        collect(splits.open("train", Stream(sampler="balanced"), 8, seed=1))


def test_images_of_different_sizes_need_a_view_that_crops(tmp_path):
    for number, side in enumerate((20, 24)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{number}.png")
    files = ImageSet(ImageFiles(tmp_path, ["0.png", "1.png"]), np.array([0, 1]), ("a", "b"))
    feed = splits_from(files, flip=parse_view("flip")).open(
        "train", Stream(views=("flip",)), 2, seed=1
    )
    with pytest.raises(LongTailedError, match="different sizes"):
        collect(feed)


SHARES = pytest.mark.parametrize("share_of", ["batches", "images"])


def shared(share: float = 0.5, share_of: str = "batches") -> Stream:
    return Stream(views=("plain", "plain"), share=share, share_of=share_of)


def feed_of(imageset: ImageSet, stream: Stream, workers: int = 0):
    return splits_from(imageset, workers).open("train", stream, 5, seed=1)


@SHARES
def test_only_the_used_images_are_decoded(imageset_of, counted, share_of):
    imageset = counted(imageset_of([20, 10]))
    feed = feed_of(imageset, shared(share_of=share_of))
    whole = list(feed_of(imageset_of([20, 10]), shared(1.0)).epoch(2, 10))
    batches = list(feed.epoch(2, 10))
    used = torch.cat([batch.used for batch in batches])
    assert 0 < used.sum() < len(used) == 30
    rows = torch.cat([batch.index for batch in batches])[used].tolist()
    # Once more, the first image: for the size of batches of which nothing is decoded.
    examples = sum(not batch.used.any() for batch in batches) > 0
    assert sorted(imageset.images.decoded) == sorted(rows + [0] * examples)
    for batch, other in zip(batches, whole, strict=True):
        assert other.used is None
        assert torch.equal(batch.index, other.index)
        assert torch.equal(batch.labels, other.labels)
        for view, expected in zip(batch.images, other.images, strict=True):
            assert view.shape == expected.shape
            assert torch.equal(view[batch.used], expected[batch.used])
            assert bool((view[~batch.used] == -2).all())  # black


@SHARES
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_files_use_the_same_images(imageset_of, counted, share_of, workers):
    imageset, stream = imageset_of([20, 10]), shared(share_of=share_of)
    feeds = feed_of(imageset, stream), feed_of(counted(imageset), stream, workers)
    seen = set()
    for one, other in zip(*(feed.epoch(1, 10) for feed in feeds), strict=True):
        seen.add(int(one.used.sum()))
        assert torch.equal(one.used, other.used)
        assert torch.equal(one.images[0][one.used], other.images[0][one.used])
    assert seen == {0, 5} if share_of == "batches" else len(seen) > 2


@SHARES
def test_a_share_is_the_same_after_a_resume(imageset_of, counted, share_of):
    imageset, stream = counted(imageset_of([20, 10])), shared(share_of=share_of)
    whole = list(feed_of(imageset, stream).epoch(1, 10))
    for first in range(1, 6):
        rest = feed_of(imageset, stream).epoch(1, 10, first)
        for one, other in zip(whole[first:], rest, strict=True):
            assert torch.equal(one.used, other.used)
            assert torch.equal(one.images[0], other.images[0])


@SHARES
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_the_share_is_a_probability(imageset_of, share, share_of):
    stream = Stream(views=(), share=share, share_of=share_of)
    feed = splits_from(imageset_of([300, 100])).open("train", stream, 2, seed=1)
    used = torch.stack([batch.used for epoch in range(5) for batch in feed.epoch(epoch, 10)])
    draws = used if share_of == "images" else used[:, :1]
    assert (
        abs(draws.float().mean() - share)
        < 3.5 * (share * (1 - share) / draws.numel()) ** 0.5 + 1e-6
    )
    if share_of == "batches":
        assert torch.equal(used[:, 0], used[:, 1])
    elif share:
        assert not torch.equal(used[:, 0], used[:, 1])


def test_processes_and_streams_draw_their_share_independently(imageset_of):
    splits, stream = splits_from(imageset_of([300, 100])), Stream(views=(), share=0.5)
    feeds = [
        splits.open(name, stream, 10, seed=1, rank=rank, world_size=2)
        for name, rank in (("a", 0), ("a", 1), ("b", 0))
    ]
    drawn = [tuple(bool(b.used[0]) for b in feed.epoch(0, 10)) for feed in feeds]
    assert len(set(drawn)) == 3


def test_an_unreadable_image_is_named_though_others_are_not_used(on_disk, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(LongTailedError, match=r"\.png' cannot be decoded"):
        collect(feed_of(on_disk, shared(share_of="images")))
