"""From a recipe's data to splits: what is held out, stored, seen and noted."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from longtailed.data import ImageSet, Stream
from longtailed.data import preparation as module
from longtailed.data.default_views import default_views, normalization
from longtailed.data.image_record import fingerprint, images_of, record_images
from longtailed.data.loading import load_splits
from longtailed.data.preparation import store
from longtailed.data.settings import Data
from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe, load_recipe
from longtailed.runs.prepare import prepare

CPU = torch.device("cpu")


def png(number: int, side: int = 20) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_folder(root, **splits: dict[str, int]):
    """Write root/SPLIT/CLASS/000.png...; the split "flat" stands for root itself."""
    for split, counts in splits.items():
        for number, (name, count) in enumerate(counts.items()):
            folder = root / name if split == "flat" else root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:03d}.png").write_bytes(png(1000 * number + i))
    return root


def write_parquet(path, images: list[bytes], labels: list[int], names: str):
    column = pa.array([{"bytes": data} for data in images])
    feature = {"label": {"names": list(names), "_type": "ClassLabel"}}
    table = pa.table({"image": column, "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def manifest_of(**data: object):
    return prepare(Recipe(data=Data(**{"workers": 0, "image_size": 16, **data})), CPU)[1]


@pytest.fixture
def flat(tmp_path):
    return str(write_folder(tmp_path / "flat", flat={"ant": 20, "bee": 20, "wasp": 20}))


@pytest.fixture
def divided(tmp_path):
    train, val = {"ant": 12, "bee": 6, "wasp": 4}, {"ant": 3, "bee": 2, "wasp": 1}
    test = {"ant": 2, "bee": 2, "wasp": 2}
    return str(write_folder(tmp_path / "divided", train=train, val=val, test=test))


@pytest.fixture
def small_parquet(tmp_path):
    """A parquet folder of 16 x 16 images, which are decoded when it is opened."""
    for split, count in (("train", 12), ("test", 6)):
        images = [png(i, side=16) for i in range(count)]
        write_parquet(tmp_path / f"{split}.parquet", images, [0, 1, 2] * (count // 3), "abc")
    return str(tmp_path)


def rows(imageset: ImageSet) -> set[int]:
    return set(imageset.indices.tolist())


def test_held_out_images_are_set_aside_before_subsampling():
    held_out = {}
    for imbalance in (None, 4, 20):
        sets, notes = load_splits(Data(source="digits", imbalance=imbalance, holdout=7))
        assert sets["holdout"].class_counts == [7] * 10
        assert not rows(sets["train"]) & rows(sets["holdout"])
        held_out[imbalance] = sets["holdout"].fingerprint()
    assert len(set(held_out.values())) == 1
    assert notes == {**notes, "eval_split": "test", "holdout": "7 of each class, from train"}
    assert "holdout" not in load_splits(Data(source="digits", holdout=0))[0]


def test_a_source_without_a_test_split_gives_a_fifth_of_each_class(tmp_path):
    counts = {"ant": 20, "bee": 10, "fly": 5, "wasp": 1}
    source = str(write_folder(tmp_path / "flat", flat=counts))
    sets, notes = load_splits(Data(source=source, holdout=0.25))
    assert notes["eval_split"] == "held out from train by us"
    assert notes["tested_on"] == "images held out from train by us (20 % of each class)"
    assert notes["holdout"] == "25 % of each class, from train"
    assert sets["test"].class_counts == [4, 2, 1, 0]  # a class keeps its only image
    assert sets["holdout"].class_counts == [4, 2, 1, 0]  # a quarter of 16, 8, 4 and 1
    assert sets["train"].class_counts == [12, 6, 3, 1]
    parts = [rows(imageset) for imageset in sets.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 36


def test_a_val_split_is_the_held_out_part(divided):
    sets, notes = load_splits(Data(source=divided))
    assert [len(sets[split]) for split in ("train", "holdout", "test")] == [22, 6, 6]
    assert notes == {**notes, "eval_split": "test", "holdout": "val split"}
    assert "holdout" not in load_splits(Data(source=divided, holdout=0))[0]
    with pytest.raises(LongTailedError, match="has no split 'eval'"):
        load_splits(Data(source=divided, eval_split="eval"))


def test_the_manifest_says_what_was_taken_for_what_and_what_was_left_out(tmp_path):
    source = write_folder(tmp_path, Training={"ant": 8, "bee": 4}, Testing={"ant": 3, "bee": 2})
    (tmp_path / "notes").mkdir()
    (tmp_path / "Training" / "ant" / "._000.png").write_bytes(b"")
    (tmp_path / "Testing" / "ant" / "list.txt").write_text("x")
    recorded = manifest_of(source=str(source), storage="disk")
    assert len(recorded["read_as"]) == 2
    assert "train is 'Training', test is 'Testing'" in recorded["read_as"][0]
    assert "not used, as no splits: 'notes'" in recorded["read_as"][1]
    assert recorded["left_out"] == {
        "train": {"hidden or system file": 1},
        "test": {"not readable as an image (.txt)": 1},
    }


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_exif_is_applied_to_files_and_to_small_parquet_images(exif, tmp_path):
    tag, stream = Image.Exif(), io.BytesIO()
    tag[0x112] = 6
    Image.new("RGB", (12, 20)).save(stream, "JPEG", exif=tag)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(stream.getvalue())
    write_parquet(tmp_path / "table" / "train.parquet", [stream.getvalue()] * 8, [0, 1] * 4, "ab")
    for source in ("photos", "table"):
        sets, _ = load_splits(Data(source=str(tmp_path / source), exif=exif))
        shape = tuple(sets["train"].decode(0).shape)
        assert shape == ((3, 12, 20) if exif == "apply" else (3, 20, 12))


def test_one_class_and_a_class_without_a_good_image_are_refused(tmp_path):
    one = write_folder(tmp_path / "one", flat={"ant": 4})
    with pytest.raises(LongTailedError, match=r"one \(train\) has only one class \('ant'\)"):
        load_splits(Data(source=str(one)))
    bad = write_folder(tmp_path / "bad", flat={"ant": 4, "bee": 2, "fly": 3})
    for path in (bad / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(LongTailedError, match=r"among them all of 'bee': .*it is empty"):
        load_splits(Data(source=str(bad)))
    with pytest.raises(LongTailedError, match=r"no training image: 'bee' \(2 unreadable images"):
        load_splits(Data(source=str(bad), on_bad_image="skip"))


def test_a_val_split_is_for_testing_if_there_is_no_other(tmp_path):
    source = write_folder(tmp_path, train={"ant": 8, "bee": 4}, val={"ant": 3, "bee": 2})
    sets, notes = load_splits(Data(source=str(source), holdout=1))
    assert notes["eval_split"] == "val"
    counts = {split: imageset.class_counts for split, imageset in sets.items()}
    assert counts == {"train": [7, 3], "holdout": [1, 1], "test": [3, 2]}


@pytest.mark.parametrize("name", ["val", "validation"])
def test_the_split_of_the_final_figures_never_chooses_the_epoch(divided, name):
    sets, notes = load_splits(Data(source=divided, eval_split=name, holdout=1))
    assert sets["test"].class_counts == [3, 2, 1]
    assert notes["holdout"] == "1 of each class, from train"
    assert sets["holdout"].class_counts == [1, 1, 1]
    assert not rows(sets["train"]) & rows(sets["holdout"])


def test_the_manifest_counts_what_was_chosen(flat):
    data = {"source": flat, "imbalance": 4, "holdout": 2, "storage": "memory"}
    sets, _ = load_splits(Data(**data))
    manifest = manifest_of(**data)
    assert manifest["class_names"] == ["ant", "bee", "wasp"]
    for split, imageset in sets.items():
        noted = manifest["splits"][split]
        assert noted["images"] == len(imageset) == sum(noted["counts"])
        assert noted["counts"] == [int((imageset.labels == label).sum()) for label in range(3)]
    assert manifest["imbalance_ratio"] == 14 / 3
    assert (manifest["requested_imbalance"], manifest["profile"]) == (4, "exp")
    assert (manifest["storage"], manifest["image_size"]) == ("memory", [18, 18])
    assert json.loads(json.dumps(manifest)) == manifest


def test_the_choice_repeats_and_follows_its_seed(flat):
    data = {"source": flat, "imbalance": 4, "holdout": 2}
    first, again, other = (
        record_images(load_splits(Data(**data, subset_seed=seed))[0]) for seed in (0, 0, 1)
    )
    assert first.equals(again)
    for split in ("train", "holdout", "test"):
        counts = [manifest_of(**data, subset_seed=seed)["splits"][split] for seed in (0, 1)]
        assert counts[0] == counts[1]
        one, two = images_of(first, split), images_of(other, split)
        assert fingerprint(one) != fingerprint(two)


def damage(path) -> str:
    path.write_bytes(path.read_bytes()[:60])
    return str(path)


def test_skipped_images_are_counted_once(tmp_path):
    root = write_folder(tmp_path, train={"ant": 12, "bee": 6}, test={"ant": 3, "bee": 3})
    bad = [damage(root / "train/ant/003.png"), damage(root / "test/bee/001.png")]
    # The held-out images are of the same source as the training images.
    manifest = manifest_of(source=str(root), on_bad_image="skip", holdout=2)
    assert sorted(manifest["skipped"]) == sorted(bad)
    counts = {split: noted["counts"] for split, noted in manifest["splits"].items()}
    assert counts == {"train": [9, 4], "holdout": [2, 2], "test": [3, 2]}
    with pytest.raises(LongTailedError, match=r"1 of 18 images cannot be read: .*003\.png"):
        load_splits(Data(source=str(root)))


def test_skipped_rows_of_files_with_one_name_are_all_counted(tmp_path):
    for split in ("train", "test"):
        images = [png(0), b"no image", *[png(0)] * 4]
        write_parquet(tmp_path / split / "0000.parquet", images, [0, 1] * 3, "ab")
    manifest = manifest_of(source=str(tmp_path), on_bad_image="skip", holdout=1)
    assert len(manifest["skipped"]) == 2


def test_large_sets_are_not_decoded_to_look_for_damage(divided, monkeypatch, tmp_path):
    damage(tmp_path / "divided/train/ant/003.png")
    monkeypatch.setattr("longtailed.data.loading.FULL_SCAN", 21)
    sets, _ = load_splits(Data(source=divided))
    assert len(sets["train"]) == 22
    with pytest.raises(LongTailedError, match=r"003\.png' cannot be decoded"):
        sets["train"].decode(3)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"image_size": 32}, 37),
        ({"image_size": 64}, 73),
        ({"image_size": 65}, None),
        ({"image_size": 32, "storage": "disk"}, None),
        ({"image_size": 65, "storage": "memory"}, 74),
    ],
)
def test_small_crops_are_kept_decoded_unless_told_otherwise(divided, settings, side):
    data = Data(source=divided, **settings)
    sets, _ = load_splits(data)
    for name, imageset in store(sets, data).items():
        assert imageset.in_memory == (side is not None)
        np.testing.assert_array_equal(imageset.labels, sets[name].labels)
        if isinstance(imageset.images, torch.Tensor):
            assert imageset.images.shape == (len(imageset), 3, side, side)


def test_a_set_that_does_not_fit_stays_on_disk(divided, monkeypatch):
    data = Data(source=divided, image_size=32)
    sets, _ = load_splits(data)
    needed = (22 + 6 + 6) * 3 * 37 * 37
    for budget, kept in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(module, "MEMORY_BUDGET", budget)
        assert store(sets, data)["train"].in_memory == kept


def test_a_class_that_train_lacks_is_refused(tmp_path):
    folder = write_folder(tmp_path / "folder", train={"ant": 2, "bee": 2}, test={"wasp": 2})
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0))
    (tmp_path / "list_train.txt").write_text("a.png 0\nb.png 1\n")
    (tmp_path / "list_test.txt").write_text("a.png 2\n")
    write_parquet(tmp_path / "set/train.parquet", [png(0)] * 4, [0, 1] * 2, "ab")
    write_parquet(tmp_path / "set/test.parquet", [png(0)] * 3, [0, 1, 2], "abc")
    messages = {
        folder: "the class 'wasp'",
        tmp_path / "list_train.txt": "the class '2'",
        tmp_path / "set": "row 2 .*the class 'c' is not among the 2 classes of train",
    }
    for source, message in messages.items():
        with pytest.raises(LongTailedError, match=message):
            load_splits(Data(source=str(source), holdout=0))
    named = Data(source=str(tmp_path / "list_train.txt"), class_names="ant,bee,wasp")
    with pytest.raises(LongTailedError, match=r"1 class\(es\) have no training image: 'wasp'"):
        load_splits(named)


def test_splits_that_number_the_same_classes_differently_are_matched_by_name(tmp_path):
    write_parquet(tmp_path / "train.parquet", [png(0)] * 4, [0, 1] * 2, "ab")
    write_parquet(tmp_path / "test.parquet", [png(0)] * 2, [0, 1], "ba")
    sets, notes = load_splits(Data(source=str(tmp_path), holdout=0))
    assert sets["train"].class_names == sets["test"].class_names == ("a", "b")
    assert sets["test"].labels.tolist() == [1, 0]
    assert any("labels are matched by name" in note for note in notes["read_as"])


def all_views_of(**settings: object):
    data = Data(**settings)
    originals, _ = load_splits(data)
    views = default_views(originals["train"], store(originals, data)["train"], data)
    return {name: str(view) for name, view in sorted(views.items())}


def views_of(**settings: object):
    """Return the views but those of contrastive methods, in the order of their names."""
    return [v for name, v in all_views_of(**settings).items() if name not in ("strong", "sim")]


def test_views_suit_the_images(divided, small_parquet):
    assert views_of(source="digits") == ["pad_crop(1)", ""]  # mirrored digits are none
    assert views_of(source=small_parquet) == ["pad_crop(2), flip", ""]
    small = {"source": divided, "image_size": 32}
    # The images in memory have the size that the test view gives those on disk.
    assert views_of(**small) == ["resized_crop(32), flip", "center_crop(32)"]
    assert views_of(**small, storage="disk")[1] == "resize(37), center_crop(32)"
    large = "resized_crop(224), flip, color_jitter(0.4, 0.4, 0.4, 0)"
    assert views_of(source=divided) == [large, "resize(256), center_crop(224)"]
    # Small images are enlarged for larger crops, not framed in black.
    larger = views_of(source=small_parquet, image_size=32)
    assert larger == ["resized_crop(32), flip", "resize(37), center_crop(32)"]
    own = {"standard": "flip(0.3)", "weak": "grayscale"}
    assert views_of(source=small_parquet, views=own) == ["flip(0.3)", "", "grayscale"]


def test_normalization_is_the_recipes_the_sources_or_measured(divided, small_parquet):
    train = load_splits(Data(source=small_parquet, holdout=1))[0]["train"]
    own = Data(source=small_parquet, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert normalization(train, own) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    mean, std = normalization(train, Data(source=small_parquet))
    pixels = train.pixels().numpy().astype(np.float64) / 255  # the training images alone
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-5)
    cifar = replace(train, name="cifar10 (train)")
    assert normalization(cifar, Data(source="cifar10"))[0] == (0.4914, 0.4822, 0.4465)
    lookalike = replace(train, name="cifar photos (train)")  # a folder may be called anything
    assert normalization(lookalike, Data(source="cifar photos"))[0] == mean
    files = load_splits(Data(source=divided))[0]["train"]
    assert normalization(files, Data(source=divided))[0] == (0.485, 0.456, 0.406)
    black = ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), np.zeros(4, np.int64), ("a",))
    assert normalization(black, Data()) == ((0,) * 3, pytest.approx((1e-3,) * 3))


def test_prepared_splits_deliver_normalised_batches(divided):
    splits, manifest = prepare(Recipe(data=Data(source=divided, image_size=16, workers=0)), CPU)
    batch = next(splits.open("0/train", Stream(), 4, seed=0).epoch(0, 1))
    assert batch.images[0].shape == (4, 3, 16, 16)
    assert manifest["views"]["standard"] == str(splits.view("standard"))
    scanned = torch.cat([b.labels for b in splits.scan("test")])
    assert torch.bincount(scanned).tolist() == manifest["splits"]["test"]["counts"]
    assert manifest["mean"] == list(splits.mean)
    assert (manifest["source"], manifest["storage"]) == ("divided", "memory")
    assert (manifest["imbalance_ratio"], manifest["profile"]) == (3, "natural")


def test_digits_are_never_mirrored():
    for settings in ({}, {"image_size": 32}):
        assert "flip" not in "".join(all_views_of(source="digits", **settings).values())


def test_contrastive_views_are_the_standard_one_with_a_policy_and_simclrs(divided, small_parquet):
    jitter = "flip, color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grayscale"
    small = all_views_of(source=small_parquet)
    assert small["strong"] == small["standard"] + ", auto_augment"
    assert small["sim"] == f"resized_crop(16, scale=(0.2, 1)), {jitter}, blur"
    large = all_views_of(source=divided)
    assert large["strong"] == large["standard"] + ", rand_augment"
    assert large["sim"] == f"resized_crop(224), {jitter}"
    own = all_views_of(source=divided, views={"sim": "flip"})
    assert (own["sim"], own["strong"]) == (f"{large['test']}, flip", large["strong"])
    own = all_views_of(source=small_parquet, views={"standard": "flip(0.3)"})
    assert own["strong"] == "flip(0.3), auto_augment"
    own = all_views_of(source=small_parquet, views={"standard": "flip(0.3)", "strong": "cutout(4)"})
    assert (own["standard"], own["strong"]) == ("flip(0.3)", "cutout(4)")


def test_pixels_and_bytes_are_part_of_the_fingerprint(tmp_path):
    prints = set()
    for number in (0, 1):  # other images in the same rows of the same classes
        write_parquet(
            tmp_path / f"{number}/train.parquet", [png(number), png(2)] * 2, [0, 1] * 2, "ab"
        )
        sets, _ = load_splits(Data(source=str(tmp_path / str(number)), holdout=0))
        prints.add(sets["train"].fingerprint())
    assert len(prints) == 2


def meta_recipe(**data: object) -> Recipe:
    stages = ({"method": "ce"}, {"method": "metasaug"})
    return Recipe(data=Data(**{"workers": 0, "image_size": 16, **data}), stages=stages)


def test_a_method_that_needs_a_meta_set_gets_one_before_all_else(flat):
    splits, manifest = prepare(meta_recipe(source="digits", imbalance=10, holdout=5), CPU)
    assert splits.sets["meta"].class_counts == [10] * 10
    assert manifest["meta"] == "10 of each class, from train"
    parts = [rows(splits.sets[name]) for name in ("train", "meta", "holdout")]
    assert sum(map(len, parts)) == len(set.union(*parts))
    without = prepare(meta_recipe(source="digits", holdout=5, meta_per_class=3), CPU)[0]
    assert without.sets["meta"].class_counts == [3] * 10
    # The same images are set aside for a method that does not use them, if it is asked for.
    data = Data(source="digits", imbalance=10, holdout=5, meta_per_class=10)
    assert load_splits(data)[0]["train"].fingerprint() == splits.sets["train"].fingerprint()
    assert "meta" not in load_splits(Data(source="digits"))[0]


def test_meta_images_may_stay_in_train_or_come_from_val(divided):
    shared = load_splits(Data(source=divided, meta_per_class=2, meta_source="shared", holdout=0))
    assert shared[0]["meta"].class_counts == [2, 2, 2]
    assert rows(shared[0]["meta"]) <= rows(shared[0]["train"])
    assert shared[1]["meta"] == "2 of each class, shared with train"
    with pytest.raises(LongTailedError, match="class 'wasp' with 1 image"):
        load_splits(Data(source=divided, meta_per_class=1, meta_source="val"))
    with pytest.raises(LongTailedError, match="the figures are on it"):
        load_splits(Data(source=divided, meta_per_class=1, meta_source="val", eval_split="val"))


@pytest.mark.parametrize("imbalance", [None, 10])
def test_shared_meta_images_are_trained_on_and_not_held_out(imbalance):
    data = Data(
        source="digits", imbalance=imbalance, holdout=20, meta_per_class=5, meta_source="shared"
    )
    sets, notes = load_splits(data)
    train, holdout, meta = (rows(sets[name]) for name in ("train", "holdout", "meta"))
    assert sets["meta"].class_counts == [5] * 10
    assert meta <= train
    assert not holdout & train
    assert notes["meta"] == "5 of each class, shared with train"
    without = load_splits(data.model_copy(update={"meta_per_class": None}))[0]
    assert without["train"].fingerprint() == sets["train"].fingerprint()


@pytest.mark.parametrize(("source", "counts"), [("train", [5, 5, 3, 1]), ("shared", [5, 5, 5, 2])])
def test_a_meta_set_that_is_not_balanced_says_so(tmp_path, source, counts):
    sizes = {"ant": 12, "bee": 10, "fly": 6, "wasp": 2}
    root = str(write_folder(tmp_path, train=sizes, test=dict.fromkeys(sizes, 1)))
    recipe = meta_recipe(source=root, holdout=0, meta_per_class=5, meta_source=source)
    with pytest.warns(UserWarning, match=f"have {counts[-1]} to 5 images") as caught:
        splits, manifest = prepare(recipe, CPU)
    assert len(caught) == 1
    assert splits.sets["meta"].class_counts == counts
    assert manifest["meta"].startswith("at most 5 of each class, ")


def test_the_rest_of_the_val_split_is_held_out(tmp_path):
    train, val = {"ant": 8, "bee": 4}, {"ant": 4, "bee": 2}
    source = str(write_folder(tmp_path, train=train, val=val, test=val))
    data = Data(source=source, meta_per_class=1, meta_source="val")
    sets, notes = load_splits(data)
    assert sets["meta"].class_counts == [1, 1]
    assert sets["holdout"].class_counts == [3, 1]
    assert sets["train"].class_counts == [8, 4]
    assert notes["meta"] == "1 of each class, from the val split"
    sets, _ = load_splits(data.model_copy(update={"holdout": 0}))
    assert "holdout" not in sets
    flat = str(write_folder(tmp_path / "flat", flat={"ant": 8, "bee": 4}))
    with pytest.raises(LongTailedError, match="because there is none"):
        load_splits(Data(source=flat, meta_per_class=1, meta_source="val"))


def test_a_class_missing_from_the_meta_set_is_one_sentence(tmp_path):
    source = str(write_folder(tmp_path, train={"ant": 8, "bee": 1}, test={"ant": 2, "bee": 2}))
    with pytest.raises(LongTailedError, match="class 'bee' with 1 image") as caught:
        prepare(meta_recipe(source=source), CPU)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match="meta_per_class=1 would balance it"):
        shared = prepare(meta_recipe(source=source, meta_source="shared", holdout=0), CPU)[0]
    assert shared.sets["meta"].class_counts == [8, 1]


def test_counts_say_how_many_images_each_class_has():
    counts = [50, 40, 30, 20, 20, 20, 20, 20, 10, 5]
    held = manifest_of(source="digits", counts=counts, image_size=None)
    assert held["splits"]["train"]["counts"] == counts
    assert held["splits"]["holdout"]["counts"] == [10] * 10
    assert (held["profile"], held["requested_imbalance"]) == ("counts", None)
    assert held["imbalance_ratio"] == 10


def test_counts_take_prefixes_of_one_order():
    few, more = (
        load_splits(Data(counts=(20,) * 9 + (tail,), holdout=0))[0]["train"] for tail in (5, 10)
    )
    assert rows(few) < rows(more)
    assert rows(few) == rows(more.subset(range(185)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((500,) + (10,) * 9, "has 115 images, but 500 were asked for"),
        ((10, 10), "2 class counts for 10 classes"),
    ],
)
def test_impossible_counts_are_one_sentence(counts, message):
    with pytest.raises(LongTailedError, match=message):
        load_splits(Data(counts=counts))


@pytest.mark.parametrize(("mode", "heads"), [("replace", 60), ("append", 72)])
def test_similar_samples_change_nothing_but_train(mode, heads):
    data = Data(counts=(60, *[20] * 8, 10), meta_source="shared", meta_per_class=5)
    similar = {"fraction": 0.2, "mode": mode}
    edited = Data.model_validate({**data.model_dump(), "similar": similar})
    (plain, before), (splits, after) = (prepare(Recipe(data=d), CPU) for d in (data, edited))
    assert splits.sets["train"].class_counts == [heads, *[20] * 8, 10]
    assert after["splits"]["train"]["counts"] == splits.sets["train"].class_counts
    changed = {n for n in after["splits"] if after["splits"][n] != before["splits"][n]}
    assert changed == ({"train"} if mode == "append" else set())
    note = after["similar"]
    assert (note["images"], note["head_classes"], note["tail_class"]) == (12, [0], 9)
    assert note["sha256_before"] == fingerprint(record_images({"train": plain.sets["train"]}))
    pixels, kept = splits.sets["train"].pixels(), plain.sets["train"].pixels()
    changed = (pixels[: len(kept)] != kept).flatten(1).any(1)
    assert changed.sum() == (12 if mode == "replace" else 0)
    assert set(plain.sets["train"].labels[changed.numpy()]) <= {0}
    assert set(splits.sets["train"].labels[len(kept) :]) <= {0}
    assert "similar" not in before


def test_similar_samples_of_files_are_refused(flat):
    with pytest.raises(LongTailedError, match="similar samples are mixed of pixels in memory"):
        manifest_of(source=flat, similar={"fraction": 0.1})


def group_names(imageset: ImageSet) -> set[str]:
    return set(imageset.groups.tolist())


def test_groups_stay_whole_in_every_part_that_is_cut_from_train(flat):
    data = Data(source=flat, split_by_pattern=r"(\w+/\d\d[0-4]|\w+/\d\d)", meta_per_class=2)
    sets, notes = load_splits(data)
    assert notes["groups"] == {
        "by": r"(\w+/\d\d[0-4]|\w+/\d\d)", "number": 36, "largest": 5, "in_several_classes": 0,
        "single_group_classes": [],
    }  # fmt: skip
    assert "about 20 % of each class, whole groups" in notes["tested_on"]
    assert notes["holdout"] == "about 10 % of each class in whole groups, from train"
    assert notes["meta"] == "about 2 of each class in whole groups, from train"
    parts = [group_names(imageset) for imageset in sets.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 36
    manifest = prepare(Recipe(data=data.model_copy(update={"workers": 0})), CPU)[1]
    assert {name: noted["groups"] for name, noted in manifest["splits"].items()} == {
        name: len(group_names(imageset)) for name, imageset in sets.items()
    }


def test_a_class_of_one_group_is_named_where_it_misses_a_part(tmp_path):
    source = write_folder(tmp_path / "flat", flat={"ant": 20, "bee": 9})
    for path in sorted((source / "bee").iterdir()):
        path.rename(path.with_name(f"b_{path.name}"))
    data = Data(source=str(source), split_by_pattern=r"b_|\d+")
    with pytest.warns(UserWarning, match=r"one group each: 'bee'.*they stay untested") as caught:
        sets, notes = load_splits(data)
    assert len(caught) == 1  # not again for the held-out part
    assert [sets[split].class_counts for split in ("train", "holdout", "test")] == [
        [14, 9], [2, 0], [4, 0],
    ]  # fmt: skip
    assert notes["groups"]["single_group_classes"] == ["bee"]
    tested = write_folder(tmp_path / "tested", test={"ant": 2, "bee": 2})
    (tested / "train").symlink_to(source)
    # The test images are not divided, so their names need not match.
    for path in (tested / "test").glob("*/*"):
        path.rename(path.with_name("x.png" if path.stem == "000" else "y.png"))
    with pytest.warns(UserWarning, match="so none helps to choose the epoch"):
        load_splits(data.model_copy(update={"source": str(tested)}))


def test_two_kinds_of_groups_and_a_bad_pattern_are_refused():
    for settings, message in (
        ({"split_by": "a", "split_by_pattern": "b"}, "both name the groups"),
        ({"split_by_pattern": "("}, "no regular expression"),
    ):
        with pytest.raises(LongTailedError, match=message):
            load_recipe({"data": settings})


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_test_images_that_look_like_training_images_are_counted(tmp_path, storage):
    root = write_folder(tmp_path, flat={"ant": 15, "bee": 15})
    copy = png(1000, side=40)
    for name in ("ant", "bee"):
        for i in range(5):
            (root / name / f"{i:03d}.png").write_bytes(copy)
    data = Data(source=str(root), storage=storage, workers=0, image_size=16)
    first = {str(root / n / f"{i:03d}.png") for n in ("ant", "bee") for i in range(5)}
    originals = load_splits(data)[0]["test"]
    copies = sum(originals.images.describe(int(row)) in first for row in originals.indices)
    with pytest.warns(UserWarning, match=f"{copies} of 6 test images look almost the same as a"):
        found = prepare(Recipe(data=data), CPU, leaks=True)[1]["near_duplicates"]
    assert copies
    assert (found["images"], found["of"]) == (copies, 6)
    for pair in found["examples"]:
        assert {split for split, _, _ in pair} == {"train", "test"}
        assert {name for _, name, _ in pair} <= first
    assert "near_duplicates" not in prepare(Recipe(data=data), CPU)[1]


def test_too_many_files_are_not_read_twice_for_near_duplicates(flat, monkeypatch):
    recipe = Recipe(data=Data(source=flat, storage="disk", workers=0))
    monkeypatch.setattr(module, "FULL_SCAN", 10)
    assert prepare(recipe, CPU, leaks=True)[1]["near_duplicates"] is None
