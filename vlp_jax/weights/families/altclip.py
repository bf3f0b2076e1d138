"""AltCLIP in Hugging Face folders (transformers' AltCLIPModel; Chen et al. 2022): CLIP's image
tower, and XLM-RoBERTa with a norm and a linear layer behind."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert, clip, roberta
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape, linear, norm, same, within
from vlp_jax.weights.settings import Given, Key, Settings


class AltClip(Family):
    """transformers' AltCLIPModel, only read."""

    title, model_type = "AltCLIPModel", "altclip"
    exports = False
    settings = Settings(
        keys=(
            *clip.image("vision_config."),
            *bert.text("text_config."),
            Key("text_config.project_dim", "model.text.pooler_width"),
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=(Given("vision_config.num_channels", 3),),
        fixed={
            **clip.IMAGE_FIXED,
            **bert.TEXT_FIXED,
            "model.text.final_norm": True,
            "model.text.pooler": True,
            "model.text.pooler_activation": "none",
            "model.text.projection": "linear",
            "objectives.contrastive.kind": "clip",
        },
    )
    rules = (
        *clip.IMAGE,
        *within(
            "text_model.",
            "model/text/",
            within("roberta.", "", bert.EMBEDDINGS, bert.LAYERS),
            norm("pre_LN", "norm"),
            linear("transformation", "pooler"),
        ),
        *linear("visual_projection", "model/image_projection"),
        *linear("text_projection", "model/text_projection"),
        same("logit_scale", "objectives_contrastive/log_scale"),
    )
    # an unused layer in some files
    ignored = r"(^|\.)position_ids$|^text_model\.roberta\.pooler\."
    text_tokens = bert.Bert.text_tokens
    default_tokens = roberta.DEFAULT_TOKENS

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With CLIP's name of the layers of the image tower, which new files have not."""
        old, new = "vision_model.encoder.layer.", "vision_model.encoder.layers."
        return {name.replace(old, new): file for name, file in super().names(shapes).items()}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the first position after that of the padding."""
        return roberta.placed(super().config(theirs, shapes, place), theirs["text_config"])
