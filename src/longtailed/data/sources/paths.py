"""Paths as a list writes them, and the files that they mean."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from longtailed.data.decoding import has_image_suffix
from longtailed.errors import LongTailedError

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


def locate_images(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths below `folder` that exist, and notes on how they differ from those listed.

    Nothing is changed if a first, middle and last file exist as listed. Else the form in which
    one of them exists is taken for all: backslashes as slashes; absolute paths of another place
    without their leading folders; names without an ending, or of files one folder deeper. Paths
    that fit no form stay as they are: the image is then reported as missing.

    Raises `LongTailedError` if a name fits several files.
    """
    paths = list(paths)
    sample = list(dict.fromkeys(paths[i] for i in (0, len(paths) // 2, -1))) if paths else []
    if all(_is_file(folder / path) for path in sample):
        return paths, []
    files = _FolderFiles(folder)
    notes = []
    for path in sample:
        form = _find_form(files, path)
        if form is None:
            continue
        slashes, lead = form
        if slashes:
            paths = [path.replace("\\", "/") for path in paths]
            notes.append("backslashes in paths are read as slashes")
        if lead:
            paths = [path.removeprefix(lead) for path in paths]
            notes.append(f"'{lead}' is left out of paths: the files are in '{folder}'")
        paths = [files.complete(path) for path in paths]
        if files.completed:
            file, listed = next(iter(files.completed.items()))
            notes.append(f"{len(files.completed)} names are completed ('{listed}' is '{file}')")
        break
    return paths, notes


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is no path: too long
        return False


def _find_form(files: _FolderFiles, path: str) -> tuple[bool, str] | None:
    """Return whether backslashes are slashes, and the lead to drop, so that `path` exists."""
    for slashes in (False, True):
        text = path.replace("\\", "/") if slashes else path
        parts = text.split("/")
        drops = range(len(parts)) if _ABSOLUTE.match(text) else range(1)
        for drop in drops:
            if files.matches("/".join(parts[drop:])):
                return slashes, "".join(f"{part}/" for part in parts[:drop])
    return None


class _FolderFiles:
    """Files below a folder, found by name with or without ending; folders are listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.completed: dict[str, str] = {}  # file -> as listed
        self._listings: dict[str, dict[str, list[str]]] = {}
        self._below: list[str] | None = None

    def matches(self, path: str) -> list[str]:
        """Return the files that a path may mean: itself, else with an ending, else deeper."""
        directory, slash, name = path.rpartition("/")
        found = self._listing(directory or slash).get(name, [])
        if path in found:
            return [path]
        if not found and not slash:
            found = [
                file for below in self._folders() for file in self._listing(below).get(name, [])
            ]
        return found

    def complete(self, path: str) -> str:
        """Return the one file that a path means, or the path if there is none."""
        found = self.matches(path)
        if len(found) > 1:
            raise LongTailedError(
                f"'{path}' fits more than one file in '{self.folder}' ({', '.join(found[:3])}); "
                "write the path with its folder and ending, or name another root."
            )
        if found and found[0] != path:
            self.completed[found[0]] = path
        return found[0] if found else path

    def _folders(self) -> list[str]:
        if self._below is None:
            below = [entry.name for entry in _entries(self.folder) if entry.is_dir()]
            self._below = sorted(name for name in below if not name.startswith("."))
        return self._below

    def _listing(self, directory: str) -> dict[str, list[str]]:
        """Return the files of a folder by name and, for images, by name without ending."""
        if directory not in self._listings:
            listing: dict[str, list[str]] = defaultdict(list)
            lead = f"{directory}/" if directory.strip("/") else directory
            for entry in _entries(self.folder / directory):
                if entry.is_dir():
                    continue
                names = {entry.name}
                if has_image_suffix(entry.name):
                    names.add(Path(entry.name).stem)
                for name in names:
                    listing[name].append(lead + entry.name)
            self._listings[directory] = dict(listing)
        return self._listings[directory]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
