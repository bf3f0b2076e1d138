"""Merging of samples that name the same image, as table rows with one caption each do, into one
sample."""

import dataclasses
import hashlib
from collections.abc import Sequence

from vlp_jax.data.samples import Sample, Source, SparesImages


class ImageGroups:
    """The images of a source, each once, with the captions of all its samples.

    Everything but the captions is that of an image's first sample.

    Args:
      source: the source.
      groups: for every image, the indices of its samples.
    """

    def __init__(self, source: Source, groups: Sequence[Sequence[int]]):
        self.source, self.groups, self.spec = source, groups, source.spec
        self.class_names, self.templates = (
            getattr(source, "class_names", {}),
            getattr(source, "templates", ()),
        )

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Sample:
        first, *others = self.groups[index]
        read = (
            self.source.without_image
            if isinstance(self.source, SparesImages)
            else self.source.__getitem__
        )
        return merged([self.source[first], *map(read, others)])

    def fingerprint(self) -> str:
        """The fingerprint of the source."""
        return self.source.fingerprint()


def merged(samples: Sequence[Sample]) -> Sample:
    """The first sample with the captions of all, each once."""
    captions: dict[str, str] = {}
    for sample in samples:
        for caption, field in zip(sample.captions, sample.caption_fields, strict=True):
            captions.setdefault(caption, field)
    return dataclasses.replace(
        samples[0], captions=tuple(captions), caption_fields=tuple(captions.values())
    )


def same_image(sample: Sample) -> tuple[str, bytes] | None:
    """A value that is equal for samples of one image; None where no file is named.

    It is the name of the image's file and a hash of its bytes.
    """
    return (sample.image_file, hashlib.sha256(sample.image).digest()) if sample.image_file else None
