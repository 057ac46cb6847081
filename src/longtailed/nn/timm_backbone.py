"""timm models as staged backbones.

State-dict keys: `model.` followed by timm's own keys for the model without its classifier.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longtailed.errors import LongTailedError
from longtailed.nn.backbone import Backbone, DataConfig
from longtailed.nn.weights import FoundWeights, Statistics, find_weights

# timm is imported inside functions: that takes about a second, which the CIFAR networks save.

Parts = tuple[str, ...]  # names of parts of a timm model, applied in this order


@dataclass(frozen=True)
class _Layout:
    """How a family of timm models names its parts.

    A single name in `stages` means a Sequential whose members are the stages or, with `groups`,
    are dealt out evenly to that many stages. The parts of `tail` that exist end the last stage.
    """

    stem: Parts
    stages: Parts
    tail: Parts = ()
    groups: int | None = None

    def match(self, model: nn.Module) -> tuple[Parts, ...] | None:
        """Return the parts of every stage, the stem first, or None if `model` lacks some."""
        if not all(hasattr(model, part) for part in (*self.stem, *self.stages)):
            return None
        stages: list[Parts] = [(stage,) for stage in self.stages]
        if len(stages) == 1:
            container = getattr(model, self.stages[0])
            if not isinstance(container, nn.Sequential) or len(container) == 0:
                return None
            members = [f"{self.stages[0]}.{name}" for name, _ in container.named_children()]
            groups = min(self.groups or len(members), len(members))
            bounds = [len(members) * group // groups for group in range(groups + 1)]
            stages = [tuple(members[a:b]) for a, b in itertools.pairwise(bounds)]
        stages[-1] += tuple(part for part in self.tail if hasattr(model, part))
        return (self.stem, *stages)


_LAYOUTS = (
    # ResNet, ResNeXt, SE-ResNet, Res2Net, ResNeSt
    _Layout(("conv1", "bn1", "act1", "maxpool"), ("layer1", "layer2", "layer3", "layer4")),
    # RegNet
    _Layout(("stem",), ("s1", "s2", "s3", "s4"), ("final_conv",)),
    # ConvNeXt, pre-activation ResNet, NFNet, EdgeNeXt
    _Layout(("stem",), ("stages",), ("norm_pre", "final_conv", "final_act", "norm")),
    # EfficientNet
    _Layout(("conv_stem", "bn1"), ("blocks",), ("conv_head", "bn2")),
    # MobileNetV3, whose conv_head comes after pooling
    _Layout(("conv_stem", "bn1"), ("blocks",)),
    # Swin
    _Layout(("patch_embed",), ("layers",), ("norm",)),
    # ViT, DeiT
    _Layout(("patch_embed", "_pos_embed", "patch_drop", "norm_pre"), ("blocks",), ("norm",), 4),
)

_WHOLE_MODEL: tuple[Parts, ...] = ((), ("forward_features",))


class TimmBackbone(Backbone):
    """A timm model without its classifier, in stages.

    ResNet, RegNet, ConvNeXt and Swin have their stem and 4 stages, EfficientNet and MobileNetV3
    one stage for each group of blocks, ViT and DeiT the embedding as stem and their blocks in 4
    stages; other models with parts of the same names are cut in the same way. A cut is used only if
    its parts, applied one after the other, give what the model itself computes. Any other model is
    one stage behind an empty stem. Pooling is the model's own, up to its classifier.

    Maps are [N, channels, H, W], also where timm keeps the channels last. With `spatial` False
    some are token sequences [N, L, channels] (ViT: class token first) or, in a model that is one
    stage, whatever the model gives. `data_config` is what the weights were trained with.

    `pretrained=True` loads timm's published weights, which may download them; nothing is downloaded
    otherwise. `weights` is a local file instead, with exactly the model's tensors, except those of
    its classifier (see `find_weights`); `loaded` says what was taken from it, None without one.
    Their mean and standard deviation are the file's own if it says, else those of the name.
    `image_size` (pixels) replaces the size the model was published with. `options` are further
    options of `timm.create_model`.

    Raises `LongTailedError` if timm cannot build the model, if the model cannot take images of that
    size, and if the weights cannot be loaded or do not fit.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: str | Path | None = None,
        image_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if pretrained and weights is not None:
            raise LongTailedError("give either pretrained=True or a file of weights, not both.")
        self.model = _create_model(name, pretrained, image_size, options)
        found = None if weights is None else _load_weights(self.model, Path(weights))
        self.loaded = None if found is None else found.note
        self.data_config = _data_config(
            self.model, image_size, None if found is None else found.statistics
        )
        self._stages = _WHOLE_MODEL
        self._channels_last = False
        self.spatial = False
        self.stage_channels = (self.data_config.input_size[0], int(self.model.num_features))
        training = self.model.training
        self.model.eval()
        try:
            self._cut(self.data_config.input_size)
        except (RuntimeError, ValueError, AssertionError) as error:
            size = "x".join(map(str, self.data_config.input_size))
            raise LongTailedError(
                f"timm model {name} cannot take images of size {size} ({_first_line(error)}); "
                f"choose another image_size."
            ) from error
        self.model.train(training)

    @torch.no_grad()
    def _cut(self, input_size: tuple[int, int, int]) -> None:
        """Find the stages and the sizes of their maps by running the model on one image."""
        channels, height, width = input_size
        values = torch.linspace(-1, 1, channels * height * width)
        image = values.reshape(1, *input_size).to(next(self.model.parameters()))
        expected = self.model.forward_features(image)
        self.num_features = self.model.forward_head(expected, pre_logits=True).shape[1]
        for layout in _LAYOUTS:
            stages = layout.match(self.model)
            maps = [] if stages is None else _stage_maps(self.model, stages, image)
            if stages is None or not maps or not _same(maps[-1], expected):
                continue
            self._stages = stages
            self._channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            self.spatial = all(m.dim() == 4 for m in maps)
            axes = [1 if m.dim() == 4 and not self._channels_last else -1 for m in maps]
            self.stage_channels = tuple(m.shape[a] for m, a in zip(maps, axes, strict=True))
            return

    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return the map after `stage`, computed by the model's own parts."""
        if self._channels_last and stage > 0:
            maps = maps.permute(0, 2, 3, 1)
        maps = _apply(self.model, self._stages[stage], maps)
        return maps.permute(0, 3, 1, 2) if self._channels_last else maps

    def pool(self, maps: Tensor) -> Tensor:
        """Return what the model feeds its classifier with, [N, num_features]."""
        if self._channels_last:
            maps = maps.permute(0, 2, 3, 1)
        features: Tensor = self.model.forward_head(maps, pre_logits=True)
        return features


def timm_names() -> list[str]:
    """Return the names of all timm models, without the tags of their weights."""
    import timm

    return list(timm.list_models())


def _create_model(
    name: str, pretrained: bool, image_size: int | None, options: Mapping[str, Any]
) -> Any:
    import timm

    arguments = dict(options)
    try:
        config = timm.get_pretrained_cfg(name)
        if image_size is not None and getattr(config, "fixed_input_size", False):
            arguments["img_size"] = image_size
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except TypeError as error:
        raise LongTailedError(
            f"timm model {name} does not take the options {sorted(options)} ({_first_line(error)})."
        ) from error
    except Exception as error:  # the errors of download clients have no base class in common
        if pretrained:
            raise LongTailedError(
                f"the pretrained weights of timm model {name} are not on this machine and "
                f"cannot be downloaded ({type(error).__name__}); give a local file with "
                f"weights=PATH instead of pretrained=True."
            ) from error
        raise LongTailedError(
            f"timm cannot build the model {name} ({_first_line(error)})."
        ) from error


def _data_config(model: Any, image_size: int | None, own: Statistics | None) -> DataConfig:
    config = model.pretrained_cfg
    channels, height, width = config["input_size"]
    if image_size is not None:
        height = width = image_size
    mean, std = own or (tuple(config["mean"]), tuple(config["std"]))
    return DataConfig((channels, height, width), mean, std)


def _apply(model: nn.Module, parts: Parts, maps: Tensor) -> Tensor:
    # Looked up by name at every call, because wrappers may replace a model's modules.
    for part in parts:
        maps = functools.reduce(getattr, part.split("."), model)(maps)
    return maps


def _stage_maps(model: nn.Module, stages: Sequence[Parts], image: Tensor) -> list[Tensor]:
    """Return the map after every stage, or [] if the parts do not fit one another."""
    maps = [image]
    try:
        for parts in stages:
            maps.append(_apply(model, parts, maps[-1]))
    except (RuntimeError, TypeError, ValueError, AssertionError):
        return []
    return maps[1:]


def _same(maps: Tensor, expected: Any) -> bool:
    return (
        isinstance(expected, Tensor)
        and maps.shape == expected.shape
        and torch.allclose(maps, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    )


def _load_weights(model: Any, path: Path) -> FoundWeights:
    """Load a file of weights strictly, leaving out the classifier that the model has not got."""
    classifiers = model.pretrained_cfg.get("classifier") or ()
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    found = find_weights(path, model.state_dict(), names)
    model.load_state_dict(found.tensors, strict=False)  # counters of batch norms may lack
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
