"""Which parquet files make up each split of a data set, as the usual layouts name them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longtailed.data.sources.names import canonical_split, find_split_word
from longtailed.errors import LongTailedError

_MOST_FOLDERS = 16  # parquet files lie in few folders; class directories may be thousands
_DEEPEST = 2  # folders between a data set and its files: default/train/0000.parquet
# What follows the split in a name: number, number of all, and the hash of the contents.
_SHARD = re.compile(r"(?:[-_.]?(\d+)(?:-of-(\d+))?)?(?:-[0-9a-f]{8,})?")


def holds_parquet(folder: Path) -> bool:
    """Return whether there are parquet files in or below a folder, where a data set has them."""
    return next(_parquet_files(folder), None) is not None


def _parquet_files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the parquet files of a folder, or else those below it; hidden folders are left out."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((some.name, some.is_dir()) for some in found if some.name[0] != ".")
    except OSError:
        return  # what reads the folder as one of images says why it cannot
    files = [name for name, is_folder in entries if _is_parquet(name) and not is_folder]
    yield from (folder / name for name in files)
    folders = [name for name, is_folder in entries if is_folder]
    if files or depth == _DEEPEST or len(folders) > _MOST_FOLDERS:
        return
    for name in folders:
        if depth + 1 < _DEEPEST or canonical_split(name):
            yield from _parquet_files(folder / name, depth + 1)


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def parquet_splits(source: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the files of each split, in shard order, of a folder or of the set one file is in.

    The split is the last word of a file's name that names one, or else its folder's name. Files
    without one are left out, or are 'train' if no file has one. The notes say what else belongs
    to a single file that is named, and which files are left out.

    Raises `LongTailedError` if shards are missing or the folder holds several data sets.
    """
    if source.is_file():
        return _around(source)
    everything = list(_parquet_files(source))
    files = [path for path in everything if _place(path)[0]]
    if not files:
        return {"train": everything}, ()
    families = {_place(path)[1]: path for path in files}
    if len(families) > 1:
        first, second = (path.relative_to(source) for path in list(families.values())[:2])
        raise LongTailedError(
            f"'{source}' holds more than one data set ('{first}', '{second}'); name one of the "
            "files instead of the folder."
        )
    without = [path.name for path in everything if not _place(path)[0]]
    notes = (f"files without a split in their names are left out: {', '.join(without)}",)
    return _by_split(files), notes if without else ()


def _around(source: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the splits of the data set that one file is in."""
    split, family = _place(source)
    beside = sorted(path for path in source.parent.glob("*.parquet") if path != source)
    if split is None:
        note = f"only this file is read, not the others beside it ({len(beside)} parquet files)"
        return {"train": [source]}, (note,) if beside else ()
    if family[0] != source.parent:
        beside = sorted(path for path in family[0].glob("*/*.parquet") if path != source)
    splits = _by_split(sorted([source, *(path for path in beside if _place(path)[1] == family)]))
    number = len(splits[split])
    note = f"it is one of {number} files of the split '{split}', and all of them are read"
    return splits, (note,) if number > 1 else ()


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(str(_place(path)[0]), []).append(path)
    for shards in splits.values():
        _check_shards(shards)
    return splits


def _place(path: Path) -> tuple[str | None, tuple[Path, str, str]]:
    """Return a file's split and what the files of its data set share: folder and rest of name."""
    word = find_split_word(path.stem)
    if word is not None:
        after = path.stem[word.end() :]
        rest = "" if _SHARD.fullmatch(after) else after
        return canonical_split(word[0]), (path.parent, path.stem[: word.start()], rest)
    return canonical_split(path.parent.name), (path.parent.parent, "", "")


def _check_shards(shards: Sequence[Path]) -> None:
    """Raise `LongTailedError` if a shard is missing, or there twice (two versions of a set)."""
    found: dict[int, Path] = {}
    total = 0
    for path in shards:
        match = re.search(r"(\d+)-of-(\d+)(?:-[0-9a-f]{8,})?$", path.stem)
        if match is None:
            continue
        number, total = int(match[1]), int(match[2])
        if number in found:
            raise LongTailedError(
                f"'{path.parent}' has the shard {number:05d} twice ('{found[number].name}' and "
                f"'{path.name}'); remove the files of one version."
            )
        found[number] = path
    missing = sorted({*range(total)} - {*found}) if found else []
    if missing:
        raise LongTailedError(
            f"'{shards[0].parent}' lacks shard {missing[0]:05d} of {total:05d} beside "
            f"'{shards[0].name}'; fetch the missing files."
        )
