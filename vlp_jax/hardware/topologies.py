"""Absent accelerators: device descriptions for which the real compilers compile.

They come from `jax.experimental.topologies`.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterable
from typing import Any

import jax
from jax.experimental import topologies

from vlp_jax.errors import ConfigError
from vlp_jax.hardware.chips import CHIPS, Chip

TPUS, GPUS = ("v4", "v5e", "v5p", "v6e"), ("h100", "h200")
EXPECTED = (
    "expected such as v5e:8x8, v6e:16x16, v4:4x4x4, v5p:4x4x8, h100:8, h200:16; "
    "2*v5e:16x16 is two slices"
)
DEVICES_PER_GPU_HOST = 8


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, in `slices` groups connected by a data-centre network. shape: shape of one
    group."""

    spec: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """The number of chips."""
        return self.slices * math.prod(self.shape)

    def devices(self) -> list:
        """Descriptions of the devices, for meshes and shardings.

        Raises:
          ConfigError: the shape does not exist, or the chip's compiler is not installed.
        """
        prepare_environment()
        try:
            description = gpu_description(self) if self.chip.name in GPUS else tpu_description(self)
        except Exception as error:  # the plugins raise errors of many types
            raise ConfigError(f"--topology: {self.spec}: {advice(self, error)}") from error
        return list(description.devices)

    def islands(self, devices: Iterable[Any]) -> list[int]:
        """For each device, the slice or GPU host whose devices the fast interconnect connects."""
        if self.chip.name in GPUS:
            return [device.id // DEVICES_PER_GPU_HOST for device in devices]
        return [getattr(device, "slice_index", 0) or 0 for device in devices]


def parse_topology(spec: str) -> Topology:
    """The topology of `v5e:8x8`, `2*v5e:16x16` or `h100:8`.

    Raises:
      ConfigError: unknown chip or shape.
    """
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)", spec)
    if not match or match[2] not in CHIPS:
        raise ConfigError(f"--topology: {spec!r} is none; {EXPECTED}")
    shape = tuple(int(size) for size in match[3].split("x"))
    dimensions = {"v4": 3, "v5p": 3, "h100": 1, "h200": 1}.get(match[2], 2)
    if len(shape) != dimensions or 0 in shape or match[1] == "0" or (match[1] and match[2] in GPUS):
        raise ConfigError(
            f"--topology: {spec!r}: {match[2]} comes in {dimensions} dimension(s), "
            f"at least 1 each; {EXPECTED}"
        )
    return Topology(spec, CHIPS[match[2]], shape, int(match[1] or 1))


def prepare_environment() -> None:
    """Sets the environment in which libtpu looks neither for a TPU nor for another process that
    uses it."""
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    }.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def tpu_description(topology: Topology) -> topologies.TopologyDescription:
    """The chips of a slice, as the TPU compiler expects them.

    Raises: the plugin's errors for shapes that do not exist.
    """
    options: dict[str, Any] = {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip, as in JAX on a real v4
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    shape = "x".join(map(str, topology.shape))
    return topologies.get_topology_desc(
        platform="tpu", topology_name=f"{topology.chip.name}:{shape}", **options
    )


def gpu_description(topology: Topology) -> topologies.TopologyDescription:
    """GPUs in hosts of eight, as the compiler expects them.

    Raises:
      ConfigError: their number does not fill hosts.
    """
    (count,) = topology.shape
    hosts, per_host = max(count // DEVICES_PER_GPU_HOST, 1), min(count, DEVICES_PER_GPU_HOST)
    if hosts * per_host != count:
        raise ConfigError(f"{count} GPUs do not fill hosts of {DEVICES_PER_GPU_HOST}")
    target = GPU_TARGET.format(
        memory=topology.chip.memory_bytes,
        bandwidth=int(topology.chip.memory_bandwidth),
        name=topology.chip.device_kinds[0],
    )
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name=topology.chip.name,
        topology=f"1x{hosts}x{per_host}",
        target_config=target,
    )


def advice(topology: Topology, error: Exception) -> str:
    """The error in one line, with the remedy where the plugin is missing."""
    words = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    package = "jax-cuda12-plugin and jax-cuda12-pjrt" if topology.chip.name in GPUS else "libtpu"
    if re.search(
        r"not installed|topology not implemented|Unknown backend|no PJRT "
        r"plugin|libtpu.so",
        words,
    ):
        return f"needs {package}, pip install 'vlp-jax[compile]' ({words})"
    return words


# XLA's description of an H100 or H200 (both have compute capability 9.0 and differ in memory).
GPU_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
runtime_version {{ major: 12 minor: 8 patch: 0 }} platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
device_description_str: "{name}"
"""
