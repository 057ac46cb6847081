from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from longtailed.data import ImageSet, make_long_tailed
from longtailed.errors import LongTailedError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
TENSORS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
LABELS = [0, 1, 1, 2, 2, 2]


class Pairs(Dataset):
    """A torch data set of (image, label); `read` lists the rows that were asked for."""

    def __init__(self, images, given, **attributes) -> None:
        self.images, self._given, self.read = images, given, []
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int):
        self.read.append(row)
        return self.images[row], self._given[row]


class Table:
    """What a Hugging Face data set is to us: rows as dictionaries, columns by name, features."""

    class ClassLabel:
        names = ("ant", "bee", "wasp")

    def __init__(self) -> None:
        self.column_names = ["img", "species"]
        self.features = {"img": None, "species": self.ClassLabel()}
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, key):
        if key == "species":
            return LABELS
        self.decoded.append(key)
        return {"img": Image.fromarray(PIXELS[key]), "species": LABELS[key]}


def test_an_image_set_is_a_torch_data_set() -> None:
    imageset = ImageSet.from_arrays(TENSORS, LABELS).subset([5, 0, 1])
    assert isinstance(imageset, Dataset)
    image, label = imageset[0]
    assert torch.equal(image, TENSORS[5])
    assert (label, type(label)) == (2, int)
    assert imageset[np.int64(-1)][1] == 1
    assert [label for _, label in imageset] == [2, 0, 1]
    with pytest.raises(IndexError):
        imageset[3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_takes_it(workers: int) -> None:
    lazy = ImageSet.from_dataset(Pairs([*PIXELS], LABELS, targets=LABELS))
    for imageset in (ImageSet.from_arrays(PIXELS, LABELS), lazy):
        images, labels = zip(*DataLoader(imageset, batch_size=4, num_workers=workers), strict=True)
        assert torch.equal(torch.cat(images), TENSORS)
        assert torch.cat(labels).tolist() == LABELS


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.fromarray(PIXELS[0]), TENSORS[0]),
        (Image.fromarray(PIXELS[0, :, :, 0]), TENSORS[0, :1].expand(3, -1, -1)),
        (PIXELS[0], TENSORS[0]),
        (PIXELS[0, ::-1], TENSORS[0].flip(1)),
        (PIXELS[0].transpose(2, 0, 1), TENSORS[0]),
        (PIXELS[0, :, :, 0], TENSORS[0, :1].expand(3, -1, -1)),
        (np.concatenate([PIXELS[0], PIXELS[0, :, :, :1]], axis=2), TENSORS[0]),
        (TENSORS[0], TENSORS[0]),
        (TENSORS[0, :1], TENSORS[0, :1].expand(3, -1, -1)),
        (TENSORS[0, :, :, :3], TENSORS[0, :, :, :3]),  # [3, 5, 3]: a tensor's channels are first
        (PIXELS[0, :3], TENSORS[0, :, :3]),  # [3, 7, 3]: an array's channels are last
    ],
)
def test_forms_of_images(image, wanted: torch.Tensor) -> None:
    found = ImageSet.from_dataset(Pairs([image], [0])).decode(0)
    assert found.dtype == torch.uint8
    assert torch.equal(found, wanted)
    assert torch.equal(ImageSet.from_arrays([image], [0]).decode(0), wanted)


def test_read_only_arrays_are_taken() -> None:
    frozen = PIXELS.copy()
    frozen.flags.writeable = False
    assert torch.equal(ImageSet.from_arrays(frozen, LABELS).pixels(), TENSORS)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (TENSORS[0] / 255, r"image 0 of Pairs cannot be used: its pixels are float32; .*ToTensor"),
        (PIXELS[0].astype(np.float64), "float64"),
        (PIXELS[0].astype(np.int64), "int64, not uint8"),
        (np.zeros((5, 7, 2), np.uint8), r"the shape \[5, 7, 2\]"),
        ("a.png", "it is a str, and not a PIL image"),
    ],
)
def test_other_images_are_refused(image, reason: str) -> None:
    with pytest.raises(LongTailedError, match=reason):
        ImageSet.from_dataset(Pairs([image], [0]))


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": LABELS},
        {"targets": torch.tensor(LABELS)},
        {"labels": np.array(LABELS)},
        {"samples": [(f"{row}.png", label) for row, label in enumerate(LABELS)]},
    ],
)
def test_labels_come_without_decoding(attributes) -> None:
    many = [*PIXELS] * 10
    known = {
        name: [*values] * 10 if isinstance(values, list) else np.tile(np.asarray(values), 10)
        for name, values in attributes.items()
    }
    pairs = Pairs(many, LABELS * 10, classes=["ant", "bee", "wasp"], **known)
    imageset = ImageSet.from_dataset(pairs)
    assert len(pairs.read) < 12
    assert imageset.labels.tolist() == LABELS * 10
    assert imageset.class_names == ("ant", "bee", "wasp")
    assert imageset.class_counts == [10, 20, 30]


def test_labels_are_those_of_the_items() -> None:
    changed = [2 - label for label in LABELS]  # by a target transform
    assert ImageSet.from_dataset(Pairs(PIXELS, changed, targets=LABELS)).labels.tolist() == changed
    plain = Pairs(PIXELS, [torch.tensor(label) for label in LABELS])
    assert ImageSet.from_dataset(plain).labels.tolist() == LABELS


def test_parts_of_data_sets() -> None:
    pairs = Pairs([*PIXELS], LABELS, targets=LABELS, classes=["ant", "bee", "wasp"])
    joined = ConcatDataset([Subset(pairs, [5, 0]), Subset(pairs, [1])])
    imageset = ImageSet.from_dataset(joined)
    assert imageset.labels.tolist() == [2, 0, 1]
    assert imageset.class_names == ("ant", "bee", "wasp")
    assert torch.equal(imageset.decode(0), TENSORS[5])
    tensors = ImageSet.from_dataset(TensorDataset(TENSORS, torch.tensor(LABELS)))
    assert tensors.class_counts == [1, 2, 3]
    assert ImageSet.from_dataset(tensors) is tensors


def test_a_hugging_face_data_set() -> None:
    table = Table()
    imageset = ImageSet.from_dataset(table, label_column="species")
    assert imageset.class_names == ("ant", "bee", "wasp")
    assert imageset.labels.tolist() == LABELS
    assert torch.equal(imageset.decode(3), TENSORS[3])
    with pytest.raises(LongTailedError, match=r"no label column; its columns are img, species"):
        ImageSet.from_dataset(table)
    with pytest.raises(LongTailedError, match="no image column photo"):
        ImageSet.from_dataset(table, image_column="photo", label_column="species")


def test_identity_is_the_content() -> None:
    lazy = ImageSet.from_dataset(Pairs([*PIXELS], LABELS))
    again = ImageSet.from_dataset(Pairs([Image.fromarray(image) for image in PIXELS], LABELS))
    assert lazy.fingerprint() == again.fingerprint()
    other = PIXELS.copy()
    other[4, 0, 0, 0] ^= 1
    assert ImageSet.from_dataset(Pairs(other, LABELS)).fingerprint() != lazy.fingerprint()
    flat = [image.reshape(7, 5, 3) for image in PIXELS]
    assert ImageSet.from_dataset(Pairs(flat, LABELS)).fingerprint() != lazy.fingerprint()


def test_a_set_travels_to_a_process() -> None:
    imageset = pickle.loads(pickle.dumps(ImageSet.from_dataset(Pairs([*PIXELS], LABELS))))
    assert torch.equal(imageset.decode(2), TENSORS[2])


def test_long_tailed_subset_stays_lazy() -> None:
    pairs = Pairs([PIXELS[0]] * 40, [0] * 20 + [1] * 20, targets=[0] * 20 + [1] * 20)
    imageset = ImageSet.from_dataset(pairs)
    read = len(pairs.read)
    assert make_long_tailed(imageset, 10).class_counts == [20, 2]
    assert len(pairs.read) == read


class Flipped(Pairs):
    def __getitem__(self, row: int):
        self.images = self.images[:, :, ::-1]
        return super().__getitem__(row)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (Flipped(PIXELS, LABELS), "image 0 of Flipped is another one each time; .* transforms"),
        (Endless(), "Endless cannot be indexed"),
        (Pairs([], []), "Pairs has no images"),
        (TensorDataset(TENSORS), r"\(image, label\) is needed"),
        (Pairs(PIXELS, LABELS[:1]), "image 3 of Pairs cannot be used: IndexError: list index"),
        (Pairs(PIXELS, [None] * 6), "label 0 is None"),
        (TensorDataset(TENSORS, torch.eye(6)), r"the labels have the shape \[6, 6\]"),
    ],
)
def test_unusable_data_sets_are_refused(dataset, reason: str) -> None:
    with pytest.raises(LongTailedError, match=reason):
        ImageSet.from_dataset(dataset)


def test_arrays_with_names() -> None:
    imageset = ImageSet.from_arrays(PIXELS, ["10", "9", "9", "bee", "bee", "bee"])
    assert imageset.class_names == ("9", "10", "bee")  # numbers by value, as everywhere
    assert imageset.labels.tolist() == [1, 0, 0, 2, 2, 2]
    assert imageset.in_memory
    given = ImageSet.from_arrays(PIXELS, LABELS, ["ant", "bee", "wasp", "fly"])
    assert given.class_counts == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("labels", "names", "reason"),
    [
        ([0, 1], None, "2 labels for 6 images"),
        ([0.5] * 6, None, "label 0 is 0.5"),
        ([0, 1, float("nan"), 2, 2, 2], None, "label 2 is nan"),
        (["ant"] * 5 + [""], None, "label 5 is ''"),
        (["ant"] * 5 + ["bee"], ["ant"], "label 5, 'bee', is not among the 1 class names"),
        ([0, 1, 2, 3, 4, 5], ["ant", "bee"], "labels run from 0 to 5, but there are 2 classes"),
        ([-1, 0, 0, 0, 0, 0], None, "labels run from -1"),
    ],
)
def test_bad_labels_are_refused(labels, names, reason: str) -> None:
    with pytest.raises(LongTailedError, match=reason):
        ImageSet.from_arrays(PIXELS, labels, names)


def columns_of(kind: str, paths: list[str], labels: list[object]):
    columns = {"file": paths, "species": labels}
    if kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(columns)
    return pa.table(columns) if kind == "arrow" else columns


@pytest.mark.parametrize("kind", ["mapping", "arrow", "pandas"])
def test_a_frame_of_paths(kind: str, tmp_path) -> None:
    paths = [f"{row}.png" for row in range(3)]
    for row, path in enumerate(paths):
        Image.fromarray(PIXELS[row]).save(tmp_path / path)
    frame = columns_of(kind, paths, ["wasp", "ant", "wasp"])
    imageset = ImageSet.from_frame(frame, "file", "species", root=tmp_path)
    assert imageset.class_names == ("ant", "wasp")
    assert imageset.labels.tolist() == [1, 0, 1]
    assert torch.equal(imageset.decode(2), TENSORS[2])
    with pytest.raises(LongTailedError, match=r"unknown column of frame 'spezies'; .*'species'"):
        ImageSet.from_frame(frame, "file", "spezies")
    holes = columns_of(kind, ["0.png", None], ["ant", "wasp"])
    with pytest.raises(LongTailedError, match="row 1 has no path"):
        ImageSet.from_frame(holes, "file", "species")
    holes = columns_of(kind, ["0.png", "1.png"], ["ant", None])
    with pytest.raises(LongTailedError, match="label 1 is"):
        ImageSet.from_frame(holes, "file", "species")
