"""The official VQA evaluation's normalised answers and accuracies, written to `vqa_answers.json`.

The code is the copy in LAVIS for Python 3 of GT-Vision-Lab/VQA's vqaEval.py.

pip download --no-deps salesforce-lavis==1.0.2
python tests/golden/make_vqa_answers.py salesforce_lavis-1.0.2-py3-none-any.whl
"""

import contextlib
import io
import json
import pathlib
import sys
import types
import zipfile

import numpy as np

CODE = "lavis/common/vqa_tools/vqa_eval.py"
TEXTS = """Yes.|two|None|a red, round ball|the dog's|1,000|dont know|t-shirt|t - shirt|5.5|p.m.
black/white|A|what?|[red]|no!|U.S.A.|3:30|10:30 am|it's|"stop"|red; blue|red;blue|on/off|$5|5%|a&b
don't walk|ten|Zero|the|an apple a day|2 1/2|1,000.5|yes,no|yes, no|(left)|left_right|x=y|@home
Mr. Smith|3.|.5|a.b|back-pack|back - pack|<none>|green + red|`quoted`|what?!|{x}|caf\u00e9
ice\tcream|one two three|None of them|nine and ten|north-east|7-up|coca cola|no.|left.right"""


def official(wheel: str) -> types.ModuleType:
    """The module of the evaluation."""
    module = types.ModuleType("vqa_eval")
    exec(zipfile.ZipFile(wheel).read(CODE).decode(), module.__dict__)
    return module


def accuracies(module: types.ModuleType, answers: list[list[str]], said: list[str]) -> list[float]:
    """The accuracy of each answer by those of all annotators."""
    questions = range(len(said))
    annotated = {
        i: {
            "answers": [
                {"answer": text, "answer_id": number} for number, text in enumerate(answers[i])
            ],
            "question_type": "x",
            "answer_type": "x",
        }
        for i in questions
    }
    truth = types.SimpleNamespace(qa=annotated, getQuesIds=lambda: list(questions))
    results = types.SimpleNamespace(qa={i: {"answer": text} for i, text in enumerate(said)})
    evaluation = module.VQAEval(truth, results, n=12)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return [evaluation.evalQA[i] / 100 for i in questions]


def main(wheel: str) -> None:
    """Writes the file."""
    module, rng = official(wheel), np.random.default_rng(0)
    empty = module.VQAEval()

    def normalised(text: str) -> str:
        text = text.replace("\n", " ").replace("\t", " ").strip()
        return empty.processDigitArticle(empty.processPunctuation(text))

    texts = [text for line in TEXTS.split("\n") for text in line.split("|")]
    texts += [*empty.contractions, *empty.contractions.values()]
    pairs = [(text, normalised(text)) for text in texts]
    said, answers = [], []
    for _ in range(60):
        few = [texts[i] for i in rng.choice(55, rng.integers(1, 5), replace=False)]
        # the annotations of VQA v2 are normalised
        answers.append([normalised(str(rng.choice(few))) or "yes" for _ in range(10)])
        said.append(str(rng.choice([*few, "yes"])))
    found = {
        "texts": pairs,
        "answers": answers,
        "said": said,
        "accuracies": accuracies(module, answers, said),
    }
    place = pathlib.Path(__file__).with_name("vqa_answers.json")
    place.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
