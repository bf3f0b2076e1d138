"""Evenly spaced samples of several sources."""

from collections.abc import Iterator, Sequence

import numpy as np

from vlp_jax.data.samples import Sample, Source, SparesImages
from vlp_jax.data.sources.columns import locate
from vlp_jax.errors import DataError


def evenly_spaced_samples(sources: Sequence[Source], most: int) -> Iterator[Sample]:
    """All samples of the sources in order, or `most` of them at even distances.

    Bad samples are skipped.

    Images are not read where a source can skip them (`SparesImages`), and are then empty.
    """
    starts = np.cumsum([0, *map(len, sources)])
    total = int(starts[-1])
    readers = [
        source.without_image if isinstance(source, SparesImages) else source.__getitem__
        for source in sources
    ]
    for i in np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)):
        number, place = locate(starts, int(i))
        try:
            yield readers[number](place)
        except DataError:
            continue
