"""Decoding of one image to uint8 RGB, with one error type for everything that can go wrong."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchvision.io  # type: ignore[import-untyped]  # noqa: F401  (registers torch.ops.image)
from PIL import Image, UnidentifiedImageError
from torch import Tensor

_READ_AS_RGB = 3


def decode_rgb(encoded: npt.NDArray[np.uint8]) -> Tensor:
    """Return the image in `encoded` (the bytes of a file) as uint8 RGB [3, H, W].

    Grey-scale, palette and CMYK images become RGB, transparency is dropped, 16 bits are cut to the
    upper 8, the first frame of an animation is taken and an EXIF orientation is left alone.
    torchvision's decoder is called as the operator `torch.ops.image.decode_image`: its Python
    wrapper warns at every call from torchvision 0.29 on. What it cannot read goes to PIL.

    Raises `ValueError` with a short reason if nothing can decode it.
    """
    if encoded.size == 0:
        raise ValueError("it is empty")
    try:
        image: Tensor = torch.ops.image.decode_image(torch.from_numpy(encoded), _READ_AS_RGB)
    except (AttributeError, RuntimeError):
        return _decode_with_pil(encoded)
    if image.dim() == 4:
        image = image[0].clone()  # an animation: clone, so that the other frames are freed
    if image.dtype == torch.uint16:
        image = (image.to(torch.int32) >> 8).to(torch.uint8)
    return image


def _decode_with_pil(encoded: npt.NDArray[np.uint8]) -> Tensor:
    try:
        with Image.open(BytesIO(encoded.tobytes())) as image:
            pixels = _rgb_pixels(image)
    except UnidentifiedImageError:
        raise ValueError("it is not an image in a known format") from None
    except Exception as error:  # PIL raises many types for damaged data
        raise ValueError(str(error) or type(error).__name__) from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _rgb_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        # PIL's own conversion clips at 255 instead of scaling.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"its {image.mode!r} pixels have no defined 8-bit form")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def read_size(source: Path | BytesIO) -> tuple[int, int]:
    """Return (height, width) from the header of an image file.

    Raises `OSError` if there is no such file or PIL does not know the format, `ValueError` with a
    short reason if the header is damaged.
    """
    try:
        with Image.open(source) as image:
            return image.height, image.width
    except OSError:
        raise
    except Exception as error:  # PIL raises many types for damaged data
        raise ValueError(str(error) or type(error).__name__) from None
