"""All metrics of captions of a set of images."""

from collections.abc import Sequence

from vlp_jax.metrics.captions.meteor import meteor
from vlp_jax.metrics.captions.ngrams import bleu, cider, rouge_l
from vlp_jax.metrics.captions.tokens import tokens

CAPTION_SCORES = (
    "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider", "cider_plain"
)  # fmt: skip


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The metrics of captions that a model generates for a set of images.

    Args:
      candidates: the generated caption of each image.
      references: the true captions of each image, one or more.

    Returns:
      bleu_1 to bleu_4: BLEU of the corpus.
      rouge_l: mean ROUGE-L.
      meteor: METEOR of the corpus with exact and stem matches.
      cider: mean of what pycocoevalcap and papers call CIDEr, which is CIDEr-D, in [0, 10].
      cider_plain: mean CIDEr without clipping and without a penalty of lengths.
    """
    said = [" ".join(tokens(text)) for text in candidates]
    true = [[" ".join(tokens(text)) for text in captions] for captions in references]
    # a number with a fraction, as 2 1/2, is one token of ROUGE and two of BLEU and CIDEr
    said_words = [text.split() for text in said]
    true_words = [[text.split() for text in captions] for captions in true]
    rouge = [
        rouge_l(text.split(" "), [other.split(" ") for other in captions])
        for text, captions in zip(said, true, strict=True)
    ]
    values = (
        *bleu(said_words, true_words).tolist(),
        sum(rouge) / len(rouge),
        meteor(said, true),
        cider(said_words, true_words).mean(),
        cider(said_words, true_words, clipped=False).mean(),
    )
    return dict(zip(CAPTION_SCORES, map(float, values), strict=True))
