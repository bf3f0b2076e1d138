"""Every family of public checkpoints, read without PyTorch: its outputs are those of its own
library, stored by tests/golden/make_weights.py."""

import pytest
from weight_reference import GOLDEN, errors, family, place_of, read_golden

from vlp_jax.inference import Model
from vlp_jax.weights.public import read_public

BOUND = 1e-5  # max|a - b| / max|b|, float32
FOLDERS = sorted(GOLDEN.iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_outputs_are_those_of_the_library_that_wrote_the_weights(folder):
    name = folder.name.rpartition("_")[0]
    inputs, expected = read_golden(folder)
    public = read_public(place_of(name, folder))
    model = Model(public.module, public.config, None)
    found = family(name).ours(model, public.variables(), inputs)
    assert max(errors(found, expected).values()) < BOUND
