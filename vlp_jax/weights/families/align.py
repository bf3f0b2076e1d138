"""ALIGN in Hugging Face folders (transformers' AlignModel; Jia et al. 2021): EfficientNet and
BERT."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert, efficientnet
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape, linear, same, within
from vlp_jax.weights.settings import Key, Settings


class Align(Family):
    """AlignModel.

    The pooler of its text tower, which the class does not compute with, is left out, and so are the
    numbers of batches that a BatchNorm counts.
    """

    title, model_type = "AlignModel", "align"
    exports = False
    ignored = r"position_ids$|token_type_ids$|num_batches_tracked$|^text_model\.pooler\."
    settings = Settings(
        keys=(
            *efficientnet.keys("vision_config."),
            *bert.text("text_config."),
            Key("text_config.max_position_embeddings", "model.text.length"),
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=efficientnet.given("vision_config."),
        fixed={
            **efficientnet.FIXED,
            "model.image.head_width": None,
            **bert.TEXT_FIXED,
            "model.text.projection": "linear_with_bias",
            "objectives.contrastive.kind": "clip",
            "objectives.contrastive.scale_parameter": "temperature",
            "objectives.contrastive.label_smoothing": 0.1,
        },
    )
    rules = (
        *within("vision_model.", "model/image/", efficientnet.LAYERS),
        *within("text_model.", "model/text/", bert.EMBEDDINGS, bert.LAYERS),
        *linear("text_projection", "model/text_projection"),
        same("temperature", "objectives_contrastive/temperature"),
    )
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises: as `efficientnet.with_stages`.
        """
        found = super().config(theirs, shapes, place)
        return efficientnet.with_stages(theirs["vision_config"], found, place)
