"""Views: what is done to an image before the network sees it, written as one line of text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from itertools import takewhile
from typing import Any, Final, TypeAlias

import torch
from torch import Generator, Tensor

from longtailed.data.augment.auto_augment import AutoAugment
from longtailed.data.augment.color import ColorJitter, GaussianBlur, Grayscale
from longtailed.data.augment.geometry import CenterCrop, Cutout, Flip, PadCrop, Resize, ResizedCrop
from longtailed.data.augment.operation import Op, SideLengths
from longtailed.data.augment.rand_augment import RandAugment
from longtailed.errors import LongTailedError, unknown_name

AnyOp: TypeAlias = Op[Any]

_GEOMETRY = (PadCrop, Flip, ResizedCrop, Resize, CenterCrop, Cutout)
_COLOR = (ColorJitter, Grayscale, GaussianBlur)
OPS: Final[Mapping[str, type[AnyOp]]] = {
    op.name: op for op in (*_GEOMETRY, *_COLOR, AutoAugment, RandAugment)
}

_SIMCLR_COLOR = "color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grayscale(0.2)"
VIEWS: Final[Mapping[str, str]] = {
    "none": "",
    "small": "pad_crop({padding}), flip",
    "small-reflect": "pad_crop({padding}, mode='reflect'), flip",
    "digits": "pad_crop(1)",
    "large": "resized_crop({size}), flip, color_jitter(0.4, 0.4, 0.4, 0)",
    "large-plain": "resized_crop({size}), flip",
    "large-test": "resize({shorter}), center_crop({size})",
    "simclr-small": f"resized_crop({{size}}, scale=(0.2, 1)), flip, {_SIMCLR_COLOR}, blur(p=0.5)",
    "simclr-large": f"resized_crop({{size}}), flip, {_SIMCLR_COLOR}",
    "simclr-rand": f"resized_crop({{size}}), flip, {_SIMCLR_COLOR}, rand_augment",
    "simclr-digits": "resized_crop({size}, scale=(0.5, 1)), color_jitter(0.4, 0.4, 0.4, 0, p=0.8)",
}
"""Ready-made views by name, for `view_preset` (arXiv 1512.03385; simclr: arXiv 2002.05709)."""


@dataclass(frozen=True)
class View:
    """Operations applied one after the other to a batch of uint8 images; none is the identity.

    `str(view)` is a text from which `parse_view` makes an equal view.
    """

    ops: tuple[AnyOp, ...] = ()

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the changed images, uint8 [N, 3, H', W'], on the same device.

        Raises `LongTailedError` unless `images` are uint8 [N, 3, H, W].
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise LongTailedError(
                f"a view needs uint8 images [N, 3, H, W], not {images.dtype} {list(images.shape)}."
            )
        for op in self.ops:
            images = op(images, generator)
        return images

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the size (height, width) of the changed images; None if that is not known.

        `size` is that of the images, None if they have any. Raises `LongTailedError` for an
        operation that makes no sense for the images that come to it.
        """
        for op in self.ops:
            size = op.output_size(size)
        return size

    @property
    def load_ops(self) -> tuple[AnyOp, ...]:
        """The leading operations that run on each image where it is decoded."""
        return tuple(takewhile(lambda op: op.on_load, self.ops))

    @property
    def batch_ops(self) -> tuple[AnyOp, ...]:
        """The other operations, which need images of one size and run on the batch."""
        return self.ops[len(self.load_ops) :]

    def __str__(self) -> str:
        return ", ".join(map(_op_text, self.ops))


def view_preset(name: str, image_size: int) -> View:
    """Return the view called `name` in `VIEWS` for images that the network sees at `image_size`.

    Padding is an eighth of the side (4 pixels of 32, as published for CIFAR), and the shorter side
    before a central crop 8/7 of it (256 pixels for 224, as published for ImageNet).

    Raises `LongTailedError` for an unknown name.
    """
    if name not in VIEWS:
        raise unknown_name("view", name, VIEWS, listing="views")
    padding, shorter = round(image_size / 8), round(image_size * 8 / 7)
    text = VIEWS[name].format(size=image_size, padding=padding, shorter=shorter)
    return parse_view(text)


def parse_view(text: str) -> View:
    """Return the view that `text` describes: operations with literal arguments, comma-separated.

    >>> parse_view("pad_crop(4), flip").ops
    (PadCrop(padding=4, mode='zero'), Flip(p=0.5))

    Raises `LongTailedError` for text that is not of this form, an operation that does not exist,
    and arguments that it does not have or accept.
    """
    if not text.strip():
        return View()
    try:
        tree = ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise LongTailedError(f"cannot read the view {text!r}: {reason}.") from None
    nodes = tree.elts if isinstance(tree, ast.Tuple) else [tree]
    return View(tuple(_parse_op(node) for node in nodes))


def _parse_op(node: ast.expr) -> AnyOp:
    call = node if isinstance(node, ast.Call) else None
    function = node if call is None else call.func
    if not isinstance(function, ast.Name):
        raise LongTailedError(
            f"cannot read {ast.unparse(node)!r} in a view: write operations such as "
            "'pad_crop(4), flip', separated by commas."
        )
    name = function.id
    if name not in OPS:
        raise unknown_name("view operation", name, OPS)
    values = _arguments(name, call) if call is not None else {}
    known = fields(OPS[name])  # type: ignore[arg-type]
    missing = [field.name for field in known if _required(field) and field.name not in values]
    if missing:
        raise LongTailedError(f"{name} needs a value for {' and '.join(missing)}.")
    make: Callable[..., AnyOp] = OPS[name]
    return make(**values)


def _arguments(name: str, call: ast.Call) -> dict[str, object]:
    """The values by field name, from positional and named arguments."""
    known = [field.name for field in fields(OPS[name])]  # type: ignore[arg-type]
    if len(call.args) > len(known):
        raise LongTailedError(
            f"{name} takes at most {len(known)} arguments ({', '.join(known)}), "
            f"not {len(call.args)}."
        )
    values = {key: _literal(name, node) for key, node in zip(known, call.args, strict=False)}
    for keyword in call.keywords:
        key = keyword.arg or ast.unparse(keyword)
        if key not in known:
            raise unknown_name(f"argument of {name}", key, known)
        if key in values:
            raise LongTailedError(f"{name} has two values for {key}.")
        values[key] = _literal(name, keyword.value)
    return values


def _literal(name: str, node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise LongTailedError(
            f"{name}: {ast.unparse(node)!r} must be a number, a quoted text or a pair of numbers."
        ) from None


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING


def _op_text(op: AnyOp) -> str:
    """The call without arguments at their defaults; the first and required ones go unnamed."""
    arguments = []
    for position, field in enumerate(fields(op)):  # type: ignore[arg-type]
        value = getattr(op, field.name)
        if value == field.default:
            continue
        unnamed = position == 0 or _required(field)
        arguments.append(_value_text(value) if unnamed else f"{field.name}={_value_text(value)}")
    return f"{op.name}({', '.join(arguments)})" if arguments else op.name


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_value_text, value))})"
    return repr(value).removesuffix(".0") if isinstance(value, float) else repr(value)
