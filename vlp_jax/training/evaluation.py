"""The parts of a model that evaluate it, over the layout of its parameters."""

import functools
from collections.abc import Callable

from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import Targets, ranked_answers
from vlp_jax.evaluators.pair_encoder import PairEncoder
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.supervised import SupervisedHead
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.models.options import present
from vlp_jax.objectives.base import ObjectiveConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout, layout_in_use


def build_predictor(
    module: PretrainingModule, preprocessor: Preprocessor, layout: Layout
) -> Predictor:
    """The predictor that embeds images and captions for evaluators, over the layout's mesh."""

    def embed(variables, image, text, mask):
        return module.apply(variables, image, text, mask, method="embed")

    def match(variables, batch):
        return module.apply(variables, batch, method="match")

    def pooled(variables, image):
        return module.apply(variables, image, method=lambda own, x: own.model.pooled_image(x))

    def patches(variables, image):
        return module.apply(variables, image, method=lambda own, x: own.model.patch_embeddings(x))

    return Predictor(
        with_layout(embed, layout),
        preprocessor,
        layout.mesh,
        with_layout(match, layout),
        {"pooled": with_layout(pooled, layout), "patches": with_layout(patches, layout)},
        build_pair_encoder(module, preprocessor, layout),
    )


def build_pair_encoder(
    module: PretrainingModule, preprocessor: Preprocessor, layout: Layout
) -> PairEncoder:
    """The towers and the matching head apart, over the layout's mesh."""

    def encode(variables, batch):
        name = "image" if "image" in batch else "text"
        return module.apply(variables, method=lambda own: own.encode(batch, {name}, False)[name])

    def match(variables, image, text):
        return module.apply(variables, image, text, method="match_encodings")

    return PairEncoder(
        with_layout(encode, layout), with_layout(match, layout), preprocessor, layout.mesh
    )


def build_text_generator(
    module: PretrainingModule, predictor: Predictor, layout: Layout
) -> TextGenerator:
    """The text generator of evaluators, over the layout's mesh; used where the model has a
    decoder."""
    _, end, padding = predictor.preprocessor.tokenizer.special_ids

    def losses(variables, image, text, mask):
        return module.apply(variables, image, text, mask, method="caption_losses")

    def write(variables, image, start, search):
        return module.apply(
            variables, image, start, (end or [padding])[0], padding, search, method="write_captions"
        )

    return TextGenerator(with_layout(losses, layout), with_layout(write, layout), predictor)


def build_heads(
    module: PretrainingModule, predictor: Predictor, targets: Targets, layout: Layout
) -> dict[str, SupervisedHead]:
    """{name: head} of the objectives that predict a target for evaluators, over the layout's mesh.

    They are compiled at their first use.
    """

    def predictor_of(ask: Callable) -> Predictor:
        return Predictor(
            predictor.embed, predictor.preprocessor, layout.mesh, with_layout(ask, layout)
        )

    @functools.cache  # compiled once for all evaluations
    def writer(name: str, search: BeamSearch) -> Predictor:
        start, end, padding = predictor.preprocessor.tokenizer.special_ids
        return predictor_of(
            lambda variables, batch: module.apply(
                variables, name, batch, start[0], end[0], padding, search, method="write_answers"
            )
        )

    def head(name: str, objective: ObjectiveConfig, target: str) -> SupervisedHead:
        candidates, writes = None, None
        if objective.generates:
            tokenizer = predictor.preprocessor.tokenizer
            candidates = ranked_answers(
                target, targets.classes[target], tokenizer, present(objective.length)
            )
            writes = functools.partial(writer, name)

        def predict(variables, batch):
            return module.apply(variables, name, batch, candidates, method="predict")

        return SupervisedHead(objective.tasks, predictor_of(predict), target, targets, writes)

    return {
        name: head(name, objective, objective.target)
        for name, objective in module.objectives_config.items()
        if objective.target is not None
    }


def with_layout(function: Callable, layout: Layout) -> Callable:
    """`function`, traced with `layout` in use."""

    @functools.wraps(function)
    def traced(*arguments):
        with layout_in_use(layout):
            return function(*arguments)

    return traced
