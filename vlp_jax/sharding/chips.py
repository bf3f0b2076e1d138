"""What an accelerator can do at most, by the vendors' data sheets: the yardstick for utilisation and for a step's least time."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's peaks. flops: dense bfloat16 operations a second. memory_bytes: HBM that a program can have; on TPU what the
    compiler says is available, a little less than there is. memory_bandwidth: bytes/s of the HBM. interconnect_bandwidth:
    bytes/s that it sends to its neighbours, all links together, one way. device_kinds: what JAX calls it. source: where the
    other figures stand."""

    name: str
    device_kinds: tuple[str, ...]
    flops: float
    memory_bytes: int
    memory_bandwidth: float
    interconnect_bandwidth: float
    source: str


GIB = 2**30
CLOUD = "cloud.google.com/tpu/docs"
CHIPS = {chip.name: chip for chip in (
    Chip("v4", ("TPU v4",), 275e12, int(30.75 * GIB), 1228e9, 300e9, f"{CLOUD}/v4"),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, int(15.75 * GIB), 819e9, 200e9, f"{CLOUD}/v5e"),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, int(95.74 * GIB), 2765e9, 600e9, f"{CLOUD}/v5p"),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, int(31.25 * GIB), 1640e9, 448e9, f"{CLOUD}/v6e"),
    Chip("h100", ("NVIDIA H100 80GB HBM3",), 989.4e12, 80 * GIB, 3352e9, 450e9, "NVIDIA's data sheet of the H100 SXM"),
    Chip("h200", ("NVIDIA H200",), 989.4e12, 141_000_000_000, 4800e9, 450e9, "NVIDIA's data sheet of the H200 SXM"),
)}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`, or None where its peaks are not known (a CPU, for one)."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.device_kinds), None)
