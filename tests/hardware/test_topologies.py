"""Names of absent accelerators, and the peaks of chips."""

import importlib.util

import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.hardware.chips import CHIPS, chip_of
from vlp_jax.hardware.topologies import GPUS, TPUS, parse_topology


@pytest.mark.parametrize(
    ("spec", "chip", "shape", "slices", "chips"),
    [
        ("v5e:16x16", "v5e", (16, 16), 1, 256),
        ("v4:2x2x4", "v4", (2, 2, 4), 1, 16),
        ("2*v5e:4x4", "v5e", (4, 4), 2, 32),
        ("h100:8", "h100", (8,), 1, 8),
        ("h200:16", "h200", (16,), 1, 16),
        ("v6e:1x1", "v6e", (1, 1), 1, 1),
    ],
)
def test_a_topology_is_chips_shape_and_slices(spec, chip, shape, slices, chips):
    topology = parse_topology(spec)
    assert (topology.chip.name, topology.shape, topology.slices, topology.chips) == (
        chip,
        shape,
        slices,
        chips,
    )


@pytest.mark.parametrize(
    "spec",
    [
        "v5e",
        "v5e:",
        "v9:2x2",
        "v5e:8",
        "v5e:0x4",
        "v4:2x2",
        "h100:2x4",
        "2*h100:8",
        "0*v5e:2x2",
        "v5e:8x8 ",
    ],
)
def test_what_is_no_topology_is_one_line_with_examples(spec):
    with pytest.raises(ConfigError, match="expected such as v5e:8x8"):
        parse_topology(spec)


def test_every_chip_is_found_by_what_jax_calls_it_and_others_are_not():
    assert set(CHIPS) == {*TPUS, *GPUS}
    for chip in CHIPS.values():
        assert all(chip_of(kind) is chip for kind in chip.device_kinds)
    assert chip_of("cpu") is None


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_plugin_the_message_says_what_to_install():
    with pytest.raises(ConfigError, match=r"needs libtpu, pip install 'vlp-jax\[compile\]'"):
        parse_topology("v5e:2x2").devices()
