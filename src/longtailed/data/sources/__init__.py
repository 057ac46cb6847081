"""Sources of images: one function that opens any of them as an `ImageSet`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longtailed.data.decoding import Exif
from longtailed.data.imageset import ImageSet
from longtailed.data.sources.cifar import CIFAR_SPLITS, load_cifar
from longtailed.data.sources.columns import ChosenColumns
from longtailed.data.sources.digits import DIGITS_SPLITS, load_digits
from longtailed.data.sources.files import OnBadImage, check_on_bad_image, scan_images
from longtailed.data.sources.finding import ImageFinder, holds_images, left_out_reasons
from longtailed.data.sources.folder import load_folder
from longtailed.data.sources.grouping import group_by_name
from longtailed.data.sources.layout import read_folder_layout
from longtailed.data.sources.lists import list_splits, load_list
from longtailed.data.sources.names import order_splits
from longtailed.data.sources.parquet import load_parquet, parquet_rows
from longtailed.data.sources.shards import holds_parquet
from longtailed.data.sources.table_layout import is_list_file
from longtailed.data.stores import EncodedStore
from longtailed.errors import LongTailedError, unknown_name

__all__ = ["SOURCES", "available_splits", "load_imageset"]

SOURCES: dict[str, str] = {
    "digits": "handwritten digits, 1,797 images of 8x8 in 10 classes, bundled with scikit-learn",
    "cifar10": "CIFAR-10, 60,000 images of 32x32 in 10 classes, from its archive below root",
    "cifar100": "CIFAR-100, 60,000 images of 32x32 in 100 classes, from its archive below root",
}
_PATH_FORMS = (
    "a path to a folder with class directories, to parquet files, or to a .txt, .lst, .csv or "
    ".tsv list"
)
_log = logging.getLogger(__name__)
_OPTIONS: dict[str, tuple[str, ...]] = {
    "digits": (),
    "cifar10": ("root", "download"),
    "cifar100": ("root", "download"),
    "parquet": ("label_column", "image_column", "class_names", "root", "split_by"),
    "folder": ("class_names",),
    "list": (
        "label_column",
        "image_column",
        "class_names",
        "root",
        "val_list",
        "test_list",
        "split_by",
    ),
}


def load_imageset(
    source: str | Path,
    split: str = "train",
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    class_names: Sequence[str] | Path | str | None = None,
    root: str | Path | None = None,
    on_bad_image: OnBadImage = "error",
    exif: Exif = "apply",
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    download: bool = False,
    split_by: str | None = None,
    split_by_pattern: str | None = None,
) -> ImageSet:
    """Return the images, labels and class names of one split of a source.

    `source` is a name in `SOURCES` or a path: a folder with parquet files or a `.parquet` file, a
    folder with one directory for each class, directly or below `train`, `val` and `test`, or a
    list of files (`.txt`, `.lst`, `.csv`, `.tsv`). `label_column` and `image_column` name the
    columns of tables and parquet files that have other than usual names. `class_names` is a list,
    comma-separated text or a file with one name a line; labels that are numbers are places in it.
    `root` is where the CIFAR archives are, or what listed paths are relative to. The lists of
    other splits are those beside the list, or `val_list` and `test_list`. `download` permits
    fetching CIFAR. `split_by`, a column of a table or of parquet files, or `split_by_pattern`, a
    regular expression on the file names (see `group_by_name`), say which images belong together.

    Small images of one size are decoded at once, other images when asked for. With
    `on_bad_image="error"` a bad file is an error when it is decoded (`scan_images` finds it
    earlier); with "skip" all files are looked at now and bad ones left out, their names in
    `skipped`. Images are turned as their EXIF orientation says, unless `exif` is "ignore".

    What the source was taken for, and which files were left out and why, is in the set's `notes`
    and `left_out`, and logged (the command line shows it).

    Raises `LongTailedError` for an unknown source, split or option and for unusable data.
    """
    check_on_bad_image(on_bad_image)
    kind, path = _resolve(source)
    options = _check_options(
        kind,
        label_column=label_column,
        image_column=image_column,
        class_names=class_names,
        root=root,
        val_list=val_list,
        test_list=test_list,
        download=download or None,
        split_by=split_by,
    )
    if split_by is not None and split_by_pattern is not None:
        raise LongTailedError("split_by and split_by_pattern both name the groups; give one.")
    imageset = _open(kind, path, split, on_bad_image, exif, options)
    if isinstance(imageset.images, EncodedStore):
        imageset.images.exif = exif
    if split_by_pattern is not None:
        imageset = group_by_name(imageset, split_by_pattern)
    for note in imageset.notes:
        _log.info("%s", note)
    if imageset.left_out:
        _log.info("%s: left out: %s.", imageset.name, left_out_reasons(imageset.left_out))
    return scan_images(imageset, "skip") if on_bad_image == "skip" else imageset


def _check_options(kind: str, **given: Any) -> dict[str, Any]:
    """Return the options that are given, all of which this kind of source must take."""
    options = {option: value for option, value in given.items() if value is not None}
    for option in options:
        if option not in _OPTIONS[kind]:
            raise LongTailedError(
                f"a source of the kind '{kind}' does not take the option {option}; leave it out."
            )
    return options


def _open(
    kind: str,
    path: Path,
    split: str,
    on_bad_image: OnBadImage,
    exif: Exif,
    options: dict[str, Any],
) -> ImageSet:
    if kind == "digits":
        return load_digits(split)
    if kind in ("cifar10", "cifar100"):
        return load_cifar(kind, split, **options)
    if kind == "parquet":
        return load_parquet(path, split, on_bad_image=on_bad_image, exif=exif, **options)
    if kind == "folder":
        return load_folder(path, split, **options)
    return load_list(path, split, **options)


def available_splits(
    source: str | Path,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
) -> tuple[str, ...]:
    """Return the splits of a source, of 'train', 'val' and 'test', in this order.

    The options are those of `load_imageset`.

    Raises `LongTailedError` for an unknown source.
    """
    kind, path = _resolve(source)
    if kind == "digits":
        return DIGITS_SPLITS
    if kind in ("cifar10", "cifar100"):
        return CIFAR_SPLITS
    if kind == "parquet":
        return order_splits(parquet_rows(path, label_column)[0])
    if kind == "folder":
        return order_splits(read_folder_layout(path).splits)
    chosen = ChosenColumns(image_column, label_column)
    return order_splits(list_splits(path, val_list, test_list, chosen)[0])


def _resolve(source: str | Path) -> tuple[str, Path]:
    """Return which kind of source it is, and its path (for a name: unused)."""
    if isinstance(source, str) and source in SOURCES:
        return source, Path(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _resolve_folder(path), path
    if path.is_file() and path.suffix.lower() == ".parquet":
        return "parquet", path
    if path.is_file() and is_list_file(path):
        return "list", path
    if path.exists():
        raise LongTailedError(f"'{source}' is no known kind of data; give {_PATH_FORMS}.")
    if isinstance(source, Path) or path.suffix or any(mark in source for mark in "/\\~"):
        raise LongTailedError(f"there is no file or folder '{source}'; give {_PATH_FORMS}.")
    unknown = unknown_name("data set", source, SOURCES, listing="sources")
    raise LongTailedError(f"{unknown} Or give {_PATH_FORMS}.")


def _resolve_folder(path: Path) -> str:
    if holds_parquet(path):
        return "parquet"
    if ImageFinder().directories(path):
        return "folder"
    if holds_images(path):
        raise LongTailedError(
            f"the folder '{path}' holds images but no class folders; put the images of each class "
            "into a folder with its name, or give a CSV file with the columns path and label."
        )
    raise LongTailedError(
        f"the folder '{path}' has neither class directories nor parquet files; give {_PATH_FORMS}."
    )
