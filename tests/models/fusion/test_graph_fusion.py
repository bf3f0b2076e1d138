"""The interactive network: its rounds against float64 NumPy, hidden nodes, and what it is built
from and trained by."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_oracle import EQUATIONS, exact, parameters
from parity import relative_error
from tiny_experiment import batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.graph import GRAPH_LAYERS, word_neighbours
from vlp_jax.models.fusion.graph_fusion import GraphFusion, GraphFusionConfig
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.shapes import Grid
from vlp_jax.sharding.layout import Layout, layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import PRESETS
from vlp_jax.training.build import build_module

WIDTH, HEADS, NODES = 6, 2, 7
SIZE = dict(width=WIDTH, heads=HEADS, mlp_dim=10, activation="relu", image_neighbours=4)
MASK = np.arange(NODES) < np.array([[7], [4], [1]])
RNG = np.random.default_rng(0)
LAYERS = sorted(GRAPH_LAYERS)
NOWHERE = [np.nan] * 4

GRID = Grid(side=2, before=1)
IMAGE = RNG.normal(size=(3, GRID.tokens, 4)).astype(np.float32)
TEXT = RNG.normal(size=(3, NODES, 8)).astype(np.float32)


def encodings(text=TEXT, mask=MASK):
    return Encoding(jnp.asarray(IMAGE), None, None), Encoding(
        jnp.asarray(text), jnp.asarray(mask), None
    )


def network(layer, rounds=1):
    return GraphFusion(GraphFusionConfig(**SIZE, layer=layer, rounds=rounds), GRID, words_before=1)


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def message_across(p, x, others):
    q, k, v = (
        np.einsum("nd,dhk->hnk", y, p[part]["kernel"]) + p[part]["bias"][:, None]
        for y, part in ((x, "query"), (others, "key"), (others, "value"))
    )
    weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS))
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    return np.einsum("hnk,hkd->nd", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def interactive_round(p, layer, nodes, near):
    """g = h + G(norm h); c = g + attention(norm g, norm of the other's g); c + MLP(norm c)."""
    told = {
        name: x + EQUATIONS[layer](p[f"{name}_graph"], norm(p[f"{name}_graph_norm"], x), near[name])
        for name, x in nodes.items()
    }
    said = {name: norm(p[f"{name}_cross_norm"], x) for name, x in told.items()}
    after = {}
    for name, other in (("image", "text"), ("text", "image")):
        c = told[name] + message_across(p[f"{name}_cross"], said[name], said[other])
        mlp = p[f"{name}_mlp"]
        after[name] = c + dense(
            mlp["out"], np.maximum(dense(mlp["in"], norm(p[f"{name}_mlp_norm"], c)), 0)
        )
    return after


@pytest.mark.full
@pytest.mark.parametrize("layer", LAYERS)
def test_rounds_of_the_interactive_network_equal_float64_numpy_on_the_real_nodes_alone(layer):
    module = network(layer, rounds=2)
    params = parameters(module, *encodings())
    fused, p = module.apply({"params": params}, *encodings()), exact(params)
    assert fused.pooled.shape == (3, 2 * WIDTH) and fused.image_tokens.shape == (3, 5, WIDTH)
    for row, mask in enumerate(MASK):
        nodes = {
            "image": dense(p["image_in"], IMAGE[row].astype(np.float64)),
            "text": dense(p["text_in"], TEXT[row, mask].astype(np.float64)),
        }
        near = {
            "image": np.pad(1 - np.eye(4) - np.eye(4)[::-1], (1, 0)),
            "text": word_neighbours(mask.sum(), 2, before=1),
        }
        for i in range(2):
            nodes = interactive_round(p[f"round_{i}"], layer, nodes, near)
        nodes = {name: norm(p[f"{name}_norm"], x) for name, x in nodes.items()}
        assert relative_error(fused.tokens[row, mask], nodes["text"]) <= 2e-5
        assert relative_error(fused.image_tokens[row], nodes["image"]) <= 2e-5
        pooled = np.concatenate([nodes["text"].mean(0), nodes["image"].mean(0)])
        assert relative_error(fused.pooled[row], pooled) <= 2e-5


BOXES = np.array(
    [
        [[0.0, 0.0, 0.75, 1.0], [0.5, 0.25, 1.0, 1.0], [0.8, 0.0, 1.0, 0.2]],
        [[0.1, 0.2, 0.9, 0.6], NOWHERE, NOWHERE],
        [[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 1.0, 1.0], NOWHERE],
    ],
    np.float32,
)
# of the first picture's; in the others no two overlap
OVERLAPS = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
EDGES = np.random.default_rng(5).random((3, NODES - 1, NODES - 1)) < 0.3
EDGES |= EDGES.swapaxes(1, 2)


def given(which="overlap"):
    """A network of boxes and parses, and the encodings that have them."""
    image, text = encodings()
    config = GraphFusionConfig(**SIZE, regions="boxes", box_neighbours=which, words="dependencies")
    module = GraphFusion(config, GRID, words_before=1)
    return module, image.replace(boxes=jnp.asarray(BOXES)), text.replace(edges=jnp.asarray(EDGES))


def means(tokens, boxes):
    """The mean of the 2 x 2 map under each box, in float64."""
    regions = []
    for left, top, right, bottom in boxes.astype(np.float64):
        areas = np.array(
            [
                [
                    max(0, min(right, x + 0.5) - max(left, x))
                    * max(0, min(bottom, y + 0.5) - max(top, y))
                    for x in (0, 0.5)
                ]
                for y in (0, 0.5)
            ]
        ).reshape(-1)
        regions.append(areas @ tokens / areas.sum())
    return np.array(regions)


@pytest.mark.full
@pytest.mark.parametrize("which", ["overlap", "all"])
def test_with_boxes_and_parses_the_network_equals_float64_numpy_on_the_real_nodes_alone(which):
    module, image, text = given(which)
    params = parameters(module, image, text)
    fused, p = module.apply({"params": params}, image, text), exact(params)
    assert fused.image_tokens.shape == (3, 3, WIDTH)
    for row, mask in enumerate(MASK):
        shown = np.isfinite(BOXES[row]).all(-1)
        regions = means(IMAGE[row, 1:].astype(np.float64), BOXES[row, shown])
        nodes = {
            "image": dense(p["image_in"], regions),
            "text": dense(p["text_in"], TEXT[row, mask].astype(np.float64)),
        }
        overlaps = OVERLAPS if row == 0 else np.zeros((3, 3), bool)
        near = {
            "image": (overlaps if which == "overlap" else ~np.eye(3, dtype=bool))[
                np.ix_(shown, shown)
            ],
            "text": np.pad(EDGES[row] & ~np.eye(NODES - 1, dtype=bool), (1, 0))[np.ix_(mask, mask)],
        }
        for i in range(2):
            nodes = interactive_round(p[f"round_{i}"], "attention", nodes, near)
        nodes = {name: norm(p[f"{name}_norm"], x) for name, x in nodes.items()}
        assert relative_error(fused.tokens[row, mask], nodes["text"]) <= 2e-5
        assert relative_error(fused.image_tokens[row, shown], nodes["image"]) <= 2e-5
        assert (
            relative_error(
                fused.pooled[row], np.concatenate([nodes["text"].mean(0), nodes["image"].mean(0)])
            )
            <= 2e-5
        )


@pytest.mark.full
def test_in_bfloat16_boxes_and_parses_give_about_what_float32_gives():
    module, image, text = given()
    params = parameters(module, image, text)
    exactly = module.apply({"params": params}, image, text)
    half = module.clone(precision=Precision(jnp.bfloat16))
    image, text = (side.replace(tokens=side.tokens.astype(jnp.bfloat16)) for side in (image, text))
    fused = half.apply({"params": params}, image, text)
    for name in ("tokens", "image_tokens", "pooled"):
        found, expected = getattr(fused, name), getattr(exactly, name)
        assert found.dtype == jnp.bfloat16
        # a norm makes 20 times of one node's
        assert 1e-4 < relative_error(found.astype(jnp.float32), expected) <= 0.1


@pytest.mark.full
def test_more_room_for_boxes_and_edges_of_padding_change_nothing():
    module, image, text = given()
    params = parameters(module, image, text)
    fused = module.apply({"params": params}, image, text)
    more = image.replace(boxes=jnp.concatenate([jnp.full((3, 2, 4), jnp.nan), image.boxes], axis=1))
    hidden = ~(MASK[:, 1:, None] & MASK[:, None, 1:])
    for other in (
        module.apply({"params": params}, more, text),
        module.apply({"params": params}, image, text.replace(edges=text.edges ^ hidden)),
    ):
        np.testing.assert_allclose(other.pooled, fused.pooled, atol=1e-5)
        np.testing.assert_allclose(
            np.asarray(other.tokens)[MASK], np.asarray(fused.tokens)[MASK], atol=1e-5
        )


@pytest.mark.full
@pytest.mark.parametrize("layer", LAYERS)
def test_more_padding_and_hidden_nodes_in_another_order_change_nothing(layer):
    module = network(layer, rounds=2)
    params = parameters(module, *encodings())
    fused = module.apply({"params": params}, *encodings())
    noise = 9.0 * RNG.normal(size=(3, 3, 8)).astype(np.float32)
    longer = encodings(np.concatenate([TEXT, noise], axis=1), np.pad(MASK, ((0, 0), (0, 3))))
    moved = TEXT.copy()
    moved[1, 4:], moved[2, 1:] = TEXT[1, [6, 4, 5]], TEXT[2, [3, 6, 1, 5, 4, 2]]
    for other in (longer, encodings(moved)):
        found = module.apply({"params": params}, *other)
        np.testing.assert_allclose(found.pooled, fused.pooled, atol=1e-5)
        np.testing.assert_allclose(found.image_tokens, fused.image_tokens, atol=1e-5)
        np.testing.assert_allclose(
            np.asarray(found.tokens)[:, :NODES][MASK], np.asarray(fused.tokens)[MASK], atol=1e-5
        )


@pytest.mark.full
@pytest.mark.parametrize("layer", LAYERS)
def test_hidden_regions_may_hold_anything(layer):
    module, shown = network(layer, rounds=2), np.arange(GRID.tokens) < np.array([[5], [3], [2]])
    image, text = encodings()
    params, image = parameters(module, image, text), image.replace(mask=jnp.asarray(shown))
    fused, other = (
        module.apply(
            {"params": params},
            image.replace(tokens=jnp.where(shown[:, :, None], IMAGE, noise)),
            text,
        )
        for noise in (IMAGE, 9.0 - IMAGE)
    )
    np.testing.assert_array_equal(fused.pooled, other.pooled)
    np.testing.assert_array_equal(fused.tokens, other.tokens)
    np.testing.assert_array_equal(
        np.asarray(fused.image_tokens)[shown], np.asarray(other.image_tokens)[shown]
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "layer", [pytest.param("attention", marks=pytest.mark.slow), "convolution"]
)
def test_gradients_are_finite_and_none_come_from_hidden_nodes(layer):
    module = network(layer, rounds=2)
    params = parameters(module, *encodings())

    def loss(params, text):
        fused = module.apply({"params": params}, *encodings(text))
        return jnp.sin(fused.pooled).sum() + jnp.sin(fused.image_tokens).sum()

    of_params, of_text = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(TEXT))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_params))
    assert (np.asarray(of_text)[~MASK] == 0).all() and (
        np.abs(np.asarray(of_text))[MASK].max(-1) > 0
    ).all()


@pytest.mark.full
@pytest.mark.parametrize("layer", LAYERS)
def test_over_a_mesh_nodes_and_gradients_are_those_of_one_device(layer):
    module = network(layer, rounds=2)
    image, text = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), encodings())
    params, mesh = parameters(module, image, text), build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))

    def loss(params, image, text):
        return jnp.sin(module.apply({"params": params}, image, text).pooled).sum()

    expected = jax.jit(jax.value_and_grad(loss))(params, image, text)
    with layout_in_use(Layout(mesh, PRESETS["fsdp+tensor"])):
        spread = batch_sharding(mesh)
        found = jax.jit(jax.value_and_grad(loss), in_shardings=(None, spread, spread))(
            params, image, text
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6),
        found,
        expected,
    )


GRAPH = dict(kind="graph", width=8, heads=2, mlp_dim=8, rounds=1)


FUSING = dict(pair=dict(kind="matching", negatives="uniform"))


def towers(**changes):
    return experiment(
        **dict(model__image__image_size=12, model__fusion=GRAPH, objectives=FUSING) | changes
    ).model


def built(model):
    return model.fusion.build(model.shapes(), Precision())


def test_the_graphs_know_the_towers_grids_and_class_tokens():
    module = built(
        towers(model__image__registers=2, model__text__pooling="cls", model__text__causal=False)
    )
    assert (module.grid, module.words_before) == (Grid(3, 1, 2), 1)
    module = built(towers(model__image__pooling="mean", model__text__pooling="mean"))
    assert (module.grid, module.words_before) == (Grid(3), 0)
    assert experiment(
        model__image=dict(kind="resnet", depth=18, image_size=64)
    ).model.image.grid == Grid(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model__image__token_drop=0.5), "model.image.token_drop: 0.5 leaves holes"),
        (
            dict(model__fusion=dict(GRAPH, heads=3)),
            "model.fusion: width 8 does not divide into 3 heads",
        ),
        (
            dict(model__fusion=dict(GRAPH, image_neighbours=6)),
            "model.fusion.image_neighbours: must be one of 4, 8",
        ),
    ],
)
def test_what_cannot_be_a_graph_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        built(towers(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_pairs_words_and_patches_are_told_from_graphs(layer):
    objectives = dict(
        pair=dict(kind="matching", negatives="uniform"),
        words=dict(kind="masked_language"),
        both=dict(kind="masked_joint", codes=8, code_width=4, smallest_block=1),
    )
    module = build_module(experiment(objectives=objectives, model__fusion=dict(GRAPH, layer=layer)))
    batch = jax.tree.map(jnp.asarray, batch_of()) | {
        "image": jnp.asarray(RNG.normal(size=(8, 8, 8, 3)), jnp.float32)
    }
    silent_nowhere(module, batch)


@pytest.mark.slow
def test_pairs_and_words_are_told_from_graphs_of_boxes_and_parses():
    objectives = dict(
        pair=dict(kind="matching", negatives="uniform"), words=dict(kind="masked_language")
    )
    module = build_module(
        experiment(
            objectives=objectives,
            model__fusion=dict(GRAPH, regions="boxes", words="dependencies"),
            data__boxes=dict(field="b", count=3),
            data__dependencies=dict(field="d"),
        )
    )
    batch = jax.tree.map(jnp.asarray, batch_of()) | {
        "image": jnp.asarray(RNG.normal(size=(8, 8, 8, 3)), jnp.float32)
    }
    boxes, edges = np.tile(BOXES, (3, 1, 1))[:8], np.tile(EDGES, (3, 1, 1))[:8, :5, :5]
    gradients = silent_nowhere(
        module, batch | {"boxes": jnp.asarray(boxes), "word_edges": jnp.asarray(edges)}
    )
    others = {"boxes": boxes[::-1], "word_edges": ~edges}
    for name, other in others.items():  # both are heard
        found = silent_nowhere(
            module, batch | {"boxes": boxes, "word_edges": edges} | {name: jnp.asarray(other)}
        )
        assert any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradients), strict=True)
        ), name


def silent_nowhere(module, batch):
    """The gradients of a step; all of them are finite, and no parameter of the fusion has none."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = nn.meta.unbox(module.init(keys, batch))

    def loss(params):
        return module.apply({"params": params}, batch, True, rngs=keys).value

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    largest = jax.tree.map(lambda leaf: np.abs(leaf).max(), gradients["model"]["fusion"])
    silent = [path for path, size in jax.tree_util.tree_leaves_with_path(largest) if size == 0]
    assert not silent, silent
    return gradients
