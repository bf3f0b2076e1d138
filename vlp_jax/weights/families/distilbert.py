"""DistilBERT in Hugging Face folders (transformers' DistilBertModel and DistilBertForMaskedLM; Sanh
et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.bert import TEXT_ALONE, Bert
from vlp_jax.weights.rules import Shape, attention, leading, linear, norm, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

TEXT = within(
    "",
    "model/text/",
    same("embeddings.word_embeddings.weight", "tokens/embedding"),
    leading("embeddings.position_embeddings.weight", "position"),
    norm("embeddings.LayerNorm", "embedding_norm"),
    within(
        "transformer.layer.{}.",
        "transformer/layer_{}/",
        attention(
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            out="attention.out_lin",
        ),
        norm("sa_layer_norm", "attention_norm"),
        linear("ffn.lin1", "mlp/in"),
        linear("ffn.lin2", "mlp/out"),
        norm("output_layer_norm", "mlp_norm"),
    ),
)


class DistilBert(Bert):
    """transformers' DistilBertModel, only read."""

    title, model_type = "DistilBertModel", "distilbert"
    prefix = "distilbert."
    exports = False
    settings = Settings(
        keys=(
            Key("dim", "model.text.width"),
            Key("n_layers", "model.text.depth"),
            Key("n_heads", "model.text.heads"),
            Key("hidden_dim", "model.text.mlp_dim"),
            Key("activation", "model.text.activation", ACTIVATIONS),
            Key("vocab_size", "model.text.vocab_size"),
            Key("max_position_embeddings", "model.text.length"),
        ),
        given=(Given("sinusoidal_pos_embds", False), Given("tie_word_embeddings", True)),
        fixed={**TEXT_ALONE, "model.text.norm_epsilon": 1e-12},
    )
    rules = TEXT
    ignored = r"^vocab_"

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, which has no pooler."""
        return self.settings.take(theirs, place)


class DistilBertForMaskedLM(DistilBert):
    """transformers' DistilBertForMaskedLM, only read."""

    title = "DistilBertForMaskedLM"
    parts = ("",)
    rules = (
        *TEXT,
        *within(
            "vocab_",
            "objectives_words/head/",
            linear("transform", "dense"),
            norm("layer_norm", "norm"),
            same("projector.bias", "bias"),
        ),
    )
    ignored = r"^vocab_projector\.weight$"
