"""The commands, and what they draw."""

import json

import numpy as np
import pytest
from PIL import Image

import vlp_jax
from vlp_jax import main as train
from vlp_jax.errors import ConfigError
from vlp_jax.explain.__main__ import main
from vlp_jax.explain.asked import asked, chosen_score
from vlp_jax.explain.chosen import chosen_methods
from vlp_jax.explain.drawing import coloured, over, scaled, sheet
from vlp_jax.explain.grad_cam import GradCamConfig
from vlp_jax.explain.panels import draw_pair
from vlp_jax.explain.pointing import main as pointing
from vlp_jax.explain.score import ScoreConfig


def test_colours_rise_in_brightness_and_maps_are_scaled():
    assert (np.diff(coloured(np.linspace(0, 1, 50)).sum(axis=-1)) > 0).all()
    assert scaled(np.array([1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.5]
    assert scaled(np.full(3, 7.0)).tolist() == [0.0] * 3


def test_a_map_over_an_image_is_brightest_where_it_is_highest():
    values = np.zeros((4, 4))
    values[3, 0] = 1.0
    found = over(np.full((32, 32, 3), 128, np.uint8), values)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    assert found[31, 0].sum() > found[0, 31].sum() + 200


def test_a_sheet_has_rows_and_columns():
    panels = [(f"title {i} 猫", np.zeros((8, 8, 3), np.uint8)) for i in range(5)]
    page = sheet(panels, side=64, columns=4)
    assert page.size == (6 + 4 * 70, 6 + 2 * 84)


def test_methods_and_settings_are_chosen_by_name():
    assert chosen_methods("grad_cam", ["grad_cam.layer=1"]) == [GradCamConfig(layer=1)]
    for names, settings, message in (
        ("saliency", [], "one of attention"),
        ("grad_cam", ["rollout.layer=1"], "METHOD.KEY=VALUE"),
        ("grad_cam", ["grad_cam.size=1"], "has the settings layer"),
        ("grad_cam", ["grad_cam.layer=x"], "--set=grad_cam.layer"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen_methods(names, settings)


def test_a_score_that_is_not_trained_is_refused_with_the_possible_ones():
    config = vlp_jax.config.load_config("configs/clip_emoji.py")
    assert chosen_score(config, None).kind == "retrieval"
    with pytest.raises(ConfigError, match="'matching' needs .*; possible: retrieval"):
        chosen_score(config, "matching")
    with pytest.raises(ConfigError, match="must be one of retrieval"):
        chosen_score(config, "cosine")


@pytest.mark.full
def test_a_word_of_a_caption_is_explained_by_its_log_likelihood():
    model, variables, _ = vlp_jax.create_model("configs/coca_b16.py:smoke")
    image = np.zeros((32, 32, 3), np.uint8)
    score = ScoreConfig.of("caption")
    whole, words = asked(model, variables, image, "a red cat", score)
    assert [word.text for word in words] == ["a", "red", "cat"]
    parts = [
        asked(model, variables, image, "a red cat", score, word=word.text)[0].scores[0]
        for word in words
    ]
    assert all(part < 0 for part in parts)
    assert sum(parts) == pytest.approx(float(whole.scores[0]), rel=1e-5)
    with pytest.raises(ConfigError, match="'dog' is not in the text; its words: a, red, cat"):
        asked(model, variables, image, "a red cat", score, word="dog")


@pytest.mark.full
def test_a_map_for_each_word_is_drawn_of_a_matching_model():
    model, variables, _ = vlp_jax.create_model("configs/albef.py:smoke")
    page, score = draw_pair(
        model,
        variables,
        np.zeros((32, 32, 3), np.uint8),
        "a red cat",
        methods=chosen_methods("word_attention"),
        score="matching",
    )
    assert score.startswith("matching: ")
    assert page.size == (6 + 4 * 198, 6 + 2 * 212)  # image, text, and three words


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    overrides = ["steps=2", "data.batch_size=8", "evaluators={}", "checkpoint.every_steps=2"]
    command = ["--config=configs/clip_places.py:smoke", f"--workdir={folder}/run"]
    assert train.main([*command, *(f"--config.{one}" for one in overrides)]) == 0
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "red.png")
    return folder


@pytest.mark.full
def test_the_command_writes_an_image_with_all_possible_methods(run, capsys):
    flags = [f"--workdir={run}/run", f"--image={run}/red.png", "--text=a cat"]
    assert main([*flags, f"--output={run}/maps/all.png"]) == 0
    printed = capsys.readouterr()
    assert "retrieval: " in printed.out and "left out: word_attention" in printed.err
    assert Image.open(run / "maps/all.png").size == (6 + 4 * 198, 6 + 2 * 212)
    with pytest.raises(ConfigError, match="word_attention needs"):
        main([*flags, f"--output={run}/one.png", "--methods=word_attention"])
    with pytest.raises(ConfigError, match="must be a PNG"):
        main([*flags, f"--output={run}/one.jpg"])


@pytest.mark.full
def test_the_pointing_command_prints_figures_of_each_method(run, capsys):
    flags = [f"--workdir={run}/run", "--samples=6", "--curves=2", "--methods=grad_cam,attention"]
    assert pointing(flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found} == {"objects", "random", "centre", "grad_cam", "attention"}
    assert found["objects"] == 6 and 0 < found["random"]["accuracy"] < 0.2
    names = {"accuracy", "deletion", "insertion", "randomised_rank_correlation"}
    assert {*found["grad_cam"]} == names
    assert -1 <= found["grad_cam"]["randomised_rank_correlation"] <= 1
