"""What an image is, and its decoding to uint8 RGB with one error type for all that can go wrong."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torchvision.io  # type: ignore[import-untyped]  # noqa: F401  (registers torch.ops.image)
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

Exif = Literal["apply", "ignore"]
"""Whether an image is turned as its EXIF orientation says, as every viewer shows it."""
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".jp2",
    ".mpo",
)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")  # PIL's names
_READ_AS_RGB = 3
_WEBP_FLAGS, _WEBP_HAS_EXIF = 20, 0x08  # byte and bit in the head of an extended WebP file
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF tag; values that swap height and width


def has_image_suffix(path: str) -> bool:
    """Return whether a path ends as an image file does."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_image_file(path: str | Path) -> bool:
    """Return whether a file is an image: the one rule, for every source of files.

    A file is an image if it is one to the decoder, whatever it is called. To list many files in
    seconds, one whose name ends in one of `IMAGE_SUFFIXES` counts without being opened: if it is
    damaged, or no image after all, reading it is an error that names it. Any other file is opened,
    and is an image if its head is that of one.
    """
    if has_image_suffix(str(path)):
        return True
    Image.init()  # else not every format that PIL knows is in OPEN
    try:
        # All of PIL's formats would take some files for images that are none: films, tables.
        with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]):
            return True
    except Exception:  # PIL raises many types for what it cannot read
        return False


def decode_rgb(encoded: npt.NDArray[np.uint8], exif: Exif = "apply") -> Tensor:
    """Return the image in `encoded` (the bytes of a file) as uint8 RGB [3, H, W].

    Grey-scale, palette and CMYK images become RGB, transparency is dropped, 16 bits are cut to the
    upper 8, the first frame of an animation is taken, and the image is turned as its EXIF
    orientation says unless `exif` is "ignore".
    torchvision's decoder is called as the operator `torch.ops.image.decode_image`: its Python
    wrapper warns at every call from torchvision 0.29 on. What it cannot read goes to PIL.

    Raises `ValueError` with a short reason if nothing can decode it.
    """
    if encoded.size == 0:
        raise ValueError("it is empty")
    upright = exif == "apply"
    if upright and _is_webp_with_exif(encoded):  # torchvision turns JPEG and PNG only
        return _decode_with_pil(encoded, upright)
    try:
        image: Tensor = torch.ops.image.decode_image(
            torch.from_numpy(encoded), _READ_AS_RGB, upright
        )
    except (AttributeError, RuntimeError):
        return _decode_with_pil(encoded, upright)
    if image.dim() == 4:
        image = image[0].clone()  # an animation: clone, so that the other frames are freed
    if image.dtype == torch.uint16:
        image = (image.to(torch.int32) >> 8).to(torch.uint8)
    return image


def _is_webp_with_exif(encoded: npt.NDArray[np.uint8]) -> bool:
    head = encoded[: _WEBP_FLAGS + 1].tobytes()
    return head[8:16] == b"WEBPVP8X" and bool(head[-1] & _WEBP_HAS_EXIF)


def _decode_with_pil(encoded: npt.NDArray[np.uint8], upright: bool) -> Tensor:
    try:
        with Image.open(BytesIO(encoded.tobytes())) as image:
            image.load()
            pixels = _rgb_pixels(_turn_upright(image) if upright else image)
    except UnidentifiedImageError:
        raise ValueError("it is not an image in a known format") from None
    except Exception as error:  # PIL raises many types for damaged data
        raise ValueError(str(error) or type(error).__name__) from None
    return _channels_first(pixels)


def to_rgb(image: Any) -> Tensor:
    """Return an image that is in memory as uint8 RGB [3, H, W].

    It is a PIL image, taken as it stands, or a uint8 array or tensor: [H, W], or with 1, 3 or 4
    channels (grey, RGB, RGB and transparency, which is dropped) first or last. If both the first
    and the last axis can be the channels, they are the first of a tensor and the last of an array,
    as in torchvision.

    Raises `ValueError` with a short reason for anything else.
    """
    if isinstance(image, Image.Image):
        return _channels_first(_rgb_pixels(image))
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(
            f"it is a {type(image).__name__}, and not a PIL image or a uint8 array or tensor"
        )
    kind = str(image.dtype).removeprefix("torch.")
    if "float" in kind:
        raise ValueError(
            f"its pixels are {kind}; they must be uint8, 0 to 255, because augmentation and "
            "normalisation come later: leave out ToTensor, ToDtype and Normalize (transform=None, "
            "or PILToTensor)"
        )
    if kind != "uint8":
        raise ValueError(f"its pixels are {kind}, not uint8")
    pixels = (
        image
        if isinstance(image, Tensor)
        else torch.from_numpy(np.require(image, requirements=["C", "W"]))
    )
    return _rgb_channels(pixels, first=isinstance(image, Tensor))


def _rgb_channels(pixels: Tensor, first: bool) -> Tensor:
    """Return uint8 pixels with three channels, first; `first` decides where both axes fit."""
    if pixels.ndim == 2:
        pixels, first = pixels[None], True
    if pixels.ndim == 3:
        fits = [pixels.shape[axis] in (1, 3, 4) for axis in (0, -1)]
        if any(fits):
            pixels = pixels if fits[0] and (first or not fits[1]) else pixels.permute(2, 0, 1)
            return pixels[:3].expand(3, -1, -1).cpu().contiguous()
    raise ValueError(
        f"it has the shape {list(pixels.shape)}, and not [H, W] or one with 1, 3 or 4 channels"
    )


def _channels_first(pixels: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data, of many types; the pixels are good
        return image


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


def read_size(source: Path | BytesIO, exif: Exif = "apply") -> tuple[int, int]:
    """Return (height, width) from the header of an image file, turned as `decode_rgb` does.

    Raises `OSError` if there is no such file or PIL does not know the format, `ValueError` with a
    short reason if the header is damaged.
    """
    try:
        with Image.open(source) as image:
            # Without the check PIL would decode a whole PNG in search of EXIF data.
            turned = exif == "apply" and "exif" in image.info and _is_turned(image)
            return (image.width, image.height) if turned else (image.height, image.width)
    except OSError:
        raise
    except Exception as error:  # PIL raises many types for damaged data
        raise ValueError(str(error) or type(error).__name__) from None


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # as in _turn_upright
        return False
