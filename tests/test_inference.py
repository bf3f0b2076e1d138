"""`vlp_jax.Model` in Python: what its methods give is what the module gives for the same inputs."""

import jax
import numpy as np
import pytest
from PIL import Image

import vlp_jax
from vlp_jax import main
from vlp_jax.errors import ConfigError

RNG = np.random.default_rng(0)
IMAGES = [Image.fromarray(RNG.integers(0, 256, (20 + i, 30, 3), np.uint8)) for i in range(5)]
TEXTS = [f"a photo of thing number {i}" for i in range(5)]


@pytest.fixture(scope="module")
def blip():
    return vlp_jax.create_model("blip:smoke")[:2]


def batch(model):
    return model.preprocessor(images=IMAGES, texts=TEXTS)


@pytest.mark.full
def test_embeddings_and_similarities_of_any_number_are_those_of_one_batch(blip):
    model, variables = blip
    image, text = model.embed(variables, **batch(model))
    images = model.embed_images(variables, IMAGES, batch_size=2)
    texts = model.embed_texts(variables, TEXTS, batch_size=3)
    np.testing.assert_allclose(images, image, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(texts, text, rtol=1e-5, atol=1e-6)
    similarity = model.similarity(variables, IMAGES[:2], TEXTS)
    np.testing.assert_allclose(similarity, image[:2] @ text.T, rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_probabilities_of_pairs_are_those_of_the_matching_head(blip):
    model, variables = blip
    logits = model.module.apply(variables, batch(model), method="match")
    expected = np.asarray(jax.nn.softmax(logits))[:, 1]
    found = model.match(variables, IMAGES, TEXTS, batch_size=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="as many texts as images, got 4 and 5"):
        model.match(variables, IMAGES, TEXTS[:4])


@pytest.mark.full
def test_captions_do_not_depend_on_the_batch(blip):
    model, variables = blip
    found = model.caption(variables, IMAGES, num_beams=2)
    assert len(found) == 5
    assert found == model.caption(variables, IMAGES, num_beams=2, batch_size=2)


@pytest.mark.full
def test_an_answer_is_that_of_the_answering_head(tmp_path):
    flags = ["--config.steps=1", "--config.evaluators={}", "--config.data.batch_size=8"]
    config = "--config=vqa_generative:smoke"
    assert main.main([config, f"--workdir={tmp_path}/run", *flags]) == 0
    model, variables, _ = vlp_jax.load(f"{tmp_path}/run")
    found = model.answer(variables, IMAGES, TEXTS)
    assert len(found) == 5
    assert found == model.answer(variables, IMAGES, TEXTS, batch_size=2)
    config = "--config=vqa_fusion:smoke"
    assert main.main([config, f"--workdir={tmp_path}/classes", *flags]) == 0
    model, variables, _ = vlp_jax.load(f"{tmp_path}/classes")
    (target,) = model.targets.classes.values()
    assert {*model.answer(variables, IMAGES, TEXTS)} <= {*map(str, target)}


def test_what_a_model_cannot_do_is_one_line():
    model, variables, _ = vlp_jax.create_model("clip_emoji:smoke")
    for method, what in (("match", "matching"), ("answer", "answering")):
        with pytest.raises(ConfigError, match=f"{method}: the model has no objective .*{what}"):
            getattr(model, method)(variables, IMAGES, TEXTS)
    with pytest.raises(ConfigError, match="caption: the model has no objective .*captioning"):
        model.caption(variables, IMAGES)
