"""pycocoevalcap's tokens and metrics of captions, written to `caption_metrics.json`.

METEOR is its jar restricted to exact and stem matches. Needs Java.

pip install pycocoevalcap==1.2
python tests/golden/make_caption_metrics.py
"""

import json
import pathlib
import subprocess

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from vlp_jax.data.sources.registry import open_source

HERE = pathlib.Path(__file__).parent
JAR = pathlib.Path(meteor.__file__).with_name("meteor-1.5.jar")
# candidates with no token, one and none
NONE = ("", "Person", "!")


def tokenized(texts: list[str]) -> list[str]:
    """The tokens of each text, with blanks between them.

    A line of a period follows each text, because rules for abbreviations read the next line.
    """
    lines = {i: [{"caption": text}, {"caption": "."}] for i, text in enumerate(texts)}
    found = PTBTokenizer().tokenize(lines)
    return [found[i][0] for i in range(len(texts))]


def changed(text: str, rng: np.random.Generator) -> str:
    """A caption like another one: words left out, repeated, in another order or another form."""
    words = [word for word in text.split() if rng.random() < 0.85]
    words += [word for word in words if rng.random() < 0.15]
    words = [word + "s" if rng.random() < 0.15 and word.isalpha() else word for word in words]
    return " ".join(rng.permutation(words) if rng.random() < 0.3 else words)


def corpus(texts: list[str]) -> tuple[list[str], list[list[str]]]:
    """A candidate and several references of each image."""
    rng, candidates = np.random.default_rng(0), list(NONE)
    references = [[texts[0]], [texts[1], texts[2]], [texts[0], texts[3]]]
    for text in texts:
        several = [text, *(changed(text, rng) for _ in range(rng.integers(0, 5)))]
        references.append([other for other in several if other])
        candidates.append(changed(str(rng.choice(several)), rng))
    return candidates, references


def meteor_scores(candidates: list[str], references: list[list[str]]) -> list[float]:
    """METEOR of each caption and of all, by the jar that pycocoevalcap runs."""
    command = ["java", "-jar", "-Xmx1G", str(JAR), "-", "-", "-stdio", "-l", "en", "-norm"]
    command += ["-m", "exact stem", "-w", "1.0 0.6"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(line: str) -> None:
            process.stdin.write(line + "\n")
            process.stdin.flush()

        statistics = []
        for candidate, captions in zip(candidates, references, strict=True):
            ask(" ||| ".join(["SCORE", *captions, candidate]))
            statistics.append(process.stdout.readline().strip())
        ask(" ||| ".join(["EVAL", *statistics]))
        found = [float(process.stdout.readline()) for _ in range(len(statistics) + 1)]
        process.stdin.close()
    return found


def main() -> None:
    """Writes the file."""
    emoji = open_source("embedded:emoji/val_concept")
    questions = open_source("embedded:emoji_vqa/val_vendor")
    texts = [emoji[i].captions[0] for i in range(0, len(emoji), 40)]
    texts += [questions[i].captions[0] for i in range(0, len(questions), 60)]
    texts = list(dict.fromkeys([*(HERE / "caption_texts.txt").read_text().split("\n"), *texts]))
    texts = [text for text in texts if text]
    tokens = tokenized(texts)
    candidates, references = corpus(
        [text for text, words in zip(texts, tokens, strict=True) if words]
    )
    said, flat = tokenized(candidates), iter(tokenized(sum(references, [])))
    true = [[next(flat) for _ in captions] for captions in references]
    true_of, said_of = dict(enumerate(true)), {i: [text] for i, text in enumerate(said)}
    alone = {0: true_of[3]}, {0: said_of[3]}
    found = {
        "tokens": list(zip(texts, tokens, strict=True)),
        "candidates": candidates,
        "references": references,
        "bleu": Bleu(4).compute_score(true_of, said_of, verbose=0)[0],
        "bleu_of_one": Bleu(4).compute_score(*alone, verbose=0)[0],
        "rouge_l": Rouge().compute_score(true_of, said_of)[1].tolist(),
        "cider": Cider().compute_score(true_of, said_of)[1].tolist(),
        "meteor": meteor_scores(said, true),
    }
    place = HERE / "caption_metrics.json"
    place.write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
