"""The number of cores that this process may use, and of worker processes that decode well on
them."""

import os
import pathlib

MOST_WORKERS = 16
# with fewer, decoding in threads of the training process is faster than in worker processes
FEW_CORES = 4
CGROUPS = (
    pathlib.Path("/sys/fs/cgroup/cpu.max"),
    pathlib.Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
)


def available_cores() -> int:
    """Cores that this process may run on, limited by its affinity (taskset, Slurm) and by its
    container's quota."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = container_quota(*CGROUPS)
    return max(1, cores if quota is None else min(cores, round(quota)))


def container_quota(unified: pathlib.Path, old: pathlib.Path) -> float | None:
    """Cores that a container's quota allows (`docker run --cpus`).

    Args:
      unified: quota file of Linux control groups version 2.
      old: quota file of Linux control groups version 1.

    Returns: the number of cores, or None where there is no quota.
    """
    try:
        if unified.is_file():
            quota, period = unified.read_text().split()
        else:
            quota, period = (
                old.read_text().strip(),
                old.with_name("cpu.cfs_period_us").read_text().strip(),
            )
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None


def workers_for(cores: int, on_accelerator: bool) -> int:
    """Number of worker processes that decode on `cores` cores, at most MOST_WORKERS.

    Where an accelerator computes, two cores are left to the training process. Where the CPU itself
    computes, at least half of the cores are left to it. With fewer than FEW_CORES cores the result
    is 0.
    """
    if cores < FEW_CORES:
        return 0
    return min(MOST_WORKERS, cores - 2 if on_accelerator else cores // 2 - 1)
