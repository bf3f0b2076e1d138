"""`snli_ve:FILE.jsonl?root=flickr30k-images`: visual entailment (Xie et al. 2019).

Lines {"Flickr30K_ID", "sentence1", "sentence2", "gold_label", "pairID"}. The caption is the
hypothesis, sentence2. Metadata: `gold_label` (entailment, neutral, contradiction), `sentence1`,
the caption of the image that the hypothesis was written for, and `pairID`. Option `image` names the
images by their ids, by default `{}.jpg`.
"""

from vlp_jax.data.layouts.documents import read_lines
from vlp_jax.data.layouts.records import ImageNames, Notes, RecordSource, Rows, split_layout


def open_snli_ve(rest: str) -> RecordSource:
    """The lines of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "snli_ve", ("image",))
    names = ImageNames(options, ["{}.jpg"], spec)

    def read(notes: Notes) -> Rows:
        for line in read_lines(path):
            number = str(line.number_or_text("Flickr30K_ID")).removesuffix(".jpg")
            kept = line.some("gold_label", "sentence1", "pairID")
            row = {"image": names(number), "sentence2": line.text("sentence2"), **kept}
            yield str(line.number_or_text("pairID")), row

    return RecordSource(path, (), spec, options, read, "sentence2")
