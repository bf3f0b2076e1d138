"""Every family of public checkpoints, read without PyTorch: its outputs are those of its own
library, stored by tests/golden/make_weights.py."""

import pytest
from weight_reference import GOLDEN, errors, family, place_of, read_golden

from vlp_jax.inference import Model
from vlp_jax.weights.public import read_public

BOUND = 1e-5  # max|a - b| / max|b|, float32
# One case of each of these by default, the others with -m full.
DEFAULT = (
    "bert",
    "big_vision",
    "blip_retrieval",
    "clip",
    "dinov2",
    "openclip_vit",
    "siglip",
    "t5",
    "timm_vit",
    "vit",
)
FOLDERS = [
    pytest.param(
        folder,
        id=folder.name,
        marks=() if folder.name in {f"{name}_0" for name in DEFAULT} else pytest.mark.full,
    )
    for folder in sorted(GOLDEN.iterdir())
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_outputs_are_those_of_the_library_that_wrote_the_weights(folder):
    name = folder.name.rpartition("_")[0]
    inputs, expected = read_golden(folder)
    public = read_public(place_of(name, folder))
    model = Model(public.module, public.config, None)
    found = family(name).ours(model, public.variables(), inputs)
    assert max(errors(found, expected).values()) < BOUND
