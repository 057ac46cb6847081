"""DenseNets for small images, without bottlenecks: the DenseNet-40 of the CIFAR literature.

State-dict keys: `conv1.weight`, and for stage S in 1..3 and layer L from 0 `blockS.L.bn.*` and
`blockS.L.conv.weight`, after stages 1 and 2 `transitionS.bn.*` and `transitionS.conv.weight`, at
the end `bn.*`, where `bn` has weight, bias, running_mean, running_var and num_batches_tracked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.nn.backbone import Backbone
from longtailed.nn.cifar_resnet import BatchNorm2d

# Layers in each of the three stages; the depth is 3 * layers + 4.
CIFAR_DENSENETS: dict[str, int] = {"densenet40": 12}


class DenseLayer(nn.Module):
    """BN, ReLU and a 3x3 convolution, whose output joins the channels of the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input's channels followed by the new ones."""
        return torch.cat((x, self.conv(functional.relu(self.bn(x), inplace=True))), dim=1)


class Transition(nn.Module):
    """BN, ReLU, a 1x1 convolution that keeps the channels, and the mean of 2 x 2 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of half the size."""
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x), inplace=True)), 2)


class CifarDenseNet(Backbone):
    """DenseNet of depth 3 * layers + 4 for images of any small size, e.g. 8 to 64 pixels.

    Stem: 3x3 convolution to 24 channels. Three stages of `layers` layers, each of which adds 12
    channels; stages 1 and 2 end with a transition, which halves the map, stage 3 with BN and ReLU.
    Then the mean over the pixels. With 12 layers: 24, 168, 312 and 456 channels. `width`
    multiplies the channels. Neither bottlenecks nor compression.

    Weights are drawn from torch's default generator: convolutions normal with variance
    2 / (9 * out_channels), or 2 / out_channels if 1x1; batch-norm weight 1, bias 0. With 12 layers
    the backbone has 1,054,728 parameters.

    Raises `LongTailedError` if there is no layer or 12 * width is not an integer above 0.
    Papers: arXiv 1608.06993; 2106.09859 (with RSG). Departure from the code of the latter: the
    cut into stages, so that what goes into the last stage is what RSG takes.
    """

    def __init__(self, layers: int, width: float = 1.0) -> None:
        super().__init__()
        growth = 12 * width
        if layers < 1:
            raise LongTailedError(f"a DenseNet needs at least one layer per stage, not {layers}.")
        if growth < 1 or growth % 1:
            raise LongTailedError(
                f"width {width} gives {growth:g} new channels in each layer; choose a multiple of "
                "1/12, so that they are an integer."
            )
        each = int(growth)
        channels = [each * (2 + layers * stage) for stage in range(4)]
        self.stage_channels = tuple(channels)
        self.num_features = channels[3]
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.block1 = self._block(channels[0], each, layers)
        self.transition1 = Transition(channels[1])
        self.block2 = self._block(channels[1], each, layers)
        self.transition2 = Transition(channels[2])
        self.block3 = self._block(channels[2], each, layers)
        self.bn = BatchNorm2d(channels[3])
        self.apply(initialize_by_fan_out)

    @staticmethod
    def _block(in_channels: int, growth: int, layers: int) -> nn.Sequential:
        return nn.Sequential(*(DenseLayer(in_channels + n * growth, growth) for n in range(layers)))

    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return the map after `stage`: 0 the stem, 1..3 the dense blocks and what ends them."""
        if stage == 0:
            return self.conv1(maps)  # type: ignore[no-any-return]
        if stage == 1:
            return self.transition1(self.block1(maps))  # type: ignore[no-any-return]
        if stage == 2:
            return self.transition2(self.block2(maps))  # type: ignore[no-any-return]
        return functional.relu(self.bn(self.block3(maps)), inplace=True)

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean over the pixels, [N, num_features]."""
        return maps.mean(dim=(2, 3))


def initialize_by_fan_out(module: nn.Module) -> None:
    """Draw a convolution's weight: normal, variance 2 / (kernel area * out_channels)."""
    if isinstance(module, nn.Conv2d):
        area = module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=(2 / (area * module.out_channels)) ** 0.5)
