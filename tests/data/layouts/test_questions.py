"""Visual question answering, Visual Genome and Visual Dialog: what a sample holds, and the targets
of a config that reads its answers."""

import json

import pytest
from layout_files import (
    ANSWERS,
    VQA_QUESTIONS,
    genome_questions,
    genome_regions,
    genome_relationships,
    gqa,
    put_images,
    put_json,
    text_vqa,
    visdial,
    vqa,
)

from vlp_jax.data.images.boxes import BoxesConfig, boxes_in
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.target_kinds import ScoresTargetConfig
from vlp_jax.errors import DataError


def test_vqa_has_the_answers_of_all_annotators(tmp_path):
    source = open_source(vqa(tmp_path))
    assert [(sample.captions, sample.caption_fields) for sample in source] == [
        ((question["question"],), ("question",)) for question in VQA_QUESTIONS["questions"]
    ]
    assert [sample.metadata["answers"] for sample in source] == ANSWERS
    sample = source[0]
    assert sample.image_file == "COCO_val2014_000000262148.jpg" == source[1].image_file
    assert {**sample.metadata, "answers": None} == {
        "question_id": 262148000,
        "image_id": 262148,
        "answers": None,
        "answer": "netting",
        "answer_type": "other",
        "question_type": "what is",
    }


def test_soft_scores_of_a_config_are_those_of_the_official_rule(tmp_path):
    """Of ten annotators, one has 0.3, three or more have 1: averaged over nine others each."""
    target = ScoresTargetConfig(field="answers", classes=4, canonicalize=("vqa_answer",))
    places = {"net": 0, "netting": 1, "mesh": 2, "yes": 3}
    scores = target.read(open_source(vqa(tmp_path))[0].metadata, places)

    def official(answer):
        given = ANSWERS[0]
        others = [[a for j, a in enumerate(given) if j != i] for i in range(10)]
        return sum(min(1, rest.count(answer) / 3) for rest in others) / 10

    assert scores.tolist() == pytest.approx([official(answer) for answer in places])


def test_a_test_split_has_no_answers_and_names_its_images(tmp_path):
    vqa(tmp_path)
    content = {**VQA_QUESTIONS, "data_subtype": "test-dev2015"}
    put_json(tmp_path / "questions.json", content)
    put_images(tmp_path / "test2015", ["COCO_test2015_000000262148.jpg"])
    sample = open_source(f"vqa:{tmp_path}/questions.json?root=test2015")[0]
    assert sample.metadata == {"question_id": 262148000, "image_id": 262148}
    named = f"vqa:{tmp_path}/questions.json?image=test2015/COCO_test2015_{{:012}}.jpg"
    assert open_source(named)[0].image == sample.image
    with pytest.raises(DataError, match="must have one {}, where the id of an image goes"):
        open_source(f"vqa:{tmp_path}/questions.json?image=x.jpg")


def test_annotations_of_other_questions_are_refused(tmp_path):
    spec = vqa(tmp_path)
    path = tmp_path / "v2_mscoco_val2014_annotations.json"
    path.write_text(path.read_text().replace('"question_id": 262148001', '"question_id": 5'))
    with pytest.raises(
        DataError, match=r"questions\[1\]: .* has no annotation of question 26214800"
    ):
        open_source(spec)
    with pytest.raises(DataError, match="annotations: no such file"):
        open_source(spec.replace("annotations=v2", "annotations=v3"))


def test_text_vqa_and_gqa(tmp_path):
    sample = open_source(text_vqa(tmp_path))[0]
    assert sample.metadata["answers"] == ["dakota"] * 9 + ["clos culombu"]
    assert sample.image_file == "003a8ae2ef43b901.jpg"
    sample = open_source(gqa(tmp_path))[0]
    assert sample.captions == ("What is this bird called?",)
    assert (sample.metadata["answers"], sample.metadata["answer"]) == (["parrot"], "parrot")


def test_visual_genome_finds_its_images_in_both_folders(tmp_path):
    source = open_source(genome_questions(tmp_path))
    assert [sample.image_file for sample in source] == ["VG_100K_2/1.jpg", "VG_100K/10.jpg"]
    assert source[1].metadata == {
        "answer": "Green.",
        "answers": ["Green."],
        "qa_id": 986710,
        "image_id": 10,
    }


def test_visual_genome_s_regions_and_relationships_have_boxes(tmp_path):
    first, second = open_source(genome_regions(tmp_path))
    assert (first.captions, second.captions) == (("the clock is green in colour",), ("a man",))
    assert first.metadata == {"boxes": [[2, 3, 12, 15]], "region_id": 1382, "image_id": 1}
    (sample,) = open_source(genome_relationships(tmp_path))
    assert sample.captions == ("shade on sidewalk",)
    assert sample.metadata["boxes"] == [[4, 2, 11, 11], [0, 1, 8, 10]]
    spec = BoxesConfig(field="boxes")
    assert boxes_in("", sample.metadata, spec).tolist() == sample.metadata["boxes"]


def test_a_wrong_record_of_visual_genome_is_named(tmp_path):
    spec = genome_regions(tmp_path)
    path = tmp_path / "region_descriptions.json"
    content = json.loads(path.read_text())
    del content[0]["regions"][1]["width"]
    put_json(path, content)
    with pytest.raises(DataError, match=r"json: \[0\].regions\[1\]: \[2, 3, None, 12\] is no box"):
        open_source(spec)
    put_json(path, [{"id": 1, "objects": []}])
    with pytest.raises(DataError, match=r"\[0\]: has none of qas, regions, relationships"):
        open_source(spec)


def test_a_turn_of_a_dialogue_has_all_that_was_said_before(tmp_path):
    first, second = open_source(visdial(tmp_path))
    assert first.captions == ("a cat sits on a wall. what color is the cat?",)
    assert second.captions == ("a cat sits on a wall. what color is the cat? black. is it sunny?",)
    assert second.metadata == {
        "question": "is it sunny?",
        "turn": 2,
        "answer": "no",
        "answers": ["no"],
        "answer_options": ["no", "black", "yes"],
        "gt_index": 0,
        "image_id": 185565,
    }
    assert second.metadata["answer_options"][second.metadata["gt_index"]] == "no"


def test_dialogues_of_other_splits(tmp_path):
    spec = visdial(tmp_path)
    path = tmp_path / "visdial_1.0_val.json"
    content = json.loads(path.read_text())
    content["split"] = "train"
    put_json(path, content)
    put_images(tmp_path / "coco", ["val2014/COCO_val2014_000000185565.jpg"])
    source = open_source(spec.replace("root=VisualDialog_val2018", "root=coco"))
    assert source[0].image_file == "val2014/COCO_val2014_000000185565.jpg"
    content["split"] = "test2018"
    del content["data"]["dialogs"][0]["dialog"][1]["answer"]
    put_json(path, content)
    put_images(tmp_path, ["VisualDialog_test2018/VisualDialog_test2018_000000185565.jpg"])
    last = open_source(spec.replace("root=VisualDialog_val2018", "root=."))[1]
    assert "answer" not in last.metadata and last.image
    content["data"]["dialogs"][0]["dialog"][0]["question"] = 2
    put_json(path, content)
    with pytest.raises(
        DataError, match=r"data.dialogs\[0\].dialog\[0\]: its question is 2, and there are 2 texts"
    ):
        open_source(spec)
