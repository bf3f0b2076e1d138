"""Contrastive losses that never hold all pairs of a batch: in chunks, and round the ring of devices.

Value and gradients are those of `contrastive_losses.py`. Memory: with b examples a device, B in all, embeddings of E and
chunks of c texts, the chunked losses take b x c + 2 B x E, the ring's b x c + 8 b x E or so, forward and backward.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from vlp_jax.objectives.contrastive_losses import cosines, inner
from vlp_jax.objectives.pair_losses import PairLoss, SigmoidPairs, SoftmaxPairs
from vlp_jax.sharding.collectives import Exchange, add

Identities = tuple[jax.Array, ...]
CHUNK = 1024


def chunked_softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, identities: Identities = (),
                                label_smoothing: float = 0.0, chunk_size: int = CHUNK) -> jax.Array:
    """InfoNCE both ways (Radford et al. 2021, figure 3), each device's images beside all texts, `chunk_size` at a time.

    image, text: [B, E] unit vectors, over the batch axes of the layout in use. scale: scalar that multiplies their cosines.
    identities: int32 [B, 2] arrays, such as `caption_id` and `image_id`; image i and text j belong together where i = j or
      where examples i and j agree in one of these. A row's target is uniform over its positives.
    label_smoothing: mixes the targets with the uniform distribution.
    Returns: the mean over examples and directions, float32. Raises: MeshError for a batch that does not divide.
    """
    exchange = Exchange.in_use(ring=False, chunk=chunk_size)
    return loss_and_accuracy(SoftmaxPairs(label_smoothing=label_smoothing), exchange, image, text, scale, 0.0, identities)[0]


def ring_softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, identities: Identities = (),
                             label_smoothing: float = 0.0, chunk_size: int = CHUNK) -> jax.Array:
    """`chunked_softmax_contrastive` whose texts travel from device to device, so that no device gathers them."""
    exchange = Exchange.in_use(ring=True, chunk=chunk_size)
    return loss_and_accuracy(SoftmaxPairs(label_smoothing=label_smoothing), exchange, image, text, scale, 0.0, identities)[0]


def chunked_sigmoid_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array,
                                identities: Identities = (), chunk_size: int = CHUNK) -> jax.Array:
    """Pairwise sigmoid loss (Zhai et al. 2023, eq. 1), each device's images beside all texts, `chunk_size` at a time.

    Arguments as of `chunked_softmax_contrastive`, and the scalar `bias`.
    Returns: the sum over pairs divided by B, float32. Raises: MeshError for a batch that does not divide.
    """
    exchange = Exchange.in_use(ring=False, chunk=chunk_size)
    return loss_and_accuracy(SigmoidPairs(), exchange, image, text, scale, bias, identities)[0]


def ring_sigmoid_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array,
                             identities: Identities = (), chunk_size: int = CHUNK) -> jax.Array:
    """`chunked_sigmoid_contrastive` whose texts travel from device to device (Zhai et al. 2023, figure 1), both ways."""
    exchange = Exchange.in_use(ring=True, chunk=chunk_size)
    return loss_and_accuracy(SigmoidPairs(), exchange, image, text, scale, bias, identities)[0]


def loss_and_accuracy(pairs: PairLoss, exchange: Exchange, image: jax.Array, text: jax.Array, scale: jax.Array,
                      bias: jax.Array, identities: Identities) -> tuple[jax.Array, jax.Array]:
    """The loss, and how often an image's nearest text in the batch is one of its own (a scalar in [0, 1], without
    gradient; a tie counts). Arguments as of the four functions above."""
    exchange.check(len(image))
    labels = ((jnp.arange(len(image), dtype=jnp.int32),), *((identity[:, 0], identity[:, 1]) for identity in identities))
    return _pairwise(pairs, exchange, image, text, jnp.asarray(scale), jnp.asarray(bias), labels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pairwise(pairs, exchange, image, text, scale, bias, labels):
    return _forward(pairs, exchange, image, text, scale, bias, labels)[0]


def _forward(pairs, exchange, image, text, scale, bias, labels):
    """The first round: what must be known of each example, hence the loss."""
    size = len(image)

    def local(batched, whole):
        image, text, labels = batched
        loss = pairs.at(*whole, size)

        def visit(columns, rows, moving):
            cosine, positives = _block(image, labels, *columns)
            return tuple(loss.merge(_stack(known, loss.summarise(cosine, positives, axis)))
                         for known, axis in ((rows, 1), (moving, 0)))

        def empty(count):
            return loss.summarise(jnp.zeros((count, 0), _dtype(image, text)), jnp.zeros((count, 0), bool), 1)

        images, texts = exchange.visit_all(visit, (text, labels), empty(len(image)), empty, loss.merge)
        value = 0.5 * (loss.losses(images) + loss.losses(texts)).sum() / size
        correct = (images.own_max >= images.other_max).sum(dtype=value.dtype) / size
        return (loss.slopes(images), loss.slopes(texts)), exchange.total((value, correct))

    slopes, results = exchange.on_each_device(local, (image, text, labels), (scale, bias))
    return results, (image, text, scale, bias, labels, slopes)


def _backward(pairs, exchange, residuals, cotangents):
    """The second round: every block again, and its part of the gradients."""
    image, text, scale, bias, labels, slopes = residuals
    size = len(image)

    def local(batched, whole):
        image, text, labels, (images, texts) = batched
        scale, bias, factor = whole
        loss, dtype = pairs.at(scale, bias, size), _dtype(image, text)

        def visit(columns, rows, text_gradient):
            text, labels_of_columns, texts = columns
            cosine, positives = _block(image, labels, text, labels_of_columns)
            slope = loss.slope(cosine, positives, images, 1) + loss.slope(cosine, positives, texts, 0)
            parts = inner("ij,jd->id", slope, text), (slope * cosine).sum(1), slope.sum(1)
            return jax.tree.map(jnp.add, rows, parts), text_gradient + inner("ij,id->jd", slope, image)

        def empty(count):
            return jnp.zeros((count, text.shape[1]), dtype)

        start = empty(len(image)), jnp.zeros(len(image), dtype), jnp.zeros(len(image), dtype)
        (image_gradient, *scalars), text_gradient = exchange.visit_all(visit, (text, labels, texts), start, empty, add)
        sums = exchange.total(tuple(factor * rows.sum() for rows in scalars))
        return (scale * factor * image_gradient, scale * factor * text_gradient), sums

    factor = 0.5 * cotangents[0] / size
    of_vectors, of_scalars = exchange.on_each_device(local, (image, text, labels, slopes), (scale, bias, factor))
    found, wanted = (*of_vectors, *of_scalars), (image, text, scale, bias)
    return *(gradient.astype(x.dtype) for gradient, x in zip(found, wanted, strict=True)), None


_pairwise.defvjp(_forward, _backward)


def _block(image, labels, text, labels_of_columns):
    """Cosines and positives [b, c] of a device's images with some texts."""
    agree = (functools.reduce(operator.and_, (a[:, None] == b[None, :] for a, b in zip(rows, columns, strict=True)))
             for rows, columns in zip(labels, labels_of_columns, strict=True))
    return cosines(image, text), functools.reduce(operator.or_, agree)


def _stack(*trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _dtype(image, text):
    return jnp.promote_types(jnp.result_type(image, text), jnp.float32)
