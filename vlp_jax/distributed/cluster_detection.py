"""The index and number of processes, from flags or the cluster (Slurm, TPU, Kubernetes, MPI)."""

import dataclasses
import os
import warnings
from collections.abc import Sequence

# JAX's own detection; its public API connects at once and cannot name missing processes
from jax._src import clusters

from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Launch:
    """How the processes of a run connect.

    Attributes:
      coordinator: HOST:PORT on which process 0 listens.
      processes: number of processes.
      process: the index of this one.
      local_devices: the accelerators of this machine that belong to this process; None for all.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: Sequence[int] | None = None


KUBERNETES_ROLE = (
    "the pod's service account needs a Role that may get and list pods, services "
    "and jobs, as in launch/gke_jobset_gpu.yaml"
)
ADVICE = (
    "give --coordinator=HOST:PORT --num-processes=N --process-id=I, or --num-processes=1 for "
    "a single one"
)


def find_launch(
    coordinator: str | None, processes: int | None, process: int | None, patience: float
) -> Launch | None:
    """The launch that the flags describe, else that of the cluster; None for a single process.

    Args:
      coordinator, processes, process: values of the flags, None where absent.
      patience: seconds within which the coordinator's name must become known.
    Raises:
      ConfigError: flags that do not fit together, or a cluster that cannot be detected.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"--num-processes: {processes} is not a number of processes from 1")
    if coordinator is None and process is None:
        return None if processes == 1 else detect_launch(processes, patience)
    if coordinator is None or processes is None or process is None:
        raise ConfigError(
            "--coordinator, --num-processes and --process-id go together: give all "
            "three, or none and let the cluster decide"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise ConfigError(f"--coordinator: {coordinator!r} is not HOST:PORT, as in 10.0.0.1:8476")
    if not 1 <= int(port) <= 65_535:
        raise ConfigError(f"--coordinator: port {port} of {coordinator!r} is not from 1 to 65535")
    if not 0 <= process < processes:
        raise ConfigError(
            f"--process-id: {process} is not from 0 to {processes - 1}, one below --num-processes"
        )
    return Launch(coordinator, processes, process) if processes > 1 else None


def detect_launch(processes: int | None, patience: float) -> Launch | None:
    """The launch that the cluster's environment describes; None without a cluster, or for a single
    process.

    Raises:
      ConfigError: the cluster cannot be detected.
    """
    if processes is not None:
        raise ConfigError(
            f"--num-processes={processes} without --coordinator and --process-id; {ADVICE}"
        )
    if (
        "KUBERNETES_SERVICE_HOST" in os.environ
        and not {"JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES"} & os.environ.keys()
    ):
        return None  # a single pod, outside an indexed job
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    try:
        # the error below reports that `kubernetes` is missing
        with warnings.catch_warnings(action="ignore"):
            found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
                None, None, None, None, None, int(patience)
            )
    except Exception as error:  # cluster clients raise various errors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        role = f"; {KUBERNETES_ROLE}" if indexed else ""
        raise ConfigError(
            f"the cluster does not name its hosts: {reason}{role}; {ADVICE}"
        ) from error
    coordinator, processes, process, local_devices = found
    if indexed and coordinator is None:  # otherwise every pod would train into the same workdir
        raise ConfigError(
            f"this is pod {os.environ['JOB_COMPLETION_INDEX']} of an indexed "
            "Kubernetes job, and the package that asks which others there are is "
            f"missing: pip install 'jax[k8s]'; {KUBERNETES_ROLE}; {ADVICE}"
        )
    if coordinator is None or processes is None or process is None or processes == 1:
        return None
    return Launch(
        coordinator, processes, process, None if all_devices_are_its_own() else local_devices
    )


def all_devices_are_its_own() -> bool:
    """Whether a process takes every accelerator of its machine, where JAX would give it only one.

    This is so for the only task of its Slurm node. JAX_LOCAL_DEVICE_IDS, if set, is left to JAX.
    """
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition(",")[0]
    return per_node == "1" or per_node.startswith("1(") or "JAX_LOCAL_DEVICE_IDS" in os.environ
