"""CIFAR-10 and CIFAR-100 in their official form, read by torchvision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets  # type: ignore[import-untyped]
from torchvision.datasets import utils as archives  # type: ignore[import-untyped]

from longtailed.data.imageset import ImageSet
from longtailed.data.sources.names import choose_split
from longtailed.errors import LongTailedError

CIFAR_SPLITS = ("train", "test")
DEFAULT_ROOT = "~/.cache/longtailed"
_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def load_cifar(
    name: str, split: str, root: str | Path | None = None, download: bool = False
) -> ImageSet:
    """Return CIFAR-10 ('cifar10') or CIFAR-100 ('cifar100') as uint8 RGB [N, 3, 32, 32].

    `root` holds the archive or the folder extracted from it; an archive is extracted there.

    Raises `LongTailedError` if neither is there and `download` is false, if the archive is
    damaged, or if the download fails.
    """
    train = choose_split(name, {"train": True, "test": False}, split)
    folder = Path(root if root is not None else DEFAULT_ROOT).expanduser()
    kind = getattr(datasets, _CLASSES[name])
    data = _open(kind, folder, train, extract=_check_archive(kind, folder), download=download)
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    labels = np.asarray(data.targets, dtype=np.int64)
    return ImageSet(images, labels, tuple(data.classes), name=f"{name} ({split})")


def _check_archive(kind: Any, folder: Path) -> bool:
    """Return whether the archive lies in `folder`; raise `LongTailedError` if it is damaged."""
    archive = folder / kind.filename
    if not archive.is_file():
        return False
    if not archives.check_integrity(str(archive), kind.tgz_md5):
        raise LongTailedError(
            f"'{archive}' is incomplete or damaged (its MD5 sum is not {kind.tgz_md5}); delete it "
            "and put a good copy in its place."
        )
    return True


def _open(kind: Any, folder: Path, train: bool, *, extract: bool, download: bool) -> Any:
    extracted = folder / kind.base_folder
    if not (extracted.is_dir() or extract or download):
        raise LongTailedError(
            f"{kind.__name__} is not in '{folder}': put {kind.filename} or the folder "
            f"{kind.base_folder} there, name another root, or pass download=True."
        )
    try:
        with warnings.catch_warnings():
            # The official pickles hold an old form of a NumPy type that NumPy >= 2.4 warns about.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            # With a good archive in place torchvision's "download" extracts it and fetches nothing.
            return kind(str(folder), train=train, download=extract or download)
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LongTailedError(
            f"{kind.__name__} cannot be read from '{folder}' ({reason.rstrip('.')}); put "
            f"{kind.filename} there by hand."
        ) from error
