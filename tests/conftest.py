"""Eight virtual devices on the CPU, and one compilation cache for all runs of the tests, declared
before JAX starts."""

import os
import sys

import pytest

# before pytest's own `pythonpath` counts
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
import compile_cache  # noqa: E402

# imports no JAX, which would read the variables below too early
from vlp_jax.command_line import give_devices_threads

if os.environ.get("JAX_PLATFORMS") != "cuda":  # for the tests in test_gpu.py
    os.environ["JAX_PLATFORMS"] = "cpu"
# What is named last counts. Little is computed here and much compiled, which takes two thirds of
# the time without optimization. Eight devices on two cores meet late: what XLA takes for a deadlock
# after 40 seconds may be one of them still computing.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=0 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=600 " + os.environ.get("XLA_FLAGS", "")
)
give_devices_threads()  # or coca_b16 on a mesh hangs now and then

# Also for the processes that tests start, pytest's own workers among them: what one test has
# compiled, no other compiles again, in this run or the next. JAX_COMPILATION_CACHE_DIR names
# another folder; deleting it costs time only.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compile_cache.folder()))
    compile_cache.limit(os.environ["JAX_COMPILATION_CACHE_DIR"], gigabytes=4.0)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.hookimpl(tryfirst=True)  # before `-m` is evaluated
def pytest_collection_modifyitems(items):
    """Marks as `full` all cases but the first of a test marked `variants`, in the order of their
    declaration. A slow case is slow alone, so that no tier runs what another has run.
    """
    seen = set()
    for item in items:
        test = (item.path, getattr(item, "originalname", item.name))
        if item.get_closest_marker("variants") and test in seen:
            item.add_marker(pytest.mark.full)
        if item.get_closest_marker("slow"):
            item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "full"]
        else:
            seen.add(test)


TINY = {
    "model.image.stem": "patch",
    "model.image.stem_channels": "()",
    "model.image.stem_strides": "()",
    "model.image.depth": "1",
    "model.image.width": "32",
    "model.image.mlp_dim": "64",
    "model.text.depth": "1",
    "model.text.width": "32",
    "model.text.mlp_dim": "64",
    "optimizer.kind": "adamw",
    "optimizer.schedule.kind": "constant",
    "optimizer.schedule.warmup": "0",
    "evaluators": "{}",
    "data.batch_size": "8",
    "log_every": "1",
}


@pytest.fixture(scope="session")
def tiny():
    """`tiny("steps=3", ...)`: flags that make clip_emoji.py:smoke so small that it compiles in
    seconds, and once for all tests, since its program does not depend on the number of steps; each
    KEY=VALUE is added, or takes another's place.
    """

    def flags(*changes: str) -> list[str]:
        chosen = TINY | dict(change.split("=", 1) for change in changes)
        return [f"--config.{key}={value}" for key, value in chosen.items()]

    return flags
