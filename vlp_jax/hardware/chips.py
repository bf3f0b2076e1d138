"""Peak figures of accelerators, from the vendors' data sheets.

They are used for utilisation and for the least time of a step.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """The peak figures of a chip.

    Attributes:
      name: name of the chip in topologies.
      device_kinds: names of the chip in JAX.
      flops: dense bfloat16 operations per second.
      memory_bytes: HBM available to a program; on TPU what the compiler reports, slightly less than
        is built in.
      memory_bandwidth: bytes/s of the HBM.
      interconnect_bandwidth: bytes/s sent to neighbours (ICI, NVLink), over all links, in one
        direction.
      network_bandwidth: bytes/s sent between slices (TPU) or hosts (GPU): the chip's share of its
        host's network cards. None: not published.
      source: source of the other figures.
    """

    name: str
    device_kinds: tuple[str, ...]
    flops: float
    memory_bytes: int
    memory_bandwidth: float
    interconnect_bandwidth: float
    network_bandwidth: float | None
    source: str


GIB = 2**30
CLOUD = "cloud.google.com/tpu/docs"
NVIDIA = "NVIDIA's data sheets of the {0} SXM and the DGX {0}"
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", ("TPU v4",), 275e12, int(30.75 * GIB), 1228e9, 300e9, None, f"{CLOUD}/v4"),
        Chip(
            "v5e",
            ("TPU v5 lite", "TPU v5e"),
            197e12,
            int(15.75 * GIB),
            819e9,
            200e9,
            3.125e9,
            f"{CLOUD}/v5e",
        ),
        Chip(
            "v5p",
            ("TPU v5", "TPU v5p"),
            459e12,
            int(95.74 * GIB),
            2765e9,
            600e9,
            6.25e9,
            f"{CLOUD}/v5p",
        ),
        Chip(
            "v6e",
            ("TPU v6 lite", "TPU v6e"),
            918e12,
            int(31.25 * GIB),
            1640e9,
            448e9,
            12.5e9,
            f"{CLOUD}/v6e",
        ),
        Chip(
            "h100",
            ("NVIDIA H100 80GB HBM3",),
            989.4e12,
            84_929_347_584,
            3352e9,
            450e9,
            50e9,
            NVIDIA.format("H100"),
        ),
        Chip(
            "h200",
            ("NVIDIA H200",),
            989.4e12,
            141_000_000_000,
            4800e9,
            450e9,
            50e9,
            NVIDIA.format("H200"),
        ),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip with this name in JAX, or None where its peaks are unknown (such as a CPU)."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.device_kinds), None)
