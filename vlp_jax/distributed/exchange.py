"""Exchange of small values between processes, so that all take the same decisions.

It uses JAX's coordination service instead of the devices: a wait ends after a given time, and the
error names the missing processes.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax._src import distributed  # key-value store and barriers, which have no public API

from vlp_jax import errors
from vlp_jax.errors import HostError, HostsDiffer, UserError

Value = TypeVar("Value")
FOLDER = "vlp_jax/exchange"

_numbers = itertools.count()  # of the exchanges so far; every process counts the same ones
_patience = {"seconds": 1800.0}


def set_patience(seconds: float) -> None:
    """Sets how long a process waits for the others in an exchange."""
    _patience["seconds"] = seconds


def several_hosts() -> bool:
    """Whether this process is one of several that run together."""
    return jax.process_count() > 1


def is_primary_process() -> bool:
    """Whether this is process 0, which writes files and logs."""
    return jax.process_index() == 0


def service() -> Any:
    """The client of JAX's coordination service."""
    return distributed.global_state.client


def wait_on_cpu(computed: Value) -> Value:
    """`computed`, after waiting for it where several CPU devices compute.

    CPU devices start independent programs in any order. Two programs with collectives that start in
    different order on different devices wait for each other for ever. Between processes with
    several devices this happens even without asynchronous dispatch (jaxlib 0.10.2).
    """
    return (
        jax.block_until_ready(computed)
        if jax.default_backend() == "cpu" and jax.device_count() > 1
        else computed
    )


def exchange(what: str, value: Any) -> list[Any]:
    """The values of all processes, by process index. Every process must call it, in the same order.

    Args:
      what: name of the exchange in messages.
      value: JSON.
    Raises:
      HostError: processes did not call it in time; the message names them.
    """
    if not several_hosts():
        return [value]
    number, client = next(_numbers), service()
    client.key_value_set(f"{FOLDER}/{number}/{jax.process_index()}", json.dumps(value))
    try:
        client.wait_at_barrier(f"{FOLDER}/{number}", int(1000 * _patience["seconds"]))
    except jax.errors.JaxRuntimeError as error:
        there = {
            int(key.rpartition("/")[2])
            for key, _ in client.key_value_dir_get(f"{FOLDER}/{number}/")
        }
        missing = (
            ", ".join(str(host) for host in range(jax.process_count()) if host not in there)
            or "none"
        )
        raise HostError(
            f"{what}: {len(there)} of {jax.process_count()} hosts came within "
            f"{_patience['seconds']:g} s (hosts.barrier_seconds), missing: "
            f"{missing}"
        ) from error
    values = {
        int(key.rpartition("/")[2]): json.loads(text)
        for key, text in client.key_value_dir_get(f"{FOLDER}/{number}/")
    }
    if is_primary_process() and number:
        client.key_value_delete(f"{FOLDER}/{number - 1}/")  # all are here, so all have read it
    return [values[host] for host in range(jax.process_count())]


def broadcast_from_primary(what: str, decide: Callable[[], Value]) -> Value:
    """The result of `decide()` on the primary process (JSON), in every process.

    Raises:
      UserError: on all processes, the one that the primary process raised.
    """
    if not several_hosts():
        return decide()
    verdict = None
    if is_primary_process():
        try:
            verdict = {"value": decide()}
        except UserError as error:
            verdict = {"kind": type(error).__name__, "message": error.args[0]}
    told = exchange(what, verdict)[0]
    if "kind" in told:
        raise getattr(errors, told["kind"])(told["message"])
    return told["value"]


def check_all_agree(what: str, value: Any) -> None:
    """Checks that `value` (JSON) is equal in all processes.

    Raises:
      HostsDiffer: the message names the first process whose value differs from that of process 0.
    """
    values = exchange(what, value)
    for host, other in enumerate(values):
        if other != values[0]:
            raise HostsDiffer(
                f"host {host} has another {what} than host 0: start all hosts with "
                "the same command, code and data"
            )
