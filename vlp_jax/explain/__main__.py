"""Draw which parts of an image count for a score of it and a text.

python -m vlp_jax.explain --workdir=RUN --image=FILE --text="a cat" --output=PNG
  writes the image, and the map of each method over it. --methods chooses some: attention, rollout,
  relevance, grad_cam, patch_similarity, word_attention, occlusion; by default all that the model
  has. --score is retrieval, matching, answer (--text is the question, --answer an answer) or
  caption (--word a word of the text); by default the first that the model has.
  --set=grad_cam.layer=1 sets a setting of a method.
"""

import os
from typing import TYPE_CHECKING

from vlp_jax.command_line import Flags, quiet_libraries, run_entry_point
from vlp_jax.errors import ConfigError
from vlp_jax.reporting import remark, report

if TYPE_CHECKING:
    from PIL import Image


def main(arguments: list[str]) -> int:
    """Writes the image.

    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="explain", description=__doc__)
    flags.add_argument("--workdir", required=True, help="a run's folder, or a public checkpoint")
    flags.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    flags.add_argument("--image", required=True, help="an image file")
    flags.add_argument("--text", required=True, help="a caption, or a question")
    flags.add_argument("--output", required=True, help="a PNG file to write")
    flags.add_argument("--methods", help="comma-separated; by default all that the model has")
    flags.add_argument("--score", help="what is explained; by default the first that there is")
    flags.add_argument("--answer", help="to the question; by default the model's own")
    flags.add_argument("--word", help="of the caption; by default all")
    flags.add_argument(
        "--set", action="append", metavar="METHOD.KEY=VALUE", help="a setting of a method"
    )
    flags.add_argument("--components", default="", help="as for python -m vlp_jax.inspect")
    given = flags.parse(arguments, ("--set",))
    quiet_libraries()

    from vlp_jax.explain.chosen import chosen_methods
    from vlp_jax.explain.panels import draw_pair
    from vlp_jax.loading import load

    if not given.output.lower().endswith(".png"):
        raise ConfigError(f"--output: must be a PNG file, got {given.output!r}")
    settings = given.set or []
    chosen_methods(given.methods, settings)  # before the model is loaded
    components = tuple(name for name in given.components.split(",") if name)
    model, variables, _ = load(given.workdir, given.step, components=components)
    page, score = draw_pair(
        model,
        variables,
        given.image,
        given.text,
        methods=chosen_methods(given.methods, settings),
        named=given.methods is not None,
        score=given.score,
        answer=given.answer,
        word=given.word,
        absent=remark,
    )
    write_png(page, given.output)
    report(f"{score}\nwrote {given.output}")
    return 0


def write_png(page: "Image.Image", path: str) -> None:
    """Writes an image file.

    Raises:
      ConfigError: it cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        page.save(path, "PNG", optimize=True)
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    run_entry_point(main)
