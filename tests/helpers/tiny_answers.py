"""A tiny experiment that answers in words, its module with parameters that say something, and what
it gives teacher-forced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

LENGTH = 4
DECODERS = {
    "transformer": dict(kind="transformer", **TOWER),
    "lstm": dict(kind="lstm", image="attention", width=8, embedding_width=8, attention_width=8),
    "gru": dict(kind="gru", image="attention", width=8, embedding_width=8, attention_width=8),
}
ANSWERS = np.array(
    [
        [1, 5, 2, -1],
        [1, 5, 7, 2],
        [1, 9, 2, -1],
        [-1, -1, -1, -1],
        [1, 3, 2, -1],
        [1, 3, 4, 2],
        [1, 2, -1, -1],
        [1, 11, 2, -1],
    ],
    np.int32,
)


def config_of(
    decoder="transformer", fusion=None, target=None, end_token="<end>", vocab_size=20, **changes
):
    answer = dict(kind="text", field="answer", classes=5, length=LENGTH)
    return experiment(
        data__text__end_token=end_token,
        model__text__vocab_size=vocab_size,
        model__decoder=DECODERS[decoder] if isinstance(decoder, str) else decoder,
        model__fusion=fusion or dict(kind="cross_attention", **TOWER),
        data__targets=dict(answer=target or answer),
        objectives=dict(answer=dict(kind="answering", target="answer", unigram="batch", **changes)),
    )


def batch():
    return batch_of() | {"target_answer": ANSWERS}


def started(config):
    module = build_module(config)
    variables = jax.jit(lambda: initial_variables(module, example_batch(config), 0))()
    params = jax.tree.map(
        lambda x: x + 0.2 * jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape),
        nn.meta.unbox(variables)["params"],
    )
    return module, {"params": params}


def logits_of(module, variables, batch, ids):
    def fused_and_written(module):
        fused = module.encode({**batch, "image": batch["image"] / 255.0}, {"fused"}, False)["fused"]
        return module.model.answer(fused, jnp.maximum(ids, 0), ids >= 0)

    return np.asarray(module.apply(variables, method=fused_and_written), np.float64)


def log_p(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
