"""The module that is trained: a model, and the objectives on its encodings."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.data import batch_spec
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.generation import BeamSearch, written
from vlp_jax.models.decoder.transformer import Decoding, TextDecoderConfig
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.vision_language import VisionLanguageModel, as_memory
from vlp_jax.objectives.answering import Answering
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig, weight_at
from vlp_jax.objectives.captioning import Captioning, token_losses
from vlp_jax.objectives.contrastive import ScaledObjective, SigmoidContrastive, SoftmaxContrastive
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoder
from vlp_jax.objectives.masked_image import MaskedImage
from vlp_jax.objectives.masked_joint import MaskedJoint
from vlp_jax.objectives.masked_language import MaskedLanguage
from vlp_jax.objectives.matching import Matching
from vlp_jax.objectives.momentum_contrastive import MomentumContrastive
from vlp_jax.objectives.simclr import ImageViews
from vlp_jax.objectives.supervised import Classification, Regression
from vlp_jax.objectives.tokens import rows_of_text
from vlp_jax.objectives.triplet import Triplet
from vlp_jax.sharding.layout import constrain

KINDS: dict[str, type[Objective]] = {"clip": SoftmaxContrastive, "siglip": SigmoidContrastive, "triplet": Triplet,
                                     "matching": Matching, "masked_language": MaskedLanguage,
                                     "momentum_contrastive": MomentumContrastive, "captioning": Captioning,
                                     "masked_autoencoder": MaskedAutoencoder,
                                     "simclr": ImageViews, "masked_image": MaskedImage, "masked_joint": MaskedJoint,
                                     "classification": Classification, "regression": Regression, "answering": Answering}
VIEWS = {f"{name}_pooled": name for name in batch_spec.VIEWS}  # encodings of augmented views, created on demand


class PretrainingModule(nn.Module):
    """Computes each encoding that the objectives need once, then every objective.

    Variables: `params/model/...` and `params/objectives_NAME/...`.
    """

    model_config: ModelConfig
    objectives_config: dict[str, ObjectiveConfig]
    precision: Precision

    def setup(self):
        self.model = VisionLanguageModel(self.model_config, self.precision)
        self.objectives = build_objectives(self.objectives_config)

    def __call__(self, batch: dict[str, jax.Array], train: bool = False, updates: jax.Array | None = None) -> Loss:
        """The weighted sum of the losses, and metrics `NAME/loss`, `NAME/...` of each.

        Args:
          batch: `image` [B, H, W, 3] normalised, `text` int32 [B, L], `text_mask` bool [B, L], and
            what else the objectives and the fusion read.
          train: whether to drop tokens, branches and activations.
          updates: number of updates before this one, for weights with a schedule; None: full
            weights.
        """
        needs = {need for objective in self.objectives.values() for need in objective.needs}
        if self.is_initializing():  # the teacher's outputs have the shapes of the student's
            batch = {**batch, "teacher": self.teacher_outputs(batch)}
        return self.losses(self.encode(batch, needs, train), batch, tuple(self.objectives), updates)

    def teacher_outputs(self, batch: dict[str, jax.Array]) -> dict:
        """The content of `batch["teacher"]` (see `Objective`), computed with these parameters.

        Dropout is active where there is an rng for it.
        """
        needs = {need for objective in self.objectives.values() for need in objective.teacher_needs}
        encodings = self.encode(batch, needs, train=self.has_rng("dropout"))
        lessons = {objective.name: objective.teacher_outputs(encodings, batch, self.model) for objective in self.objectives.values()
                   if objective.uses_teacher}
        return encodings | lessons

    def losses(self, encodings: dict, batch: dict[str, jax.Array], names: tuple[str, ...],
               updates: jax.Array | None = None) -> Loss:
        """The weighted sum of the losses of the objectives in `names`, and their metrics."""
        total, metrics = jnp.zeros((), jnp.float32), {}
        encodings = {**encodings, "scale": self.learned_scale()}
        for name in names:
            loss = self.objectives[name](encodings, batch, self.model)
            weight = weight_at(self.objectives_config[name], updates)
            total += weight * loss.value
            if isinstance(weight, jax.Array):
                metrics[f"{name}/weight"] = weight
            metrics |= {f"{name}/loss": loss.value} | {f"{name}/{key}": value for key, value in loss.metrics.items()}
        return Loss(total, metrics)

    def learned_scale(self) -> jax.Array | None:
        """The scale of the first contrastive objective, as a constant; None where there is none."""
        for name, objective in self.objectives.items():
            if isinstance(objective, ScaledObjective):
                known = self.variables.get("params", {}).get(f"objectives_{name}")
                return jnp.float32(objective.initial_scale) if known is None else jax.lax.stop_gradient(objective.scale_of(known))
        return None

    def encode(self, batch: dict[str, jax.Array], needs: set[str], train: bool) -> dict:
        """The encodings named in `needs`.

        `image`, `text`: `models.layers.transformer.Encoding`.
        `image_embedding`, `text_embedding`: unit vectors [B, E].
        `image_pooled`, `text_pooled`, `first_view_pooled`, `second_view_pooled`: [B, D], the towers' pooled vectors.
        `fused`: `models.fusion.attention.FusedEncoding` of the pairs.
        `decoding`: `models.decoder.transformer.Decoding` of each row of text.
        """
        encodings, needs = {}, needs | needs_behind(self.model_config, needs)
        if needs & {"image", "image_embedding", "image_pooled"}:
            encodings["image"] = self.model.encode_image(batch["image"], train, tokens="image" in needs, boxes=batch.get("boxes"))
        if needs & {"text", "text_embedding", "text_pooled"}:
            encodings["text"] = self.model.encode_text(batch["text"], batch["text_mask"], train, tokens="text" in needs,
                                                       edges=batch.get("word_edges"))
        if "image_pooled" in needs:
            encodings["image_pooled"] = constrain(encodings["image"].pooled, ("batch", None))
        if "text_pooled" in needs:
            encodings["text_pooled"] = constrain(encodings["text"].pooled, ("batch", None))
        if "fused" in needs:
            encodings["fused"] = self.model.fuse(encodings["image"], encodings["text"], train)
        for name, view in VIEWS.items():
            if name in needs:
                encodings[name] = constrain(self.model.encode_image(batch[view], train, tokens=False).pooled, ("batch", None))
        if "image_embedding" in needs:
            encodings["image_embedding"] = self.model.embed_image(encodings["image"])
        if "text_embedding" in needs:
            encodings["text_embedding"] = self.model.embed_text(encodings["text"])
        if "decoding" in needs:
            text, mask, packed = rows_of_text(batch)
            prefix = self.drawn_prefix(mask) if train and has_prefix(self.model_config.decoder) else None
            logits = self.model.decode(text, mask, encodings["image"] if "image" in needs else None, train, encodings.get("text"),
                                       prefix, packed)
            encodings["decoding"] = Decoding(logits, jnp.zeros(len(logits), jnp.int32) if prefix is None else prefix)
        return encodings

    def drawn_prefix(self, mask: jax.Array) -> jax.Array:
        """Random prefix lengths int32 [B], uniform from 0 to the part `model.decoder.text_prefix` of a text.

        At least one token is left to be predicted.
        """
        count = mask.sum(axis=1)
        most = jnp.minimum(jnp.floor(self.model_config.decoder.text_prefix * count), jnp.maximum(count - 1, 0))
        return jnp.floor(jax.random.uniform(self.make_rng("dropout"), (len(mask),)) * (most + 1)).astype(jnp.int32)

    def embed(self, image: jax.Array | None = None, text: jax.Array | None = None, mask: jax.Array | None = None):
        """`VisionLanguageModel.__call__` without training."""
        return self.model(image, text, mask)

    def match(self, batch: dict[str, jax.Array]) -> jax.Array:
        """Matching logits float32 [B, 2] of a batch, (no match, match), by the first matching objective."""
        head = next(objective for objective in self.objectives.values() if isinstance(objective, Matching))
        encodings = self.encode(batch, {"image", "text"}, train=False)
        return head.logits(self.model, encodings["image"], encodings["text"])

    def predict(self, name: str, batch: dict[str, jax.Array], candidates: np.ndarray | None = None) -> jax.Array:
        """Predictions of a supervised objective for each pair.

        Args:
          name: of the objective.
          batch: as in `__call__`.
          candidates: int32 [K, L], the candidate answers of an objective that generates text; they
            are scored.
        Returns: float32 [B, outputs], or the candidates' scores [B, K].
        """
        objective = self.objectives[name]
        encodings = self.encode(batch, {*objective.needs}, train=False)
        if candidates is not None:
            return objective.scores(encodings["fused"], self.model, candidates)
        return objective.answers(encodings, self.model)

    def caption_losses(self, image: jax.Array, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The negative log-likelihood of each text of a batch.

        Returns: the sum of -log p of its tokens after the first, float32 [B], and their number.
        """
        batch = {"image": image, "text": text, "text_mask": mask}
        own, _ = token_losses(self.encode(batch, {"decoding"}, train=False)["decoding"].logits, text)
        return jnp.where(mask[:, 1:], own, 0.0).sum(axis=1), mask[:, 1:].sum(axis=1)

    def write_captions(self, image: jax.Array, start: jax.Array, end: int, padding: int,
                       search: BeamSearch = BeamSearch()) -> jax.Array:  # noqa: B008 - frozen
        """The decoder's text for each image, greedy or by beam search: int32 [B, L - 1], padded after the `end`."""
        memory = self.model.encode_image(image) if self.model_config.decoder.image != "none" else None
        return self.written(memory, start, self.model_config.text.length - 1, end, padding, search)

    def write_answers(self, name: str, batch: dict[str, jax.Array], start: int, end: int, padding: int,
                      search: BeamSearch = BeamSearch()) -> jax.Array:  # noqa: B008 - frozen
        """The text that the objective `name` generates for each pair of a batch, as `write_captions`.

        Returns: int32 [B, length of its target - 1].
        """
        objective = self.objectives[name]
        fused = self.encode(batch, {*objective.needs}, train=False)["fused"]
        starts = jnp.full(len(fused.tokens), start, jnp.int32)
        return self.written(as_memory(fused), starts, objective.length - 1, end, padding, search)

    def written(self, memory: Encoding | None, start: jax.Array, length: int, end: int, padding: int,
                search: BeamSearch) -> jax.Array:
        """The decoder's text after `start`, int32 [B], for the rows of a memory: int32 [B, length]."""
        model, variables = self.model.clone(parent=None), self.model.variables

        def next_logits(cache, tokens, position, memory):
            cache = {"cache": cache} if cache else {}
            logits, cache = model.apply({**variables, **cache}, tokens, position, memory, method="decode_next", mutable="cache")
            return logits, cache["cache"]

        return written(next_logits, memory, start, length, end, padding, search)


def has_prefix(decoder: DecoderConfig) -> bool:
    """Whether the decoder is trained with a bidirectional prefix of each text."""
    return isinstance(decoder, TextDecoderConfig) and decoder.text_prefix > 0


def needs_behind(config: ModelConfig, needs: set[str]) -> set[str]:
    """The encodings from which those in `needs` are computed: the inputs of the fusion and of the decoder.

    Raises: ConfigError where there is no fusion, or no decoder.
    """
    if "fused" in needs and config.fusion is None:
        raise ConfigError("model.fusion: an objective with features='fused' needs one, such as kind='concatenation'")
    of_fusion = {"image", "text"} if "fused" in needs else set()
    if "decoding" not in needs:
        return of_fusion
    if config.decoder is None:
        raise ConfigError("model.decoder: an objective predicts words by it, and there is none; set it, such as dict(preset='B')")
    seen = {"image": config.decoder.image != "none", "text": config.decoder.kind == "on_text_tower"}
    return of_fusion | {name for name, wanted in seen.items() if wanted}


def check_decoder(config: ModelConfig, objectives: dict[str, ObjectiveConfig]) -> None:
    """Checks the width of what one decoder attends to, to caption images and to answer from fused pairs.

    Raises: ConfigError where the two widths differ, since one matrix projects both.
    """
    built = build_objectives(objectives).values()
    answers, captions = any(isinstance(one, Answering) for one in built), any("decoding" in one.needs for one in built)
    if not (answers and captions) or config.decoder.image == "none":
        return
    of_picture, fused = config.image.token_width, config.fusion.fused_width(config.shapes())
    if of_picture != fused:
        raise ConfigError(f"model.fusion: is {fused} wide and model.image {of_picture}; where one decoder captions and answers, "
                          "both must have one width")


def build_objectives(configs: dict[str, ObjectiveConfig]) -> dict[str, Objective]:
    """One objective module per entry; its fields are those of the config.

    The config's kind and its weight, with its schedule, are no fields of the module.
    """
    return {name: KINDS[config.kind](**_fields(config)) for name, config in configs.items()}


def asked_inputs(configs: dict[str, ObjectiveConfig]) -> tuple[str, ...]:
    """The arrays of a batch that these objectives need and that are not in every batch, sorted."""
    asked = set()
    for objective in build_objectives(configs).values():
        asked |= {*objective.inputs, *(VIEWS[need] for need in (*objective.needs, *objective.teacher_needs) if need in VIEWS)}
    return tuple(sorted(asked))


def encodings_trained(configs: dict[str, ObjectiveConfig]) -> set[str]:
    """The names of the encodings of `PretrainingModule.encode` that these objectives train."""
    return {name for objective in build_objectives(configs).values() for name in objective.trains}


def constrain_parameters(objectives: dict[str, Objective], params: dict) -> dict:
    """`params` with every objective's own parameters in their allowed range."""
    constrained = {f"objectives_{name}": objective.constrain(params[f"objectives_{name}"])
                   for name, objective in objectives.items() if f"objectives_{name}" in params}
    return {**params, **constrained}


def _fields(config: ObjectiveConfig) -> dict:
    not_of_the_module = {"kind", *(field.name for field in dataclasses.fields(ObjectiveConfig))}
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in not_of_the_module}
