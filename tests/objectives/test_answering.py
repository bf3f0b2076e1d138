"""Answers written word by word: loss and ranking against NumPy, padding, gradients, and what a
config must have for them."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_answers import ANSWERS, DECODERS, LENGTH, batch, config_of, log_p, logits_of, started
from tiny_experiment import BATCH, TOWER, experiment, leaves

from vlp_jax.config import base, to_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.target_kinds import TextTargetConfig
from vlp_jax.data.targets import Targets, ranked_answers, rows_of_texts
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.answering import NOT_LISTED
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_update

CANDIDATES = np.array(
    [[1, 5, 2, -1], [1, 5, 7, 2], [1, 9, 2, -1], [1, 3, 2, -1], [1, 12, 2, -1]], np.int32
)


@pytest.mark.full
@pytest.mark.parametrize(
    "decoder", ["transformer", "gru", pytest.param("lstm", marks=pytest.mark.slow)]
)
def test_the_loss_is_the_cross_entropy_of_each_token_and_rows_without_answer_add_none(decoder):
    config = config_of(decoder, label_smoothing=0.1)
    module, variables = started(config)
    given = batch()
    loss = module.apply(variables, {**given, "image": given["image"] / 255.0})
    found = log_p(logits_of(module, variables, given, ANSWERS))
    values = []
    for row, ids in enumerate(ANSWERS):
        for place in range(LENGTH - 1):
            if ids[place + 1] >= 0:
                p = found[row, place]
                values.append(-0.9 * p[ids[place + 1]] - 0.1 * p.mean())
    np.testing.assert_allclose(loss.value, np.mean(values), rtol=1e-5)
    assert float(loss.metrics["answer/target_rate"]) == pytest.approx(7 / 8)
    gradients = jax.grad(
        lambda params: (
            module.apply({"params": params}, {**given, "image": given["image"] / 255.0}).value
        )
    )(variables["params"])
    for part in ("model/image/", "model/text/", "model/fusion/", "model/decoder/"):
        assert any(
            np.any(value) for path, value in leaves(gradients).items() if path.startswith(part)
        ), part


@pytest.mark.full
@pytest.mark.parametrize(
    "decoder", ["transformer", "gru", pytest.param("lstm", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("shortlist", [pytest.param(32, marks=pytest.mark.slow), 2])
def test_answers_are_ranked_by_their_log_likelihoods_among_those_with_likely_first_words(
    decoder, shortlist
):
    module, variables = started(config_of(decoder, shortlist=shortlist))
    given = batch()
    found = np.asarray(
        module.apply(
            variables,
            "answer",
            given | {"image": given["image"] / 255.0},
            CANDIDATES,
            method="predict",
        )
    )
    expected, first = np.zeros((BATCH, len(CANDIDATES))), np.zeros((BATCH, len(CANDIDATES)))
    for number, ids in enumerate(CANDIDATES):
        written = log_p(logits_of(module, variables, given, np.tile(ids, (BATCH, 1))))
        expected[:, number] = sum(
            written[:, place, ids[place + 1]] for place in range(LENGTH - 1) if ids[place + 1] >= 0
        )
        first[:, number] = written[:, 0, ids[1]]
    listed = np.argsort(-first, axis=1, kind="stable")[:, :shortlist]
    for row in range(BATCH):
        for number in range(len(CANDIDATES)):
            if number in listed[row]:
                np.testing.assert_allclose(
                    found[row, number], expected[row, number], rtol=1e-4, atol=1e-5
                )
            else:
                assert found[row, number] <= NOT_LISTED + 1


@pytest.mark.full
def test_padding_of_questions_and_answers_changes_nothing():
    module, variables = started(config_of())
    given = batch()
    short = logits_of(module, variables, given, ANSWERS[:, :3])
    np.testing.assert_allclose(
        logits_of(module, variables, given, ANSWERS)[:, :2], short[:, :2], atol=1e-5
    )
    other = given | {"text": np.where(given["text_mask"], given["text"], 7).astype(np.int32)}
    same = logits_of(module, variables, given, ANSWERS)
    np.testing.assert_allclose(logits_of(module, variables, other, ANSWERS), same, atol=1e-5)


@pytest.mark.slow
def test_over_a_mesh_the_scores_are_those_of_one_device():
    config = config_of()
    module, variables = started(config)
    given = batch()

    def predict(variables, given):
        return module.apply(variables, "answer", given, CANDIDATES, method="predict")

    given["image"] = given["image"] / np.float32(255)
    mesh = build_mesh(MeshConfig(data=4, fsdp=2))
    with layout_in_use(build_layout(MeshConfig(data=4, fsdp=2), mesh)):
        found = jax.jit(predict)(variables, jax.device_put(given, batch_sharding(mesh)))
    np.testing.assert_allclose(found, jax.jit(predict)(variables, given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(target=dict(kind="class", field="answer", classes=5)),
            "objectives.answer.target: needs a target of kind 'text'",
        ),
        (dict(target=dict(kind="text", field="answer")), "data.targets.answer.classes: is missing"),
        (
            dict(target=dict(kind="text", field="answer", classes=5, length=9)),
            "data.targets.answer.length: is 9, more than",
        ),
        (
            dict(fusion=dict(kind="concatenation", width=8, mlp_dim=8)),
            "model.fusion: objectives.answer reads the text's tokens",
        ),
        (
            dict(decoder=dict(kind="on_text_tower", **TOWER)),
            "model.decoder: objectives.answer writes by a decoder of its own",
        ),
        (
            dict(decoder=dict(kind="lstm", image="state", width=8, embedding_width=8)),
            "model.decoder: objectives.answer writes",
        ),
        (dict(length=3), "objectives.answer.length: is 3, data.targets.answer has 4"),
        (
            dict(target=dict(kind="text", field="answer", classes=5, length=2)),
            "data.targets.answer.length: .*2",
        ),
        (
            dict(decoder=dict(kind="transformer", text_prefix=0.5, **TOWER)),
            "model.decoder.text_prefix: has no effect without",
        ),
        (
            dict(end_token=None),
            "data.text.end_token: is None, and objectives.answer ends an answer with it",
        ),
    ],
)
def test_what_an_answer_needs_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


@pytest.mark.variants
@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_a_decoder_that_captions_too_reads_pictures_and_what_is_fused_by_one_matrix(decoder):
    both = dict(
        answer=dict(kind="answering", target="answer", unigram="batch"),
        caption=dict(kind="captioning", unigram="batch"),
    )
    target = dict(answer=dict(kind="text", field="answer", classes=5, length=LENGTH))

    def config_of_width(width):
        return experiment(
            data__targets=target,
            model__decoder=DECODERS[decoder],
            objectives=both,
            data__text__end_token="<end>",
            model__fusion=dict(kind="cross_attention", **TOWER) | dict(width=width),
        )

    config = config_of_width(TOWER["width"])
    build_update(config, build_layout(config.mesh, build_mesh(config.mesh)), steps=10)
    with pytest.raises(
        ConfigError,
        match="model.fusion: is 16 wide and model.image 8; where one decoder captions and answers",
    ):
        config_of_width(2 * TOWER["width"])


def test_texts_become_rows_of_tokens_and_what_is_said_most_often_is_the_text(capsys):
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    tokenizer = Preprocessor.from_config(to_config(config.to_dict())).tokenizer
    rows = rows_of_texts(
        ["yes", "", "a red heart with a very long name indeed, for a heart"], tokenizer, 6
    )
    start, end, _ = tokenizer.special_ids
    assert rows.shape == (3, 6) and rows.dtype == np.int32
    yes = tokenizer.backend.encode(["yes"])[0]
    assert (
        rows[0].tolist() == [*start, *yes, *end, *[-1] * (4 - len(yes))] and (rows[1] == -1).all()
    )
    assert rows[2, 0] == start[0] and rows[2, -1] == end[0]
    cut = dataclasses.replace(
        tokenizer, spec=dataclasses.replace(tokenizer.spec, truncation_side="left")
    )
    np.testing.assert_array_equal(
        rows_of_texts(["a red heart with a very long name indeed, for a heart"], cut, 6), rows[2:]
    )
    for length, words in (
        (6, "'a red heart with' and 'a red heart with a name' (and 1 more) are the same tokens"),
        (16, None),
    ):
        answers = [
            "yes",
            "a red heart with",
            "a red heart with a name",
            "a red heart with a long name",
        ]
        assert ranked_answers("x", answers, tokenizer, length).shape == (4, length)
        said = capsys.readouterr().err
        assert (
            (f"data.targets.x: {words}" in said and f"more than {length}" in said)
            if words
            else not said
        )
    targets = Targets({"x": TextTargetConfig(field="answers", classes=2)}, {"x": ("yes", "no")})
    assert [
        targets.of("x", {"answers": said}) for said in (["no", "yes", "yes"], "no", [], None)
    ] == ["yes", "no", "", ""]
