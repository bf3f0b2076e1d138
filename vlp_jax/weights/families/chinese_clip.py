"""Chinese CLIP in Hugging Face folders (transformers' ChineseCLIPModel; Yang et al. 2022): CLIP's
image tower and BERT."""

from typing import Any

from vlp_jax.weights.families import bert, clip
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import linear, same, within
from vlp_jax.weights.settings import Given, Key, Settings


class ChineseClip(Family):
    """transformers' ChineseCLIPModel, which pools a text at its first token, without a pooler."""

    title, model_type = "ChineseCLIPModel", "chinese_clip"
    image_processor, processor = "ChineseCLIPImageProcessor", "ChineseCLIPProcessor"
    free = ("model.image.norm_before_pooling",)
    settings = Settings(
        keys=(
            *clip.image("vision_config."),
            *bert.text("text_config."),
            Key("text_config.max_position_embeddings", "model.text.length"),
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=(Given("vision_config.num_channels", 3),),
        fixed={
            **clip.IMAGE_FIXED,
            **bert.TEXT_FIXED,
            "model.text.projection": "linear",
            "objectives.contrastive.kind": "clip",
        },
    )
    rules = (
        *clip.IMAGE,
        *within("text_model.", "model/text/", bert.EMBEDDINGS, bert.LAYERS),
        *linear("visual_projection", "model/image_projection"),
        *linear("text_projection", "model/text_projection"),
        same("logit_scale", "objectives_contrastive/log_scale"),
    )
    # an unused layer in some files
    ignored = r"(^|\.)position_ids$|^text_model\.pooler\."
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, with the width of the shared space in the image tower's too."""
        found = super().their_config(config)
        bert.check_types(config)
        found["vision_config"]["projection_dim"] = found["projection_dim"]
        return found
