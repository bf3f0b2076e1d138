"""What sections say of their own settings with the rest of a config, each built by its
constructor."""

import dataclasses

import pytest

from vlp_jax.config import load_config
from vlp_jax.data.text.tokenizer import TextConfig
from vlp_jax.errors import ConfigError
from vlp_jax.models.vision.vit_config import ViTConfig
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.accumulation import AccumulationConfig
from vlp_jax.training.checkpoints.save_schedule import CheckpointConfig
from vlp_jax.training.hooks.watchdog import WatchdogConfig
from vlp_jax.training.optimizers.adam import AdamConfig, AdamWConfig
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.regularizers import RegularizerConfig
from vlp_jax.training.schedule import ScheduleConfig

BATCH_RULE = (
    "here.rules: has no effect for 'batch': examples are always divided over data x "
    "fsdp; set mesh.data and mesh.fsdp"
)


@pytest.fixture(scope="module")
def experiment():
    return load_config("configs/clip_emoji.py")


@pytest.mark.parametrize(
    ("section", "messages"),
    [
        (WatchdogConfig(exit=True), []),
        (WatchdogConfig(seconds=None), []),
        (
            WatchdogConfig(seconds=None, exit=True),
            ["here.exit: has no effect without watchdog.seconds"],
        ),
        (AccumulationConfig(microbatches=2, negatives="microbatch"), []),
        (
            AccumulationConfig(negatives="microbatch"),
            ["here.negatives: has no effect with microbatches=1"],
        ),
        (MeshConfig(rules=(("vocab",), ("embed", "fsdp"))), []),
        (MeshConfig(rules=(("vocab",), ("batch", "data"))), [BATCH_RULE]),
        (TextConfig(packing=4, packing_rows=2), []),
        (
            TextConfig(packing_rows=2),
            ["here.packing_rows: has no effect without data.text.packing"],
        ),
        (RegularizerConfig(l2=1e-4), []),
        (ViTConfig(position="learned_rotary2d", rotary_offset=1.0, rotary_grid=7), []),
        (
            ViTConfig(rotary_temperature=10.0),
            ["here.rotary_temperature: has no effect with position='learned', which is not rotary"],
        ),
        (
            ViTConfig(position="rotary2d_unit", rotary_grid=7, rotary_temperature=10.0),
            [
                "here.rotary_grid: has no effect with position='rotary2d_unit', of coordinates up "
                "to 1"
            ],
        ),
        (ViTConfig(pooling="map", map_tokens="all", query_heads=4, query_mlp_dim=8), []),
        (
            ViTConfig(pooling="mean", map_tokens="all", query_heads=4),
            [
                "here.query_heads: has no effect with pooling='mean': it is for 'queries' and "
                "'map'",
                "here.map_tokens: has no effect with pooling='mean': it is for 'map'",
            ],
        ),
        (RegularizerConfig(), ["here: has no effect with l1=0 and l2=0"]),
        (CheckpointConfig(keep_best=1, best_metric="val_concept/text_to_image_recall@1"), []),
        (
            CheckpointConfig(best_metric="val_concept/x"),
            [
                "here.best_metric: has no effect with checkpoint.keep_best=0; set how many of the "
                "best to keep"
            ],
        ),
        (CheckpointConfig(keep_best=1, best_metric="val_concept/images"), []),
        (
            CheckpointConfig(keep_best=1, best_metric="val_concept/image"),
            [
                "here.best_metric: 'val_concept/image' is not measured by the config's evaluators "
                "(did you mean 'val_concept/images'?)"
            ],
        ),
        (AdamWConfig(weight_decay=0.1, decay_coupling="schedule"), []),
        (
            AdamWConfig(decay_coupling="schedule"),
            ["here.decay_coupling: has no effect with weight_decay=0"],
        ),
        (
            AdamWConfig(weight_decay=0.1, decay_coupling="schedule", learning_rate=0.0),
            ["here.decay_coupling: 'schedule' divides by here.learning_rate, which is 0"],
        ),
        (
            AdamConfig(weight_decay=0.1),
            ["here.weight_decay: must be 0 with kind='adam'; with weight decay use kind='adamw'"],
        ),
        *((OptimizerConfig.of(kind), []) for kind in OptimizerConfig.kinds),
        *((ScheduleConfig.of(kind), []) for kind in ScheduleConfig.kinds),
    ],
)
def test_a_section_names_its_settings_that_do_nothing_or_do_not_fit(section, messages, experiment):
    assert [*section.validate("here", experiment)] == messages


ADAM = {"b1", "b2", "epsilon"}
OPTIMIZERS = {
    "adamw": ADAM,
    "adam": ADAM,
    "sgd": {"momentum"},
    "adafactor": {"b1", "b2"},
    "lion": {"b1", "b2"},
    "muon": {*ADAM, "newton_schulz_steps"},
}
SCHEDULES = {
    "cosine": {"final"},
    "linear": {"final"},
    "rsqrt": {"decay", "timescale", "final"},
    "constant": set(),
    "exponential": {"factor", "period", "final"},
    "warmup_stable_decay": {"decay", "final"},
}


@pytest.mark.parametrize(
    ("base", "kinds"), [(OptimizerConfig, OPTIMIZERS), (ScheduleConfig, SCHEDULES)]
)
def test_a_kind_has_the_keys_of_all_kinds_and_only_its_own(base, kinds):
    common = [field.name for field in dataclasses.fields(base)]
    fields = {
        kind: [field.name for field in dataclasses.fields(each)]
        for kind, each in base.kinds.items()
    }
    assert all(names[: len(common)] == common for names in fields.values())
    assert {kind: {*names[len(common) :]} for kind, names in fields.items()} == kinds


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: OptimizerConfig.of("sgd", momentum=1.0),
            "momentum: must be between 0.0 and 0.999999",
        ),
        (
            lambda: OptimizerConfig.of("muon", newton_schulz_steps=0),
            "newton_schulz_steps: must be at least 1",
        ),
        (lambda: OptimizerConfig.of("adam", epsilon=0.0), "epsilon: must be above 0"),
        (
            lambda: OptimizerConfig.of("lion", schedule=3),
            "schedule: expected a section with a key 'kind'",
        ),
        (
            lambda: ScheduleConfig.of("exponential", factor=2.0),
            "factor: must be between 1e-06 and 1.0",
        ),
        (lambda: ScheduleConfig.of("rsqrt", timescale=0.0), "timescale: must be at least 1"),
    ],
)
def test_values_are_checked_by_the_constructor(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
