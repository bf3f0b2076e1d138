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
    put_images(
        folder / "images", [f"{i['filepath']}/{i['filename']}" for i in KARPATHY["images"]]
    )
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


WRITERS = {
    "clip_benchmark": clip_benchmark,
    "clip_benchmark, retrieval": clip_benchmark_retrieval,
    "karpathy": karpathy,
    "coco_captions": coco_captions,
    "flickr_token": flickr_token,
    "vqa": vqa,
    "vqa, TextVQA": text_vqa,
    "vqa, GQA": gqa,
}
