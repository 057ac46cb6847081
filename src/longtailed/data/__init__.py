"""Image sets, long-tailed subsets, samplers, views and the streams that deliver batches."""

from __future__ import annotations

from longtailed.data.augment.mixing import MixedLabels, cutmix, cutmix_box, mixup, soft_targets
from longtailed.data.augment.views import VIEWS, View, parse_view, view_preset
from longtailed.data.cache import decode_resized
from longtailed.data.decoding import IMAGE_SUFFIXES
from longtailed.data.describe import describe_imageset, thumbnail_grid
from longtailed.data.feed import Feed
from longtailed.data.imageset import EncodedImages, ImageSet
from longtailed.data.longtail import long_tail_counts, make_long_tailed, split_holdout, split_meta
from longtailed.data.near_duplicates import count_near_duplicates
from longtailed.data.samplers import SAMPLERS, class_probabilities, make_sampler
from longtailed.data.similar import (
    append_similar_samples,
    make_similar_samples,
    mix_similar_samples,
)
from longtailed.data.sources import SOURCES, available_splits, load_imageset
from longtailed.data.sources.files import OnBadImage, scan_images
from longtailed.data.splits import Splits
from longtailed.data.stores import EncodedColumn, ImageFiles
from longtailed.data.streams import Batch, Stream

__all__ = [
    "IMAGE_SUFFIXES",
    "SAMPLERS",
    "SOURCES",
    "VIEWS",
    "Batch",
    "EncodedColumn",
    "EncodedImages",
    "Feed",
    "ImageFiles",
    "ImageSet",
    "MixedLabels",
    "OnBadImage",
    "Splits",
    "Stream",
    "View",
    "append_similar_samples",
    "available_splits",
    "class_probabilities",
    "count_near_duplicates",
    "cutmix",
    "cutmix_box",
    "decode_resized",
    "describe_imageset",
    "load_imageset",
    "long_tail_counts",
    "make_long_tailed",
    "make_sampler",
    "make_similar_samples",
    "mix_similar_samples",
    "mixup",
    "parse_view",
    "scan_images",
    "soft_targets",
    "split_holdout",
    "split_meta",
    "thumbnail_grid",
    "view_preset",
]
