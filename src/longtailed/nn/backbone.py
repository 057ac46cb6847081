"""Backbone: a feature extractor cut into numbered stages, which can be run from any to any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from longtailed.errors import LongTailedError


@dataclass(frozen=True)
class DataConfig:
    """What images a backbone expects: size (channels, height, width), and mean and std in 0..1."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Backbone(nn.Module, ABC):
    """A feature extractor in stages: 0 is the stem, 1..num_stages follow.

    Stage k turns the map after stage k - 1 (stage 0: the images [N, 3, H, W]) into the map after
    stage k, [N, stage_channels[k], H_k, W_k]. If `spatial` is False some of these maps are token
    sequences [N, L, stage_channels[k]] or of unknown layout. `pool` turns the last map into the
    features [N, num_features].

    A subclass sets `num_features`, `stage_channels` and, where they differ from the defaults,
    `spatial` and `data_config` (None: the images' statistics decide), and defines `run_stage` and
    `pool`.
    """

    num_features: int
    stage_channels: tuple[int, ...]
    spatial: bool = True
    data_config: DataConfig | None = None

    @property
    def num_stages(self) -> int:
        """The number of stages after the stem; the last stage has this number."""
        return len(self.stage_channels) - 1

    @abstractmethod
    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return the map after `stage` for the map before it."""

    @abstractmethod
    def pool(self, maps: Tensor) -> Tensor:
        """Return the features [N, num_features] of the map after the last stage."""

    def run(self, x: Tensor, after: int | None = None, until: int | None = None) -> Tensor:
        """Return the map after stage `until`, computed from `x`, the map after stage `after`.

        `after=None` means that `x` are images, `until=None` the last stage. Running until the
        stage that `x` comes from returns `x` itself. So for every stage k
        `run(run(images, until=k), after=k)` equals `run(images)`.

        Raises `LongTailedError` if a stage does not exist or `until` lies before `after`.
        """
        first = 0 if after is None else self._existing(after) + 1
        last = self.num_stages if until is None else self._existing(until)
        if last < first - 1:
            raise LongTailedError(
                f"cannot run from the map after stage {after} back to stage {until}; "
                f"choose until >= after."
            )
        for stage in range(first, last + 1):
            x = self.run_stage(stage, x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Return the features [N, num_features] of images [N, 3, H, W]."""
        return self.pool(self.run(images))

    def _existing(self, stage: int) -> int:
        if not 0 <= stage <= self.num_stages:
            raise LongTailedError(
                f"this backbone has no stage {stage}; its stages are 0 (the stem) to "
                f"{self.num_stages}."
            )
        return stage
