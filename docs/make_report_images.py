"""The images of docs/report.md, drawn by the browser of the tests from the report of a run.

python -m vlp_jax.main --config=clip_emoji --workdir=runs/emoji --config.epochs=8 \
    --config.log_every=10 --config.evaluators.val_vendor.every_steps=145
python -m vlp_jax.report runs/emoji --output=runs/page
python docs/make_report_images.py runs/page/index.html
"""

import pathlib
import sys
import tempfile

from PIL import Image

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests" / "helpers"))

import browser  # noqa: E402

WIDTH = 1100
SHOWN = {"overview": 780, "retrieval": 860, "zero-shot-classes": 975}  # sections, most pixels


def main(page: str) -> None:
    """Writes a PNG of each section in SHOWN."""
    page = str(pathlib.Path(page).resolve())
    places, height = browser.sections(page, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        browser.screenshot(page, f"{folder}/page.png", WIDTH, height)
        whole = Image.open(f"{folder}/page.png").convert("RGB")
    for section, most in SHOWN.items():
        top, tall = places[section]
        top = 0 if section == "overview" else top
        part = whole.crop((0, top, WIDTH, top + (most if top == 0 else min(most, tall + 20))))
        path = FOLDER / f"report_{section}.png"
        part.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
