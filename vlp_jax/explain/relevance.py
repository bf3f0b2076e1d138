"""Relevance propagated through the attention of one or two modalities (Chefer et al. 2021)."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.explain.image_tower import (
    POOLING,
    lacks_attention,
    layer_paths,
    of_queries,
    patches_of,
    pooled_row,
    vit_of,
)
from vlp_jax.explain.method import MethodConfig, on_grid
from vlp_jax.explain.relevance_rules import (
    Relevance,
    averaged,
    cross_attention,
    identity_of,
    joined,
    normalised,
    self_attention,
)
from vlp_jax.explain.route import IMAGE, JOINT, POSITIONS, TEXT, Route, Step, route_of
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.models.fusion.attention import CoAttentionConfig
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.vision.vit_config import ViTConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelevanceConfig(MethodConfig):
    """Relevance of the patches, by the rules for self-attention and co-attention.

    Of retrieval, it passes through the image tower; of other scores, also through the text tower
    and the fusion or decoder.
    """

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """A Vision Transformer, and behind it attention alone."""
        lacking = lacks_attention(experiment)
        image = experiment.model.image
        if score.kind == "retrieval" or not isinstance(image, ViTConfig):
            return lacking
        route = route_of(experiment, score)
        crossing = route and not any(step.stream == IMAGE for step in route.layers[0])
        if route and (image.pooling != "queries" or crossing and not route.joint):
            return None
        return (
            f"attention alone between image and {score.kind}: a fusion or decoder by transformer "
            "layers, and no generated answer"
        )

    def maps(self, pairs: "Explained") -> np.ndarray:
        """The relevance of each patch to the score: [B, side, side]."""
        image = vit_of(pairs.config)
        cams = averaged_attention(pairs)
        tower = of_image_tower(pairs, cams)
        if pairs.score.kind == "retrieval":
            row = pooled_row(image, tower, lambda path: cams[path])
        else:
            route = route_of(pairs.config, pairs.score)
            assert route is not None
            row = of_route(pairs, route, cams, tower)
        return on_grid(patches_of(image, row), image.side)


def averaged_attention(pairs: "Explained") -> dict[str, np.ndarray]:
    """The averaged attention [B, N, M] of each module, in its last call."""
    return {
        path: averaged(calls[-1], pairs.attention_gradients[path][-1])
        for path, calls in pairs.attention.items()
    }


def of_image_tower(pairs: "Explained", cams: dict[str, np.ndarray]) -> np.ndarray:
    """Relevance of the tower's tokens to each token of its last layer: [B, N, N]."""
    image = vit_of(pairs.config)
    count = image.front + image.side**2 + image.registers
    relevance: Relevance = {(IMAGE, IMAGE): identity_of(count, len(pairs.batch["image"]))}
    for path in layer_paths(image):
        relevance = self_attention(relevance, IMAGE, cams[path])
    return relevance[IMAGE, IMAGE]


def of_route(
    pairs: "Explained", route: Route, cams: dict[str, np.ndarray], tower: np.ndarray
) -> np.ndarray:
    """Relevance of the image tower's tokens to the score: [B, N]."""
    text = of_text_tower(route, cams, tower)
    if route.joint:
        return of_joint(pairs, route, cams, tower, text)
    seen, count = seen_by_text(pairs, route, cams, tower), text.shape[1]
    relevance: Relevance = {
        (TEXT, TEXT): text,
        (IMAGE, IMAGE): tower,
        (TEXT, IMAGE): np.zeros((len(tower), count, tower.shape[2])),
    }
    if seen is None:
        relevance[IMAGE, TEXT] = np.zeros((len(tower), tower.shape[1], count))
    for layer in route.layers:
        relevance = through(relevance, layer, cams, seen)
    rows = text_rows(pairs, count)
    found = np.einsum("bn,bnm->bm", rows, relevance[TEXT, IMAGE])
    fusion = pairs.config.model.fusion
    if isinstance(fusion, CoAttentionConfig) and pairs.score.kind != "caption":
        found = found + image_row(pairs, relevance[IMAGE, IMAGE])
    return found


def through(
    relevance: Relevance,
    layer: tuple[Step, ...],
    cams: dict[str, np.ndarray],
    seen: np.ndarray | None,
) -> Relevance:
    """The relevance behind a layer; each stream reads the other as it was before."""
    before = relevance
    for step in layer:
        if step.memory is None:
            relevance = self_attention(relevance, step.stream, cams[step.path])
        else:
            relevance = cross_attention(
                relevance, step.stream, step.memory, cams[step.path], before, seen
            )
    return relevance


def seen_by_text(
    pairs: "Explained", route: Route, cams: dict[str, np.ndarray], tower: np.ndarray
) -> np.ndarray | None:
    """What each token that the text attends to takes from the tower's tokens, where queries pool
    them first: [B, Q, N]; None where they are the tower's own."""
    image = vit_of(pairs.config)
    if image.pooling != "queries" and not route.pooler:
        return None
    found = normalised(tower)
    if image.pooling == "queries":
        found = of_queries(image, cams[POOLING])[:, 1:] @ found
    return cams[route.pooler] @ found if route.pooler else found


def of_joint(
    pairs: "Explained",
    route: Route,
    cams: dict[str, np.ndarray],
    tower: np.ndarray,
    text: np.ndarray,
) -> np.ndarray:
    """Relevance of the image's tokens to the score in one stream of both: [B, N]."""
    front = [identity_of(1, len(tower))] * route.class_token
    relevance: Relevance = {(JOINT, JOINT): joined([*front, tower, text])}
    for layer in route.layers:
        for step in layer:
            relevance = self_attention(relevance, JOINT, cams[step.path])
    begin = int(route.class_token)
    behind = begin + tower.shape[1]
    matrix = relevance[JOINT, JOINT][:, :, begin:behind]
    if route.class_token:
        return matrix[:, 0]
    rows = text_rows(pairs, text.shape[1])
    return np.einsum("bn,bnm->bm", rows, matrix[:, behind:])


def of_text_tower(route: Route, cams: dict[str, np.ndarray], tower: np.ndarray) -> np.ndarray:
    """Relevance of the text's tokens to each other before they meet the image: [B, L, L].

    Tokens that only the text tower has, behind the others, are left out.
    """
    streams = [step.path for step in route.layers[0] if step.stream in (TEXT, JOINT)]
    count = cams[streams[0]].shape[1]
    count -= (tower.shape[1] + route.class_token) if route.joint else 0
    whole = cams[route.before[0].path].shape[1] if route.before else count
    relevance: Relevance = {(TEXT, TEXT): identity_of(whole, len(tower))}
    for step in route.before:
        relevance = self_attention(relevance, TEXT, cams[step.path])
    return relevance[TEXT, TEXT][:, :count, :count]


def text_rows(pairs: "Explained", count: int) -> np.ndarray:
    """How much of the score is of each token of the text: [B, count], with sum 1.

    It is of the pooled token, or in equal parts of those that predict tokens of a caption.
    """
    mask = np.asarray(pairs.batch["text_mask"])
    rows = np.zeros((len(mask), count))
    if pairs.score.kind == "caption":
        ahead = np.asarray(pairs.batch["predicted"], np.float64)[:, 1:]
        rows[:, : ahead.shape[1]] = ahead / np.maximum(ahead.sum(axis=1, keepdims=True), 1.0)
        return rows
    in_tower = isinstance(pairs.config.model.fusion, InTextTowerConfig)
    text: Any = pairs.config.model.text
    position = POSITIONS[text.pooling] if in_tower else 0
    places = mask.sum(axis=1) - 1 if position is None else np.full(len(mask), position)
    rows[np.arange(len(mask)), places] = 1.0
    return rows


def image_row(pairs: "Explained", relevance: np.ndarray) -> np.ndarray:
    """Relevance to the image stream's own pooled vector, of a co-attention fusion: [B, N]."""
    class_token = vit_of(pairs.config).class_token
    return relevance[:, 0] if class_token else relevance.mean(axis=1)
