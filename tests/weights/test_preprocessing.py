"""Preprocessing of public checkpoints next to the classes of transformers that wrote its files."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.preprocessing import ImagesConfig, evaluation_pixels, normalise
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.clip_vocabulary import clip_definition
from vlp_jax.data.text.tokenizer import TextConfig, Tokenizer, load_tokenizer
from vlp_jax.weights.files import write_tokenizer
from vlp_jax.weights.formats.huggingface import image_processor, image_settings

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
    ),
]
SHAPES = [(31, 47), (47, 31), (224, 224), (225, 300), (301, 227), (64, 500), (500, 64), (20, 20)]
MODES = ["RGB", "L", "P", "RGBA", "CMYK", "LA", "1"]
TEXTS = [
    "a Photo of a CAT, sitting on the mat!",
    "“Quotes” — dashes… and naïve café",
    "Ein süßer Hund läuft über die Straße",
    "一只猫坐在垫子上",
    "кошка сидит на коврике",
    "قطة تجلس على السجادة",
    "🐈 on a 🛋️  with\tblanks\nand lines",
    "numbers 12345 3.14 it's don't we'll",
    "",
    "long " * 200,
    "press <|endoftext|> to finish",
]


def images(mode):
    """Images of many sizes: blurred noise, so that neighbours are alike as in photographs."""
    rng = np.random.default_rng(0)
    for width, height in SHAPES:
        small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 4), np.uint8)
        image = Image.fromarray(small, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
        yield image if mode == "RGBA" else image.convert("RGB").convert(mode)


PROCESSORS = {
    "CLIPImageProcessor": dict(size={"shortest_edge": 36}, crop_size={"height": 36, "width": 36}),
    "SiglipImageProcessor": dict(size={"height": 32, "width": 32}),
    "BlipImageProcessor": dict(size={"height": 40, "width": 40}),
    "ViTImageProcessor": dict(size={"height": 24, "width": 24}, do_convert_rgb=True),
    "EfficientNetImageProcessor": dict(
        size={"height": 36, "width": 36},
        crop_size={"height": 29, "width": 29},
        do_convert_rgb=True,
        do_center_crop=True,
        do_normalize=False,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        include_top=False,
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_image_processor_whose_file_is_read(name, mode, tmp_path):
    import transformers

    theirs = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor = theirs(**PROCESSORS[name])
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    found = image_settings(settings, "preprocessor_config.json")
    spec = ImagesConfig(**{key.removeprefix("data.images."): value for key, value in found.items()})
    side = next(iter(PROCESSORS[name].get("crop_size", PROCESSORS[name]["size"]).values()))
    for image in images(mode):
        expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        opened = image if mode == "RGBA" else image.convert("RGB")
        pixels = evaluation_pixels(opened, side, spec)
        ours = np.asarray(normalise(pixels[None], spec.mean, spec.std))[0]
        np.testing.assert_allclose(ours, expected, atol=2e-6, err_msg=str(image.size))


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "SiglipImageProcessor"])
def test_a_written_image_processor_gives_our_pixels(name, tmp_path):
    import transformers

    side = 36
    resize = "squash" if name.startswith("Siglip") else "shortest_side_crop"
    spec = ImagesConfig(resize=resize, crop_offset="floor", transparency="drop")
    tokenizer = Tokenizer(clip_definition(), TextConfig(padding_token="!"), 16)
    written = image_processor(Preprocessor(side, spec, tokenizer), name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    for image in images("RGB"):
        expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        ours = np.asarray(
            normalise(evaluation_pixels(image, side, spec)[None], spec.mean, spec.std)
        )
        np.testing.assert_allclose(ours[0], expected, atol=2e-6)


def test_ids_of_clips_tokenizer_are_those_of_transformers_in_any_language(tmp_path):
    """Of its own class, made of the published vocabulary and merges."""
    import transformers

    tree = json.loads(clip_definition())
    (tmp_path / "vocab.json").write_text(json.dumps(tree["model"]["vocab"]))
    merges = [
        " ".join(pair) if isinstance(pair, list) else pair for pair in tree["model"]["merges"]
    ]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "saved")
    spec = TextConfig(
        tokenizer=str(tmp_path / "saved"),
        start_token="<|startoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
    )
    ours = load_tokenizer(spec, 20, 49408)
    texts = TEXTS[:-1]  # transformers takes a special token that is spelt for one
    expected = theirs(texts, max_length=20, truncation=True, padding="max_length")
    ids, mask, _ = ours(texts)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, np.array(expected["attention_mask"], bool))


def test_a_written_tokenizer_gives_our_ids(tmp_path):
    import transformers

    spec = TextConfig(
        tokenizer="embedded:clip",
        canonicalize=("lower_case", "whitespace"),
        start_token="<|startoftext|>",
        end_token="<|endoftext|>",
        padding_token="!",
    )
    ours = load_tokenizer(spec, 20, 49408)
    assert write_tokenizer(str(tmp_path), ours, {}) == []
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(TEXTS[:-1], max_length=20, truncation=True, padding="max_length")
    ids, mask, _ = ours(TEXTS[:-1])
    np.testing.assert_array_equal(mask, np.array(expected["attention_mask"], bool))
    np.testing.assert_array_equal(ids[mask], np.array(expected["input_ids"])[mask])
