"""Image files below folders: one walk for training and prediction, which counts what it skips."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from longtailed.data.decoding import is_image_file
from longtailed.errors import LongTailedError

# What file managers, archives and network disks leave behind, in lower case.
_SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
}
IMAGE_BESIDE = "image beside the class folders"
LINK = "link to a folder that is read anyway"


class ImageFinder:
    """Finds the image files below folders, and counts in `left_out` what it does not take.

    Left out are hidden and system files and folders (`.git`, `._a.jpg`, `__MACOSX`, `@eaDir`,
    `Thumbs.db`), without a look inside, and files that are no images (see `is_image_file`). Links
    are followed, but each real folder is read once: a link to a folder that is read anyway, or to
    one around it, is left out, and its path is in `links`.

    Every method raises `LongTailedError` for a folder that cannot be read.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.links: list[str] = []
        self._roots: set[Path] = set()  # real paths of the folders that are read as a whole
        self._above: set[Path] = set()  # the folders around them
        self._read: set[Path] = set()  # the folders below them

    def directories(self, folder: Path) -> list[Path]:
        """Return the folders in `folder`, by name; the files beside them count as left out."""
        folders, files = self._list(str(folder))
        for file in files:
            beside = IMAGE_BESIDE if is_image_file(file.path) else "file beside the class folders"
            self.left_out[beside] += 1
        real, found = folder.resolve(), []
        for entry in folders:
            target = self._target(entry, real)
            if target is not None:
                self._add_root(target)
                found.append(folder / entry.name)
        return sorted(found)

    def images(self, folder: Path) -> list[str]:
        """Return the paths, relative to `folder`, of the images in and below it, sorted."""
        found: list[str] = []
        waiting = [(str(folder), folder.resolve(), "")]
        self._add_root(waiting[0][1])
        while waiting:
            path, real, lead = waiting.pop()
            folders, files = self._list(path)
            for file in files:
                if is_image_file(file.path):
                    found.append(lead + file.name)
                else:
                    ending = Path(file.name).suffix.lower()
                    self.left_out[f"not readable as an image ({ending or 'no ending'})"] += 1
            for entry in folders:
                target = self._target(entry, real)
                if target is not None:
                    self._read.add(target)
                    waiting.append((entry.path, target, f"{lead}{entry.name}{os.sep}"))
        return sorted(found)

    def _list(self, path: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Return the folders and the files in a folder that are not hidden.

        Real folders come before links, and in order, so that it does not depend on the disk which
        path a folder is read under.
        """
        folders: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        for entry in _entries(path):
            if _is_hidden(entry.name):
                self.left_out[f"hidden or system {'folder' if _is_folder(entry) else 'file'}"] += 1
            else:
                (folders if _is_folder(entry) else files).append(entry)
        return sorted(folders, key=lambda entry: (entry.is_symlink(), entry.name)), files

    def _target(self, entry: os.DirEntry[str], parent: Path) -> Path | None:
        """Return the real path of an entry of the real folder `parent`; None if it is left out."""
        real, again = parent / entry.name, False
        if entry.is_symlink():
            real = Path(entry.path).resolve()
            inside = not self._roots.isdisjoint((real, *real.parents))
            again = inside or real in self._above or real in (parent, *parent.parents)
        if again or real in self._read:
            self.left_out[LINK] += 1
            self.links.append(entry.path)
            return None
        return real

    def _add_root(self, real: Path) -> None:
        self._roots.add(real)
        self._above.update(real.parents)


def holds_images(folder: Path) -> bool:
    """Return whether an image file lies directly in `folder`, not below it."""
    return any(
        not _is_hidden(entry.name) and not _is_folder(entry) and is_image_file(entry.path)
        for entry in _entries(str(folder))
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise LongTailedError(f"the folder '{path}' cannot be read: {error.strerror}.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def left_out_reasons(left_out: Mapping[str, int]) -> str:
    """Return the reasons for which files were left out with their numbers, as text."""
    return ", ".join(f"{reason} ({number:,})" for reason, number in sorted(left_out.items()))
