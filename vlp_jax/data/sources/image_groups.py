"""Samples that name one image, as rows of a table with a caption each do, as one sample with all captions."""

import dataclasses
import hashlib
from collections.abc import Sequence

from vlp_jax.data.samples import Sample, Source, SparesImages


class ImageGroups:
    """The images of a source, each once, with the captions of all samples of it; the rest is that of the first.

    Args: source. groups: of every image, the indices of its samples.
    """

    def __init__(self, source: Source, groups: Sequence[Sequence[int]]):
        self.source, self.groups, self.spec = source, groups, source.spec
        self.class_names, self.templates = getattr(source, "class_names", {}), getattr(source, "templates", ())

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Sample:
        first, *others = self.groups[index]
        read = self.source.without_image if isinstance(self.source, SparesImages) else self.source.__getitem__
        return merged([self.source[first], *map(read, others)])

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()


def merged(samples: Sequence[Sample]) -> Sample:
    """The first sample with the captions of all, each once."""
    captions: dict[str, str] = {}
    for sample in samples:
        for caption, field in zip(sample.captions, sample.caption_fields, strict=True):
            captions.setdefault(caption, field)
    return dataclasses.replace(samples[0], captions=tuple(captions), caption_fields=tuple(captions.values()))


def same_image(sample: Sample) -> tuple[str, bytes] | None:
    """Equal for samples of one image: its file is named alike, and is the same; None where no file is named."""
    return (sample.image_file, hashlib.sha256(sample.image).digest()) if sample.image_file else None
