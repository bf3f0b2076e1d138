"""Masked language modelling: masked tokens from the others and from the image (Devlin et al. 2019,
section 3.1)."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig, embedding_dim
from vlp_jax.models.options import LayerOptions, Precision, present
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.lm_head import WordHead
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig, grown
from vlp_jax.objectives.tokens import entropy_of, kl_divergence, log_likelihood, mean_where

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTextConfig(ObjectiveConfig):
    """Fields shared by the objectives that predict masked tokens (Devlin et al. 2019)."""

    # of the tokens, of which 80% are masked, 10% replaced and 10% unchanged
    rate: float = between(0.15, 0.0, 1.0)
    keep_first: bool = True  # the start token is never selected
    keep_last: bool = True  # the end token is never selected
    # None: the last id of `model.text.vocab_size`, beyond the tokenizer's
    mask_id: int | None = between(None, 0)
    tied: bool = False  # the output embeddings are those of the text tower
    # select all tokens of a word together (Cui et al. 2019); `rate` is then of words
    whole_words: bool = False

    couples_batch = True  # the mean is over the selected tokens of the whole batch

    @property
    def inputs(self) -> tuple[str, ...]:
        """The starts of words, where words are masked as a whole."""
        return ("word_start",) if self.whole_words else ()

    @property
    def needs_mask_token(self) -> bool:
        """Whether the mask token is not one of the tokenizer's."""
        return self.mask_id is None

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about start and end tokens that are kept but do not exist."""
        yield from super().validate(where, experiment)
        text = experiment.data.text
        for key, kept, name in (
            ("keep_first", self.keep_first, "start_token"),
            ("keep_last", self.keep_last, "end_token"),
        ):
            if kept and getattr(text, name) is None:
                yield f"{where}.{key}: has no effect without data.text.{name}: that is a word"

    def check_tokenizer(self, where: str, tokenizer: Tokenizer, experiment: "Experiment") -> None:
        """Checks also that the mask token has an id in the vocabulary.

        Raises: ConfigError where it has none.
        """
        super().check_tokenizer(where, tokenizer, experiment)
        size = experiment.model.text.vocab_size
        if self.mask_id is not None and self.mask_id >= size:
            raise ConfigError(
                f"{where}.mask_id: {self.mask_id} is no token of "
                f"model.text.vocab_size={size}; set it to {size - 1} or less"
            )
        if self.mask_id is None and tokenizer.vocab_size == size:
            raise ConfigError(
                f"model.text.vocab_size: {size} leaves no id for the mask token of "
                f"{where}; set it to {size + 1} or more, or name one as "
                f"{where}.mask_id"
            )

    def smoke(self, sizes: Sizes) -> Self:
        """Without a `mask_id`, which belongs to another vocabulary than the embedded one."""
        return dataclasses.replace(super().smoke(sizes), mask_id=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageConfig(MaskedTextConfig):
    """Masked tokens from the others, and from the image (Devlin et al. 2019)."""

    with_image: bool = True
    # whose width, activation and norm the prediction head has
    head_layers: Literal["text", "fusion"] = "text"
    # weight of the EMA model's predictions (Li et al. 2021, equation 7)
    alpha: float = between(0.0, 0.0, 1.0)
    alpha_warmup: int = between(0, 0)  # updates over which alpha grows from 0

    @property
    def needs(self) -> tuple[str, ...]:
        """The image, where the tokens are predicted with it."""
        return ("image",) if self.with_image else ()

    @property
    def uses_fusion(self) -> bool:
        """Whether the tokens are predicted with the image."""
        return self.with_image

    @property
    def uses_teacher(self) -> bool:
        """Whether there is momentum distillation."""
        return self.alpha > 0

    @property
    def teacher_needs(self) -> tuple[str, ...]:
        """As `needs`, with momentum distillation."""
        return self.needs if self.uses_teacher else ()

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`alpha_warmup`, where there is no distillation."""
        return {
            **super().ignored(experiment),
            **({} if self.alpha else {"alpha_warmup": "with alpha=0"}),
        }

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about a head of fusion layers that are not there, or are not as wide as the
        word embeddings that it uses."""
        yield from super().validate(where, experiment)
        if self.head_layers == "text":
            return
        fusion = experiment.model.fusion
        if not self.with_image or not isinstance(fusion, StackConfig):
            yield (
                f"{where}.head_layers: 'fusion' needs with_image=True and a fusion of transformer "
                "layers, such as kind='co_attention'"
            )
        elif self.tied and fusion.size.width != experiment.model.text.word_width:
            yield (
                f"{where}.tied: the word embeddings have width {experiment.model.text.word_width}, "
                f"and a head of fusion layers {fusion.size.width}; set tied=False"
            )

    def head_options(self, model: ModelConfig, precision: Precision) -> LayerOptions:
        """The options that the head has in common with layers.

        Raises: ConfigError where there are no such layers.
        """
        if self.head_layers == "fusion":
            return cast(StackConfig, model.fusion).layer_options(precision)
        return model.text.shapes.layers_for("an objective on hidden words", precision)

    def smoke(self, sizes: Sizes) -> Self:
        """A warm-up of the distillation of at most 10 updates."""
        return dataclasses.replace(super().smoke(sizes), alpha_warmup=min(self.alpha_warmup, 10))

    def build(self) -> "MaskedLanguage":
        """The masked language modelling of these settings."""
        return MaskedLanguage(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The text tower, the fusion and the prediction on masked texts, and the teacher's forward
        pass."""
        shapes, text = model.shapes(), model.text.token_width
        width = present(model.fusion).fused_width(shapes) if self.with_image else text
        head = width if self.head_layers == "fusion" else text
        flops = 2 * model.text.length * head * (width + model.text.vocab_size)
        flops += present(model.fusion).flops(shapes) if self.with_image else 0
        if not self.with_image or not present(model.fusion).encodes_text:
            flops += model.text.flops(embedding_dim(model), embedded=False)
        # a teacher has no backward pass
        return batch * (flops + (flops // 3 if self.uses_teacher else 0))


@flax.struct.dataclass
class MaskedText:
    """A text with masked tokens.

    Attributes:
      text: int32 [B, L] with some tokens replaced.
      chosen: bool [B, L], the tokens selected for prediction.
      open: bool [B, L], the tokens that could be selected.
    """

    text: jax.Array
    chosen: jax.Array
    open: jax.Array

    @property
    def share(self) -> jax.Array:
        """The fraction of the open tokens that was selected."""
        return self.chosen.sum() / jnp.maximum(self.open.sum(), 1)


class MaskedLanguage(Objective):
    """Cross-entropy of masked tokens.

    They are predicted by a linear layer, an activation, a norm, and a product with an embedding
    table.

    Metrics: `accuracy`, `masked` (the fraction of tokens that were selected), and the reference
    `unigram_entropy`: the loss of the best guess without context, from the frequencies of this
    batch's tokens (less than from those of the whole data). With a teacher also `alpha`,
    `cross_entropy` and `divergence`, the two parts of the loss.

    Options (`MaskedLanguageConfig`):
      with_image: predict from the tokens of a fusion with the image; else from those of the text
        tower.
      head_layers: the head has the width, activation and norm of the text tower's layers, or of the
        fusion's, as in METER.
      rate: probability of selecting a token; of the selected ones, 80% become the mask token, 10% a
        random one, 10% are unchanged.
      whole_words: all tokens of a word are selected together, a word with the probability `rate`,
        as in Google's later BERT models (Cui et al. 2019, section 2.1); the replacement is drawn
        for each selected token separately.
      alpha: a of momentum distillation: the loss is (1 - a) times the cross-entropy plus a times
        KL(q || p), with p the predictions of the selected tokens and q the EMA model's, from the
        same image and the same masked text (Li et al. 2021, "ALBEF", equation 7). It grows linearly
        from 0 over the first `alpha_warmup` updates.
    """

    config: MaskedLanguageConfig = MaskedLanguageConfig()

    def setup(self) -> None:
        """The number of updates, from which `alpha` grows, where there is a teacher."""
        if self.config.uses_teacher:
            self.updates = self.variable("distillation", "updates", jnp.zeros, (), jnp.int32)

    def teacher_outputs(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> tuple[MaskedText, jax.Array]:
        """The masked text, and the teacher's logits for it, float32 [B, L, V]."""
        masked = masked_text(self.config, self.make_rng("teacher"), batch, model)
        return masked, self.logits(encodings, masked, batch, model)

    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        """The loss and metrics of one random selection of tokens."""
        if self.config.uses_teacher:
            masked, lesson = batch["teacher"][self.name]
        else:
            masked, lesson = masked_text(self.config, self.make_rng("dropout"), batch, model), None
        logits = self.logits(encodings, masked, batch, model)
        loss = masked_loss(logits, batch["text"], masked.chosen)
        loss = loss if lesson is None else self.distilled(loss, logits, lesson, masked.chosen)
        return Loss(
            loss.value,
            {
                **loss.metrics,
                "masked": masked.share,
                "unigram_entropy": unigram_entropy(batch["text"], masked, model),
            },
        )

    @nn.compact
    def logits(
        self,
        encodings: dict,
        masked: MaskedText,
        batch: dict[str, jax.Array],
        model: VisionLanguageModel,
    ) -> jax.Array:
        """Logits float32 [B, L, V] of all tokens of a masked text."""
        encoding = model.encode_text(
            masked.text, batch["text_mask"], self.training, edges=batch.get("word_edges")
        )
        if self.config.with_image:
            encoding = model.fuse(encodings["image"], encoding, self.training)
        if encoding.tokens is None:
            raise ConfigError(
                f"model.fusion.kind: {present(model.config.fusion).kind!r} gives no "
                "tokens to predict masked words from; use 'cross_attention', "
                "'merged', 'co_attention' or 'graph', or with_image=False"
            )
        layers = self.config.head_options(model.config, model.precision)
        return word_logits(encoding.tokens, masked.text, model, self.config.tied, "head", layers)

    def distilled(
        self, loss: Loss, logits: jax.Array, lesson: jax.Array, chosen: jax.Array
    ) -> Loss:
        """The weighted sum of the loss and the divergence from the teacher's predictions."""
        alpha = grown(self.config.alpha, self.config.alpha_warmup, self.updates.value)
        divergence = mean_where(kl_divergence(jax.lax.stop_gradient(lesson), logits), chosen)
        if not self.is_initializing() and self.is_mutable_collection("distillation"):
            self.updates.value += 1
        return Loss(
            (1.0 - alpha) * loss.value + alpha * divergence,
            {**loss.metrics, "alpha": alpha, "cross_entropy": loss.value, "divergence": divergence},
        )


def masked_text(
    words: MaskedTextConfig, key: jax.Array, batch: dict[str, jax.Array], model: VisionLanguageModel
) -> MaskedText:
    """The batch's texts with some of their tokens, or words, masked.

    Args:
      words: which ones.
      key: random key.
      batch: with `text`, `text_mask` and, for whole words, `word_start`.
      model: the VisionLanguageModel.
    """
    size = model.config.text.vocab_size
    mask_id = size - 1 if words.mask_id is None else words.mask_id
    return mask_tokens(
        key,
        batch["text"],
        batch["text_mask"],
        words.rate,
        size,
        mask_id,
        words.keep_first,
        words.keep_last,
        batch["word_start"] if words.whole_words else None,
    )


def word_logits(
    tokens: jax.Array,
    text: jax.Array,
    model: VisionLanguageModel,
    tied: bool,
    name: str,
    layers: LayerOptions | None = None,
) -> jax.Array:
    """Logits of a text's tokens by a head of the calling module.

    Args:
      tokens: [B, N, D']; a learned class token may come before those of the text.
      text: int32 [B, L].
      model: the VisionLanguageModel.
      tied: whether the head uses the text tower's embeddings.
      name: of the head.
      layers: whose width, activation and norm the head has; None: those of the text tower.
    Returns: float32 [B, L, V].
    """
    tower = model.config.text
    if layers is None:
        layers = tower.shapes.layers_for("an objective on hidden words", model.precision)
    table = model.word_table() if tied else None
    head = WordHead(layers, tower.vocab_size, name=name)
    return head(tokens[:, -text.shape[1] :], table)


def unigram_entropy(text: jax.Array, masked: MaskedText, model: VisionLanguageModel) -> jax.Array:
    """The entropy of the batch's open tokens by their frequencies."""
    return entropy_of(
        jnp.zeros(model.config.text.vocab_size, jnp.float32).at[text].add(masked.open)
    )


def mask_tokens(
    key: jax.Array,
    text: jax.Array,
    mask: jax.Array,
    rate: float,
    vocab_size: int,
    mask_id: int,
    keep_first: bool,
    keep_last: bool,
    word_start: jax.Array | None = None,
) -> MaskedText:
    """Selects real tokens at random, and replaces 80% of them by `mask_id` and 10% by any other id.

    Args:
      key: random key.
      text: int [B, L].
      mask: [B, L] bool, True for real tokens.
      rate: probability of selecting a token, or a word.
      vocab_size: number of ids.
      mask_id: id of the mask token.
      keep_first, keep_last: whether the first and the last real token of a row are never selected.
      word_start: [B, L] bool, True at each word's first token and at each row's first token; whole
        words are then selected, each with probability `rate`.
    """
    places = jnp.arange(text.shape[1])
    last = mask.sum(axis=1, dtype=jnp.int32)[:, None] - 1
    open = mask & ((places > 0) | (not keep_first)) & ((places < last) | (not keep_last))
    choice, fate, other = jax.random.split(key, 3)
    drawn = jax.random.bernoulli(choice, rate, text.shape)
    if word_start is not None:
        drawn = jnp.take_along_axis(drawn, jnp.cumsum(word_start, axis=1) - 1, axis=1)
    chosen = open & drawn
    fates = jax.random.uniform(fate, text.shape)
    random = jax.random.randint(other, text.shape, 0, vocab_size - 1, text.dtype)
    random += random >= mask_id
    replaced = jnp.where(fates < 0.8, mask_id, jnp.where(fates < 0.9, random, text))
    return MaskedText(jnp.where(chosen, replaced, text), chosen, open)


def masked_loss(logits: jax.Array, text: jax.Array, chosen: jax.Array) -> Loss:
    """The mean over selected tokens of -log softmax(logits)[text], 0 without any.

    Args:
      logits: float32 [B, L, V].
      text: int32 [B, L].
      chosen: bool [B, L], the selected tokens.
    Returns: a `Loss`: its `value`, float32 [], and the metric `accuracy`.
    """
    right = (jnp.argmax(logits, axis=-1) == text).astype(jnp.float32)
    return Loss(
        mean_where(-log_likelihood(logits, text), chosen), {"accuracy": mean_where(right, chosen)}
    )
