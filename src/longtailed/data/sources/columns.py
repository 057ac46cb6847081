"""Columns of a table: which one holds the images, which the labels and which the splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from longtailed.data.sources.names import canonical_split, quoted
from longtailed.errors import LongTailedError, unknown_name

# Usual names without case, blanks and punctuation; the first one that a table has is taken.
IMAGE_COLUMNS = (
    "path", "image", "img", "filename", "file", "filepath", "imagepath", "imgpath", "imagefile",
    "imagefilename", "imagename", "imgname", "fname", "relativepath", "pixelvalues", "imageid",
    "imgid", "isicid", "idcode", "id",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "finelabel", "class", "target", "labels", "category", "classname", "labelname",
    "categoryname", "classid", "labelid", "categoryid", "classlabel", "species", "breed",
    "diagnosis", "dx",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "phase", "usage", "datasplit")


@dataclass(frozen=True)
class ChosenColumns:
    """The columns that a user names; None: the usual names are looked for."""

    image: str | None = None
    label: str | None = None


class CellError(Exception):
    """The text of a cell that cannot be used, and what is wrong; a reader adds the place."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(problem)
        self.text = text


def find_column(
    kind: str, columns: Sequence[str], usual: Sequence[str], chosen: str | None, source: str
) -> str | None:
    """Return the column that is chosen, or the first with a usual name; None if there is none.

    Raises `LongTailedError` if the chosen column does not exist or a usual name is there twice.
    """
    if chosen is not None:
        if chosen not in columns:
            raise unknown_name(f"{kind} column", chosen, columns)
        return chosen
    keys = [plain_name(column) for column in columns]
    found = next((name for name in usual if name in keys), None)
    if found is None:
        return None
    same = [column for column, key in zip(columns, keys, strict=True) if key == found]
    if len(same) > 1:
        raise LongTailedError(
            f"{source} has more than one {kind} column ({quoted(same)}); rename or remove one."
        )
    return same[0]


def read_splits(texts: Sequence[str], column: str) -> tuple[str, ...] | None:
    """Return 'train', 'val' or 'test' for each text of a column of splits.

    A column with a name like 'dataset' may hold something else: None if no text names a split.

    Raises `CellError` for a text that names none where others do.
    """
    splits = [canonical_split(text) for text in texts]
    if plain_name(column) != "split" and not any(splits):
        return None
    for text, split in zip(texts, splits, strict=True):
        if split is None:
            raise CellError(
                text, f"the column {column!r} says {text!r}, which is none of train, val and test"
            )
    return tuple(split for split in splits if split is not None)


def plain_name(column: str) -> str:
    """Return a column's name without case, blanks and punctuation ('Image ID' as 'imageid')."""
    return re.sub(r"[\W_]", "", column.lower())
