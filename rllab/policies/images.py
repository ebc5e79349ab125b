"""Image networks: NatureCNN and IMPALA's residual network, from pixels to features."""

from typing import Literal

import torch
from torch import Tensor, nn

from rllab.frames import FrameStacks
from rllab.policies.initialisation import SQRT_TWO, initialise

ImageNetwork = Literal["nature", "impala"]
Precision = Literal["float32", "bfloat16"]


class NatureCNN(nn.Module):
    """The convolutional network of Mnih et al. 2015 ("Human-level control through deep RL", Methods): 512 features."""

    size = 512

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            initialise(PixelConvolution(channels, 32, 8, stride=4), SQRT_TWO), nn.ReLU(inplace=True),
            initialise(nn.Conv2d(32, 64, 4, stride=2), SQRT_TWO), nn.ReLU(inplace=True),
            initialise(nn.Conv2d(64, 64, 3, stride=1), SQRT_TWO), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.head = fully_connected(self.convolutions, channels, height, width, self.size)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.convolutions(images))
        return features


class ImpalaCNN(nn.Module):
    """The deep residual network of Espeholt et al. 2018 ("IMPALA", figure 3, without the LSTM): 256 features."""

    size = 256
    widths = (16, 32, 32)

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for size_in, size_out in zip((channels, *self.widths), self.widths, strict=False):
            convolution = nn.Conv2d if blocks else PixelConvolution
            blocks += [
                initialise(convolution(size_in, size_out, 3, padding=1), 1.0),
                nn.MaxPool2d(3, stride=2, padding=1),
                Residual(size_out),
                Residual(size_out),
            ]
        self.convolutions = nn.Sequential(*blocks, nn.ReLU(inplace=True))
        self.head = fully_connected(self.convolutions, channels, height, width, self.size)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.convolutions(images))
        return features


class Residual(nn.Module):
    """x + convolution(relu(convolution(relu(x)))), all of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(), initialise(nn.Conv2d(width, width, 3, padding=1), SQRT_TWO),
            nn.ReLU(inplace=True), initialise(nn.Conv2d(width, width, 3, padding=1), 1.0),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = images + self.branch(images)
        return changed


def fully_connected(convolutions: nn.Module, channels: int, height: int, width: int, size: int) -> nn.Sequential:
    """A fully connected layer on what the convolutions leave, and ReLU."""
    with torch.no_grad():
        _, maps, rows, columns = convolutions(torch.zeros(1, channels, height, width)).shape
    return nn.Sequential(initialise(WholeMap(maps, size, (rows, columns)), SQRT_TWO), nn.ReLU(inplace=True))


class PixelConvolution(nn.Conv2d):
    """A convolution of bytes counted from 0 to 1: its few weights are divided by 255, and not its many inputs."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight * (1 / 255), self.bias, self.stride, self.padding)


class WholeMap(nn.Conv2d):
    """A fully connected layer over a map `[B, C, H, W]`, with weights `[size, C, H, W]`, to `[B, size]`.

    Where weights and activations lie channels last, neither is rearranged for the product.
    """

    def forward(self, maps: Tensor) -> Tensor:
        flat, weight = (tensor.permute(0, 2, 3, 1).flatten(1) for tensor in (maps, self.weight))
        return nn.functional.linear(flat, weight, self.bias)


IMAGE_NETWORKS: dict[ImageNetwork, type[NatureCNN] | type[ImpalaCNN]] = {"nature": NatureCNN, "impala": ImpalaCNN}


class ImageEncoder(nn.Module):
    """Images of bytes `[..., *image]` to features `[..., size]`."""

    def __init__(
        self, shape: tuple[int, int, int], channels_last: bool, network: ImageNetwork, precision: Precision
    ) -> None:
        """`shape`: channels, height, width; `channels_last`: whether the images come as height, width, channels."""
        super().__init__()
        self.channels_last = channels_last
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.network = IMAGE_NETWORKS[network](*shape)
        self.size = self.network.size

    def forward(self, images: Tensor | FrameStacks, leading: int) -> Tensor:
        """`leading`: how many dimensions come before the image's own."""
        shape = images.shape[:leading]
        images = images.flatten(0, leading - 1) if leading > 1 else images
        pixels = images.pixels() if isinstance(images, FrameStacks) else images
        if self.channels_last:
            pixels = pixels.permute(0, 3, 1, 2)
        pixels = pixels.to(self.dtype, memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features: Tensor = self.network(pixels)
        return features.float().view(*shape, self.size)
