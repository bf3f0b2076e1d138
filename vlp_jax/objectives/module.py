"""The module that is trained: a model, and the objectives on what it computes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.models.layers import Precision
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.contrastive import SigmoidContrastive, SoftmaxContrastive
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoder
from vlp_jax.objectives.objective import Loss, Objective

KINDS: dict[str, type[Objective]] = {"softmax": SoftmaxContrastive, "sigmoid": SigmoidContrastive,
                                     "masked_autoencoder": MaskedAutoencoder}


class PretrainingModule(nn.Module):
    """Computes each encoding that an objective needs once, then every objective.

    Variables: `params/model/...` and `params/objectives_NAME/...`.
    """

    model_config: schema.Model
    objectives_config: dict[str, schema.Objective]
    precision: Precision

    def setup(self):
        self.model = VisionLanguageModel(self.model_config, self.precision)
        self.objectives = build_objectives(self.objectives_config)

    def __call__(self, batch: dict[str, jax.Array], train: bool = False) -> Loss:
        """The weighted sum of the losses, and metrics `NAME/loss`, `NAME/...` of each.

        batch: `image` [B, H, W, 3] normalised, `text` int32 [B, L], `text_mask` bool [B, L], and what the objectives read.
        """
        needs = {need for objective in self.objectives.values() for need in objective.needs}
        if self.is_initializing():  # a teacher's encodings have the shapes of the pupil's
            needs |= {need for objective in self.objectives.values() for need in objective.teacher_needs}
        encodings = self.encode(batch, needs, train)
        batch = {**batch, "teacher": encodings} if self.is_initializing() else batch
        return self.losses(encodings, batch, tuple(self.objectives))

    def losses(self, encodings: dict, batch: dict[str, jax.Array], names: tuple[str, ...]) -> Loss:
        """The weighted sum of the losses of the objectives in `names`, and their metrics."""
        total, metrics = jnp.zeros((), jnp.float32), {}
        for name in names:
            loss = self.objectives[name](encodings, batch, self.model)
            total += self.objectives_config[name].weight * loss.value
            metrics |= {f"{name}/loss": loss.value} | {f"{name}/{key}": value for key, value in loss.metrics.items()}
        return Loss(total, metrics)

    def encode(self, batch: dict[str, jax.Array], needs: set[str], train: bool) -> dict:
        """The encodings named in `needs`: `image`, `text` (models.layers.Encoding), `image_embedding`, `text_embedding`
        (unit vectors [B, E])."""
        encodings = {}
        if needs & {"image", "image_embedding"}:
            encodings["image"] = self.model.encode_image(batch["image"], train, tokens="image" in needs)
        if needs & {"text", "text_embedding"}:
            encodings["text"] = self.model.encode_text(batch["text"], batch["text_mask"], train, tokens="text" in needs)
        if "image_embedding" in needs:
            encodings["image_embedding"] = self.model.embed_image(encodings["image"])
        if "text_embedding" in needs:
            encodings["text_embedding"] = self.model.embed_text(encodings["text"])
        return encodings

    def embed(self, image: jax.Array | None = None, text: jax.Array | None = None, mask: jax.Array | None = None):
        """`VisionLanguageModel.__call__` without training."""
        return self.model(image, text, mask)


def build_objectives(configs: dict[str, schema.Objective]) -> dict[str, Objective]:
    """One objective module an entry; the config's fields are the module's, but for its kind and weight."""
    return {name: KINDS[config.kind](**_fields(config)) for name, config in configs.items()}


def constrain_parameters(objectives: dict[str, Objective], params: dict) -> dict:
    """`params` with every objective's own parameters in their allowed range."""
    constrained = {f"objectives_{name}": objective.constrain(params[f"objectives_{name}"])
                   for name, objective in objectives.items() if f"objectives_{name}" in params}
    return {**params, **constrained}


def _fields(config: schema.Objective) -> dict:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
            if field.name not in ("kind", "weight")}
