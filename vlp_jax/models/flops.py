"""FLOPs of the towers' matrix products, from their config.

They are what the model needs, not what a compiled program executes.
"""

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.convolution_flops import convolution_flops, convolution_tokens
from vlp_jax.models.decoder.recurrent import RecurrentDecoderConfig
from vlp_jax.models.presets import Size, patch_size_of, size_of
from vlp_jax.models.recurrent_flops import recurrent_decoder_flops, recurrent_flops
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.recurrent import RecurrentTextConfig, WordTowerConfig
from vlp_jax.models.text.text_towers import text_width
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.towers import image_token_width, image_width
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vit import ViTConfig


def layer_flops(size: Size, tokens: int, activation: str) -> int:
    """One self-attention layer on one example; a multiplication and an addition are two operations.

    Query, key, value and output: 2 N D^2 each. Logits and weighted sum: 2 N^2 D each. The MLP's two
    products, or three with a gate: 2 N D F each.
    """
    width = size.width
    return 8 * tokens * width**2 + 4 * tokens**2 * width + mlp_flops(size, tokens, activation)


def stack_flops(tower: StackConfig, size: Size, tokens: int, one_wanted: bool) -> int:
    """All layers of a tower.

    Args:
      tower: the config.
      size: of its layers.
      tokens: N.
      one_wanted: whether only one token of the last layer is needed. A scanned stack computes all
        tokens nonetheless.
    """
    layer = layer_flops(size, tokens, tower.activation)
    last = pooling_flops(size, tokens, tower.activation) if one_wanted and not tower.scan else layer
    return (size.depth - 1) * layer + last if size.depth else 0


def mlp_flops(size: Size, tokens: int, activation: str) -> int:
    """The MLP's two products, or three with a gate, on N tokens."""
    return (6 if activation == "swiglu" else 4) * tokens * size.width * size.mlp_dim


def pooling_flops(size: Size, tokens: int, activation: str) -> int:
    """Attention pooling of one example: one query attends to all tokens, and an MLP.

    A layer of which only one token is needed costs the same.
    """
    width = size.width
    return 4 * width**2 + 4 * tokens * width**2 + 4 * tokens * width + mlp_flops(size, 1, activation)


def image_flops(tower: ImageTowerConfig, embedding_dim: int, train: bool = True, tokens: bool = True,
                embedded: bool = True) -> int:
    """The image tower and its projection on one image, forward.

    Args:
      tower: the config.
      embedding_dim: width of the shared space.
      train: whether tokens dropped in training are left out.
      tokens: whether the tokens are needed in addition to the pooled vector.
      embedded: whether the projection is needed.
    """
    if tower.kind != "vit":
        return convolution_flops(tower) + (projection_flops(tower, image_width(tower), embedding_dim) if embedded else 0)
    size, patch = size_of(tower, "model.image"), patch_size_of(tower)
    patches = (tower.image_size // patch)**2
    kept = max(1, round(patches * (1.0 - tower.token_drop))) if train and tower.token_drop else patches
    count = image_tokens(tower) - patches + kept
    flops = stem_flops(tower, size.width, patches, patch)
    flops += stack_flops(tower, size, count, one_wanted=tower.pooling == "cls" and not tokens)
    flops += pooling_flops(size, kept, tower.activation) if tower.pooling == "map" else 0
    return flops + (projection_flops(tower, size.width, embedding_dim) if embedded else 0)


def image_tokens(tower: ImageTowerConfig) -> int:
    """The number of tokens of an image, without token dropping."""
    if tower.kind == "vit":
        return (tower.image_size // patch_size_of(tower))**2 + (tower.pooling == "cls") + tower.registers
    return convolution_tokens(tower)


def cross_flops(width: int, queries: int, memory: int, memory_width: int) -> int:
    """Attention of one example's queries to a memory of another width."""
    return 4 * queries * width**2 + 4 * memory * memory_width * width + 4 * queries * memory * width


def stem_flops(tower: ViTConfig, width: int, patches: int, patch: int) -> int:
    """From pixels to tokens: one product per patch, or 3x3 convolutions."""
    if tower.stem == "patch":
        return 2 * patches * 3 * patch**2 * width
    flops, channels, side = 0, 3, tower.image_size
    for wider, stride in zip(tower.stem_channels, tower.stem_strides, strict=True):
        side //= stride
        flops += 2 * side**2 * 9 * channels * wider
        channels = wider
    return flops + 2 * patches * channels * width


def masked_autoencoder_flops(tower: ViTConfig, mask_ratio: float, decoder: Size) -> int:
    """A masked autoencoder on one image, forward: it encodes the visible patches and decodes all of them."""
    size, patch = size_of(tower, "model.image"), patch_size_of(tower)
    patches, others = (tower.image_size // patch)**2, (tower.pooling == "cls") + tower.registers
    visible = max(1, int(patches * (1.0 - mask_ratio)))
    flops = stem_flops(tower, size.width, patches, patch) + stack_flops(tower, size, visible + others, one_wanted=False)
    flops += pooling_flops(size, visible, tower.activation) if tower.pooling == "map" else 0
    flops += 2 * (visible + others) * size.width * decoder.width
    flops += decoder.depth * layer_flops(decoder, patches + others, "gelu")
    return flops + 2 * patches * decoder.width * 3 * patch**2


def text_flops(tower: TextTowerConfig, embedding_dim: int, tokens: bool = True, embedded: bool = True) -> int:
    """The text tower and its projection on one caption, forward; an embedding look-up is not a product.

    `tokens` and `embedded` as in `image_flops`.
    """
    if isinstance(tower, WordTowerConfig):
        flops = recurrent_flops(tower) if isinstance(tower, RecurrentTextConfig) else 2 * tower.length * tower.width
        return flops + (projection_flops(tower, tower.width, embedding_dim) if embedded else 0)
    size = size_of(tower, "model.text")
    count = tower.length + (tower.pooling in ("cls", "cls_end"))
    flops = stack_flops(tower, size, count, one_wanted=tower.pooling not in ("mean", "map") and not tokens)
    flops += pooling_flops(size, count, tower.activation) if tower.pooling == "map" else 0
    flops += 2 * size.width**2 if tower.pooler else 0
    return flops + (projection_flops(tower, size.width, embedding_dim) if embedded else 0)


def projection_flops(tower: ImageTowerConfig | TextTowerConfig, width: int, embedding_dim: int) -> int:
    """From a tower's pooled vector to the shared space, for one example."""
    return 0 if tower.projection == "none" else 2 * width * embedding_dim


def decoder_flops(config: ModelConfig, pictures: int = 1, rows: int = 1, length: int | None = None,
                  memory: tuple[int, int] | None = None) -> int:
    """The decoder and its vocabulary logits on one text, forward.

    Each layer has keys and values of the image's tokens.

    Args:
      config: the model.
      pictures: number of images of a window of packed texts, all of which each row attends to; 1
        without packing.
      rows: number of rows of packed texts of a window; 1 without packing.
      length: of the text; None: that of the text tower.
      memory: (number, width) of the tokens attended to; None: those of the image.
    """
    length, memory = length or config.text.length, memory or (image_tokens(config.image), image_token_width(config.image))
    if isinstance(config.decoder, RecurrentDecoderConfig):
        return recurrent_decoder_flops(config, length, *memory)
    decoder, inside = config.decoder, config.decoder.kind == "in_text_tower"
    stack = config.text if inside else decoder
    size = size_of(stack, "model.text" if inside else "model.decoder")
    seen, memory_width = (memory[0] if decoder.image != "none" else 0), memory[1]
    pooling, width = 0, size.width
    logits = 2 * length * width * config.text.vocab_size
    if not inside and decoder.image_queries:
        queries = decoder.image_queries
        pooling = 4 * queries * width**2 + 4 * seen * memory_width * width + 4 * queries * seen * width
        seen, memory_width = queries, width
    if decoder.image == "prefix":
        flops = pooling + (2 * seen * memory_width * width if memory_width != width else 0)
        return logits + flops + size.depth * layer_flops(size, seen + length, decoder.activation)
    seen *= pictures
    cross = 4 * length * width**2 + 4 * seen * memory_width * width + 4 * length * seen * width if seen else 0
    of_text = text_width(config.text)
    flops = 2 * length * width**2 if inside else 0  # first layer of the language-model head
    flops += 2 * length * of_text * width if decoder.kind == "on_text_tower" and of_text != width else 0
    flops += logits + size.depth * (layer_flops(size, length, stack.activation) + cross)
    return pictures * pooling + rows * flops
