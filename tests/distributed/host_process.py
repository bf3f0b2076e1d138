"""One of several hosts without a model: `python host_process.py BEHAVIOUR PORT HOSTS HOST`, started
by test_processes.py."""

import json
import os
import signal
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from shared_evaluation import measured

from vlp_jax.command_line import run_entry_point
from vlp_jax.distributed.cluster_detection import Launch
from vlp_jax.distributed.exchange import (
    broadcast_from_primary,
    check_all_agree,
    exchange,
    is_primary_process,
)
from vlp_jax.distributed.processes import HostsConfig, joined
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.process_rows import HostRows
from vlp_jax.training.hooks.watchdog import Watchdog, WatchdogConfig
from vlp_jax.training.signals import StopSignal


def meet(host):
    for number in range(3):
        assert exchange("a test", {"host": host, "number": number}) == [
            {"host": i, "number": number} for i in range(2)
        ]
    assert broadcast_from_primary("a test", lambda: ["by", host]) == ["by", 0]
    try:
        broadcast_from_primary("a test", refuse)
    except ConfigError as error:
        print(f"refused: {error}", file=sys.stderr)
    check_all_agree("number", 7)
    print(f"host {host} is heard on stdout")
    place_rows()


def refuse():
    raise ConfigError("host 0 does not like it")


def place_rows():
    """Every mesh gives every device the rows of the global batch that are its own."""
    whole = np.arange(16 * 3).reshape(16, 3)
    for sizes in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (2, 2, 2), (1, 2, 4), (4, 1, 2)):
        mesh = build_mesh(MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))))
        meshes = [
            mesh,
            jax.sharding.Mesh(
                mesh.devices.transpose(2, 1, 0).reshape(mesh.devices.shape), mesh.axis_names
            ),
        ]
        for mesh in meshes:  # the second deals the devices out otherwise
            rows = HostRows(batch_sharding(mesh), 16)
            for shard in rows.place(whole[rows.rows]).addressable_shards:
                np.testing.assert_array_equal(shard.data, whole[shard.index])


def fail(host):
    if host == 1:
        raise DataError("a source is gone")
    time.sleep(60)


def crash(host):
    if host == 0:
        raise RuntimeError("a bug")
    time.sleep(60)


def hang_around(host):
    print("ready", flush=True) if is_primary_process() else None
    time.sleep(60)


def hang(host):
    """Host 0 is the first to notice; it keeps the words that the other is to read."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Watchdog(WatchdogConfig(seconds=2 + 60 * host, exit=True), folder, host) as dog,
    ):
        dog.done(6)
        time.sleep(60)


def come_late(host):
    if host == 1:
        time.sleep(60)
    exchange("the first counts", None)


def never_compute(host):
    """Host 0 adds over all devices, for which the other never comes."""
    if host == 1:
        time.sleep(100)
    rows = HostRows(batch_sharding(build_mesh(MeshConfig())), 16)
    jax.block_until_ready(jax.jit(jnp.sum)(rows.place(np.ones((16, 3))[rows.rows])))


def differ(host):
    check_all_agree("config or data set", f"of host {host}")


def stop_together(host):
    """Host 1 is preempted at its third step; steps are so short that the hosts run apart."""
    with StopSignal() as stop:
        for step in range(1, 10_000):
            if host == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if stop.asks():
                break
            time.sleep(0.01 + 0.01 * host)
        steps = exchange("the step", step)
        print(f"stopped after {steps}", file=sys.stderr)
        return stop.exit_status


def evaluate(host):
    """Prints the metrics of a set with one damaged image, and how many images this host decodes."""
    print(json.dumps({"host": host, **measured(build_mesh(MeshConfig()))}), file=sys.stderr)


def main(arguments):
    behaviour, port, hosts, host = arguments[0], *map(int, arguments[1:])
    patience = HostsConfig(
        initialization_seconds=3 if behaviour == "meet_missing" else 60,
        heartbeat_seconds=3 if behaviour in ("hang_around", "never_compute") else 30,
        barrier_seconds=3 if behaviour == "come_late" else 60,
    )
    with joined(
        Launch(f"127.0.0.1:{port}", hosts, host),
        patience,
        heeds_signals=behaviour == "stop_together",
    ):
        return globals()[behaviour.removesuffix("_missing")](host) or 0


if __name__ == "__main__":
    run_entry_point(main)
