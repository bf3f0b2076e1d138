"""Masked autoencoders in Hugging Face folders (transformers' ViTMAEForPreTraining; He et al. 2022).

Its fixed positions are tensors of its files: they are learned ones here. Our fixed positions are
written as such tensors.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.positions import sincos2d
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoderConfig
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.families.clip_alone import with_prefix
from vlp_jax.weights.families.vit import CLASS_TOKEN, TOWER, Vit, layers
from vlp_jax.weights.rules import Shape, linear, norm, same, within
from vlp_jax.weights.settings import Given, Key, Settings

OBJECTIVE = "objectives.mae"
DECODER = within(
    "decoder.",
    "objectives_mae/",
    linear("decoder_embed", "in"),
    same("mask_token", "mask_token"),
    same("decoder_pos_embed", "position"),
    layers("decoder_encoder.layer.{}.", "decoder"),
    norm("decoder_norm", "norm"),
    linear("decoder_pred", "out"),
)


class VitMae(Vit):
    """ViTMAEForPreTraining, and ViTMAEModel, which has no decoder. All patches are read in
    evaluation."""

    title = "ViTMAEForPreTraining"
    model_type, image_processor = "vit_mae", "ViTImageProcessor"
    parts = (*Vit.parts, "objectives_mae/")
    free = (*Vit.free, "model.image.position")
    settings = Settings(
        keys=(
            *image(""),
            Key("decoder_hidden_size", f"{OBJECTIVE}.decoder_width"),
            Key("decoder_num_hidden_layers", f"{OBJECTIVE}.decoder_depth"),
            Key("decoder_num_attention_heads", f"{OBJECTIVE}.decoder_heads"),
            Key("decoder_intermediate_size", f"{OBJECTIVE}.decoder_mlp_dim"),
            Key("layer_norm_eps", f"{OBJECTIVE}.decoder_norm_epsilon"),
            Key("mask_ratio", f"{OBJECTIVE}.mask_ratio"),
            Key("norm_pix_loss", f"{OBJECTIVE}.normalised_pixels"),
        ),
        given=(
            Given("num_channels", 3),
            Given("qkv_bias", True),
            Given("hidden_act", "gelu", ("gelu_python",)),  # of the decoder, too
        ),
        fixed={
            **CLASS_TOKEN,
            f"{OBJECTIVE}.kind": "masked_autoencoder",
            f"{OBJECTIVE}.decoder_position": "learned",
        },
    )
    rules = (
        *within("vit.", "", same("embeddings.cls_token", "model/image/class_token"), TOWER),
        *DECODER,
    )
    ignored = r"position_ids$"

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "vit." of the tower, which ViTMAEModel has not."""
        found = super(Vit, self).names(shapes)
        return with_prefix("vit.", found, ("decoder.",))

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings, without the objective where there is no decoder."""
        found = super().config(theirs, shapes, place)
        del found["model.image.pooler"]
        unused = (
            f"{OBJECTIVE}." if shapes and "decoder.mask_token" not in shapes else "objectives.c"
        )
        return {key: value for key, value in found.items() if not key.startswith(unused)}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config.

        Raises:
          ConfigError: another kind of positions, or other values of the decoder.
        """
        objective, found = objective_of(config), super(Vit, self).their_config(config)
        position = config.model.image.position
        if position not in ("learned", "sincos2d"):
            raise ConfigError(f"model.image.position: {position!r} cannot be exported as an MAE")
        if objective.decoder_norm_epsilon != config.model.image.norm_epsilon:
            raise ConfigError(
                f"{OBJECTIVE}.decoder_norm_epsilon: {objective.decoder_norm_epsilon} cannot be "
                f"exported, the tower's is {config.model.image.norm_epsilon}"
            )
        return {**found, "decoder_intermediate_size": objective.mlp_dim}

    def constants(self, config: Any) -> dict[str, np.ndarray]:
        """The fixed positions."""
        tower, objective = config.model.image, objective_of(config)
        found = {}
        if tower.position == "sincos2d":
            found["model/image/position"] = sincos2d(tower.side, tower.token_width)[None]
        if objective.decoder_position == "sincos2d":
            table = sincos2d(tower.side, objective.decoder_width)
            found["objectives_mae/position"] = np.pad(table, ((1, 0), (0, 0)))[None]
        return found


def objective_of(config: Any) -> MaskedAutoencoderConfig:
    """The masked autoencoder of a config.

    Raises:
      ConfigError: it has none by the name "mae".
    """
    objective = config.objectives.get("mae")
    if not isinstance(objective, MaskedAutoencoderConfig):
        raise ConfigError("objectives.mae: an MAE is exported from an objective of this name")
    return objective
