"""Which images a run was made of: their names, classes and contents, and what changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pyarrow import parquet
from torch import Tensor

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.files import map_threads
from longtailed.data.stores import EncodedStore, ImageFiles
from longtailed.errors import LongTailedError

Verify = Literal["auto", "content"]
SMALL_BYTES = 2**30  # files that are together no larger are read in full at every comparison
DIGEST_BYTES = 16
BLOCK = 256  # images that a thread reads at a time
SHOWN = 3  # images that a message names
SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "name": pa.string(),
        "class": pa.string(),
        "size": pa.int64(),  # bytes of the file, -1 for what is no file of its own
        "modified": pa.int64(),  # of the file, in nanoseconds; 0 for what is no file of its own
        "digest": pa.binary(DIGEST_BYTES),  # BLAKE2b of the file, the bytes or the pixels
    }
)
Known = Mapping[tuple[str, int, int], bytes]
_Result = TypeVar("_Result")


def record_images(
    sets: Mapping[str, ImageSet], before: pa.Table | None = None, verify: Verify = "auto"
) -> pa.Table:
    """Return one row (see `SCHEMA`) for each image of each set, in its order.

    Names of files are paths below the root, so that a moved or copied folder has the same ones.
    Contents are read, once, to be told apart. With `before`, an earlier record, a file of the same
    name, size and modification time counts as unchanged and is not read again, unless `verify` is
    "content" or all files together are at most `SMALL_BYTES`.
    """
    facts = {name: _files(imageset) for name, imageset in sets.items()}
    small = sum(int(sizes[sizes > 0].sum()) for _, sizes, _ in facts.values()) <= SMALL_BYTES
    known = {} if before is None or small or verify == "content" else _known(before)
    tables = []
    for split, imageset in sets.items():
        names, sizes, times = facts[split]
        classes = np.asarray([_utf8(name) for name in imageset.class_names])[imageset.labels]
        columns = {
            "split": [split] * len(names),
            "name": names,
            "class": classes,
            "size": sizes,
            "modified": times,
            "digest": _digests(imageset, names, sizes, times, known),
        }
        tables.append(pa.table(columns, schema=SCHEMA))
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def write_record(file: BinaryIO, record: pa.Table) -> None:
    """Write a record as parquet."""
    parquet.write_table(record, file, compression="zstd")


def read_record(path: Path) -> pa.Table:
    """Return what `write_record` wrote; a missing or broken file is one sentence."""
    if not path.exists():
        raise LongTailedError(
            f"{path} does not exist, so it is not known which images the run was made of; "
            "was it begun by another version?"
        )
    try:
        return parquet.read_table(path, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise LongTailedError(f"{path} is no readable record of images: {reason}.") from None


def images_of(record: pa.Table, split: str) -> pa.Table:
    """Return the rows of one split."""
    return record.filter(pa.compute.equal(record["split"], split))


def fingerprint(record: pa.Table) -> str:
    """Return the SHA-256 over names, classes and contents of a record's images, in their order."""
    digest = hashlib.sha256()
    for key in ("name", "class", "digest"):
        for value in record[key].to_pylist():
            data = _as_bytes(value)
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def changes(before: pa.Table, now: pa.Table, ordered: bool = True) -> str | None:
    """Return what differs between two records of the same splits as text; None if nothing does.

    `ordered` says whether the order of the images counts, as it does in training.
    """
    compared = ["split", "name", "class", "digest"]
    if before.select(compared).equals(now.select(compared)):
        return None
    old, new = _by_place(before), _by_place(now)
    gone, added = [p for p in old if p not in new], [p for p in new if p not in old]
    kept = {(place[1], *old[place]) for place in gone}
    moved = [p for p in added if (p[1], *new[p]) in kept]
    arrived = {(place[1], *new[place]) for place in moved}
    both = [place for place in old if place in new]
    found = {
        "added": [p for p in added if (p[1], *new[p]) not in arrived],
        "removed": [p for p in gone if (p[1], *old[p]) not in arrived],
        "missing or unreadable": [p for p in both if new[p][1] is None and old[p][1] is not None],
        "replaced by another image": [p for p in both if new[p][1] not in (None, old[p][1])],
        "put into another class": [p for p in both if old[p][0] != new[p][0]],
        "put into another split": moved,
    }
    texts = [_counted(what, places) for what, places in found.items() if places]
    if not texts:
        return "the same images stand in another order" if ordered else None
    return ", ".join(texts)


def shared_images(record: pa.Table, other: pa.Table) -> int:
    """Return how many images of a record have the contents of an image of the other."""
    contents = other["digest"].drop_null()
    return int(pa.compute.sum(pa.compute.is_in(record["digest"], value_set=contents)).as_py() or 0)


def _by_place(record: pa.Table) -> dict[tuple[str, str], tuple[str, bytes | None]]:
    columns = (record[key].to_pylist() for key in ("split", "name", "class", "digest"))
    return {
        (split, name): (kind, digest) for split, name, kind, digest in zip(*columns, strict=True)
    }


def _counted(what: str, places: list[tuple[str, str]]) -> str:
    shown = ", ".join(f"{split}: {name!r}" for split, name in places[:SHOWN])
    more = ", ..." if len(places) > SHOWN else ""
    return f"{len(places)} {'image' if len(places) == 1 else 'images'} {what} ({shown}{more})"


def _as_bytes(value: str | bytes | None) -> bytes:
    if value is None:
        return b""
    return value if isinstance(value, bytes) else value.encode()


def _files(imageset: ImageSet) -> tuple[list[str], IntArray, IntArray]:
    """Return name, size and modification time of each image."""
    images, rows = imageset.images, imageset.indices.tolist()
    if isinstance(images, ImageFiles):
        names = [_utf8(images.paths[row]) for row in rows]
        facts = np.array(_by_threads(lambda row: _stat(images.path(row)), rows), dtype=np.int64)
        sizes, times = facts.reshape(-1, 2).T
        return names, sizes, times
    named = isinstance(images, EncodedStore)
    names = [images.describe(row) if named else f"row {row}" for row in rows]  # type: ignore[union-attr]
    nothing = np.zeros(len(rows), dtype=np.int64)
    return names, nothing - 1, nothing


def _utf8(name: str) -> str:
    """Return a name as valid UTF-8: bytes that are not are written as escapes, so names differ."""
    return name.encode(errors="backslashreplace").decode()


def _stat(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return -1, 0
    return facts.st_size, facts.st_mtime_ns


def _known(before: pa.Table) -> Known:
    """Return the digests of files by name, size and time, where these tell them all apart."""
    known: dict[tuple[str, int, int], bytes] = {}
    unsure = set()
    columns = (before[key].to_pylist() for key in ("name", "size", "modified", "digest"))
    for name, size, modified, digest in zip(*columns, strict=True):
        key = (name, size, modified)
        if size >= 0 and known.setdefault(key, digest) != digest:
            unsure.add(key)
    return {key: digest for key, digest in known.items() if key not in unsure}


def _digests(
    imageset: ImageSet, names: list[str], sizes: IntArray, times: IntArray, known: Known
) -> list[bytes | None]:
    keys = zip(names, sizes.tolist(), times.tolist(), strict=True)
    found: list[bytes | None] = [known.get(key) for key in keys]
    missing = [position for position, digest in enumerate(found) if digest is None]
    read = _by_threads(lambda position: _digest(imageset, position), missing)
    for position, digest in zip(missing, read, strict=True):
        found[position] = digest
    return found


def _by_threads(function: Callable[[int], _Result], items: list[int]) -> list[_Result]:
    """Return `[function(item) for item in items]`, a block of items at a time for each thread."""
    blocks = [items[start : start + BLOCK] for start in range(0, len(items), BLOCK)]
    done = map_threads(lambda block: [function(item) for item in block], blocks)
    return [result for block in done for result in block]


def _digest(imageset: ImageSet, position: int) -> bytes | None:
    """Return the digest of an image's bytes or, if it is decoded, pixels; None if unreadable."""
    images, row = imageset.images, int(imageset.indices[position])
    try:
        if isinstance(images, Tensor):
            data: Any = np.ascontiguousarray(images[row].numpy())
        else:
            data = images.encoded(row) if isinstance(images, EncodedStore) else images.identity(row)
    except ValueError:
        return None
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
