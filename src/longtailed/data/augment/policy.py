"""The batched application of the operations that an augmentation policy drew."""

from __future__ import annotations

from torch import Tensor

from longtailed.data.augment.affine import affine_matrices, resample
from longtailed.data.augment.image_operation import DrawnOperations
from longtailed.data.augment.photometric import enhance, map_levels


def apply_operations(
    images: Tensor,
    drawn: DrawnOperations,
    fill: tuple[int, int, int],
    along_one_axis: bool = False,
) -> Tensor:
    """Return the images after their drawn operations, uint8 [N, 3, H, W]; nothing is random.

    Every image runs through the same three steps per operation, of which two at least leave it as
    it is. For `fill` and `along_one_axis` see `resample`.
    """
    height, width = images.shape[2:]
    for operation, value, interpolation in zip(*(field.unbind(1) for field in drawn), strict=True):
        images = enhance(images, operation, value)
        images = map_levels(images, operation, value)
        matrices = affine_matrices(operation, value, height, width)
        images = resample(images, matrices, interpolation, fill, along_one_axis)
    return images
