"""Language-model head (Devlin et al. 2019, BERT), for masked tokens, and for next tokens in
BLIP."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.options import ACTIVATIONS, GATES, LayerOptions, with_logical_axes


class WordHead(nn.Module):
    """Tokens to vocabulary logits.

    A linear layer, an activation and a norm precede a product with an embedding table, to which a
    bias is added.

    Args of the call:
      tokens: [B, L, D'].
      table: [V, D]; None: a table of its own.
    Returns: float32 [B, L, V].
    """

    options: LayerOptions
    vocab_size: int

    @nn.compact
    def __call__(self, tokens: jax.Array, table: jax.Array | None = None) -> jax.Array:
        options, precision = self.options, self.options.precision
        init = with_logical_axes(nn.initializers.normal(0.02), ("vocab", "embed"))
        activation = ACTIVATIONS["gelu" if options.activation in GATES else options.activation]
        x = precision.dense(
            options.width,
            ("embed", "mlp"),
            kernel_init=options.initializers()["residual"],
            name="dense",
        )(tokens)
        x = options.normalisation("norm")(activation(x))
        if table is None:
            table = self.param("table", init, (self.vocab_size, options.width), jnp.float32)
        bias = self.param(
            "bias",
            with_logical_axes(nn.initializers.zeros, ("vocab",)),
            (self.vocab_size,),
            jnp.float32,
        )
        return (
            jnp.einsum("bld,vd->blv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)
            + bias
        )
