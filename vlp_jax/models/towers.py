"""The towers of the `model` section of a config, and their widths."""

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.recurrent import RecurrentDecoder, RecurrentDecoderConfig
from vlp_jax.models.decoder.transformer import TextDecoder, TextDecoderConfig
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.presets import layer_options, size_of
from vlp_jax.models.text.lm_head import WordHead
from vlp_jax.models.text.recurrent import BagOfWords, RecurrentText, WordTowerConfig
from vlp_jax.models.text.text_towers import build_word_tower, needs_transformer
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.text.transformer import TextMode, TextTransformer
from vlp_jax.models.vision.convolution_towers import build_inception, build_vgg, map_width, pooled_width
from vlp_jax.models.vision.inception import Inception
from vlp_jax.models.vision.resnet import EXPANSION, SIZES, ClipResNet, Convolutions, ResNet, ResNetConfig
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vgg import Vgg
from vlp_jax.models.vision.vit import ViT, build_vit


def build_image_tower(tower: ImageTowerConfig, precision: Precision) -> ViT | ResNet | ClipResNet | Vgg | Inception:
    """An image encoder, called with (image, train, tokens).

    Raises: ConfigError for sizes that do not fit together.
    """
    build = {"vit": build_vit, "resnet": build_resnet, "vgg": build_vgg, "inception_v3": build_inception}[tower.kind]
    return build(tower, precision)


def build_resnet(tower: ResNetConfig, precision: Precision) -> ResNet | ClipResNet:
    """The ResNet of a config.

    Raises: ConfigError for an unknown depth and for sizes that do not fit together.
    """
    depths, bottleneck = blocks_of(tower)
    parts = Convolutions(tower.norm, tower.groups, tower.rematerialisation == "full", precision=precision)
    if not tower.clip:
        if tower.stem_size % 2 == 0:
            raise ConfigError(f"model.image.stem_size: must be odd, got {tower.stem_size}")
        return ResNet(depths, bottleneck, parts, tower.width, tower.stem_size, tower.stem_stride, tower.max_pool)
    shrinks, width = 2**(len(depths) + 1), image_token_width(tower)
    if not bottleneck:
        raise ConfigError(f"model.image.depth: CLIP's ResNets are made of bottlenecks: 50, 101 or 152, got {tower.depth}")
    if tower.image_size % shrinks:
        raise ConfigError(f"model.image.image_size: {tower.image_size} does not divide by {shrinks}, as it must for this ResNet")
    if width % tower.heads or tower.width % 2:
        raise ConfigError(f"model.image: width {width} of the last stage does not divide into {tower.heads} heads, or "
                          f"width {tower.width} is odd")
    return ClipResNet(depths, parts, tower.width, tower.heads, tower.image_size, tower.output_dim)


def blocks_of(tower: ResNetConfig) -> tuple[tuple[int, ...], bool]:
    """The number of blocks of each stage, and whether they are bottlenecks.

    Raises: ConfigError for a depth that is not in He et al.
    """
    if tower.depth not in SIZES:
        raise ConfigError(f"model.image.depth: must be one of {', '.join(map(str, SIZES))} for a ResNet, got {tower.depth}")
    depths, bottleneck = SIZES[tower.depth]
    return tower.blocks or depths, bottleneck


def image_token_width(tower: ImageTowerConfig) -> int:
    """The width of an image encoder's tokens."""
    if tower.kind == "vit":
        return size_of(tower, "model.image").width
    if tower.kind != "resnet":
        return map_width(tower)
    depths, bottleneck = blocks_of(tower)
    return tower.width * 2**(len(depths) - 1) * (EXPANSION if bottleneck else 1)


def image_width(tower: ImageTowerConfig) -> int:
    """The width of an image encoder's pooled vector."""
    if tower.kind in ("vgg", "inception_v3"):
        return pooled_width(tower)
    return tower.output_dim if tower.kind == "resnet" and tower.clip else image_token_width(tower)


def build_text_tower(tower: TextTowerConfig, precision: Precision) -> TextTransformer | RecurrentText | BagOfWords:
    """A text encoder, called with (text, mask, train, tokens).

    Raises: ConfigError for sizes that do not fit together, and for a pooled token that attends to
      no text.
    """
    if isinstance(tower, WordTowerConfig):
        return build_word_tower(tower, precision)
    if tower.causal and tower.pooling in ("cls", "first"):
        raise ConfigError(f"model.text.pooling: {tower.pooling!r} precedes the text and attends to none of it with "
                          "causal=True; use 'end', 'last', 'mean' or 'map', or causal=False")
    options = layer_options(tower, "model.text", precision, causal=tower.causal)
    if tower.position == "sinusoidal" and options.width % 2:
        raise ConfigError(f"model.text.position: 'sinusoidal' needs an even width, got {options.width}")
    return TextTransformer(
        options=options, vocab_size=tower.vocab_size, length=tower.length, pooling=tower.pooling, position=tower.position,
        padding_mask=tower.padding_mask, token_types=tower.token_types,
        embedding_norm=tower.embedding_norm, final_norm=tower.final_norm, pooler=tower.pooler, word_std=tower.word_std,
        position_std=tower.position_std,
        stochastic_depth=tower.stochastic_depth, scan=tower.scan, rematerialisation=tower.rematerialisation, saved=tower.saved)


def build_decoder(config: ModelConfig, precision: Precision) -> TextDecoder | RecurrentDecoder | WordHead:
    """The decoder, or its language-model head where its layers are the text tower's.

    Raises: ConfigError for parts that do not fit together.
    """
    decoder, on_tower = config.decoder, config.decoder.kind == "on_text_tower"
    if isinstance(decoder, RecurrentDecoderConfig):
        return RecurrentDecoder(cell=decoder.kind, vocab_size=config.text.vocab_size, embedding_width=decoder.embedding_width,
                                width=decoder.width, depth=decoder.depth, image=decoder.image,
                                attention_width=decoder.attention_width, dropout=decoder.dropout, precision=precision)
    if decoder.kind != "transformer":
        needs_transformer(config.text, f"model.decoder.kind={decoder.kind!r}")
    if decoder.kind == "in_text_tower":
        if decoder.image == "prefix":
            raise ConfigError("model.decoder.image: 'prefix' is for kind='transformer'; use 'cross_attention' or 'none'")
        return WordHead(layer_options(config.text, "model.text", precision), config.text.vocab_size)
    if on_tower:
        check_decoder_on_tower(config)
    if decoder.image_queries and decoder.image == "none":
        raise ConfigError("model.decoder.image_queries: have nothing to pool with image='none'")
    options = layer_options(decoder, "model.decoder", precision, causal=True, cross_attention=decoder.image == "cross_attention")
    return TextDecoder(options=options, vocab_size=config.text.vocab_size, length=config.text.length, image=decoder.image,
                       queries=decoder.image_queries, on_tower=on_tower, tied=decoder.tied,
                       stochastic_depth=decoder.stochastic_depth, scan=decoder.scan,
                       rematerialisation=decoder.rematerialisation, saved=decoder.saved)


def check_decoder_on_tower(config: ModelConfig) -> None:
    """Checks that the text tower's tokens depend on no later ones and are as many as the text's.

    Raises: ConfigError where they are not.
    """
    decoder, text = config.decoder, config.text
    if not text.causal or text.pooling == "cls":
        raise ConfigError("model.decoder.kind: 'on_text_tower' needs model.text.causal=True, and no pooling='cls': its tokens must "
                          "not know those to be predicted")
    for key, wrong in (("tied", decoder.tied), ("text_prefix", decoder.text_prefix > 0), ("image", decoder.image == "prefix")):
        if wrong:
            raise ConfigError(f"model.decoder.{key}: {getattr(decoder, key)!r} is for kind='transformer', which reads words itself")


def grounded_mode(fusion: InTextTowerConfig) -> TextMode:
    """The text tower's mode as image-grounded encoder."""
    return TextMode("encode_token" if fusion.start_token else None, cross_attention=True)


def decode_mode(decoder: TextDecoderConfig) -> TextMode:
    """The text tower's mode as decoder."""
    return TextMode("decode_token" if decoder.start_token else None, decoder.image == "cross_attention", True, decoder.own)
