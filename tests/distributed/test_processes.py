"""Several hosts as processes of this machine, without a model: how they meet, what each hears of
another's end."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import pytest
from jax._src.clusters.k8s_cluster import K8sCluster
from shared_evaluation import measured

from vlp_jax.distributed.cluster_detection import Launch, find_launch
from vlp_jax.distributed.heartbeat import LINGER, coordination_timeout, interval_of
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.mesh import MeshConfig, build_mesh

ROOT = pathlib.Path(__file__).parents[2]
HEARTBEAT = 3  # seconds, in host_process.py


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(behaviour, hosts=2, only=None):
    """The processes of hosts that behave so, by number."""
    port = free_port()
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers")]),
    }
    script = pathlib.Path(__file__).parent / "host_process.py"
    return {
        host: subprocess.Popen(
            [sys.executable, str(script), behaviour, str(port), str(hosts), str(host)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in (range(hosts) if only is None else only)
    }


def ends(processes):
    """(exit status, stdout, stderr) of each host."""
    said = {host: process.communicate(timeout=120) for host, process in processes.items()}
    return [(processes[host].returncode, *said[host]) for host in said]


@pytest.mark.full
def test_hosts_exchange_words_agree_print_as_one_and_each_holds_the_rows_of_its_devices():
    (status, out, said), (other_status, other_out, other_said) = ends(start("meet"))
    assert (status, other_status) == (0, 0), said + other_said
    assert "host 0 is heard on stdout" in out
    assert "heard" not in other_out
    assert said.splitlines()[-1] == "refused: config error: host 0 does not like it"
    assert other_said.splitlines()[-1] == "host 1: refused: config error: host 0 does not like it"


@pytest.mark.full
def test_a_missing_host_is_counted_and_named_within_the_stated_time():
    begun = time.monotonic()
    results = ends(start("meet_missing", hosts=3, only=(0, 2)))
    for status, _, said in results:
        assert status == 75
        assert (
            "host error: 2 of 3 hosts came to 127.0.0.1:"
        ) in said and "missing host 1 within 3 s" in said
    assert time.monotonic() - begun < 60


@pytest.mark.slow
def test_a_host_alone_says_that_host_0_does_not_answer():
    ((status, _, said),) = ends(start("meet_missing", only=(1,)))
    assert status == 75
    assert "host error: host 1 of 2: no message from host 0 at 127.0.0.1:" in said


@pytest.mark.full
def test_an_error_on_one_host_ends_the_others_with_its_words():
    (status, _, said), (other_status, _, other_said) = ends(start("fail"))
    assert (status, other_status) == (2, 2)
    assert "host error: host 1 of 2 has left: data error: a source is gone" in said
    assert other_said.splitlines()[-1] == "host 1: data error: a source is gone"


@pytest.mark.full
def test_a_crash_of_host_0_is_told_to_the_others_before_it_leaves():
    (status, _, said), (other_status, _, other_said) = ends(start("crash"))
    assert (status, other_status) == (1, 1)
    assert "Traceback" in said
    assert "host 1: host error: host 0 of 2 has left: RuntimeError: a bug" in other_said


@pytest.mark.full
@pytest.mark.parametrize(("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGTERM)])
def test_when_a_host_is_killed_the_others_leave_and_name_it_within_the_stated_time(victim, number):
    """SIGTERM kills as ever where nothing waits for it in order to save."""
    processes = start("hang_around", hosts=2)
    while "ready" not in processes[0].stdout.readline():
        pass
    time.sleep(2.0)
    processes[victim].send_signal(number)
    begun = time.monotonic()
    results = ends(processes)
    (status, _, said), (other_status, _, _) = results[1 - victim], results[victim]
    assert (status, other_status) == (75, -number), said
    since = f"for {HEARTBEAT} s" if victim else "since its connection has closed"
    assert f"host error: no message from host {victim} of 2 {since}" in said
    assert "stack trace" not in said
    assert time.monotonic() - begun < HEARTBEAT + 20


@pytest.mark.parametrize("heartbeat_seconds", [2.0, 10.0, 60.0, 600.0])
def test_jaxs_own_heartbeat_which_aborts_never_comes_before_the_exit_that_names_the_lost_host(
    heartbeat_seconds,
):
    """JAX sends its heartbeat every half of its timeout, and so may miss the first one right after
    a loss."""
    said = 1.5 * heartbeat_seconds  # one late look
    last_resort = 3 * LINGER + 3 * interval_of(heartbeat_seconds)
    assert coordination_timeout(heartbeat_seconds) / 2 > said + last_resort + 10


@pytest.mark.slow
def test_a_hang_on_host_0_ends_all_hosts_with_its_words():
    (status, _, said), (other_status, _, other_said) = ends(start("hang"))
    assert (status, other_status) == (75, 75), said + other_said
    assert "in hang" in said
    assert (
        "host 1: host error: host 0 of 2 has left: training error: step 7 on host 0 has taken "
        "more than 2 s"
    ) in other_said


@pytest.mark.slow
def test_a_host_that_does_not_come_to_a_meeting_is_named_with_the_meeting():
    (status, _, said), (other_status, _, _) = ends(start("come_late"))
    assert (status, other_status) == (75, 75)
    assert (
        "host error: the first counts: 1 of 2 hosts came within 3 s (hosts.barrier_seconds), "
        "missing: 1"
    ) in said


@pytest.mark.slow
def test_a_collective_for_which_a_living_host_never_comes_is_one_line_and_a_transient_status():
    (status, _, said), (other_status, _, _) = ends(start("never_compute"))
    assert (status, other_status) == (75, 75)
    assert (
        "host error: all 2 hosts answer, and one that waited for another gave up: "
    ) in said and "Traceback" not in said


def test_hosts_with_different_configs_do_not_start():
    for status, _, said in ends(start("differ")):
        assert status == 2
        assert "host error: host 1 has another config or data set than host 0" in said


@pytest.mark.full
def test_a_signal_to_one_host_stops_all_after_the_same_step():
    results = ends(start("stop_together"))
    assert [status for status, _, _ in results] == [143, 143], results
    for _, _, said in results:
        first, second = re.search(r"stopped after \[(\d+), (\d+)\]", said).groups()
        assert first == second


# What tells a process which host it is


@pytest.fixture
def no_cluster(monkeypatch):
    for name in list(os.environ):
        if name.startswith(
            ("SLURM", "KUBERNETES", "OMPI", "TPU_", "JOB_COMPLETION", "JAX_COORDINATOR")
        ):
            monkeypatch.delenv(name)
    return monkeypatch


def test_without_flags_or_a_cluster_there_is_one_process(no_cluster):
    assert find_launch(None, None, None, 1.0) is None


def test_flags_name_the_hosts(no_cluster):
    assert find_launch("10.0.0.1:99", 4, 3, 1.0) == Launch("10.0.0.1:99", 4, 3)
    assert find_launch("10.0.0.1:99", 1, 0, 1.0) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("10.0.0.1:99", None, 1), "go together"),
        (("10.0.0.1:99", 2, None), "go together"),
        ((None, 2, 1), "go together"),
        ((None, 2, None), "--num-processes=1 for a single one"),
        (("10.0.0.1", 2, 1), "is not HOST:PORT"),
        (("a:1", 2, 2), "2 is not from 0 to 1"),
        (("a:²", 2, 1), "is not HOST:PORT"),
        (("127.0.0.1:99999", 2, 0), "port 99999 of '127.0.0.1:99999' is not from 1 to 65535"),
        (("a:0", 2, 0), "port 0 of"),
        (("a:1", 0, 0), "--num-processes: 0 is not a number of processes from 1"),
        ((None, -1, None), "--num-processes: -1 is not"),
    ],
)
def test_flags_that_do_not_add_up_are_refused(no_cluster, flags, words):
    with pytest.raises(ConfigError, match=words):
        find_launch(*flags, 1.0)


SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[03-06]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


def test_slurm_tells_and_num_processes_1_overrules(no_cluster):
    for name, value in SLURM.items():
        no_cluster.setenv(name, value)
    launch = find_launch(None, None, None, 1.0)
    assert (launch.coordinator.partition(":")[0], launch.processes, launch.process) == (
        "node03",
        4,
        2,
    )
    # a task a device, or a task a machine
    for tasks, devices in (("8(x4)", [0]), ("1(x4)", None), ("1", None)):
        no_cluster.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
        assert find_launch(None, None, None, 1.0).local_devices == devices
    assert find_launch(None, 1, None, 1.0) is None
    no_cluster.setenv("SLURM_NTASKS", "1")
    assert find_launch(None, None, None, 1.0) is None


def test_a_pod_that_belongs_to_no_indexed_job_is_alone(no_cluster, recwarn):
    no_cluster.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert find_launch(None, None, None, 1.0) is None
    assert not recwarn.list


@pytest.fixture
def indexed_job(no_cluster):
    """A pod of an indexed Kubernetes job, and a function that puts a stand-in for the package
    `kubernetes` there."""
    no_cluster.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    no_cluster.setenv("JOB_COMPLETION_INDEX", "3")
    no_cluster.setenv("HOSTNAME", "localhost")

    def package(**contents):
        no_cluster.setitem(
            sys.modules, "kubernetes", types.SimpleNamespace(**contents) if contents else None
        )

    return package


def kubernetes_api(load_configuration, list_pods):
    """What jax asks of the package."""
    return dict(
        config=types.SimpleNamespace(load_incluster_config=load_configuration),
        client=types.SimpleNamespace(
            CoreV1Api=lambda: types.SimpleNamespace(list_namespaced_pod=list_pods),
            BatchV1Api=lambda: None,
            exceptions=types.SimpleNamespace(ApiException=Forbidden),
        ),
    )


class Forbidden(Exception):
    status, reason = 403, "Forbidden"


def raises(error):
    def call(*_, **__):
        raise error

    return call


def test_a_pod_of_an_indexed_job_without_the_package_is_refused_and_num_processes_1_overrules(
    indexed_job, recwarn
):
    indexed_job()
    with pytest.raises(
        ConfigError,
        match=r"this is pod 3 of an indexed.*pip install "
        r"'jax\[k8s\]'.*Role.*--coordinator",
    ):
        find_launch(None, None, None, 1.0)
    assert find_launch(None, 1, None, 1.0) is None
    assert not recwarn.list


def test_a_pod_of_an_indexed_job_that_may_not_ask_hears_of_the_role(indexed_job, no_cluster):
    no_cluster.setattr(K8sCluster, "_namespace", classmethod(lambda cls: "default"))
    for contents, words in (
        (kubernetes_api(lambda: None, raises(Forbidden())), "403 - Forbidden"),
        (kubernetes_api(raises(Exception("no token")), None), "no token"),
    ):
        indexed_job(**contents)
        with pytest.raises(
            ConfigError,
            match=f"{words}; .*needs a Role that may get and list pods.*--num-processes",
        ):
            find_launch(None, None, None, 1.0)


def test_a_pod_of_an_indexed_job_that_may_ask_learns_who_it_is(indexed_job, no_cluster):
    for name, value in (
        ("get_coordinator_address", "train-0.vlp-jax:55527"),
        ("get_process_count", 8),
    ):
        no_cluster.setattr(K8sCluster, name, classmethod(lambda cls, value=value, **_: value))
    indexed_job(**kubernetes_api(lambda: None, None))
    assert find_launch(None, None, None, 1.0) == Launch("train-0.vlp-jax:55527", 8, 3)


@pytest.mark.full
def test_two_hosts_evaluate_a_set_to_the_figures_of_one_and_each_decodes_half_of_it():
    """A damaged image, which one host alone meets, is left out by both."""
    alone = measured(build_mesh(MeshConfig(), jax.devices()[:1]))
    assert alone["bad_examples"] == 1 and alone["decoded"] == alone["images"] == 40
    results = ends(start("evaluate"))
    assert [status for status, *_ in results] == [0, 0], results
    for _, _, said in results:
        found = json.loads(said.splitlines()[-1].removeprefix("host 1: "))
        assert found["decoded"] == 20
        assert {**found, "decoded": 40, "host": None} == {**alone, "host": None}
