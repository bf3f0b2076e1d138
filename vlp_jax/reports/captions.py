"""Generated captions next to the true ones."""

from vlp_jax.evaluators.requirements import trained
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.reports.examined import Examined, spread
from vlp_jax.reports.section import Absent, text


def caption_examples(examined: Examined, examples: int) -> str:
    """Images with the caption that the decoder writes, and with their own.

    Args:
      examined: model and set.
      examples: number of images.
    Raises:
      Absent: the model has no decoder that was trained to caption.
    """
    if "decoding" not in trained(examined.model.config):
        raise Absent(f"{examined.run.name} has no objective of kind 'captioning'")
    data, generator = examined.context.data, examined.context.text_generator
    assert generator is not None
    chosen = spread(range(len(data)), examples)
    pixels = [
        examined.preprocessor.pixels(data.source[number].image, data.keys[number])
        for number in chosen
    ]
    written = generator.captions(examined.variables, pixels, BeamSearch())
    return "".join(
        example(examined, number, caption) for number, caption in zip(chosen, written, strict=True)
    )


def example(examined: Examined, number: int, caption: str) -> str:
    """An image with both captions."""
    data = examined.context.data
    true = "; ".join(data.captions[place] for place in data.captions_of_image[number])
    return (
        f'<div class="example">{examined.picture(number)}<div>written: {text(caption)}<br>'
        f'<span class="soft">true: {text(true)}</span></div></div>'
    )
