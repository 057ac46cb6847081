"""Images without labels, for self-supervised stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from longtailed.data import ImageSet, make_long_tailed
from longtailed.data.settings import REST, Data
from longtailed.data.sources.table_layout import is_list_file
from longtailed.errors import LongTailedError


def load_unlabelled(
    data: Data, whole: ImageSet, train: ImageSet, load: Callable[[Data, str], ImageSet]
) -> ImageSet:
    """Return the images that `data.unlabelled` names, long-tailed by `data.unlabelled_imbalance`.

    `train` is what is left of `whole` after subsampling; `load(data, split)` opens a source. The
    labels that the images happen to have choose them and are not used otherwise.

    Raises `LongTailedError` if no image remains.
    """
    if data.unlabelled == REST:
        kept = np.isin(whole.indices, train.indices)
        images = whole.subset(np.flatnonzero(~kept))
        advice = "subsample more (imbalance, max_count, counts), or name a source"
    else:
        source = _source(data, str(data.unlabelled))
        images = load(source, "train")
        advice = "name a source that has images"
    if len(images) == 0:
        raise LongTailedError(f"there are no unlabelled images in {data.unlabelled!r}; {advice}.")
    if data.unlabelled_imbalance is None:
        return images
    seed = data.subset_seed
    return make_long_tailed(images, data.unlabelled_imbalance, profile=data.profile, seed=seed)


def _source(data: Data, name: str) -> Data:
    """Return the settings that open another source: `root` and `download` where it takes them."""
    named = name in ("cifar10", "cifar100")
    return Data(
        source=name,
        root=data.root if named or is_list_file(Path(name)) else None,
        download=data.download and named,
        on_bad_image=data.on_bad_image,
        exif=data.exif,
    )
