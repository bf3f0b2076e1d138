"""Small data sets in the layouts of public ones, for the tests of their readers.

Each writer fills a folder, with field names and file names as published, and returns the spec of
the source.
"""

import io
import json
import tarfile

import numpy as np
from PIL import Image

SIDE = 24


def picture(number, size=(SIDE, SIDE), image_format="PNG"):
    """An encoded image that differs from those of other numbers."""
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


def put_images(folder, names, **kwargs):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number, **kwargs))


def put_json(path, value):
    path.write_text(json.dumps(value))


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{number:012}.jpg",
            "sentids": [10 * number, 10 * number + 1],
            "imgid": index,
            "cocoid": number,
            "split": split,
            "sentences": [
                {
                    "tokens": ["a", "cat"],
                    "raw": f"A cat number {number}.",
                    "imgid": index,
                    "sentid": 10 * number,
                },
                {"tokens": ["it"], "raw": f"It is {number}. ", "imgid": index, "sentid": 1},
            ],
        }
        for index, (number, split) in enumerate(
            [(42, "test"), (73, "restval"), (74, "train"), (133, "test")]
        )
    ],
}


def karpathy(folder):
    put_json(folder / "dataset_coco.json", KARPATHY)
    put_images(folder / "images", [f"{i['filepath']}/{i['filename']}" for i in KARPATHY["images"]])
    return f"karpathy:{folder}/dataset_coco.json?root=images"


COCO_IMAGES = [
    {
        "id": number,
        "file_name": f"{number:012}.jpg",
        "height": SIDE,
        "width": SIDE,
        "license": 4,
        "coco_url": f"http://images.cocodataset.org/val2017/{number:012}.jpg",
    }
    for number in (397133, 37777, 252219)
]
COCO_CAPTIONS = {
    "info": {"year": 2017},
    "licenses": [{"id": 4}],
    "images": COCO_IMAGES,
    "annotations": [
        {"image_id": 37777, "id": 38, "caption": "The dining table near the kitchen."},
        {"image_id": 397133, "id": 39, "caption": "A man is in a kitchen making pizzas."},
        {"image_id": 37777, "id": 40, "caption": "A cozy kitchen.\n"},
    ],
}


def coco_captions(folder):
    put_json(folder / "captions_val2017.json", COCO_CAPTIONS)
    put_images(folder / "val2017", [image["file_name"] for image in COCO_IMAGES])
    return f"coco_captions:{folder}/captions_val2017.json?root=val2017"


TOKENS = """\
1000268201_693b08cb0e.jpg#0\tA child in a pink dress .
1000268201_693b08cb0e.jpg#1\tA girl going into a wooden building .
1001773457_577c3a7d70.jpg#0\tA black dog and a spotted dog are fighting
"""


def flickr_token(folder):
    (folder / "Flickr8k.token.txt").write_text(TOKENS)
    names = ["1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg"]
    put_images(folder / "Flicker8k_Dataset", names)
    return f"flickr_token:{folder}/Flickr8k.token.txt?root=Flicker8k_Dataset"


def flickr_csv(path, header, rows):
    """A table of Flickr30k or Flickr8k as Kaggle has it."""
    path.write_text("".join(f"{row}\n" for row in [header, *rows]))


ANSWERS = [["net"] * 3 + ["netting"] * 6 + ["mesh"], ["yes"] * 10, ["pitcher"] * 9 + ["catcher"]]
VQA_QUESTIONS = {
    "info": {"version": "2.0"},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "license": {},
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 262148, "question": "What is behind the man?", "question_id": 262148000},
        {"image_id": 262148, "question": "Is it day?", "question_id": 262148001},
        {"image_id": 393225, "question": "What position?", "question_id": 393225000},
    ],
}
VQA_ANNOTATIONS = {
    "info": {},
    "data_type": "mscoco",
    "data_subtype": "val2014",
    "annotations": [
        {
            "question_type": "what is",
            "multiple_choice_answer": max(set(answers), key=answers.count),
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": number}
                for number, answer in enumerate(answers, 1)
            ],
            "image_id": question["image_id"],
            "answer_type": "other",
            "question_id": question["question_id"],
        }
        for answers, question in reversed(
            list(zip(ANSWERS, VQA_QUESTIONS["questions"], strict=True))
        )
    ],
}


def vqa(folder):
    put_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", VQA_QUESTIONS)
    put_json(folder / "v2_mscoco_val2014_annotations.json", VQA_ANNOTATIONS)
    put_images(
        folder / "val2014", [f"COCO_val2014_{number:012}.jpg" for number in (262148, 393225)]
    )
    return (
        f"vqa:{folder}/v2_OpenEnded_mscoco_val2014_questions.json"
        "?annotations=v2_mscoco_val2014_annotations.json&root=val2014"
    )


def text_vqa(folder):
    question = {
        "question": "what is the brand of this camera?",
        "image_id": "003a8ae2ef43b901",
        "image_classes": ["Cassette deck"],
        "question_id": 34602,
        "question_tokens": ["what"],
        "answers": ["dakota"] * 9 + ["clos culombu"],
        "set_name": "val",
    }
    put_json(
        folder / "TextVQA_0.5.1_val.json",
        {"dataset_type": "val", "dataset_name": "textvqa", "data": [question]},
    )
    put_images(folder / "train_images", ["003a8ae2ef43b901.jpg"])
    return f"vqa:{folder}/TextVQA_0.5.1_val.json?root=train_images"


def gqa(folder):
    question = {
        "semantic": [],
        "entailed": [],
        "equivalent": ["05515938"],
        "question": "What is this bird called?",
        "imageId": "2405722",
        "isBalanced": True,
        "groups": {"global": "bird"},
        "answer": "parrot",
        "types": {"detailed": "categoryThis", "semantic": "cat", "structural": "query"},
        "fullAnswer": "This is a parrot.",
    }
    put_json(folder / "val_balanced_questions.json", {"05515938": question})
    put_images(folder / "images", ["2405722.jpg"])
    return f"vqa:{folder}/val_balanced_questions.json?root=images"


def put_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


CLASSES = ["tench", "goldfish", "great white shark"]


def clip_benchmark(folder):
    """Two shards of a set of classes, as clip_benchmark_export_wds writes them."""
    for shard, numbers in enumerate(([0, 1], [2, 3])):
        members = [
            (f"s{number:07}.{ending}", data)
            for number in numbers
            for ending, data in (
                ("cls", str(number % 3).encode()),
                ("webp", picture(number, image_format="WEBP")),
            )
        ]
        put_tar(folder / f"test/{shard}.tar", members)
    (folder / "test/nshards.txt").write_text("2\n")
    (folder / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n{c}\n")
    return f"clip_benchmark:{folder}"


def clip_benchmark_retrieval(folder):
    members = [
        (f"s{number:07}.{ending}", data)
        for number in range(2)
        for ending, data in (
            ("jpg", picture(number, image_format="JPEG")),
            ("txt", f"a cat {number}\na second, longer one {number}".encode()),
        )
    ]
    put_tar(folder / "test/0.tar", members)
    (folder / "test/nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return f"clip_benchmark:{folder}?split=test"


LABEL_VECTORS = [[1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]


def clip_benchmark_multilabel(folder, vectors=LABEL_VECTORS):
    """A set whose images have several classes each, as clip_benchmark_export_wds --multilabel
    writes it."""
    members = []
    for number, vector in enumerate(vectors):
        file = io.BytesIO()
        np.save(file, np.array(vector, np.float32))
        members.append((f"s{number:07}.npy", file.getvalue()))
        members.append((f"s{number:07}.webp", picture(number, image_format="WEBP")))
    put_tar(folder / "test/0.tar", members)
    (folder / "test/nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text("multilabel\n")
    (folder / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    return f"clip_benchmark:{folder}"


def put_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


NLVR2 = [
    {
        "validation": {"4117": "True"},
        "sentence": "The right image shows a curving walkway of dark glass circling a fountain.",
        "left_url": "https://example.org/left.jpg",
        "writer": "128",
        "label": label,
        "right_url": "https://example.org/right.jpg",
        "synset": "acorn",
        "query": "acorns6",
        "identifier": identifier,
        "extra_validations": {},
    }
    for label, identifier in (("True", "dev-850-0-0"), ("False", "dev-850-0-1"))
]


def nlvr2(folder):
    put_lines(folder / "dev.json", NLVR2)
    put_images(folder / "dev", ["dev-850-0-img0.png"], size=(20, 30))
    put_images(folder / "dev", ["other", "dev-850-0-img1.png"], size=(40, 15))
    return f"nlvr2:{folder}/dev.json?root=dev"


def snli_ve(folder):
    lines = [
        {
            "annotator_labels": [label, label],
            "captionID": "4705552913.jpg#2",
            "gold_label": label,
            "pairID": f"4705552913.jpg#2r1{label[0]}",
            "sentence1": "Two women are embracing while holding to go packages.",
            "sentence1_binary_parse": "( )",
            "sentence2": sentence,
            "Flickr30K_ID": "4705552913",
        }
        for label, sentence in (
            ("neutral", "The sisters are hugging goodbye."),
            ("entailment", "Two woman are holding packages."),
        )
    ]
    put_lines(folder / "snli_ve_dev.jsonl", lines)
    put_images(folder / "flickr30k-images", ["4705552913.jpg"])
    return f"snli_ve:{folder}/snli_ve_dev.jsonl?root=flickr30k-images"


VCR = {
    "movie": "3015_CHARLIE_ST_CLOUD",
    "objects": ["person", "person", "car"],
    "interesting_scores": [0, -1],
    "answer_likelihood": "possible",
    "img_fn": "lsmdc_3015/3015_a@0.jpg",
    "metadata_fn": "lsmdc_3015/3015_a@0.json",
    "answer_orig": "No, 1 and 3 are not.",
    "question_orig": "Does 2 feel comfortable?",
    "rationale_orig": "1 looks away.",
    "question": ["Does", [1], "feel", "comfortable", "?"],
    "question_number": 0,
    "answer_choices": [
        ["Yes", "because", "the", [2], "is", "near", "."],
        ["No", ",", [0, 2], "do", "n't", "move", "."],
        ["No", "."],
        [[0, 1, 2], "sleep", "."],
    ],
    "answer_sources": [1, 2, 3, 0],
    "answer_label": 1,
    "rationale_choices": [[[0], "looks", "away", "."], ["a"], ["b"], ["c"]],
    "rationale_label": 0,
    "img_id": "val-0",
    "annot_id": "val-0",
    "match_fold": "val-0",
    "match_index": 0,
}


def vcr(folder):
    put_lines(folder / "val.jsonl", [VCR])
    put_images(folder / "vcr1images", [VCR["img_fn"]])
    boxes = [[1.5, 2, 10, 20, 0.99], [0, 0, 5, 5, 0.9], [8, 8, 24, 24, 0.5]]
    put_json(
        folder / "vcr1images" / VCR["metadata_fn"],
        {"boxes": boxes, "segms": [[], [], []], "names": VCR["objects"], "width": 24, "height": 24},
    )
    return f"vcr:{folder}/val.jsonl?root=vcr1images"


def genome(folder, name, content):
    put_json(folder / name, content)
    put_images(folder, ["VG_100K/10.jpg", "VG_100K_2/1.jpg"])
    return f"visual_genome:{folder}/{name}"


def genome_questions(folder):
    qas = {
        number: {
            "a_objects": [],
            "question": "What color is the clock?",
            "image_id": number,
            "qa_id": 986700 + number,
            "answer": "Green.",
            "q_objects": [],
        }
        for number in (1, 10)
    }
    content = [{"id": number, "qas": [question]} for number, question in qas.items()]
    return genome(folder, "question_answers.json", content)


def genome_regions(folder):
    region = {
        "region_id": 1382,
        "width": 10,
        "height": 12,
        "image_id": 1,
        "phrase": "the clock is green in colour",
        "y": 3,
        "x": 2,
    }
    content = [{"id": 1, "regions": [region, {**region, "region_id": 1383, "phrase": "a man"}]}]
    return genome(folder, "region_descriptions.json", content)


def genome_relationships(folder):
    thing = {"h": 9, "object_id": 1058534, "merged_object_ids": [], "synsets": ["x.n.01"]}
    relationship = {
        "predicate": "ON",
        "object": {**thing, "w": 8, "y": 1, "x": 0, "names": ["sidewalk"]},
        "relationship_id": 15927,
        "synsets": ["along.r.01"],
        "subject": {**thing, "name": "shade", "w": 7, "y": 2, "x": 4},
    }
    content = [{"image_id": 10, "relationships": [relationship]}]
    return genome(folder, "relationships.json", content)


# a polygon, run lengths as a list (a crowd), and in COCO's text
COCO_INSTANCES = {
    "info": {},
    "licenses": [],
    "images": COCO_IMAGES,
    "annotations": [
        {
            "segmentation": [[2.1, 3.0, 15.5, 3.2, 15.0, 17.9, 8.2, 12.0], [0, 20, 4, 20, 4, 23.5]],
            "area": 120.5,
            "iscrowd": 0,
            "image_id": 397133,
            "bbox": [0, 3.0, 15.5, 20.5],
            "category_id": 44,
            "id": 82445,
        },
        {
            "segmentation": {"counts": [30, 100, 446], "size": [SIDE, SIDE]},
            "area": 100,
            "iscrowd": 1,
            "image_id": 37777,
            "bbox": [1, 0, 5, 24],
            "category_id": 1,
            "id": 900100037777,
        },
        {
            "segmentation": {"counts": "\\27a0000000000T;", "size": [SIDE, SIDE]},
            "area": 42,
            "iscrowd": 0,
            "image_id": 397133,
            "bbox": [3, 4, 6, 7],
            "category_id": 1,
            "id": 82446,
        },
    ],
    "categories": [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "kitchen", "id": 44, "name": "bottle"},
    ],
}


def coco_instances(folder):
    put_json(folder / "instances_val2017.json", COCO_INSTANCES)
    put_images(folder / "val2017", [image["file_name"] for image in COCO_IMAGES])
    return f"coco_instances:{folder}/instances_val2017.json?root=val2017"


SEGMENT = 3226956  # 76 + 256 * 61 + 256^2 * 49


def coco_panoptic(folder):
    """The left half of the first image is a person, the upper right quarter is sky."""
    ids = np.zeros((SIDE, SIDE), np.int64)
    ids[:, : SIDE // 2], ids[: SIDE // 2, SIDE // 2 :] = SEGMENT, 7
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1).astype(np.uint8)
    segments = [
        {"id": SEGMENT, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 12, 24], "area": 288},
        {"id": 7, "category_id": 187, "iscrowd": 0, "bbox": [12, 0, 12, 12], "area": 144},
    ]
    name = COCO_IMAGES[0]["file_name"].replace(".jpg", ".png")
    put_json(
        folder / "panoptic_val2017.json",
        {
            "images": COCO_IMAGES,
            "annotations": [{"segments_info": segments, "file_name": name, "image_id": 397133}],
            "categories": [
                {"supercategory": "person", "isthing": 1, "id": 1, "name": "person"},
                {"supercategory": "sky", "isthing": 0, "id": 187, "name": "sky-other-merged"},
            ],
        },
    )
    (folder / "panoptic_val2017").mkdir()
    Image.fromarray(colours).save(folder / "panoptic_val2017" / name)
    put_images(folder / "val2017", [image["file_name"] for image in COCO_IMAGES])
    return f"coco_panoptic:{folder}/panoptic_val2017.json?root=val2017&masks=panoptic_val2017"


REFS = [
    {
        "sent_ids": [0, 1],
        "file_name": "COCO_train2014_000000397133_0.jpg",
        "ann_id": annotation,
        "ref_id": number,
        "image_id": 397133,
        "split": split,
        "sentences": [
            {
                "tokens": ["the", "lady"],
                "raw": f"THE LADY {number}",
                "sent_id": 0,
                "sent": f"the lady {number}",
            },
            {"tokens": ["left"], "raw": "left one", "sent_id": 1, "sent": "left one"},
        ],
        "category_id": category,
    }
    for number, (annotation, split, category) in enumerate(
        [(82445, "train", 44), (82446, "testA", 1)]
    )
]


def refcoco(folder):
    put_json(folder / "refs(unc).json", REFS)
    put_json(folder / "instances.json", COCO_INSTANCES)
    put_images(folder / "train2014", [image["file_name"] for image in COCO_IMAGES])
    return f"refcoco:{folder}/refs(unc).json?root=train2014"


def imagenet(folder):
    """Folders for training, and the validation images as published, with the solution of Kaggle."""
    put_images(
        folder / "train",
        [f"{w}/{w}_{number}.JPEG" for w in ("n01440764", "n01443537") for number in (18, 36)],
    )
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3)]
    put_images(folder / "val", names)
    (folder / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    )
    (folder / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000003,n01440764 85 1 499 272 \n"
        "ILSVRC2012_val_00000001,n01443537 1 2 3 4 n01443537 5 6 7 8 \n"
        "ILSVRC2012_val_00000002,n01440764 131 0 499 254 \n"
    )
    return f"imagenet:{folder}"


def imagenet_val(folder):
    return f"{imagenet(folder)}?split=val"


VISDIAL = {
    "version": "1.0",
    "split": "val",
    "data": {
        "questions": ["is it sunny", "what color is the cat"],
        "answers": ["yes", "black", "no"],
        "dialogs": [
            {
                "image_id": 185565,
                "caption": "a cat sits on a wall",
                "dialog": [
                    {"question": 1, "answer": 1, "answer_options": [0, 1, 2], "gt_index": 1},
                    {"question": 0, "answer": 2, "answer_options": [2, 1, 0], "gt_index": 0},
                ],
            }
        ],
    },
}


def visdial(folder):
    put_json(folder / "visdial_1.0_val.json", VISDIAL)
    put_images(folder / "VisualDialog_val2018", ["VisualDialog_val2018_000000185565.jpg"])
    return f"visdial:{folder}/visdial_1.0_val.json?root=VisualDialog_val2018"


WRITERS = {
    "coco_instances": coco_instances,
    "coco_panoptic": coco_panoptic,
    "imagenet": imagenet,
    "imagenet, val": imagenet_val,
    "nlvr2": nlvr2,
    "refcoco": refcoco,
    "snli_ve": snli_ve,
    "vcr": vcr,
    "visdial": visdial,
    "visual_genome, questions": genome_questions,
    "visual_genome, regions": genome_regions,
    "visual_genome, relationships": genome_relationships,
    "clip_benchmark": clip_benchmark,
    "clip_benchmark, retrieval": clip_benchmark_retrieval,
    "clip_benchmark, multilabel": clip_benchmark_multilabel,
    "karpathy": karpathy,
    "coco_captions": coco_captions,
    "flickr_token": flickr_token,
    "vqa": vqa,
    "vqa, TextVQA": text_vqa,
    "vqa, GQA": gqa,
}
