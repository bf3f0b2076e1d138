"""CLIP in Hugging Face folders (transformers' CLIPModel; Radford et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import (
    attention,
    class_and_positions,
    leading,
    linear,
    norm,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

LAYERS = within(
    "encoder.layers.{}.",
    "transformer/layer_{}/",
    norm("layer_norm1", "attention_norm"),
    attention(
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        out="self_attn.out_proj",
    ),
    norm("layer_norm2", "mlp_norm"),
    linear("mlp.fc1", "mlp/in"),
    linear("mlp.fc2", "mlp/out"),
)
IMAGE = within(
    "vision_model.",
    "model/image/",
    leading("embeddings.class_embedding", "class_token", 2),
    patches("embeddings.patch_embedding", "patch_embedding"),
    class_and_positions("embeddings.position_embedding.weight"),
    norm("pre_layrnorm", "embedding_norm"),
    LAYERS,
    norm("post_layernorm", "norm"),
)
TEXT = within(
    "text_model.",
    "model/text/",
    same("embeddings.token_embedding.weight", "tokens/embedding"),
    leading("embeddings.position_embedding.weight", "position"),
    LAYERS,
    norm("final_layer_norm", "norm"),
)


def layers(theirs: str, ours: str) -> tuple[Key, ...]:
    """The settings of a tower's layers."""
    return (
        Key(f"{theirs}hidden_size", f"{ours}.width"),
        Key(f"{theirs}num_hidden_layers", f"{ours}.depth"),
        Key(f"{theirs}num_attention_heads", f"{ours}.heads"),
        Key(f"{theirs}intermediate_size", f"{ours}.mlp_dim"),
        Key(f"{theirs}layer_norm_eps", f"{ours}.norm_epsilon"),
        Key(f"{theirs}hidden_act", f"{ours}.activation", ACTIVATIONS),
    )


def image(theirs: str) -> tuple[Key, ...]:
    """The settings of the image tower."""
    return (
        *layers(theirs, "model.image"),
        Key(f"{theirs}image_size", "model.image.image_size"),
        Key(f"{theirs}patch_size", "model.image.patch_size"),
    )


def text(theirs: str) -> tuple[Key, ...]:
    """The settings of the text tower."""
    return (
        *layers(theirs, "model.text"),
        Key(f"{theirs}vocab_size", "model.text.vocab_size"),
        Key(f"{theirs}max_position_embeddings", "model.text.length"),
    )


IMAGE_FIXED = {
    "model.image.pooling": "cls",
    "model.image.embedding_norm": True,
    "model.image.norm_before_pooling": False,
    "model.image.patch_bias": False,
    "model.image.projection": "linear",
}
TEXT_FIXED = {
    "model.text.causal": True,
    "model.text.pooling": "end",
    "model.text.projection": "linear",
}


class Clip(Family):
    """transformers' CLIPModel.

    The text is pooled at its end token, also where an old config's `eos_token_id` is 2:
    transformers then takes the largest id, which is that of the end token.
    """

    title = "CLIPModel"
    model_type, image_processor, processor = "clip", "CLIPImageProcessor", "CLIPProcessor"
    # of a text pooled at its end, in causal layers; of an image pooled at its class token
    free = ("model.text.padding_mask", "model.image.norm_before_pooling")
    settings = Settings(
        keys=(
            *image("vision_config."),
            *text("text_config."),
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=(Given("vision_config.num_channels", 3),),
        fixed={**IMAGE_FIXED, **TEXT_FIXED, "objectives.contrastive.kind": "clip"},
    )
    rules = (
        *IMAGE,
        *TEXT,
        *linear("visual_projection", "model/image_projection"),
        *linear("text_projection", "model/text_projection"),
        same("logit_scale", "objectives_contrastive/log_scale"),
    )
    text_tokens = ("bos_token", "eos_token")
    default_tokens = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }

    def check_tokenizer(self, theirs: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        """Checks that transformers finds the end of a text.

        Raises:
          ConfigError: it would look for the largest id, and the end token is another one.
        """
        if tokenizer.special_ids[1] == [2] and tokenizer.vocab_size > 3:
            raise ConfigError(
                f"data.text.end_token: {tokenizer.spec.end_token!r} has the id 2, by which "
                "transformers' CLIPModel pools each text at its largest id instead (a rule for old "
                "checkpoints); export to openclip:DIR"
            )

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, with the width of the shared space where the towers alone have it too."""
        found = super().their_config(config)
        for tower in ("text_config", "vision_config"):
            found[tower]["projection_dim"] = found["projection_dim"]
        return found
