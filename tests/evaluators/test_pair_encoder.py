"""Matching scores of cached encodings against those of pairs encoded one by one."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_experiment import experiment

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.pair_encoder import PairEncoder, PairScores
from vlp_jax.evaluators.pair_scores import matching_scorer
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.rerank import RERANK_METRICS, RerankTaskConfig
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_module
from vlp_jax.training.evaluation import build_predictor

SIZE, TOKENS = 11, 8


class Pictures:
    spec = "memory:pictures"

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        if i >= SIZE:
            raise IndexError(i)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return Sample(str(i), file.getvalue(), (f"{i} hearts", f"a fox {i % 4}"), {})


def encode(variables, batch):
    if "image" in batch:
        return Encoding(batch["image"].mean(axis=(2, 3)), None, None)
    return Encoding(batch["text"].astype(np.float32), batch["text_mask"], None)


def match(variables, image, text):
    own = jax.numpy.einsum("bi,bj->bij", image.tokens, text.tokens * text.mask)
    return jax.numpy.stack([own.sum(axis=(1, 2)), jax.numpy.sin(own).sum(axis=(1, 2))], axis=1)


def counted(function, counts, name):
    def call(variables, batch):
        counts.append((name, len(next(iter(batch.values())))))
        return function(variables, batch)

    return call


def context_of(devices, batch_size):
    preprocessor = Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), TOKENS, 4096))
    mesh = build_mesh(MeshConfig(), jax.devices()[:devices])
    encoder = PairEncoder(encode, match, preprocessor, mesh)

    def together(variables, batch):
        texts = {name: value for name, value in batch.items() if name != "image"}
        pictures = {"image": batch["image"]}
        return match(variables, encode(variables, pictures), encode(variables, texts))

    def embed(variables, image, text, mask):
        return (
            None if image is None else image[:, :3, 0, 0],
            None if text is None else text[:, 1:4] * mask[:, 1:4] * 0.001,
        )

    predictor = Predictor(embed, preprocessor, mesh, together, pair_encoder=encoder)
    return TaskContext(EvaluationSet(Pictures()), predictor, {}, batch_size)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 4), (8, 3), (1, 64)])
@pytest.mark.parametrize("held", [1, 1 << 30])
def test_each_tower_runs_once_and_scores_are_those_of_pairs(devices, batch_size, held):
    context = context_of(devices, batch_size)
    data, encoder = context.data, context.predictor.pair_encoder
    counts = []
    encoder.image_batch = counted(encoder.image_batch, counts, "image")
    encoder.text_batch = counted(encoder.text_batch, counts, "text")
    rng = np.random.default_rng(0)
    pairs = [
        (image, data.captions[caption])
        for image in range(0, SIZE, 2)
        for caption in rng.permutation(len(data.captions))[:5]
    ]
    rng.shuffle(pairs)
    pairs = [(int(image), str(caption)) for image, caption in pairs]
    expected = context.ask(context.predictor, data)(pairs)
    found = PairScores(context, data, encoder, held)(pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    rows = -(-batch_size // devices) * devices
    texts = len({text for _, text in pairs})
    blocks = -(-texts // batch_size) if held == 1 else 1
    assert [n for name, n in counts if name == "text"] == [rows] * -(-texts // batch_size)
    calls = sum(name == "image" for name, _ in counts)
    # six images, in each block of captions at most once
    most = -(-(SIZE // 2 + 1) // batch_size)
    assert calls == most if blocks == 1 else most <= calls <= blocks * most


def test_reranking_has_the_figures_of_pairs_encoded_one_by_one():
    context = context_of(1, 4)
    task = RerankTaskConfig(candidates=4)
    task.check(context)
    cached = task.run(context)
    context.predictor.pair_encoder = None
    assert {*cached} == {*RERANK_METRICS}
    assert cached == pytest.approx(task.run(context), abs=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["cross_attention", "merged", "concatenation", "in_text_tower"])
def test_models_score_as_before(kind):
    fusion = {"kind": kind}
    if kind in ("cross_attention", "merged"):
        fusion |= {"depth": 1, "width": 8, "heads": 2, "mlp_dim": 8}
    changes = {} if kind != "in_text_tower" else {"start_token": False}
    config = experiment(
        objectives={
            "contrastive": {"kind": "clip"},
            "matching": {"kind": "matching", "negatives": "uniform"},
        },
        model__fusion={**fusion, **changes},
        model__text__vocab_size=4096,
    )
    module = build_module(config)
    preprocessor = Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), 5, 4096))
    mesh = MeshConfig(data=1)
    layout = build_layout(mesh, build_mesh(mesh, jax.devices()[:1]))
    predictor = build_predictor(module, preprocessor, layout)
    data = EvaluationSet(Pictures())
    context = TaskContext(data, predictor, None, 4)
    pairs = [(i, data.captions[(3 * i) % len(data.captions)]) for i in range(SIZE)]
    batch = predictor.pair_arrays([*data.pairs(preprocessor, 1, pairs)])
    batch["image"] = batch["image"] / np.float32(255)
    context.variables = jax.jit(lambda key: module.init(key, batch, method="match"))(
        jax.random.key(0)
    )
    expected = context.ask(predictor, data)(pairs)[:, 1]
    found = matching_scorer(context, data)(pairs)
    assert np.ptp(found) > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-6)
