"""Parts of a page: sections, tables, figures and images, as HTML with escaped texts."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#3366cc", "#e8710a", "#1a9850", "#9334e6", "#d01884", "#5f6368")
SIDE = 96  # pixels of an image on the page


class Absent(Exception):
    """A section that the runs have nothing for; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      title: its heading.
      body: its HTML.
    """

    title: str
    body: str


def text(value: object) -> str:
    """A value as HTML, with control characters shown as U+FFFD."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(value))
    return html.escape(shown)


def paragraph(value: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{text(value)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def new_figure(width: float, height: float) -> "Figure":
    """An empty Matplotlib figure, in inches.

    Raises:
      ConfigError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "a report needs Matplotlib: pip install 'vlp_jax[report]', or matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def drawn(figure: "Figure", alternative: str) -> str:
    """A figure as an image inside of the page; `alternative` says in words what it shows."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return inlined(file.getvalue(), alternative, "figure")


def picture(pixels: np.ndarray, alternative: str, kind: str = "picture") -> str:
    """Pixels uint8 [H, W, 3] as an image inside of the page.

    Args:
      pixels: the image as a model sees it.
      alternative: what it shows, in words.
      kind: its CSS classes.
    """
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    scale = SIDE / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size])
    image.save(file, "PNG")
    return inlined(file.getvalue(), alternative, kind)


def inlined(png: bytes, alternative: str, kind: str) -> str:
    """The bytes of a PNG as an HTML image."""
    data = base64.b64encode(png).decode()
    return f'<img class="{kind}" alt="{text(alternative)}" src="data:image/png;base64,{data}">'


def number(value: object) -> str:
    """A value of a table: numbers with four digits, others as they are, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if isinstance(value, int) or (abs(value) >= 1000 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:.4g}"
