"""What weight decay takes of a parameter in each recipe, beside the code its authors ran."""

import pathlib

import pytest
from effective_decay import taken

from vlp_jax.config import load_config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# Recipe: what an update at the schedule's highest point takes of a kernel, a bias, a norm's scale,
# the words' embeddings and the learned scale or temperature, as a fraction of it; None where there
# is none. Sources: docs/recipes.md.
CLIP = (5e-4 * 0.2, 0, 0, 5e-4 * 0.2, 0)
TAKEN = {
    "clip_b16": CLIP,
    "clip_b32": CLIP,
    "clip_l14": (4e-4 * 0.2, 0, 0, 4e-4 * 0.2, 0),
    "clip_rn50": CLIP,
    "siglip_b16": (1e-4, 0, 0, 0, 0),
    "siglip_l16": (1e-4, 0, 0, 0, 0),
    "siglip_so400m14": (1e-4, 0, 0, 0, 0),
    "lit_b16": (1e-4, 0, 0, 0, 0),
    "slip_b16": (3e-3 * 0.1, 0, 0, 3e-3 * 0.1, 0),
    "albef": (1e-4 * 0.02, 0, 0, 1e-4 * 0.02, 1e-4 * 0.02),
    "blip": (3e-4 * 0.05,) * 5,
    "vilt": (1e-4 * 0.01, 0, 0, 1e-4 * 0.01, None),
    "flava": (1e-3 * 0.1,) * 5,
    "coca_b16": (8e-4 * 0.01, 0, 0, 8e-4 * 0.01, 0),
    "mae_b16": (2.4e-3 * 0.05, 0, 0, None, None),
    "bert_mlm": (1e-4 * 0.01, 0, 0, 1e-4 * 0.01, None),
    "gpt2_lm": (6e-4 * 0.1, 0, 0, None, None),
    "flip_b16": (5.12e-4 * 0.2, 0, 0, 5.12e-4 * 0.2, 5.12e-4 * 0.2),
    "vqa_generative": (*(2e-5 * 0.05,) * 4, None),
    "resnet50_bert_concat": (1e-4 * 0.01, 0, 0, 1e-4 * 0.01, None),
}


def taken_of(name):
    return taken(load_config(str(CONFIGS / f"{name}.py")))


def share_of(found, endings, tower):
    values = {share for path, share in found.items() if path.endswith(endings) and tower in path}
    assert len(values) == 1, (endings, values)
    return values.pop()


@pytest.mark.full
@pytest.mark.parametrize("name", TAKEN)
def test_weight_decay_takes_of_each_kind_of_parameter_what_the_authors_code_does(name):
    found, relative = taken_of(name)
    kernel, bias, norm, words, scale = TAKEN[name]
    tower = (
        "model/image/"
        if name == "mae_b16"
        else "model/decoder/"
        if name == "gpt2_lm"
        else "model/text/"
    )
    tower = "model/fusion/" if name == "vilt" else tower
    expected = {"/kernel": kernel, "/bias": bias, "/scale": norm}
    for ending, share in expected.items():
        assert share_of(found, ending, tower) == pytest.approx(
            share * relative, rel=1e-3, abs=1e-12
        ), ending
    if words is not None:
        assert found["model/text/tokens/embedding"] == pytest.approx(
            words * relative, rel=1e-3, abs=1e-12
        )
    if scale is not None:
        learned = next(path for path in found if path.endswith(("log_scale", "temperature")))
        assert found[learned] == pytest.approx(scale * relative, rel=1e-3, abs=1e-12)


def test_clip_s_class_token_does_not_decay_and_its_positions_do():
    found, relative = taken_of("clip_b16")
    assert found["model/image/class_token"] == 0 and found["model/image/position"] == pytest.approx(
        5e-4 * 0.2 * relative, rel=1e-3
    )


def test_slip_s_class_token_decays_and_flip_s_positions_do_not():
    """SLIP leaves out p.ndim < 2, and timm's class token has three axes; FLIP has
    `filter_posembed`."""
    found, relative = taken_of("slip_b16")
    assert found["model/image/class_token"] == pytest.approx(3e-3 * 0.1 * relative, rel=1e-3)
    found, _ = taken_of("flip_b16")
    assert found["model/text/position"] == 0 and "model/image/position" not in found


@pytest.mark.full
def test_norms_decay_where_the_authors_lists_do_not_name_them():
    """MMBT's list has LayerNorm, and BatchNorm's weights are called bn1; METER's has norm, and its
    VQA head's is 1.weight."""
    found, relative = taken_of("resnet50_bert_concat")
    assert share_of(found, "/scale", "model/image/") == pytest.approx(
        1e-4 * 0.01 * relative, rel=1e-3
    )
    found, relative = taken_of("vqa_fusion")
    assert share_of(found, "norm/scale", "head/") == pytest.approx(
        2.5e-4 * 0.01 * relative, rel=1e-3
    )
    assert share_of(found, "norm/scale", "model/image/") == pytest.approx(
        5e-6 * 0.01 * relative, rel=1e-3
    )


@pytest.mark.full
def test_meter_s_image_norms_decay_and_others_do_not():
    """meter/modules/meter_utils.py names LayerNorm and norm1, and CLIP's are called ln_1."""
    found, relative = taken_of("meter")
    assert share_of(found, "norm/scale", "model/image/") == pytest.approx(
        5e-5 * 0.2 * 0.01 * relative, rel=1e-3
    )
    assert share_of(found, "norm/scale", "model/text/") == 0
