"""A run written as public checkpoints, read back, continued from, evaluated and shown."""

import importlib.util
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import vlp_jax
from vlp_jax import convert, evaluate, inspect, main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError, UserError
from vlp_jax.training.checkpoints.format import flat

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"{ROOT}/configs/clip_b16.py:smoke"
TEXTS = ["a Photo of a cat", "The quick brown fox jumps over 12 dogs"]
SMALL = [
    f"--config.{change}"
    for change in (
        "data.text.tokenizer=embedded:clip",
        "data.text.canonicalize=('ftfy','html','lower_case','whitespace')",
        "data.text.start_token=<|startoftext|>",
        "data.text.end_token=<|endoftext|>",
        "data.text.padding_token=!",
        "data.images.transparency=drop",  # as others do with it
        "model.text.vocab_size=49408",
        "model.text.width=32",
        "model.text.heads=2",
        "model.image.width=48",
        "model.image.heads=3",
        "mesh.data=1",
        "data.batch_size=8",
        "precision.compute=float32",
        "evaluators={}",
        "log_every=1",
    )
]
FORMATS = ("huggingface", "openclip")
PICTURE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)


def train(folder, *changes):
    flags = [*SMALL, *(f"--config.{change}" for change in changes)]
    assert main.main([f"--config={CONFIG}", f"--workdir={folder}", *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two steps, with scanned layers, in `run`; it is written to `huggingface` and
    `openclip`, and read from these to `back_huggingface` and `back_openclip`."""
    here = tmp_path_factory.mktemp("convert")
    train(here / "run", "steps=2")
    for name in FORMATS:
        assert convert.main([f"--from={here}/run", f"--to={name}:{here}/{name}"]) == 0
        assert convert.main([f"--from={name}:{here}/{name}", f"--to={here}/back_{name}"]) == 0
    return here


def places(folder):
    """Where the model of the run is."""
    return [f"{name}:{folder}/{name}" for name in FORMATS] + [
        f"{folder}/back_{name}" for name in FORMATS
    ]


def embedded(place):
    """Pixels, ids and embeddings of the picture and the texts."""
    model, variables, preprocessor = vlp_jax.load(str(place))
    batch = preprocessor(images=[PICTURE], texts=TEXTS)
    image, text = model.embed(variables, **batch)
    return batch, np.asarray(image), np.asarray(text)


def read(batch):
    """The batch without the ids of padding, which transformers pads with another token."""
    return {**batch, "text": np.where(batch["text_mask"], batch["text"], -1)}


def parameters(place):
    return {key: np.asarray(value) for key, value in flat(vlp_jax.load(str(place))[1]).items()}


@pytest.mark.full
def test_embeddings_pixels_and_ids_are_those_of_the_run_wherever_it_is_written(folder):
    batch, image, text = embedded(folder / "run")
    for place in places(folder):
        again, own_image, own_text = embedded(place)
        np.testing.assert_allclose(own_image, image, atol=1e-6)
        np.testing.assert_allclose(own_text, text, atol=1e-6)
        for key, value in read(batch).items():
            np.testing.assert_array_equal(read(again)[key], value, err_msg=f"{place} {key}")


@pytest.mark.full
def test_what_is_written_from_unrolled_layers_is_bit_equal_to_what_is_from_scanned_ones(
    folder, tmp_path
):
    assert load_config(CONFIG, split_overrides(SMALL)[1]).model.image.scan
    for name, file in (("huggingface", "model"), ("openclip", "open_clip_model")):
        convert.main([f"--from={folder}/back_{name}", f"--to={name}:{tmp_path}/{name}"])
        first, second = (
            load_file(place / name / f"{file}.safetensors") for place in (folder, tmp_path)
        )
        assert first.keys() == second.keys()
        for key, value in first.items():
            np.testing.assert_array_equal(second[key], value, err_msg=key, strict=True)


@pytest.mark.full
def test_a_conversion_says_what_became_of_each_tensor(folder):
    (path,) = (folder / "back_huggingface").glob("**/metadata/metadata")
    facts = json.loads(path.read_text())["converted"]
    names = load_file(folder / "huggingface" / "model.safetensors").keys()
    assert facts["tensors"].keys() == names and facts["family"] == "CLIPModel"
    assert facts["tensors"]["visual_projection.weight"] == {
        "makes": ["model/image_projection/kernel"],
        "how": "transposed",
    }


@pytest.mark.full
def test_a_run_begins_with_a_public_checkpoint_at_another_image_size_and_text_length(
    folder, tmp_path
):
    patch = load_config(CONFIG, split_overrides(SMALL)[1]).model.image.patch
    run = train(
        tmp_path / "run",
        f"pretrained={{'a':{{'workdir':'huggingface:{folder}/huggingface'}}}}",
        "steps=1",
        "optimizer.learning_rate=0",
        f"model.image.image_size={6 * patch}",
        "model.text.length=12",
    )
    theirs, ours = parameters(folder / "back_huggingface"), parameters(run)
    stacked = np.stack(
        [theirs[f"params/model/text/transformer/layer_{i}/mlp/in/kernel"] for i in range(2)]
    )
    np.testing.assert_array_equal(
        ours["params/model/text/transformer/layers/mlp/in/kernel"], stacked
    )
    np.testing.assert_array_equal(
        ours["params/model/text/position"], theirs["params/model/text/position"][:, :12]
    )
    assert ours["params/model/image/position"].shape == (1, 36, 48)
    for path in ("model/image_projection/kernel", "objectives_contrastive/log_scale"):
        np.testing.assert_array_equal(ours[f"params/{path}"], theirs[f"params/{path}"])


@pytest.mark.full
def test_a_run_begins_with_one_tower_of_a_public_checkpoint(folder, tmp_path):
    origin = f"'workdir':'openclip:{folder}/openclip','parameters':('^model/image/',)"
    run = train(
        tmp_path / "run",
        f"pretrained={{'a':{{{origin}}}}}",
        "steps=1",
        "seed=7",
        "optimizer.learning_rate=0",
    )
    theirs, ours = parameters(folder / "run"), parameters(run)
    assert theirs.keys() == ours.keys()
    for path, value in theirs.items():
        same = np.array_equal(value, ours[path])
        constant = path.endswith(("bias", "scale"))
        assert same if path.startswith("params/model/image/") else not same or constant, path


@pytest.mark.full
def test_a_model_is_created_from_a_public_checkpoint_of_its_architecture_alone(folder):
    config = load_config(CONFIG, split_overrides(SMALL)[1])
    place = f"huggingface:{folder}/huggingface"
    model, variables, _ = vlp_jax.create_model(config, pretrained=place)
    expected = vlp_jax.load(place)[1]
    for path, value in flat(variables).items():
        np.testing.assert_array_equal(value, flat(expected)[path], err_msg=path)
    other = load_config(CONFIG, [*split_overrides(SMALL)[1], ("model.image.width", "96")])
    with pytest.raises(ConfigError, match="another architecture.*model.image.width"):
        vlp_jax.create_model(other, pretrained=place)


@pytest.mark.full
def test_converted_weights_are_evaluated_and_shown_as_those_of_a_run(folder, capsys, tmp_path):
    found = {}
    for name in ("run", "back_openclip"):
        output = tmp_path / f"{name}.json"
        flags = [
            "--source=embedded:emoji/val_vendor",
            "--evaluators=retrieval",
            f"--output={output}",
        ]
        assert evaluate.main([f"--workdir={folder}/{name}", *flags]) == 0
        found[name] = json.loads(output.read_text())
    capsys.readouterr()
    assert inspect.main([f"--workdir={folder}/back_openclip"]) == 0
    assert "model/image/class_token" in capsys.readouterr().out
    assert flat_numbers(found["run"]) == pytest.approx(
        flat_numbers(found["back_openclip"]), abs=1e-3
    )


def flat_numbers(tree, prefix=""):
    """{path: number} of a nested dict, without times."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat_numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and "recall" in key:
            found[f"{prefix}{key}"] = float(value)
    return found


@pytest.mark.full
def test_training_does_not_resume_from_converted_weights(folder):
    with pytest.raises(UserError, match="holds converted weights without an optimizer") as refusal:
        main.main([f"--config={CONFIG}", f"--workdir={folder}/back_openclip", *SMALL])
    assert "\n" not in refusal.value.args[0]


@pytest.mark.parity
def test_transformers_loads_what_was_written_with_its_processor(folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    place = folder / "huggingface"
    model, info = transformers.AutoModel.from_pretrained(place, output_loading_info=True)
    assert not any(info.values()), info
    processor = transformers.AutoProcessor.from_pretrained(place)
    batch, image, text = embedded(folder / "run")
    given = processor(
        images=[Image.fromarray(PICTURE)],
        text=TEXTS,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
    )
    real = np.asarray(given["attention_mask"], bool)
    np.testing.assert_array_equal(real, batch["text_mask"])
    np.testing.assert_array_equal(np.asarray(given["input_ids"])[real], batch["text"][real])
    pixels = batch["image"].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(given["pixel_values"], pixels, atol=1e-5)
    with torch.no_grad():
        found = model(**given)
    np.testing.assert_allclose(found.image_embeds, image, atol=1e-5)
    np.testing.assert_allclose(found.text_embeds, text, atol=1e-5)


OPEN_CLIP = """
import sys, numpy, open_clip, torch
from PIL import Image
folder, out, *texts = sys.argv[1:]
place = f"local-dir:{folder}/openclip"
model, _, transform = open_clip.create_model_and_transforms(place)
pixels = transform(Image.fromarray(numpy.load(f"{out}/picture.npy")))[None]
ids = open_clip.get_tokenizer(place)(texts)
with torch.no_grad():
    image = model.eval().encode_image(pixels, normalize=True)
    text = model.encode_text(ids, normalize=True)
numpy.savez(f"{out}/found.npz", pixels=pixels, ids=ids, image=image, text=text)
"""


@pytest.mark.parity
def test_openclip_loads_what_was_written_with_its_transform_and_tokenizer(folder, tmp_path):
    python = os.environ.get("OPEN_CLIP_PYTHON")
    if python is None and importlib.util.find_spec("open_clip") is None:
        pytest.skip("open_clip is not installed")
    np.save(tmp_path / "picture.npy", PICTURE)
    code = [python or "python", "-c", OPEN_CLIP, str(folder), str(tmp_path), *TEXTS]
    subprocess.run(code, check=True, capture_output=True)
    found = np.load(tmp_path / "found.npz")
    batch, image, text = embedded(folder / "run")
    np.testing.assert_array_equal(found["ids"], batch["text"])
    np.testing.assert_allclose(found["pixels"], batch["image"].transpose(0, 3, 1, 2), atol=1e-5)
    np.testing.assert_allclose(found["image"], image, atol=1e-5)
    np.testing.assert_allclose(found["text"], text, atol=1e-5)
