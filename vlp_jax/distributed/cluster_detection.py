"""Which of how many hosts this process is: told by flags, or by the cluster it was started in (Slurm, TPU, Kubernetes, MPI)."""

import dataclasses
import os
import warnings
from collections.abc import Sequence

from jax._src import clusters  # JAX's own detection; what is public of it joins at once, without a word on who is missing

from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Launch:
    """coordinator: HOST:PORT on which host 0 listens. processes: how many hosts (processes) there are. process: which of
    them this is. local_devices: the accelerators of this machine that are this process's; None for all."""

    coordinator: str
    processes: int
    process: int
    local_devices: Sequence[int] | None = None


KUBERNETES_ROLE = ("the pod's service account needs a Role that may get and list pods, services and jobs, as in "
                   "launch/gke_jobset_gpu.yaml")
ADVICE = "give --coordinator=HOST:PORT --num-processes=N --process-id=I, or --num-processes=1 for a single one"


def find_launch(coordinator: str | None, processes: int | None, process: int | None, patience: float) -> Launch | None:
    """The launch that flags describe, else the cluster's; None for a single process.

    patience: seconds in which the coordinator's name must become known. Raises: ConfigError.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"--num-processes: {processes} is not a number of processes from 1")
    if coordinator is None and process is None:
        return None if processes == 1 else detect_launch(processes, patience)
    if coordinator is None or processes is None or process is None:
        raise ConfigError("--coordinator, --num-processes and --process-id go together: give all three, or none and let the "
                          "cluster tell")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise ConfigError(f"--coordinator: {coordinator!r} is not HOST:PORT, as in 10.0.0.1:8476")
    if not 1 <= int(port) <= 65_535:
        raise ConfigError(f"--coordinator: port {port} of {coordinator!r} is not from 1 to 65535")
    if not 0 <= process < processes:
        raise ConfigError(f"--process-id: {process} is not from 0 to {processes - 1}, one below --num-processes")
    return Launch(coordinator, processes, process) if processes > 1 else None


def detect_launch(processes: int | None, patience: float) -> Launch | None:
    """What the environment says of a cluster; None outside of one, or in one of a single process. Raises: ConfigError."""
    if processes is not None:
        raise ConfigError(f"--num-processes={processes} without --coordinator and --process-id; {ADVICE}")
    if "KUBERNETES_SERVICE_HOST" in os.environ and not {"JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES"} & os.environ.keys():
        return None  # a pod of its own, which belongs to no indexed job
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    try:
        with warnings.catch_warnings(action="ignore"):  # that `kubernetes` is missing: the error below says it
            found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(patience))
    except Exception as error:  # the clients of clusters raise errors of their own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        role = f"; {KUBERNETES_ROLE}" if indexed else ""
        raise ConfigError(f"the cluster does not say which hosts there are: {reason}{role}; {ADVICE}") from error
    coordinator, processes, process, local_devices = found
    if indexed and coordinator is None:  # as many copies would train into one workdir
        raise ConfigError(f"this is pod {os.environ['JOB_COMPLETION_INDEX']} of an indexed Kubernetes job, and the package that "
                          f"asks which others there are is missing: pip install 'jax[k8s]'; {KUBERNETES_ROLE}; {ADVICE}")
    if coordinator is None or processes is None or process is None or processes == 1:
        return None
    return Launch(coordinator, processes, process, None if all_devices_are_its_own() else local_devices)


def all_devices_are_its_own() -> bool:
    """Whether a process takes every accelerator of its machine, where JAX would give it one: the only task of its Slurm node
    does; JAX_LOCAL_DEVICE_IDS, where it is set, is left to JAX."""
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition(",")[0]
    return per_node == "1" or per_node.startswith("1(") or "JAX_LOCAL_DEVICE_IDS" in os.environ
