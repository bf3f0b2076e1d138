"""Captioners of a ViT and GPT-2 in Hugging Face folders (transformers' VisionEncoderDecoderModel).

The pooler of the ViT is not read, as the decoder attends to its tokens.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import ConfigError
from vlp_jax.weights.families import gpt2
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.families.huggingface_vit_layers import VIT_EMBEDDINGS, VIT_LAYERS
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape, norm, within
from vlp_jax.weights.settings import Given, Settings


class VitGpt2(Family):
    """A ViT, and GPT-2 with cross-attention to its tokens. The text tower has no parameters."""

    title, model_type = "VisionEncoderDecoderModel", "vision-encoder-decoder"
    image_processor, processor = "ViTImageProcessor", "VisionTextDualEncoderProcessor"
    parts = ("model/",)
    free = ("model.image.projection", *gpt2.FREE_OF_TEXT_LAYERS)
    settings = Settings(
        keys=(*image("encoder."), *gpt2.decoder("decoder.")),
        given=(
            *gpt2.given("decoder."),
            Given("encoder.num_channels", 3),
            Given("encoder.qkv_bias", True),
            Given("decoder.add_cross_attention", True),
            Given("decoder.is_decoder", True),
        ),
        fixed={
            "model.image.pooling": "cls",
            "model.image.norm_before_pooling": True,
            **gpt2.NO_TEXT_LAYERS,
            "model.decoder.kind": "transformer",
            "model.decoder.image": "cross_attention",
            "objectives.captioning.kind": "captioning",
        },
    )
    rules = (
        *within("encoder.", "model/image/", VIT_EMBEDDINGS, VIT_LAYERS, norm("layernorm", "norm")),
        *within("decoder.transformer.", "", gpt2.DECODER),
    )
    ignored = rf"{gpt2.BUFFERS}|^encoder\.pooler\."
    text_tokens = gpt2.Gpt2.text_tokens
    default_tokens = gpt2.Gpt2.default_tokens

    def defaults(self) -> dict[str, Any]:
        """Those of both parts, in one config."""
        from transformers import CONFIG_MAPPING

        return {
            "encoder": CONFIG_MAPPING["vit"]().to_dict(),
            "decoder": CONFIG_MAPPING["gpt2"]().to_dict(),
            "is_encoder_decoder": True,
            "tie_word_embeddings": False,
        }

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; the MLP of GPT-2 is by default four times as wide as the layers."""
        decoder = gpt2.with_mlp(theirs["decoder"])
        return super().config({**theirs, "decoder": decoder}, shapes, place)

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config.

        Raises:
          ConfigError: image and decoder have different widths, between which transformers puts a
            further linear layer.
        """
        found = super().their_config(config)
        image, text = found["encoder"]["hidden_size"], found["decoder"]["n_embd"]
        if image != text:
            raise ConfigError(
                f"model.decoder.width: {text} cannot be exported, model.image has {image}"
            )
        found["encoder"]["pooler_output_size"] = image
        return found

    def unread(self, theirs: Mapping[str, Any]) -> dict[str, Shape]:
        """The pooler of the ViT."""
        width = theirs["encoder"]["hidden_size"]
        return {
            "encoder.pooler.dense.weight": (width, width),
            "encoder.pooler.dense.bias": (width,),
        }
