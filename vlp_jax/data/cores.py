"""How many cores this process may use, and how many worker processes decode well on them."""

import os
import pathlib

MOST_WORKERS = 16
FEW_CORES = 4  # below which decoding in threads of the training process is faster than processes beside it
CGROUPS = (pathlib.Path("/sys/fs/cgroup/cpu.max"), pathlib.Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))


def available_cores() -> int:
    """The cores that this process may run on: by its affinity (taskset, Slurm) and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container_quota(*CGROUPS)
    return max(1, cores if quota is None else min(cores, round(quota)))


def container_quota(unified: pathlib.Path, old: pathlib.Path) -> float | None:
    """The cores that a container's quota allows (`docker run --cpus`); None where there is no quota. unified, old: the files that
    state it in version 2 and 1 of Linux's control groups."""
    try:
        if unified.is_file():
            quota, period = unified.read_text().split()
        else:
            quota, period = old.read_text().strip(), old.with_name("cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None


def workers_for(cores: int, on_accelerator: bool) -> int:
    """How many processes decode on so many cores: two cores are left to the training process where an accelerator computes, half of
    them where they compute themselves; none where that leaves too few."""
    if cores < FEW_CORES:
        return 0
    return min(MOST_WORKERS, cores - 2 if on_accelerator else cores // 2 - 1)
