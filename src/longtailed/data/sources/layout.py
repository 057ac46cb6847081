"""What the folders of a data set are: which are splits, which are classes, and which neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longtailed.data.class_names import sort_class_names
from longtailed.data.sources.finding import IMAGE_BESIDE, LINK, ImageFinder, holds_images
from longtailed.data.sources.names import canonical_split, find_split_word, order_splits, quoted
from longtailed.errors import LongTailedError

_NO_CLASS = {"all", "data", "image", "images", "img", "imgs", "photos", "unknown", "unlabeled"}
"""Names of a folder that holds images without saying of which class."""


@dataclass(frozen=True)
class FolderLayout:
    """The folder of each split, whose folders are the classes, and sentences that say so."""

    splits: dict[str, Path]
    notes: tuple[str, ...]


def read_folder_layout(source: Path) -> FolderLayout:
    """Return which folders of `source` are splits; without any, all of it is 'train'.

    A folder is a split if its name is a spelling of one (`Training`, `dev`) or, where at least two
    splits come out and share classes, holds one as a word (`seg_train`, `test_images`). One that
    holds images itself is a class of that name. One folder around everything, or around the classes
    of a split, is looked through.

    Raises `LongTailedError` where it is unclear what is what: two folders for one split, a folder
    that looks like a split and cannot be one, folders that all hold the same folders. Validation
    or test images without class folders, as competitions have them, are not used; a note says so.
    """
    base, found = source, _find_splits(source)
    if not found:
        base = _class_folder(source) or source
        found = _find_splits(base)
    notes = [_split_note(source, base, found)]
    if found:
        notes += _unused_notes(base, found)
    else:
        notes += _class_named_like_split(base)
    notes += _deeper_notes(_class_source(base, found))
    return FolderLayout(found or {"train": base}, tuple(notes))


def _class_source(base: Path, splits: dict[str, Path]) -> Path:
    """Return the folder whose folders say which classes there are."""
    return splits.get("train", next(iter(splits.values()), base))


def _folders(folder: Path) -> list[Path]:
    return ImageFinder().directories(folder)


def _names(folder: Path) -> set[str]:
    return {inside.name for inside in _folders(folder)}


def _class_folder(folder: Path) -> Path | None:
    """Return `folder`, or the one folder in it that holds all others; None if it has no classes."""
    inside = _folders(folder)
    if not inside or holds_images(folder):
        return None
    wraps = len(inside) == 1 and not holds_images(inside[0]) and _folders(inside[0])
    return inside[0] if wraps else folder


def _find_splits(base: Path) -> dict[str, Path]:
    """Return the folder that holds the classes of each split."""
    exact: dict[str, list[Path]] = {}
    by_word: dict[str, list[Path]] = {}
    for folder in _folders(base):
        word, split = find_split_word(folder.name), canonical_split(folder.name)
        classes = _class_folder(folder) if word or split else None
        if split and not classes and _folders(folder):
            raise LongTailedError(
                f"'{folder}' holds images beside folders, so it is unclear whether it is a split "
                "or a class; move the images into class folders, or the folders elsewhere."
            )
        if classes and split:
            exact.setdefault(split, []).append(classes)
        elif classes and word:
            by_word.setdefault(str(canonical_split(word[0])), []).append(classes)
    claims = by_word | exact
    if not claims:
        return {}
    known = _names(claims.get("train", next(iter(claims.values())))[0])
    # A word may belong to the name of a class (train_station): it needs a second split beside it.
    shared = {s: f for s, f in claims.items() if s in exact or _names(f[0]) & known}
    splits = shared if len(shared) > 1 else exact
    for split, folders in splits.items():
        if len(folders) > 1:
            raise LongTailedError(
                f"'{base}' has two folders for the split '{split}' "
                f"({quoted(folder.relative_to(base) for folder in folders)}); remove or rename "
                "one."
            )
    found = {split: folders[0] for split, folders in splits.items()}
    if "train" not in found:
        return found
    return {s: f for s, f in found.items() if s == "train" or not _is_unlabelled(f, known)}


def _is_unlabelled(folder: Path, classes: set[str]) -> bool:
    """Return whether a folder holds images of no class: directly, or in one folder for them all."""
    inside = _names(folder)
    if len(inside) > 1 or inside & classes:
        return False
    return all(find_split_word(name) or name.lower() in _NO_CLASS for name in inside)


def _split_note(source: Path, base: Path, splits: dict[str, Path]) -> str:
    classes = sort_class_names(_names(_class_source(base, splits)))
    shown = f"{len(classes)} class{'es' * (len(classes) != 1)} ({quoted(classes)})"
    if splits:
        taken = [f"{s} is '{splits[s].relative_to(source)}'" for s in order_splits(splits)]
        return f"'{source}': {', '.join(taken)}; the folders in them are {shown}."
    inner = "its folders" if base == source else f"the folders in '{base.name}'"
    return f"'{source}': no split folders, so all is train; {inner} are {shown}."


def _unused_notes(base: Path, splits: dict[str, Path]) -> list[str]:
    """Return what is not used beside the splits; raise if that looks like a split itself."""
    used = {base / folder.relative_to(base).parts[0] for folder in splits.values()}
    finder = ImageFinder()
    unused = [folder for folder in finder.directories(base) if folder not in used]
    classes = _names(splits["train"]) if "train" in splits else set()
    for folder in unused:
        reason = _why_unused(folder, classes)
        if reason is not None:
            own = next(iter(splits.values()))
            raise LongTailedError(
                f"'{folder}' looks like a split but {reason}; correct it, rename it or move it "
                f"elsewhere, or name '{own}' as the data to use that alone."
            )
    beside = [
        f"'{folder.name}'"
        + " (its images have no labels)" * (find_split_word(folder.name) is not None)
        for folder in unused
    ]
    beside += [f"'{Path(link).name}' (a {LINK})" for link in finder.links]
    if finder.left_out[IMAGE_BESIDE]:
        beside.append(f"{finder.left_out[IMAGE_BESIDE]} image(s) outside the splits")
    return [f"'{base}': not used, as no splits: {', '.join(beside)}."] if beside else []


def _why_unused(folder: Path, classes: set[str]) -> str | None:
    """Return what keeps a folder from being a split; None if it does not look like one."""
    inside = _names(folder)
    word = find_split_word(folder.name)
    if word:
        labelled = canonical_split(word[0]) == "train" or not _is_unlabelled(folder, classes)
        if not labelled and (inside or holds_images(folder)):
            return None  # such as the test images of a competition
        if holds_images(folder):
            return "holds images itself instead of class folders"
        if not inside:
            return "has no class folders"
        return "has none of the classes of train, or another folder is that split"
    if len(classes) > 1 and inside == classes:
        return "is called neither train, val nor test (it has the classes of train)"
    return None


def _class_named_like_split(base: Path) -> list[str]:
    """Return a note on a class that is called like a split; raise if several are."""
    folders = _folders(base)
    named = [folder.name for folder in folders if canonical_split(folder.name)]
    worded = [find_split_word(folder.name) for folder in folders]
    splits = {canonical_split(word[0]) for word in worded if word}
    if len({canonical_split(name) for name in named}) > 1 or (all(worded) and len(splits) > 1):
        raise LongTailedError(
            f"'{base}' has split folders ({quoted(folder.name for folder in folders)}) that hold "
            "no class folders; put the images of each class into a folder inside them, or give a "
            "CSV file with the columns path and label."
        )
    return [f"'{base}': '{name}' holds images, so it is a class and no split." for name in named]


def _deeper_notes(folder: Path) -> list[str]:
    """Return a note if all images lie below the class folders; raise if these are all alike."""
    classes = _folders(folder)
    if any(map(holds_images, classes)):
        return []
    inside = [frozenset(_names(directory)) for directory in classes]
    if len(classes) > 1 and len(set(inside)) == 1 and len(inside[0]) > 1:
        raise LongTailedError(
            f"the folders of '{folder}' ({quoted(d.name for d in classes)}) all hold the same "
            f"folders ({quoted(sorted(inside[0]))}), so it is unclear which are the classes; call "
            "splits train, val and test, and put the images of each class directly into one "
            "folder with its name."
        )
    deeper = sum(map(len, inside))
    if deeper <= len(classes):
        return []
    return [
        f"'{folder}': the folders in it are the classes; the {deeper} folders in them "
        "are not told apart."
    ]
