"""The chunked and the ring losses: float64 NumPy's values and gradients on every mesh, in memory
that does not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_oracle import pairs, relative_error, sigmoid_oracle, softmax_oracle

from vlp_jax.errors import MeshError
from vlp_jax.objectives import contrastive_blocks
from vlp_jax.objectives.contrastive import SigmoidContrastiveConfig, SoftmaxContrastiveConfig
from vlp_jax.sharding.layout import Layout, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh

BATCH, SMOOTHING, BIAS = 24, 0.1, -10.0
# data, fsdp, tensor
ONE, TWO, THREE, FOUR, EIGHT, ALL_AXES = (
    (1, 1, 1),
    (2, 1, 1),
    (3, 1, 1),
    (1, 4, 1),
    (8, 1, 1),
    (2, 2, 2),
)
CASES = [
    ("ring", "softmax", sizes, "float32") for sizes in (ONE, TWO, THREE, FOUR, EIGHT, ALL_AXES)
]
CASES += [("ring", "sigmoid", sizes, "float32") for sizes in (EIGHT, ALL_AXES)]
CASES += [("chunked", "softmax", sizes, "float32") for sizes in (None, ALL_AXES)] + [
    ("chunked", "sigmoid", EIGHT, "float32")
]
CASES += [("ring", kind, ALL_AXES, "float64") for kind in ("softmax", "sigmoid")] + [
    ("chunked", "softmax", THREE, "float64")
]
# The loss and the way that pairs meet know nothing of each other: what is left of all combinations
# is for the slow tests.
EVERY = [
    (implementation, kind, sizes, dtype)
    for implementation in ("ring", "chunked")
    for kind in ("softmax", "sigmoid")
    for sizes in (None, ONE, TWO, THREE, FOUR, EIGHT, ALL_AXES)
    for dtype in ("float32", "float64")
]
CASES += [pytest.param(*case, marks=pytest.mark.slow) for case in EVERY if case not in CASES]


def identities(batch=BATCH):
    """Caption and image fingerprints that make some examples, also on different devices, each
    other's positives; and [B, B]."""
    caption = np.stack([np.arange(batch), np.full(batch, 7)], axis=1).astype(np.int32)
    image = caption[:, ::-1].copy()
    caption[3] = caption[batch - 2] = caption[0]
    image[6] = image[5]
    positives = [(ids[:, None] == ids[None, :]).all(axis=-1) for ids in (caption, image)]
    return caption, image, positives[0] | positives[1]


def compiled(implementation, kind, sizes, smoothing=SMOOTHING, chunk_size=3):
    """(image, text, scale[, bias], caption ids, image ids) -> value and gradients, over a mesh of
    such sizes."""
    mesh = (
        None
        if sizes is None
        else build_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))))
    )
    function = getattr(contrastive_blocks, f"{implementation}_{kind}_contrastive")
    options = dict(
        chunk_size=chunk_size, **(dict(label_smoothing=smoothing) if kind == "softmax" else {})
    )

    def loss(*arguments):
        with layout_in_use(None if mesh is None else Layout(mesh, ())):
            return function(*arguments[:-2], arguments[-2:], **options)

    scalars = 1 if kind == "softmax" else 2
    spread = None if mesh is None else batch_sharding(mesh)
    return jax.jit(
        jax.value_and_grad(loss, argnums=tuple(range(2 + scalars))),
        in_shardings=(spread, spread, *[None] * scalars, spread, spread),
    )


@pytest.mark.variants
@pytest.mark.parametrize(("implementation", "kind", "sizes", "dtype"), CASES)
def test_value_and_every_gradient_equal_float64_numpy(implementation, kind, sizes, dtype):
    caption, image_id, positives = identities()
    with jax.enable_x64(dtype == "float64"):
        function = compiled(implementation, kind, sizes)
        for noise in (None, 0.5):  # unrelated, aligned
            for scale in (1.0, 14.3, 100.0):
                image, text, _ = pairs(noise, batch=BATCH, seed=1)
                arrays = [jnp.asarray(x, dtype) for x in (image, text, scale)] + [
                    jnp.asarray(BIAS, dtype)
                ] * (kind == "sigmoid")
                # what the arrays hold after rounding
                exact = [np.asarray(x, np.float64) for x in arrays]
                expected = (
                    softmax_oracle(*exact, positives, SMOOTHING)
                    if kind == "softmax"
                    else sigmoid_oracle(*exact, positives)
                )
                value, gradients = function(*arrays, caption, image_id)
                errors = [
                    relative_error(a, b)
                    for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)
                ]
                assert max(errors) <= (1e-5 if dtype == "float32" else 1e-10), (
                    noise,
                    scale,
                    errors,
                )


@pytest.mark.full
@pytest.mark.parametrize("scale", [14.3, 100.0])
def test_the_ring_is_exact_where_nearly_every_pair_is_solved_and_the_loss_is_tiny(scale):
    image, text, positives = pairs(noise=1.0 if scale == 100 else 0.2, batch=48, dim=64)
    arrays = [jnp.asarray(x, jnp.float32) for x in (image, text, scale)]
    expected = softmax_oracle(*(np.asarray(x, np.float64) for x in arrays), positives, 0.0)
    assert expected[0] < 1e-3
    alone = np.arange(96, dtype=np.int32).reshape(48, 2)
    value, gradients = compiled("ring", "softmax", (4, 1, 1), smoothing=0.0)(*arrays, alone, alone)
    errors = [
        relative_error(a, b)
        for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)
    ]
    assert max(errors) <= 1e-5, errors


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_losses_and_gradients_are_finite_at_the_ends(kind):
    """All pairs as right or as wrong as they can be, alone in the batch, and everybody's positive;
    without a layout."""
    vectors = jnp.asarray(np.concatenate([np.eye(4), -np.eye(4)]), jnp.float32)
    different, same = np.arange(16, dtype=np.int32).reshape(8, 2), np.zeros((8, 2), np.int32)
    scalars = [jnp.float32(100.0)] + [jnp.float32(BIAS)] * (kind == "sigmoid")
    function = compiled("ring", kind, None, smoothing=0.0, chunk_size=8)
    for image, ids in ((vectors, different), (vectors, same), (vectors[:1], different[:1])):
        for sign in (1.0, -1.0):
            value, gradients = function(image, sign * image, *scalars, ids, ids)
            assert np.isfinite(value) and value >= 0.0
            assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_embeddings_are_compared_in_float32_and_get_bfloat16_gradients():
    image, text, _ = (jnp.asarray(x, jnp.bfloat16) for x in pairs(batch=BATCH))
    caption, image_id, _ = identities()
    wide = compiled("chunked", "softmax", None, chunk_size=BATCH)(
        image.astype(jnp.float32), text.astype(jnp.float32), jnp.float32(14.3), caption, image_id
    )
    value, gradients = compiled("chunked", "softmax", None, chunk_size=BATCH)(
        image, text, jnp.float32(14.3), caption, image_id
    )
    assert value.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, wide[0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0].astype(jnp.float32), wide[1][0], rtol=1e-2, atol=1e-6)


@pytest.mark.variants
@pytest.mark.parametrize("implementation", ["chunked", "ring"])
@pytest.mark.parametrize("objective", [SoftmaxContrastiveConfig, SigmoidContrastiveConfig])
def test_an_objective_reports_the_same_loss_and_metrics_by_every_implementation(
    objective, implementation
):
    image, text, _ = pairs(0.5, batch=BATCH)
    mixed = np.concatenate([text[:12], text[:11:-1]])  # only the first half are right
    caption, image_id, _ = identities()
    encodings = {
        "image_embedding": jnp.asarray(image, jnp.float32),
        "text_embedding": jnp.asarray(mixed, jnp.float32),
    }
    batch = {"text": jnp.zeros((BATCH, 3)), "caption_id": caption, "image_id": image_id}
    mesh = build_mesh(MeshConfig(data=4, fsdp=2))

    def outcome(**options):
        with layout_in_use(Layout(mesh, ())):
            return jax.jit(
                lambda: (
                    objective(**options)
                    .build()
                    .init_with_output(jax.random.key(0), encodings, batch, None)[0]
                )
            )()

    expected, found = outcome(), outcome(implementation=implementation, chunk_size=2)
    assert 0 < expected.metrics["batch_accuracy"] < 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_a_batch_that_does_not_divide_over_the_mesh_is_named():
    vectors = jnp.zeros((24, 4))
    with (
        layout_in_use(Layout(build_mesh(MeshConfig(data=5)), ())),
        pytest.raises(MeshError, match="a batch of 24 does not divide over data=5 x fsdp=1"),
    ):
        contrastive_blocks.ring_softmax_contrastive(vectors, vectors, 1.0)


def temporaries(implementation, kind, devices, rows, width, chunk_size):
    """Bytes a device that the compiled loss with its gradients needs, beside arguments and
    results."""
    batch = rows * devices
    shapes = [(batch, width), (batch, width)] + [()] * (1 if kind == "softmax" else 2)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes] + [
        jax.ShapeDtypeStruct((batch, 2), jnp.int32)
    ] * 2
    function = compiled(implementation, kind, (devices, 1, 1), chunk_size=chunk_size)
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.full
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_rings_memory_does_not_grow_with_the_devices(kind):
    few, many = (
        temporaries("ring", kind, devices, rows=64, width=64, chunk_size=64) for devices in (6, 8)
    )
    assert many < 1.05 * few


@pytest.mark.full
@pytest.mark.parametrize(
    ("implementation", "kind"), [("ring", "softmax"), ("ring", "sigmoid"), ("chunked", "softmax")]
)
def test_no_pass_keeps_the_blocks_of_pairs(implementation, kind):
    rows, devices = 512, 8
    pairs_of_a_device = 4 * rows * rows * devices
    assert (
        temporaries(implementation, kind, devices, rows, width=8, chunk_size=16)
        < pairs_of_a_device / 4
    )


def test_chunks_take_no_more_than_the_gathered_embeddings_and_their_gradients():
    rows, devices, width = 16, 8, 256
    bound = 4 * 4 * rows * devices * width
    assert temporaries("chunked", "softmax", devices, rows, width, chunk_size=16) <= bound
