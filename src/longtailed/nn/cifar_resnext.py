"""ResNeXts for small images: the ResNeXt-29, 8x64d, of the CIFAR literature.

State-dict keys: `conv1.weight`, `bn1.*`, and for stage S in 1..3 and block B from 0
`layerS.B.convI.weight` and `layerS.B.bnI.*` for I in 1..3, and in the first block of a stage
`layerS.B.projection.weight` and `layerS.B.bn.*`, where `bn` has weight, bias, running_mean,
running_var and num_batches_tracked.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.nn.backbone import Backbone
from longtailed.nn.cifar_densenet import initialize_by_fan_out
from longtailed.nn.cifar_resnet import BatchNorm2d

# Blocks in each of the three stages; the depth is 9 * blocks + 2.
CIFAR_RESNEXTS: dict[str, int] = {"resnext29": 3}
GROUPS = 8


class BottleneckBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions, beside a shortcut; see `CifarResNeXt`."""

    def __init__(self, in_channels: int, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = BatchNorm2d(channels)
        self.projects = in_channels != channels
        if self.projects:
            self.projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.bn = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the block."""
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = functional.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += self.bn(self.projection(x)) if self.projects else x
        return functional.relu(out, inplace=True)


class CifarResNeXt(Backbone):
    """ResNeXt of depth 9 * blocks + 2 for images of any small size, e.g. 8 to 64 pixels.

    Stem: 3x3 convolution to 64 channels, batch-norm, ReLU. Three stages of `blocks` bottleneck
    blocks with 256, 512 and 1024 channels, the first block of stages 2 and 3 at stride 2. Within
    a block 8 groups ("8x64d") of 64, 128 and 256 channels. Then the mean over the pixels: 1024
    features. The first block of a stage has a 1x1 convolution with batch-norm as shortcut. `width`
    multiplies the channels and features.

    Weights are drawn from torch's default generator as in `CifarDenseNet`. With 3 blocks the
    backbone has 34,416,448 parameters.

    Raises `LongTailedError` if there is no block or 64 * width is not an integer above 0.
    Papers: arXiv 1611.05431; 2106.09859 (with RSG, and this initialisation).
    """

    def __init__(self, blocks: int, width: float = 1.0) -> None:
        super().__init__()
        stem = 64 * width
        if blocks < 1:
            raise LongTailedError(f"a ResNeXt needs at least one block per stage, not {blocks}.")
        if stem < 1 or stem % 1:
            raise LongTailedError(
                f"width {width} gives {stem:g} channels in the stem; choose a multiple of 1/64, "
                "so that they are an integer."
            )
        first = int(stem)
        self.stage_channels = (first, 4 * first, 8 * first, 16 * first)
        self.num_features = 16 * first
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(first)
        self.layer1 = self._stage(first, 4 * first, blocks, stride=1)
        self.layer2 = self._stage(4 * first, 8 * first, blocks, stride=2)
        self.layer3 = self._stage(8 * first, 16 * first, blocks, stride=2)
        self.apply(initialize_by_fan_out)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        inner = GROUPS * channels // 4
        first = BottleneckBlock(in_channels, channels, inner, stride)
        others = (BottleneckBlock(channels, channels, inner, 1) for _ in range(blocks - 1))
        return nn.Sequential(first, *others)

    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return the map after `stage`: 0 the stem, 1..3 the stages of blocks."""
        if stage == 0:
            return functional.relu(self.bn1(self.conv1(maps)), inplace=True)
        layer: nn.Module = (self.layer1, self.layer2, self.layer3)[stage - 1]
        return layer(maps)  # type: ignore[no-any-return]

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean over the pixels, [N, num_features]."""
        return maps.mean(dim=(2, 3))
