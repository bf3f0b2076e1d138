"""Contrastive losses that never hold all pairs of a batch: in chunks, and around the ring of
devices.

Values and gradients are those of `contrastive_losses.py`. Memory, forward and backward, for b
examples per device, B in all, embeddings of width E and chunks of c texts: about b x c + 2 B x E
for the chunked losses, b x c + 8 b x E for the ring.
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


def chunked_softmax_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    identities: Identities = (),
    label_smoothing: float = 0.0,
    chunk_size: int = CHUNK,
) -> jax.Array:
    """InfoNCE in both directions (Radford et al. 2021, figure 3), in chunks of texts.

    Each device's images are compared with all texts, `chunk_size` at a time.

    Args:
      image, text: [B, E] unit vectors, sharded over the batch axes of the current layout.
      scale: scalar that multiplies their cosines.
      identities: int32 [B, 2] arrays, such as `caption_id` and `image_id`; image i and text j are a
        match where i = j or where examples i and j agree in one of these. A row's target is uniform
        over its positives.
      label_smoothing: weight of the uniform distribution in the targets.
      chunk_size: number of texts that a device processes at once.
    Returns: the mean over examples and directions, float32.
    Raises: MeshError for a batch that does not divide over the devices.
    """
    exchange = Exchange.in_use(ring=False, chunk=chunk_size)
    return loss_and_accuracy(
        SoftmaxPairs(label_smoothing=label_smoothing), exchange, image, text, scale, 0.0, identities
    )[0]


def ring_softmax_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    identities: Identities = (),
    label_smoothing: float = 0.0,
    chunk_size: int = CHUNK,
) -> jax.Array:
    """`chunked_softmax_contrastive` with texts passed from device to device, so that no device
    gathers them.

    Args:
      image, text, scale, identities, label_smoothing, chunk_size: as there.
    Returns: the mean over examples and directions, float32.
    Raises: MeshError for a batch that does not divide over the devices.
    """
    exchange = Exchange.in_use(ring=True, chunk=chunk_size)
    return loss_and_accuracy(
        SoftmaxPairs(label_smoothing=label_smoothing), exchange, image, text, scale, 0.0, identities
    )[0]


def chunked_sigmoid_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    identities: Identities = (),
    chunk_size: int = CHUNK,
) -> jax.Array:
    """Pairwise sigmoid loss (Zhai et al. 2023, eq. 1), in chunks of texts.

    Each device's images are compared with all texts, `chunk_size` at a time.

    Args:
      image, text, scale, identities, chunk_size: as in `chunked_softmax_contrastive`.
      bias: scalar.
    Returns: the sum over pairs divided by B, float32.
    Raises: MeshError for a batch that does not divide over the devices.
    """
    exchange = Exchange.in_use(ring=False, chunk=chunk_size)
    return loss_and_accuracy(SigmoidPairs(), exchange, image, text, scale, bias, identities)[0]


def ring_sigmoid_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    identities: Identities = (),
    chunk_size: int = CHUNK,
) -> jax.Array:
    """`chunked_sigmoid_contrastive` with texts passed from device to device, in both directions.

    See Zhai et al. 2023, figure 1.

    Args:
      image, text, scale, bias, identities, chunk_size: as there.
    Returns: the sum over pairs divided by B, float32.
    Raises: MeshError for a batch that does not divide over the devices.
    """
    exchange = Exchange.in_use(ring=True, chunk=chunk_size)
    return loss_and_accuracy(SigmoidPairs(), exchange, image, text, scale, bias, identities)[0]


def loss_and_accuracy(
    pairs: PairLoss,
    exchange: Exchange,
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array | float,
    identities: Identities,
) -> tuple[jax.Array, jax.Array]:
    """The loss, and the accuracy: the fraction of images whose nearest text in the batch is a
    positive.

    Args:
      pairs: the loss.
      exchange: the implementation, in chunks or around the ring.
      image, text, scale, bias, identities: as in the four functions above.
    Returns: the loss, and the accuracy, a scalar in [0, 1], without gradient; a tie counts as
      correct.
    """
    exchange.check(len(image))
    labels = (
        (jnp.arange(len(image), dtype=jnp.int32),),
        *((identity[:, 0], identity[:, 1]) for identity in identities),
    )
    return _pairwise(pairs, exchange, image, text, jnp.asarray(scale), jnp.asarray(bias), labels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pairwise(pairs, exchange, image, text, scale, bias, labels):
    return _forward(pairs, exchange, image, text, scale, bias, labels)[0]


def _forward(pairs, exchange, image, text, scale, bias, labels):
    """The first pass: the summaries of each example, and from them the loss."""
    size = len(image)

    def local(batched, whole):
        image, text, labels = batched
        loss = pairs.at(*whole, size)

        def visit(columns, rows, moving):
            cosine, positives = _block(image, labels, *columns)
            return tuple(
                loss.merge(_stack(known, loss.summarise(cosine, positives, axis)))
                for known, axis in ((rows, 1), (moving, 0))
            )

        def empty(count):
            return loss.summarise(
                jnp.zeros((count, 0), _dtype(image, text)), jnp.zeros((count, 0), bool), 1
            )

        images, texts = exchange.visit_all(
            visit, (text, labels), empty(len(image)), empty, loss.merge
        )
        value = 0.5 * (loss.losses(images) + loss.losses(texts)).sum() / size
        correct = (images.own_max >= images.other_max).sum(dtype=value.dtype) / size
        return (loss.slopes(images), loss.slopes(texts)), exchange.total((value, correct))

    slopes, results = exchange.on_each_device(local, (image, text, labels), (scale, bias))
    return results, (image, text, scale, bias, labels, slopes)


def _backward(pairs, exchange, residuals, cotangents):
    """The second pass: every block again, and its part of the gradients."""
    image, text, scale, bias, labels, slopes = residuals
    size = len(image)

    def local(batched, whole):
        image, text, labels, (images, texts) = batched
        scale, bias, factor = whole
        loss, dtype = pairs.at(scale, bias, size), _dtype(image, text)

        def visit(columns, rows, text_gradient):
            text, labels_of_columns, texts = columns
            cosine, positives = _block(image, labels, text, labels_of_columns)
            slope = loss.slope(cosine, positives, images, 1) + loss.slope(
                cosine, positives, texts, 0
            )
            parts = inner("ij,jd->id", slope, text), (slope * cosine).sum(1), slope.sum(1)
            return jax.tree.map(jnp.add, rows, parts), text_gradient + inner(
                "ij,id->jd", slope, image
            )

        def empty(count):
            return jnp.zeros((count, text.shape[1]), dtype)

        start = empty(len(image)), jnp.zeros(len(image), dtype), jnp.zeros(len(image), dtype)
        (image_gradient, *scalars), text_gradient = exchange.visit_all(
            visit, (text, labels, texts), start, empty, add
        )
        sums = exchange.total(tuple(factor * rows.sum() for rows in scalars))
        return (scale * factor * image_gradient, scale * factor * text_gradient), sums

    factor = 0.5 * cotangents[0] / size
    of_vectors, of_scalars = exchange.on_each_device(
        local, (image, text, labels, slopes), (scale, bias, factor)
    )
    found, wanted = (*of_vectors, *of_scalars), (image, text, scale, bias)
    return *(gradient.astype(x.dtype) for gradient, x in zip(found, wanted, strict=True)), None


_pairwise.defvjp(_forward, _backward)


def _block(image, labels, text, labels_of_columns):
    """Cosines and positives [b, c] of a device's images with some texts."""
    agree = (
        functools.reduce(
            operator.and_, (a[:, None] == b[None, :] for a, b in zip(rows, columns, strict=True))
        )
        for rows, columns in zip(labels, labels_of_columns, strict=True)
    )
    return cosines(image, text), functools.reduce(operator.or_, agree)


def _stack(*trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _dtype(image, text):
    return jnp.promote_types(jnp.result_type(image, text), jnp.float32)
