"""Tiny random models of other libraries with their inputs and outputs, as our reading of their
weights must reproduce them (tests/weights).

pip install torch==2.13.0 transformers==5.24.0 safetensors numpy
python tests/golden/make_weights.py [NAME ...]
  writes tests/golden/weights/NAME_VARIANT of the families in tests/weights/families. Those of
  OpenCLIP and timm need another environment:
python -m venv /tmp/open_clip && /tmp/open_clip/bin/pip install torch==2.14.1 torchvision==0.29.1 \
    open_clip_torch==3.3.0
/tmp/open_clip/bin/python tests/golden/make_weights.py openclip_vit
"""

import pathlib
import sys

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "weights" / "families")]

from weight_reference import GOLDEN, GOLDENS, NAMES, family, write_reference  # noqa: E402


def main(names: list[str]) -> None:
    for name in names or [name for name in NAMES if not hasattr(family(name), "NEEDS")]:
        for variant in range(GOLDENS):
            folder = GOLDEN / f"{name}_{variant}"
            write_reference(name, variant, folder)
            size = sum(path.stat().st_size for path in folder.iterdir())
            print(f"{folder.name}: {size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
