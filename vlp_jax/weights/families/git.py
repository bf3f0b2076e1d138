"""GIT in Hugging Face folders (transformers' GitForCausalLM; Wang et al. 2022): CLIP's image tower,
whose tokens are a prefix of a decoder with BERT's layers."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert, clip, gpt2
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape, leading, linear, norm, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings


class Git(Family):
    """transformers' GitForCausalLM for images, only read. The text tower has no parameters."""

    title, model_type = "GitForCausalLM", "git"
    exports = False
    parts = ("model/",)
    settings = Settings(
        keys=(
            *clip.image("vision_config."),
            Key("hidden_size", "model.decoder.width"),
            Key("num_hidden_layers", "model.decoder.depth"),
            Key("num_attention_heads", "model.decoder.heads"),
            Key("intermediate_size", "model.decoder.mlp_dim"),
            Key("layer_norm_eps", "model.decoder.norm_epsilon"),
            Key("hidden_act", "model.decoder.activation", ACTIVATIONS),
            Key("vision_config.layer_norm_eps", "model.decoder.image_norm_epsilon"),
            Key("vocab_size", "model.text.vocab_size"),
            Key("max_position_embeddings", "model.text.length"),
        ),
        given=(Given("vision_config.num_channels", 3), Given("num_image_with_embedding", None)),
        fixed={
            **clip.IMAGE_FIXED,
            "model.image.norm_before_pooling": True,
            **gpt2.NO_TEXT_LAYERS,
            "model.decoder.kind": "transformer",
            "model.decoder.image": "prefix",
            "model.decoder.norm": "post",
            "model.decoder.embedding_norm": True,
            "model.decoder.final_norm": False,
            "model.decoder.output_bias": True,
            "objectives.captioning.kind": "captioning",
        },
    )
    rules = (
        *within("image_encoder.", "", clip.IMAGE),
        *within(
            "",
            "model/decoder/",
            same("embeddings.word_embeddings.weight", "tokens"),
            leading("embeddings.position_embeddings.weight", "position"),
            norm("embeddings.LayerNorm", "embedding_norm"),
            bert.LAYERS,
            linear("visual_projection.visual_projection.0", "image_projection"),
            norm("visual_projection.visual_projection.1", "image_norm"),
            same("output.weight", "output"),
            same("output.bias", "output_bias"),
        ),
    )
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of the model."""
        return {name.removeprefix("git."): file for name, file in super().names(shapes).items()}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; output embeddings are tied if they have no tensor of their own."""
        found = super().config(theirs, shapes, place)
        return {**found, "model.decoder.tied": "output.weight" not in shapes}
