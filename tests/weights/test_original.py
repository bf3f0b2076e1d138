"""Layouts of released code: preprocessing, tokenizer and answers, and what is not read."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weight_reference import GOLDEN, family

import vlp_jax
from vlp_jax import convert
from vlp_jax.weights.public import read_public

SPECIAL = {
    "meter_0": ("<s>", "<pad>", "</s>"),
    "meter_1": ("[CLS]", "[PAD]", "[SEP]"),
    "albef_0": ("[CLS]", "[PAD]", "[SEP]"),
}
PICTURE = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)


@pytest.fixture
def copied(tmp_path):
    """Makes a copy of a golden folder with a tokenizer of 60 words."""

    def copy(name):
        family("meter").prepare()
        folder = tmp_path / name
        shutil.copytree(GOLDEN / name, folder)
        words = dict.fromkeys((*SPECIAL[name], *(f"word{number}" for number in range(56))))
        vocabulary = {word: number for number, word in enumerate(words)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "word0"}
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        mask = {"id": 59, "special": True, **dict.fromkeys(flags, False)}
        mask["content"] = "<mask>" if name == "meter_0" else "[MASK]"
        definition = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}}
        definition["added_tokens"] = [mask]
        (folder / "tokenizer.json").write_text(json.dumps(definition))
        return folder

    return copy


@pytest.mark.full
@pytest.mark.parametrize("name", SPECIAL)
def test_a_folder_with_a_tokenizer_is_loaded_and_used(name, copied, tmp_path):
    model, variables, preprocess = vlp_jax.load(f"original:{copied(name)}")
    batch = preprocess(images=[PICTURE], texts=["word5 word9"])
    length = model.config.model.text.length
    ids = np.array([[0, 8, 12, 2] + [1] * (length - 4)])
    np.testing.assert_array_equal(batch["text"], ids)
    assert model.config.objectives["words"].mask_id == 59
    images = model.config.data.images
    assert images.resize == ("squash" if name == "albef_0" else "shortest_side_crop")
    assert images.mean == (0.48145466, 0.4578275, 0.40821073)
    if name == "meter_1":
        assert model.answer(variables, [PICTURE], ["word5 word9"])[0] in map(str, range(7))
        convert.main([f"--from=original:{tmp_path / name}", f"--to={tmp_path}/converted"])
        (tmp_path / name / "answers.txt").unlink()
        again, variables, _ = vlp_jax.load(f"{tmp_path}/converted")
        assert again.answer(variables, [PICTURE], ["word5 word9"])[0] in map(str, range(7))
    else:
        assert 0.0 < model.match(variables, [PICTURE], ["word5 word9"])[0] < 1.0


def test_the_hub_s_tokenizer_is_that_of_the_config_where_the_folder_has_none():
    family("meter").prepare()
    found = {name: read_public(f"original:{GOLDEN / name}").config for name in SPECIAL}
    assert {name: config.data.text.tokenizer for name, config in found.items()} == {
        "meter_0": "FacebookAI/roberta-base",
        "meter_1": "google-bert/bert-base-uncased",
        "albef_0": "google-bert/bert-base-uncased",
    }


def test_the_momentum_model_and_the_parts_of_another_tower_are_not_read(copied):
    for name, changed in (
        ("albef_0", ("vision_proj_m.weight", "image_queue", "text_encoder_m.bert.cls.extra")),
        ("meter_0", ("vit_model.ln_final.weight", "text_transformer.pooler.dense.bias")),
    ):
        folder = copied(name)
        before = read_public(f"original:{folder}").names
        tensors = load_file(folder / "model.safetensors")
        assert not set(changed) & set(before)
        save_file(
            {**tensors, **{key: np.ones(3, np.float32) for key in changed}},
            folder / "model.safetensors",
        )
        public = read_public(f"original:{folder}")
        assert public.names == before and public.rules
