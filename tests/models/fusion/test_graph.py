"""Graph layers against float64 NumPy written from the papers' equations; who is whose neighbour;
and what hidden nodes do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_oracle import EQUATIONS, exact, parameters
from parity import relative_error

from vlp_jax.models.fusion.graph import (
    GRAPH_LAYERS,
    box_neighbours,
    edges_of,
    normalised_adjacency,
    pooled_regions,
    word_neighbours,
)
from vlp_jax.models.layers.transformer import LayerOptions
from vlp_jax.models.shapes import Grid

WIDTH, HEADS, NODES = 6, 2, 7
OPTIONS = LayerOptions(WIDTH, HEADS, 10, activation="relu")
MASK = np.arange(NODES) < np.array([[7], [4], [1]])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, NODES, WIDTH)).astype(np.float32)
LAYERS = sorted(GRAPH_LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_equals_float64_numpy_on_the_real_nodes_alone(layer):
    module, near = GRAPH_LAYERS[layer](OPTIONS), RNG.random((NODES, NODES)) < 0.4
    near = near | near.T
    np.fill_diagonal(near, False)
    edges = edges_of(near, MASK)
    params = parameters(module, X, edges)
    out = module.apply({"params": params}, X, edges)
    for row, mask in enumerate(MASK):
        expected = EQUATIONS[layer](
            exact(params), X[row, mask].astype(np.float64), near[np.ix_(mask, mask)]
        )
        assert relative_error(out[row, mask], expected) <= 1e-5
        assert (np.asarray(out[row, ~mask]) == 0).all()


@pytest.mark.parametrize("layer", LAYERS)
def test_nodes_in_another_order_give_the_same_in_that_order_and_gradients_are_finite(layer):
    module, near, order = (
        GRAPH_LAYERS[layer](OPTIONS),
        word_neighbours(NODES, 2),
        RNG.permutation(NODES),
    )
    params = parameters(module, X, edges_of(near, MASK))
    one = module.apply({"params": params}, X, edges_of(near, MASK))
    other = module.apply(
        {"params": params}, X[:, order], edges_of(near[np.ix_(order, order)], MASK[:, order])
    )
    np.testing.assert_allclose(other, one[:, order], atol=1e-5)

    def loss(params, x, mask):
        return jnp.square(module.apply({"params": params}, x, edges_of(near, mask))).sum()

    # no node of the first is real
    gradients = jax.grad(loss, argnums=(0, 1))(params, X, MASK & (np.arange(3) > 0)[:, None])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert (np.asarray(gradients[1])[0] == 0).all() and (np.asarray(gradients[1])[2, 1:] == 0).all()


def test_the_weights_of_graph_attention_are_there_for_who_asks():
    module, edges = GRAPH_LAYERS["attention"](OPTIONS), edges_of(word_neighbours(NODES, 1), MASK)
    out, variables = module.init_with_output(jax.random.key(0), X, edges)
    assert variables.keys() == {"params"}
    seen, asked = module.apply(variables, X, edges, mutable="attention")
    weights = np.asarray(asked["attention"]["weights"][0])
    np.testing.assert_array_equal(seen, out)
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(edges[:, None], weights.shape))
    np.testing.assert_allclose(
        weights.sum(-1), np.broadcast_to(MASK[:, None], weights.shape[:3]), atol=1e-6
    )


def test_regions_have_four_or_eight_neighbours_and_tokens_without_a_place_none():
    grid = Grid(side=3, before=1, after=2)
    four, eight = grid.neighbours(4), grid.neighbours(8)
    assert four.shape == (12, 12) == (grid.tokens, grid.tokens)
    middle, corner = 1 + 4, 1
    assert set(np.flatnonzero(four[middle])) == {1 + 1, 1 + 3, 1 + 5, 1 + 7}
    assert set(np.flatnonzero(eight[middle])) == set(range(1, 10)) - {middle}
    assert set(np.flatnonzero(four[corner])) == {2, 4} and set(np.flatnonzero(eight[corner])) == {
        2,
        4,
        5,
    }
    for near in (four, eight):
        assert (near == near.T).all() and not near[[0, 10, 11]].any() and not near.diagonal().any()


def test_words_are_neighbours_within_the_window_and_a_class_token_has_none():
    near = word_neighbours(6, 2, before=1)
    assert [set(np.flatnonzero(row)) for row in near] == [
        set(),
        {2, 3},
        {1, 3, 4},
        {1, 2, 4, 5},
        {2, 3, 5},
        {3, 4},
    ]


NOWHERE = [np.nan] * 4
BOXES = np.array(
    [
        [[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0], [0.3, 0.05, 0.31, 0.93], NOWHERE],
        [
            [0.1, 0.2, 0.15, 0.22],
            [0.99999, 0.0, 1.0, 1.0],
            [0.0, 0.5, 0.5, 0.75],
            [0.5, 0.0, 0.8, 0.6],
        ],
    ],
    np.float32,
)


def test_a_region_is_the_mean_of_the_map_under_its_box():
    """In float64, cell by cell: the area that box and cell have in common."""
    grid, tokens = Grid(side=4, before=1, after=2), RNG.normal(size=(2, 19, 5)).astype(np.float32)
    found = pooled_regions(tokens, BOXES, grid)
    for picture, boxes in enumerate(BOXES.astype(np.float64)):
        for region, (left, top, right, bottom) in enumerate(boxes):
            total, area = np.zeros(5), 0.0
            for row in range(4):
                for column in range(4):
                    width = max(0.0, min(right, (column + 1) / 4) - max(left, column / 4))
                    height = max(0.0, min(bottom, (row + 1) / 4) - max(top, row / 4))
                    total += width * height * tokens[picture, 1 + 4 * row + column]
                    area += width * height
            expected = np.zeros(5) if np.isnan(left) else total / area
            np.testing.assert_allclose(found[picture, region], expected, atol=1e-5)


def test_pooling_has_no_gradient_for_tokens_without_a_place_and_a_finite_one_for_others():
    grid, tokens = (
        Grid(side=4, before=1, after=2),
        jnp.asarray(RNG.normal(size=(2, 19, 5)), jnp.float32),
    )
    # one without any area, as in an abstract batch
    boxes = np.concatenate([BOXES, np.zeros((2, 1, 4), np.float32)], axis=1)
    slopes = np.asarray(jax.grad(lambda x: jnp.sin(pooled_regions(x, boxes, grid)).sum())(tokens))
    assert (
        np.isfinite(slopes).all()
        and (slopes[:, [0, 17, 18]] == 0).all()
        and (slopes[0, 1:17] != 0).all()
    )


def test_boxes_are_neighbours_where_they_overlap_or_all_are():
    edges = np.asarray(box_neighbours(BOXES, "overlap"))
    assert [set(np.flatnonzero(row)) for row in edges[0]] == [
        {0, 1, 2},
        {0, 1, 2},
        {0, 1, 2},
        set(),
    ]
    # 2 and 3 only touch
    assert [set(np.flatnonzero(row)) for row in edges[1]] == [{0}, {1}, {2}, {3}]
    assert box_neighbours(BOXES, "all").all()


def test_the_adjacency_of_a_path_of_three():
    """Degrees with self loops are 2, 3 and 2."""
    expected = np.array([[1 / 2, 6**-0.5, 0], [6**-0.5, 1 / 3, 6**-0.5], [0, 6**-0.5, 1 / 2]])
    np.testing.assert_allclose(
        normalised_adjacency(edges_of(word_neighbours(3, 1), None))[0], expected, atol=1e-7
    )
