"""Queries with what a model finds for them, right and wrong."""

import numpy as np

from vlp_jax.metrics.ranking import ranks, similarities
from vlp_jax.reports.examined import Examined, spread
from vlp_jax.reports.section import Absent, text

SHOWN = 5  # results of a query


def retrieval_examples(examined: Examined, examples: int) -> str:
    """Captions with the nearest images, and images with the nearest captions.

    Args:
      examined: model and set.
      examples: number of right and of wrong ones in each direction.
    Raises:
      Absent: there are no embeddings, or images have no captions.
    """
    data, images, texts = examined.data, examined.images, examined.texts
    if not data.captions or not all(data.captions_of_image):
        raise Absent(f"{examined.source} has images without captions")
    of_texts = ranks(texts, images, data.images_of_caption)
    of_images = ranks(images, texts, data.captions_of_image)
    body = f'<p class="soft">{text(intro(examined, of_texts, of_images))}</p>'
    for right in (True, False):
        chosen = spread(chosen_queries(of_texts, right), examples)
        body += f"<h3>Text to image: {'right' if right else 'wrong'}</h3>"
        body += "".join(text_query(examined, query, of_texts[query]) for query in chosen) or NONE
    for right in (True, False):
        chosen = spread(chosen_queries(of_images, right), examples)
        body += f"<h3>Image to text: {'right' if right else 'wrong'}</h3>"
        body += "".join(image_query(examined, query, of_images[query]) for query in chosen) or NONE
    return body


NONE = '<p class="soft">none</p>'


def intro(examined: Examined, of_texts: np.ndarray, of_images: np.ndarray) -> str:
    """What the section shows, in words."""
    return (
        f"{examined.run.name}, step {examined.step}, on {len(of_images)} images and "
        f"{len(of_texts)} captions of {examined.source}. Recall@1: text to image "
        f"{100 * (of_texts == 1).mean():.1f}%, image to text {100 * (of_images == 1).mean():.1f}%. "
        "A green frame marks what belongs to the query; images are shown as the model sees them."
    )


def chosen_queries(order: np.ndarray, right: bool) -> np.ndarray:
    """The queries whose result is right, or wrong."""
    return np.flatnonzero(order == 1 if right else order > 1)


def nearest(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The indices of the nearest candidates of a query [E], nearest first."""
    scores = similarities(query[None], candidates)[0]
    return np.argsort(-scores, kind="stable")[:SHOWN]


def text_query(examined: Examined, query: int, rank: int) -> str:
    """A caption and the images that are found for it."""
    data = examined.data
    own = set(data.images_of_caption[query])
    found = nearest(examined.texts[query], examined.images).tolist()
    pictures = "".join(examined.picture(place, true=place in own) for place in found)
    if own.isdisjoint(found):
        true = examined.picture(min(own), true=True)
        words = f'<span class="missed">true one at rank {rank}:</span>'
        pictures += f'<div class="later">{words}{true}</div>'
    words = f'<div class="query">{text(data.captions[query])}</div>'
    return f'<div class="example">{words}{pictures}</div>'


def image_query(examined: Examined, query: int, rank: int) -> str:
    """An image and the captions that are found for it."""
    data = examined.data
    own = set(data.captions_of_image[query])
    found = nearest(examined.images[query], examined.texts).tolist()
    lines = "".join(line(data.captions[place], place in own) for place in found)
    if own.isdisjoint(found):
        true = text(data.captions[min(own)])
        lines += f'</ol><p>true one at rank {rank}: <span class="found">{true}</span></p><ol>'
    return f'<div class="example">{examined.picture(query)}<div><ol>{lines}</ol></div></div>'


def line(caption: str, true: bool) -> str:
    """A caption as a line of a list."""
    return f'<li class="found">{text(caption)} ✓</li>' if true else f"<li>{text(caption)}</li>"
