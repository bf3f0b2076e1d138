"""FLOPs of convolutional image towers for one image, forward."""

from vlp_jax.models.towers import blocks_of
from vlp_jax.models.vision import inception, vgg
from vlp_jax.models.vision.convolution_towers import map_side, map_width, vgg_depths
from vlp_jax.models.vision.inception import InceptionConfig
from vlp_jax.models.vision.resnet import EXPANSION, ResNetConfig
from vlp_jax.models.vision.vgg import VggConfig


def convolution(side: int, size: int, channels: int, wider: int) -> int:
    """A convolution with size^2 weights per pair of channels and an output of side x side."""
    return 2 * side**2 * size**2 * channels * wider


def convolution_flops(tower: ResNetConfig | VggConfig | InceptionConfig) -> int:
    """FLOPs of the tower, by its kind."""
    return {"resnet": resnet_flops, "vgg": vgg_flops, "inception_v3": inception_flops}[tower.kind](tower)


def convolution_tokens(tower: ResNetConfig | VggConfig | InceptionConfig) -> int:
    """The number of positions of the last feature map."""
    if tower.kind != "resnet":
        return map_side(tower)**2
    halvings = len(blocks_of(tower)[0]) - 1 + (tower.clip or tower.max_pool)
    side = -(-tower.image_size // (2 if tower.clip else tower.stem_stride))
    for _ in range(halvings):
        side = -(-side // 2)
    return side**2


def vgg_flops(tower: VggConfig) -> int:
    """All convolutions, and the fully connected layers where they pool."""
    flops, channels, side = 0, 3, tower.image_size
    for stage, depth in enumerate(vgg_depths(tower)):
        wider = tower.width * min(2**stage, vgg.WIDEST)
        flops += convolution(side, 3, channels, wider) + (depth - 1) * convolution(side, 3, wider, wider)
        channels, side = wider, side // 2
    hidden = tower.hidden_dim if tower.pooling == "hidden" else 0
    return flops + 2 * hidden * (map_side(tower)**2 * map_width(tower) + hidden)


def inception_flops(tower: InceptionConfig) -> int:
    """All convolutions of all branches."""
    flops, channels, side = 0, 3, tower.image_size
    for branches in inception.BLOCKS:
        found = [branch_flops(branch, channels, side, tower.width) for branch in branches]
        flops += sum(own for own, _, _ in found)
        channels, side = sum(wider for _, wider, _ in found), found[0][2]
    return flops


def branch_flops(branch: inception.Branch, channels: int, side: int, width: int) -> tuple[int, int, int]:
    """FLOPs of one branch of an Inception block, and the channels and the side of its output."""
    flops = 0
    for step in branch:
        parts = step if isinstance(step, tuple) else (step,)
        side = inception.smaller(side, parts[0])
        wider = [inception.scaled(part.channels, width) or channels for part in parts]
        flops += sum(2 * side**2 * part.size[0] * part.size[1] * channels * own
                     for part, own in zip(parts, wider, strict=True) if part.channels)
        channels = sum(wider)
    return flops, channels, side


def resnet_flops(tower: ResNetConfig) -> int:
    """All convolutions of a ResNet, and the products of CLIP's attention pooling."""
    (depths, bottleneck), width = blocks_of(tower), tower.width
    side = -(-tower.image_size // (2 if tower.clip else tower.stem_stride))
    half = width // 2
    flops = (convolution(side, 3, 3, half) + convolution(side, 3, half, half) + convolution(side, 3, half, width) if tower.clip
             else convolution(side, tower.stem_size, 3, width))
    side, channels = -(-side // 2) if tower.clip or tower.max_pool else side, width
    for stage, depth in enumerate(depths):
        inner, outer = width * 2**stage, width * 2**stage * (EXPANSION if bottleneck else 1)
        for block in range(depth):
            before, stride = side, 2 if stage > 0 and block == 0 else 1
            side = -(-side // stride)
            if bottleneck:
                middle = before if tower.clip else side  # CLIP's 3x3 convolution comes before the stride
                flops += convolution(before, 1, channels, inner) + convolution(middle, 3, inner, inner)
                flops += convolution(side, 1, inner, outer)
            else:
                flops += convolution(side, 3, channels, inner) + convolution(side, 3, inner, outer)
            flops += convolution(side, 1, channels, outer) if stride > 1 or channels != outer else 0
            channels = outer
    if not tower.clip:
        return flops
    tokens = side**2 + 1
    return flops + 2 * channels**2 * (1 + 2 * tokens) + 4 * tokens * channels + 2 * channels * tower.output_dim
