"""From tokens to words: BERT's head (Devlin et al. 2019), which tells hidden words, and next ones in BLIP."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.options import ACTIVATIONS, LayerOptions


class WordHead(nn.Module):
    """Tokens [B, L, D'] -> logits float32 [B, L, V]: a linear layer, an activation, a norm, and a product with a table [V, D], its
    own if None is given, to which a bias is added."""

    options: LayerOptions
    vocab_size: int

    @nn.compact
    def __call__(self, tokens: jax.Array, table: jax.Array | None = None) -> jax.Array:
        options, precision = self.options, self.options.precision
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        activation = ACTIVATIONS["gelu" if options.activation == "swiglu" else options.activation]
        x = precision.dense(options.width, ("embed", "mlp"), kernel_init=options.initializers()["residual"], name="dense")(tokens)
        x = options.normalisation("norm")(activation(x))
        if table is None:
            table = self.param("table", init, (self.vocab_size, options.width), jnp.float32)
        bias = self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",)), (self.vocab_size,), jnp.float32)
        return jnp.einsum("bld,vd->blv", x, table.astype(x.dtype), preferred_element_type=jnp.float32) + bias
