"""The preprocessor: every way to hand in a picture, what comes out, and its journey through
JSON."""

import dataclasses
import io
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.boxes import BoxesConfig
from vlp_jax.data.images.preprocessing import ImagesConfig, normalise
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.text.dependency_parses import DependenciesConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.experiment import Experiment
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig

SIZE, LENGTH, VOCABULARY = 16, 9, 4096


def preprocessor(text=None, **images):
    return Preprocessor(
        SIZE, ImagesConfig(**images), load_tokenizer(text or TextConfig(), LENGTH, VOCABULARY)
    )


def noise(channels=3, size=24):
    return np.random.default_rng(0).integers(0, 256, (size, size + 7, channels), dtype=np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("channels", [3, 4])
def test_a_picture_means_the_same_however_it_is_handed_in(tmp_path, channels):
    array = noise(channels)
    path = tmp_path / "a.png"
    path.write_bytes(png(array))
    pictures = [array, Image.fromarray(array), png(array), str(path), path]
    preprocess = preprocessor()
    expected = preprocess(images=[array])["image"]
    assert (expected.shape, expected.dtype) == ((1, SIZE, SIZE, 3), np.float32)
    for picture in pictures:
        np.testing.assert_array_equal(preprocess(images=picture)["image"], expected)
    np.testing.assert_array_equal(
        preprocess(images=pictures)["image"], np.repeat(expected, len(pictures), axis=0)
    )


def test_where_boxes_and_parses_are_travels_along_and_older_checkpoints_have_neither():
    plain = preprocessor()
    given = dataclasses.replace(
        plain,
        boxes=BoxesConfig(field="a.b", count=5, unit="fraction"),
        dependencies=DependenciesConfig(field="c"),
    )
    for made in (plain, given):
        assert Preprocessor.from_json(json.loads(json.dumps(made.to_json()))) == made
    older = {
        name: value
        for name, value in plain.to_json().items()
        if name not in ("boxes", "dependencies")
    }
    assert Preprocessor.from_json(older) == plain


def test_an_array_of_pictures_is_a_batch():
    pictures = np.stack([noise(), 255 - noise()])
    preprocess = preprocessor()
    np.testing.assert_array_equal(
        preprocess(images=pictures)["image"], preprocess(images=list(pictures))["image"]
    )


def test_a_single_caption_is_a_batch_of_one():
    preprocess = preprocessor()
    single, listed = preprocess(texts="red heart"), preprocess(texts=["red heart"])
    assert single["text"].shape == (1, LENGTH)
    for name in ("text", "text_mask"):
        np.testing.assert_array_equal(single[name], listed[name])


def test_only_what_was_given_comes_out():
    preprocess = preprocessor()
    assert set(preprocess()) == set()
    assert set(preprocess(images=noise())) == {"image"}
    assert set(preprocess(texts="a")) == {"text", "text_mask"}
    assert set(preprocess(images=noise(), texts="a")) == {"image", "text", "text_mask"}


def test_no_pictures_and_no_captions_are_an_empty_batch():
    arrays = preprocessor()(images=[], texts=[])
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "image": ((0, SIZE, SIZE, 3), np.float32),
        "text": ((0, LENGTH), np.int32),
        "text_mask": ((0, LENGTH), np.bool_),
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", Reason.DAMAGED_IMAGE),
        (png(noise())[:60], Reason.DAMAGED_IMAGE),
        (None, Reason.MISSING_IMAGE),
    ],
    ids=["no picture", "cut off", "missing"],
)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_picture_that_cannot_be_read_is_a_data_error_that_names_its_path(
    tmp_path, content, reason, kind
):
    path = tmp_path / "holiday.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        preprocessor()(images=[noise(), kind(path)])
    assert isinstance(caught.value, SampleError) and caught.value.reason == reason
    assert str(caught.value).startswith(f"data error: {path}: ") and "\n" not in str(caught.value)


def test_damaged_bytes_are_named_by_the_key_they_come_with():
    with pytest.raises(SampleError, match="^data error: shard 3, row 7: "):
        preprocessor().pixels(b"no picture", key="shard 3, row 7")


def test_pictures_above_the_cap_are_refused():
    with pytest.raises(SampleError, match="maximum_pixels=100"):
        preprocessor(maximum_pixels=100)(images=png(noise()))


def test_an_empty_caption_is_its_special_tokens_and_they_are_visible():
    """Attention and pooling need one visible token a row, or a softmax over nothing would
    follow."""
    arrays = preprocessor()(texts=["", " "])
    np.testing.assert_array_equal(arrays["text"], [[1, 2] + [0] * (LENGTH - 2)] * 2)
    np.testing.assert_array_equal(arrays["text_mask"], [[True, True] + [False] * (LENGTH - 2)] * 2)


MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)


def test_pixels_are_normalised_by_mean_and_standard_deviation():
    spec = {"mean": MEAN, "std": STD, "resize": "squash"}
    pixels = noise()[:SIZE, :SIZE]
    expected = (pixels / 255.0 - np.array(MEAN)) / np.array(STD)  # in float64
    np.testing.assert_allclose(
        preprocessor(**spec)(images=pixels)["image"][0], expected, rtol=0, atol=1e-6
    )


def test_normalising_on_the_device_gives_what_the_host_gives():
    on_device = normalise(jnp.asarray(noise()), MEAN, STD)
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(on_device, normalise(noise(), MEAN, STD), rtol=0, atol=1e-6)


JOURNEYS = [
    (TextConfig(), {}),
    (
        TextConfig(
            canonicalize=("lower_case", "whitespace"), start_token=None, padding_token="<end>"
        ),
        {
            "resize": "letterbox",
            "interpolation": "bilinear",
            "mean": MEAN,
            "std": STD,
            "background": (1, 2, 3),
            "crop_to_content": True,
            "content_margin": 0.1,
            "maximum_pixels": 10_000,
        },
    ),
]


@pytest.mark.parametrize(("text", "images"), JOURNEYS, ids=["defaults", "nothing default"])
def test_what_comes_back_from_json_makes_the_same_arrays(text, images):
    original = preprocessor(text, **images)
    copy = Preprocessor.from_json(json.loads(json.dumps(original.to_json())))
    transparent = noise(4)
    transparent[:5, :, 3] = 0
    texts = ["Red Heart", "", "a very long caption " * 10]
    expected, found = (
        original(images=transparent, texts=texts),
        copy(images=transparent, texts=texts),
    )
    for name in ("image", "text", "text_mask"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert copy == original


def test_json_holds_the_tokenizer_and_not_its_path(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(preprocessor().tokenizer.definition)
    tree = json.dumps(preprocessor(TextConfig(tokenizer=str(path))).to_json())
    path.unlink()
    arrays = Preprocessor.from_json(json.loads(tree))(texts="red heart")
    np.testing.assert_array_equal(arrays["text"], preprocessor()(texts="red heart")["text"])


def test_from_config_takes_sizes_from_the_model_and_the_rest_from_the_data():
    model = ModelConfig(
        image=ViTConfig(image_size=SIZE),
        text=TextTransformerConfig(length=LENGTH, vocab_size=VOCABULARY),
    )
    data = DataConfig(
        images=ImagesConfig(resize="squash"), text=TextConfig(canonicalize=("lower_case",))
    )
    found = Preprocessor.from_config(Experiment(data=data, model=model))
    assert found == preprocessor(TextConfig(canonicalize=("lower_case",)), resize="squash")
