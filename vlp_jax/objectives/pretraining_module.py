"""The module that is trained: a model, and the objectives on its encodings."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.data import batch_spec
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.generation import BeamSearch, written
from vlp_jax.models.decoder.transformer import Decoding
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.options import present
from vlp_jax.models.vision_language import VisionLanguageModel, as_memory
from vlp_jax.objectives.base import NO_DECODER, Loss, ObjectiveConfig, weight_at
from vlp_jax.objectives.captioning import token_losses
from vlp_jax.objectives.tokens import rows_of_text
from vlp_jax.sharding.layout import constrain

# encodings of augmented views, created on demand
VIEWS = {f"{name}_pooled": name for name in batch_spec.VIEWS}


class PretrainingModule(nn.Module):
    """Computes each encoding that the objectives need once, then every objective.

    Variables: `params/model/...` and `params/objectives_NAME/...`.
    """

    model_config: ModelConfig
    objectives_config: Mapping[str, ObjectiveConfig]
    precision: Precision

    def setup(self) -> None:
        """Builds the model and all objectives as submodules."""
        self.model = VisionLanguageModel(self.model_config, self.precision)
        self.objectives = {
            name: objective.build() for name, objective in self.objectives_config.items()
        }

    def __call__(
        self, batch: dict[str, Any], train: bool = False, updates: jax.Array | None = None
    ) -> Loss:
        """The weighted sum of the losses, and metrics `NAME/loss`, `NAME/...` of each.

        Args:
          batch: `image` [B, H, W, 3] normalised, `text` int32 [B, L], `text_mask` bool [B, L], and
            what else the objectives and the fusion read.
          train: whether to drop tokens, branches and activations.
          updates: number of updates before this one, for weights with a schedule; None: full
            weights.
        """
        needs = {need for objective in self.objectives_config.values() for need in objective.needs}
        if self.is_initializing():  # the teacher's outputs have the shapes of the student's
            batch = {**batch, "teacher": self.teacher_outputs(batch)}
        return self.losses(self.encode(batch, needs, train), batch, tuple(self.objectives), updates)

    def teacher_outputs(self, batch: dict[str, jax.Array]) -> dict:
        """The content of `batch["teacher"]` (see `Objective`), computed with these parameters.

        Dropout is active where there is an rng for it.
        """
        needs = {
            need
            for objective in self.objectives_config.values()
            for need in objective.teacher_needs
        }
        encodings = self.encode(batch, needs, train=self.has_rng("dropout"))
        students = [
            self.objectives[name]
            for name, objective in self.objectives_config.items()
            if objective.uses_teacher
        ]
        return encodings | {
            student.name: student.teacher_outputs(encodings, batch, self.model)
            for student in students
        }

    def losses(
        self,
        encodings: dict,
        batch: dict[str, jax.Array],
        names: tuple[str, ...],
        updates: jax.Array | None = None,
    ) -> Loss:
        """The weighted sum of the losses of the objectives in `names`, and their metrics."""
        total, metrics = jnp.zeros((), jnp.float32), {}
        encodings = {**encodings, "scale": self.learned_scale()}
        for name in names:
            loss = self.objectives[name](encodings, batch, self.model)
            weight = weight_at(self.objectives_config[name], updates)
            total += weight * loss.value
            if isinstance(weight, jax.Array):
                metrics[f"{name}/weight"] = weight
            metrics |= {f"{name}/loss": loss.value} | {
                f"{name}/{key}": value for key, value in loss.metrics.items()
            }
        return Loss(total, metrics)

    def learned_scale(self) -> jax.Array | None:
        """The scale of the first objective that learns one, as a constant; None where there is
        none."""
        for name, objective in self.objectives_config.items():
            if objective.learns_scale:
                known = self.variables.get("params", {}).get(f"objectives_{name}")
                return (
                    jnp.float32(objective.initial_scale)
                    if known is None
                    else jax.lax.stop_gradient(self.objectives[name].scale_of(known))
                )
        return None

    def encode(self, batch: dict[str, jax.Array], needs: set[str], train: bool) -> dict:
        """The encodings named in `needs`.

        `image`, `text`: `models.layers.transformer.Encoding`.
        `image_embedding`, `text_embedding`: unit vectors [B, E].
        `image_pooled`, `text_pooled`, `first_view_pooled`, `second_view_pooled`: [B, D], the
          towers' pooled vectors.
        `fused`: `models.fusion.attention.FusedEncoding` of the pairs.
        `decoding`: `models.decoder.transformer.Decoding` of each row of text.
        """
        encodings, needs = {}, needs | needs_behind(self.model_config, needs)
        if needs & {"image", "image_embedding", "image_pooled"}:
            encodings["image"] = self.model.encode_image(
                batch["image"], train, tokens="image" in needs, boxes=batch.get("boxes")
            )
        if needs & {"text", "text_embedding", "text_pooled"}:
            encodings["text"] = self.model.encode_text(
                batch["text"],
                batch["text_mask"],
                train,
                tokens="text" in needs,
                edges=batch.get("word_edges"),
            )
        if "image_pooled" in needs:
            encodings["image_pooled"] = constrain(encodings["image"].pooled, ("batch", None))
        if "text_pooled" in needs:
            encodings["text_pooled"] = constrain(encodings["text"].pooled, ("batch", None))
        if "fused" in needs:
            encodings["fused"] = self.model.fuse(encodings["image"], encodings["text"], train)
        for name, view in VIEWS.items():
            if name in needs:
                pooled = self.model.encode_image(batch[view], train, tokens=False).pooled
                encodings[name] = constrain(present(pooled), ("batch", None))
        if "image_embedding" in needs:
            encodings["image_embedding"] = self.model.embed_image(encodings["image"])
        if "text_embedding" in needs:
            encodings["text_embedding"] = self.model.embed_text(encodings["text"])
        if "decoding" in needs:
            text, mask, packed = rows_of_text(batch)
            prefix = (
                self.drawn_prefix(mask)
                if train and present(self.model_config.decoder).has_prefix
                else None
            )
            logits = self.model.decode(
                text,
                mask,
                encodings["image"] if "image" in needs else None,
                train,
                encodings.get("text"),
                prefix,
                packed,
            )
            encodings["decoding"] = Decoding(
                logits, jnp.zeros(len(logits), jnp.int32) if prefix is None else prefix
            )
        return encodings

    def drawn_prefix(self, mask: jax.Array) -> jax.Array:
        """Random prefix lengths int32 [B], uniform from 0 to the part `model.decoder.text_prefix`
        of a text.

        At least one token is left to be predicted.
        """
        count = mask.sum(axis=1)
        most = jnp.minimum(
            jnp.floor(present(self.model_config.decoder).text_prefix * count),
            jnp.maximum(count - 1, 0),
        )
        return jnp.floor(
            jax.random.uniform(self.make_rng("dropout"), (len(mask),)) * (most + 1)
        ).astype(jnp.int32)

    def embed(
        self,
        image: jax.Array | None = None,
        text: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """`VisionLanguageModel.__call__` without training."""
        return self.model(image, text, mask)

    def match(self, batch: dict[str, jax.Array]) -> jax.Array:
        """Matching logits float32 [B, 2] of a batch, (no match, match), by the first matching
        objective."""
        encodings = self.encode(batch, {"image", "text"}, train=False)
        return self.match_encodings(encodings["image"], encodings["text"])

    def match_encodings(self, image: Encoding, text: Encoding) -> jax.Array:
        """`match` of pairs whose Encodings are known."""
        configs = self.objectives_config
        name = next(name for name in configs if "matching" in configs[name].tasks)
        return self.objectives[name].logits(self.model, image, text)

    def predict(
        self, name: str, batch: dict[str, jax.Array], candidates: np.ndarray | None = None
    ) -> jax.Array:
        """Predictions of a supervised objective for each pair.

        Args:
          name: of the objective.
          batch: as in `__call__`.
          candidates: int32 [K, L], the candidate answers of an objective that generates text; they
            are scored.
        Returns: float32 [B, outputs], or the candidates' scores [B, K].
        """
        objective = self.objectives[name]
        encodings = self.encode(batch, {*objective.config.needs}, train=False)
        if candidates is not None:
            return objective.scores(encodings["fused"], self.model, candidates)
        return objective.answers(encodings, self.model)

    def caption_losses(
        self, image: jax.Array, text: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The negative log-likelihood of each text of a batch.

        Returns: the sum of -log p of its tokens after the first, float32 [B], and their number.
        """
        batch = {"image": image, "text": text, "text_mask": mask}
        own, _ = token_losses(
            self.encode(batch, {"decoding"}, train=False)["decoding"].logits, text
        )
        return jnp.where(mask[:, 1:], own, 0.0).sum(axis=1), mask[:, 1:].sum(axis=1)

    def write_captions(
        self,
        image: jax.Array,
        start: jax.Array,
        end: int,
        padding: int,
        search: BeamSearch = BeamSearch(),
    ) -> jax.Array:
        """The decoder's text for each image, greedy or by beam search: int32 [B, L - 1], padded
        after the `end`."""
        memory = (
            self.model.encode_image(image)
            if present(self.model_config.decoder).reads_image
            else None
        )
        return self.written(memory, start, self.model_config.text.length - 1, end, padding, search)

    def write_answers(
        self,
        name: str,
        batch: dict[str, jax.Array],
        start: int,
        end: int,
        padding: int,
        search: BeamSearch = BeamSearch(),
    ) -> jax.Array:
        """The text that the objective `name` generates for each pair of a batch, as
        `write_captions`.

        Returns: int32 [B, length of its target - 1].
        """
        objective = self.objectives_config[name]
        fused = self.encode(batch, {*objective.needs}, train=False)["fused"]
        starts = jnp.full(len(fused.tokens), start, jnp.int32)
        return self.written(
            as_memory(fused), starts, present(objective.length) - 1, end, padding, search
        )

    def written(
        self,
        memory: Encoding | None,
        start: jax.Array,
        length: int,
        end: int,
        padding: int,
        search: BeamSearch,
    ) -> jax.Array:
        """The decoder's text after `start`, int32 [B], for the rows of a memory: int32 [B,
        length]."""
        model, variables = self.model.clone(parent=None), self.model.variables

        def next_logits(cache, tokens, position, memory):
            cache = {"cache": cache} if cache else {}
            logits, cache = model.apply(
                {**variables, **cache},
                tokens,
                position,
                memory,
                method="decode_next",
                mutable="cache",
            )
            return logits, cache["cache"]

        return written(next_logits, memory, start, length, end, padding, search)


def needs_behind(config: ModelConfig, needs: set[str]) -> set[str]:
    """The encodings from which those in `needs` are computed: the inputs of the fusion and of the
    decoder.

    Raises: ConfigError where there is no fusion, or no decoder.
    """
    if "fused" in needs and config.fusion is None:
        raise ConfigError(
            "model.fusion: an objective with features='fused' needs one, such as "
            "kind='concatenation'"
        )
    of_fusion = {"image", "text"} if "fused" in needs else set()
    if "decoding" not in needs:
        return of_fusion
    if config.decoder is None:
        raise ConfigError(NO_DECODER)
    seen = {"image": config.decoder.reads_image, "text": config.decoder.reads_text_tower}
    return of_fusion | {name for name, wanted in seen.items() if wanted}


def asked_inputs(configs: dict[str, ObjectiveConfig]) -> tuple[str, ...]:
    """The arrays of a batch that these objectives need and that are not in every batch, sorted."""
    asked = set()
    for objective in configs.values():
        asked |= {
            *objective.inputs,
            *(
                VIEWS[need]
                for need in (*objective.needs, *objective.teacher_needs)
                if need in VIEWS
            ),
        }
    return tuple(sorted(asked))


def constrain_parameters(configs: dict[str, ObjectiveConfig], params: dict) -> dict:
    """`params` with every objective's own parameters in their allowed range."""
    constrained = {
        f"objectives_{name}": config.build().constrain(params[f"objectives_{name}"])
        for name, config in configs.items()
        if f"objectives_{name}" in params
    }
    return {**params, **constrained}
