"""ResNets for small images: the ResNet-20/32/44/56/110 of the CIFAR literature, and a tiny one.

State-dict keys: `conv1.weight`, `bn1.*`, and for stage S in 1..3 and block B from 0
`layerS.B.conv1.weight`, `layerS.B.bn1.*`, `layerS.B.conv2.weight`, `layerS.B.bn2.*`, where `bn` has
weight, bias, running_mean, running_var and num_batches_tracked. The shortcuts have no parameters.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.nn.backbone import Backbone

# Blocks in each of the three stages; the depth is 6 * blocks + 2.
CIFAR_RESNETS: dict[str, int] = {
    "resnet8": 1,
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
}


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that does not count its training steps.

    The count is used only without a momentum, but costs one kernel per layer and step, a tenth of
    all kernels of a ResNet-32 step. `num_batches_tracked` stays in the state dict, for exchange
    with other code, and keeps its value.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, of the shape of `x`."""
        if not self.training or self.momentum is None:
            return super().forward(x)
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            True,
            self.momentum,
            self.eps,
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut; see `CifarResNet`."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.stride = stride
        self.padding = (channels - in_channels) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        """Return every `stride`-th pixel of `x`, with zero channels on both sides (option A)."""
        if self.stride == 1:
            return x
        # Padding, adding to a slice of the sum, and pooling instead of slicing measure alike:
        # the two shortcuts take 1 to 2 % of a training step on a CPU.
        pixels = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(pixels, (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the block."""
        # In place only on the outputs of batch-norm, which nothing else reads.
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return functional.relu(out, inplace=True)


class CifarResNet(Backbone):
    """ResNet of depth 6 * blocks + 2 for images of any small size, e.g. 8 to 64 pixels.

    Stem: 3x3 convolution to 16 channels, batch-norm, ReLU. Three stages of `blocks` basic blocks
    with 16, 32 and 64 channels, the first block of stages 2 and 3 at stride 2. Then the mean over
    the pixels: 64 features. Where the size changes, the shortcut takes every second pixel and
    pads a quarter of the new channels with zeros on each side ("option A"). `width` multiplies
    the channels and features.

    Weights are drawn from torch's default generator: convolutions Kaiming normal (fan-in, gain
    sqrt 2); batch-norm weight 1, bias 0. With 5 blocks the backbone has 463,504 parameters.

    Raises `LongTailedError` if there is no block or 16 * width is not an even number above 0.
    Papers: arXiv 1512.03385 (architecture), 1906.07413 (this initialisation).
    """

    def __init__(self, blocks: int, width: float = 1.0) -> None:
        super().__init__()
        channels = 16 * width
        if blocks < 1:
            raise LongTailedError(f"a ResNet needs at least one block per stage, not {blocks}.")
        if channels < 2 or channels % 2:
            raise LongTailedError(
                f"width {width} gives {channels:g} channels in the stem; choose a multiple of "
                f"1/8, so that they are an even number."
            )
        stem = int(channels)
        self.stage_channels = (stem, stem, 2 * stem, 4 * stem)
        self.num_features = 4 * stem
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(stem)
        self.layer1 = self._stage(stem, stem, blocks, stride=1)
        self.layer2 = self._stage(stem, 2 * stem, blocks, stride=2)
        self.layer3 = self._stage(2 * stem, 4 * stem, blocks, stride=2)
        self.apply(kaiming_initialize)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def run_stage(self, stage: int, maps: Tensor) -> Tensor:
        """Return the map after `stage`: 0 the stem, 1..3 the stages of blocks."""
        if stage == 0:
            return functional.relu(self.bn1(self.conv1(maps)), inplace=True)
        layer: nn.Module = (self.layer1, self.layer2, self.layer3)[stage - 1]
        return layer(maps)  # type: ignore[no-any-return]

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean over the pixels, [N, num_features]."""
        return maps.mean(dim=(2, 3))


def kaiming_initialize(module: nn.Module) -> None:
    """Draw the weight of a convolution or linear layer, Kaiming normal (fan-in, gain sqrt 2)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
