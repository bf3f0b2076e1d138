"""Declarations of objectives: the modules that they build, what they state, and how they fit the
rest of a config."""

import dataclasses
import inspect
import sys
import types

import jax
import pytest
from tiny_experiment import TOWER, experiment

from vlp_jax.config.section import Sizes
from vlp_jax.data.target_kinds import (
    ClassTargetConfig,
    NumberTargetConfig,
    ScoresTargetConfig,
    TextTargetConfig,
)
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.objectives.answering import AnsweringConfig
from vlp_jax.objectives.base import Objective, ObjectiveConfig
from vlp_jax.objectives.captioning import CaptioningConfig
from vlp_jax.objectives.contrastive import SigmoidContrastiveConfig, SoftmaxContrastiveConfig
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoderConfig
from vlp_jax.objectives.masked_image import MaskedImageConfig
from vlp_jax.objectives.masked_joint import MaskedJointConfig
from vlp_jax.objectives.masked_language import MaskedLanguageConfig
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.objectives.momentum_contrastive import MomentumContrastiveConfig
from vlp_jax.objectives.pretraining_module import asked_inputs
from vlp_jax.objectives.simclr import SimclrConfig
from vlp_jax.objectives.supervised import ClassificationConfig, RegressionConfig
from vlp_jax.objectives.triplet import TripletConfig
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

every = pytest.mark.parametrize("kind", ObjectiveConfig.kinds)
FUSION = FusionConfig.of("merged", **TOWER)
CLIP = SoftmaxContrastiveConfig()
TARGETS = {
    "class": ClassTargetConfig(field="a", classes=3),
    "scores": ScoresTargetConfig(field="a", classes=4),
    "number": NumberTargetConfig(field="a"),
    "text": TextTargetConfig(field="a", classes=5, length=4),
}
ENCODINGS = {
    "image",
    "text",
    "image_embedding",
    "text_embedding",
    "image_pooled",
    "text_pooled",
    "first_view_pooled",
    "second_view_pooled",
    "fused",
    "decoding",
}
SIZES = Sizes(width=64, depth=2, heads=4, mlp_dim=256, batch_size=16, vocab_size=4104, length=24)


def config_of(objective=CLIP, fusion=FUSION, objectives=(), **data):
    """A config with the objective `it`, not checked as a whole."""
    config = experiment()
    text = dataclasses.replace(config.data.text, start_token="<start>", end_token="<end>")
    return dataclasses.replace(
        config,
        objectives={"it": objective, **dict(objectives)},
        data=dataclasses.replace(config.data, **dict(text=text, targets=TARGETS) | data),
        model=dataclasses.replace(config.model, fusion=fusion),
    )


def problems(objective, **changes):
    return list(objective.validate("objectives.it", config_of(objective, **changes)))


@every
def test_a_module_has_its_declaration_and_nothing_that_is_in_it(kind):
    config = ObjectiveConfig.of(kind)
    module = config.build()
    assert {field.name for field in dataclasses.fields(module)} == {"config", "parent", "name"}
    assert module.config is config and type(module)().config == config
    own = {
        name
        for each in type(module).__mro__
        if issubclass(each, Objective)
        for name in vars(each)
        if not name.startswith("_")
    }
    assert not own & {name for name, _ in inspect.getmembers(config)}


@every
def test_encodings_that_are_named_exist(kind):
    config = ObjectiveConfig.of(kind)
    assert {
        *config.needs,
        *config.trains,
        *config.teacher_needs,
        *config.couples_through,
    } <= ENCODINGS
    assert config.couples_batch or not config.couples_through


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        (SoftmaxContrastiveConfig(mixup=0.2), {}),
        (SigmoidContrastiveConfig(), {}),
        (TripletConfig(), {}),
        (SimclrConfig(), {}),
        (MomentumContrastiveConfig(), {}),
        (MatchingConfig(), dict(objectives=dict(pairs=CLIP))),
        (MatchingConfig(negatives="uniform"), {}),
        (MaskedLanguageConfig(), {}),
        (MaskedLanguageConfig(with_image=False), dict(fusion=None)),
        (MaskedAutoencoderConfig(), {}),
        (MaskedImageConfig(smallest_block=1), {}),
        (MaskedJointConfig(smallest_block=1), {}),
        (ClassificationConfig(target="class"), {}),
        (ClassificationConfig(target="scores", loss="binary"), {}),
        (RegressionConfig(target="number", outputs=1), {}),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_what_fits_has_no_problems(objective, changes):
    assert problems(objective, **changes) == []


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        (
            SoftmaxContrastiveConfig(weight=0.0, weight_warmup=5),
            {},
            "objectives.it.weight: has no effect as 0 with a plan for it",
        ),
        (
            SoftmaxContrastiveConfig(weight_start=5, weight_end=5),
            {},
            "objectives.it.weight_end: has no effect with a weight_start",
        ),
        (
            SigmoidContrastiveConfig(chunk_size=2),
            {},
            "objectives.it.chunk_size: has no effect with implementation='dense'",
        ),
        (
            SoftmaxContrastiveConfig(mixup=0.2),
            dict(batch_size=7),
            "objectives.it.mixup: mixes the examples of a batch in pairs, and 7",
        ),
        (
            MomentumContrastiveConfig(queue=7),
            {},
            "objectives.it.queue: a momentum_contrastive queue of 7 holds no batch of 8",
        ),
        (
            MatchingConfig(),
            {},
            "objectives.it.negatives: 'similar' draws by the embeddings of images and",
        ),
        (
            MatchingConfig(negative_scale=None),
            dict(objectives=dict(pairs=TripletConfig())),
            "objectives.it.negative_scale: a match",
        ),
        (
            MatchingConfig(negatives="uniform", negative_scale=2.0),
            {},
            "objectives.it.negative_scale: has no effect with negatives",
        ),
        (
            MatchingConfig(negatives="uniform", negative_floor=0.1),
            {},
            "objectives.it.negative_floor: has no effect with negatives",
        ),
        (
            MatchingConfig(negatives="uniform"),
            dict(fusion=None),
            "model.fusion: objectives.it needs one, such as",
        ),
        (
            MaskedLanguageConfig(alpha_warmup=3),
            {},
            "objectives.it.alpha_warmup: has no effect with alpha=0",
        ),
        (MaskedLanguageConfig(), dict(fusion=None), "model.fusion: objectives.it needs one"),
        (
            CaptioningConfig(),
            {},
            "model.decoder: an objective predicts words by it, and there is none",
        ),
        (
            MaskedImageConfig(),
            {},
            "objectives.it: smallest_block 16 is more than the 2 patches of 4 "
            "that image_rate=0.4 hides",
        ),
        (
            MaskedAutoencoderConfig(decoder_width=20, decoder_heads=3),
            {},
            "objectives.it: masked_autoencoder's decoder_width 20",
        ),
        (
            ClassificationConfig(target="no"),
            {},
            "objectives.it.target: 'no' is no name of data.targets (there are: class, ",
        ),
        (
            ClassificationConfig(target="class", loss="binary"),
            {},
            "objectives.it.target: loss='binary' needs a target of kind 'scores",
        ),
        (
            RegressionConfig(target="class"),
            {},
            "objectives.it.target: kind='regression' needs a target of kind 'number'",
        ),
        (
            ClassificationConfig(target="class", outputs=4),
            {},
            "objectives.it.outputs: is 4, data.targets.class has 3; leave it out",
        ),
        (
            ClassificationConfig(target="class", margin=2.0),
            {},
            "objectives.it.margin: has no effect with loss='softmax'",
        ),
        (
            ClassificationConfig(target="class"),
            dict(fusion=None),
            "model.fusion: objectives.it needs one",
        ),
        (
            AnsweringConfig(target="class"),
            {},
            "objectives.it.target: needs a target of kind 'text', "
            "data.targets.class is one of kind",
        ),
        (
            AnsweringConfig(target="text"),
            {},
            "model.decoder: an objective predicts words by it, and there is none",
        ),
        (
            AnsweringConfig(target="text", length=3),
            {},
            "objectives.it.length: is 3, data.targets.text has 4; leave it out",
        ),
    ],
    ids=lambda each: each[:40] if isinstance(each, str) else getattr(each, "kind", ""),
)
def test_what_does_not_fit_is_a_message_that_begins_with_the_key(objective, changes, message):
    assert any(problem.startswith(message) for problem in problems(objective, **changes)), problems(
        objective, **changes
    )


def test_spared_ends_that_there_are_none_of_and_packed_texts_are_named():
    text = dataclasses.replace(experiment().data.text, start_token=None, end_token=None, packing=4)
    found = problems(MaskedJointConfig(smallest_block=1, keep_last=False), text=text)
    assert found == [
        "data.text.packing: objectives.it needs a row for each text, and packed rows "
        "hold several; set packing=None",
        "objectives.it.keep_first: has no effect without data.text.start_token: that is a word",
    ]
    assert problems(MaskedImageConfig(smallest_block=1), text=text) == []


def test_parts_of_a_config_that_no_objective_uses_are_named():
    config = config_of(
        MaskedImageConfig(smallest_block=1), view_augmentation=experiment().data.augmentation
    )
    assert [*config.unused_parts()] == ["model.fusion", "data.view_augmentation"]
    config = config_of(
        SimclrConfig(), fusion=None, view_augmentation=experiment().data.augmentation
    )
    assert not config.unused_parts() and asked_inputs(config.objectives) == ("second_view",)
    assert list(TARGETS["class"].validate("data.targets.class", config)) == [
        "data.targets.class: has no effect without an objective that has target='class'"
    ]
    assert not list(
        TARGETS["class"].validate(
            "data.targets.class", config_of(ClassificationConfig(target="class"))
        )
    )


def test_the_size_of_a_head_and_the_length_of_an_answer_are_those_of_the_target():
    for objective, outputs in (
        (ClassificationConfig(target="class"), 3),
        (ClassificationConfig(target="scores"), 4),
        (RegressionConfig(target="number"), 1),
    ):
        assert objective.completed("objectives.it", config_of(objective)).outputs == outputs
    answering = AnsweringConfig(target="text")
    assert answering.completed("objectives.it", config_of(answering)).length == 4


@pytest.mark.parametrize(
    ("objective", "smaller"),
    [
        (MomentumContrastiveConfig(alpha_warmup=800), dict(queue=32, alpha_warmup=10)),
        (MomentumContrastiveConfig(), dict(queue=32)),
        (MaskedLanguageConfig(mask_id=103, alpha=0.4, alpha_warmup=3), dict(mask_id=None)),
        (MaskedJointConfig(mask_id=103, rate=0.3), dict(mask_id=None, codes=256, smallest_block=2)),
        (MaskedImageConfig(), dict(codes=256, smallest_block=2)),
        (ClassificationConfig(target="x", hidden_dim=4096), dict(hidden_dim=256)),
        (RegressionConfig(target="x"), {}),
        (SigmoidContrastiveConfig(weight=0.5), {}),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_a_smoke_form_changes_sizes_only(objective, smaller):
    assert objective.smoke(SIZES) == dataclasses.replace(objective, **smaller)


class WithoutMarks(types.SimpleNamespace):
    """A tokenizer that does not mark where words begin."""

    @property
    def word_marks(self):
        raise ConfigError("data.text.tokenizer: has no marks of words")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            MaskedLanguageConfig(),
            "model.text.vocab_size: 20 leaves no id for the mask token of "
            "objectives.it; set it to 21 or more",
        ),
        (
            MaskedJointConfig(mask_id=20),
            "objectives.it.mask_id: 20 is no token of "
            "model.text.vocab_size=20; set it to 19 or less",
        ),
        (MaskedLanguageConfig(mask_id=3, whole_words=True), "has no marks"),
        (MaskedJointConfig(mask_id=3, whole_words=True), "has no marks"),
        (MaskedLanguageConfig(mask_id=3), None),
        (CLIP, None),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_a_tokenizer_without_what_an_objective_needs_is_named(objective, message):
    assert objective.needs_mask_token == (getattr(objective, "mask_id", 0) is None)
    if message is None:
        objective.check_tokenizer(
            "objectives.it", WithoutMarks(vocab_size=20), config_of(objective)
        )
        return
    with pytest.raises(ConfigError, match=message):
        objective.check_tokenizer(
            "objectives.it", WithoutMarks(vocab_size=20), config_of(objective)
        )


OWN = '''
import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PullConfig(ObjectiveConfig):
    """Embeddings of pairs as close as they get."""

    width: int = 2

    needs = ("image_embedding", "text_embedding")

    def build(self):
        return Pull(self)


class Pull(Objective):
    config: PullConfig = PullConfig()

    @nn.compact
    def __call__(self, encodings, batch, model):
        head = nn.Dense(self.config.width, name="head")
        away = head(encodings["image_embedding"]) - head(encodings["text_embedding"])
        return Loss(jnp.square(away).sum(axis=1).mean(), {"away": jnp.abs(away).mean()})
'''


def test_an_objective_of_the_users_own_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_objective", raising=False)
    config = experiment(objectives=dict(mine=dict(kind="own_objective:PullConfig", width=3)))
    module, batch = build_module(config), example_batch(config)
    variables = jax.eval_shape(lambda: initial_variables(module, batch, 0))
    assert variables["params"]["objectives_mine"]["head"]["kernel"].shape == (TOWER["width"], 3)
    loss = jax.eval_shape(lambda variables: module.apply(variables, batch), variables)
    assert set(loss.metrics) == {"mine/loss", "mine/away"}
