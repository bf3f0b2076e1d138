"""Start-up of a run, from the start of Python to the end of the first update, by phases.

python benchmarks/start_up.py [--config=configs/clip_emoji.py:smoke] [--rounds=3] \
    [--other=TREE] [--config.KEY=VALUE ...]

Each round starts `python -m vlp_jax.main` twice with a compilation cache of its own, empty (cold)
and filled by the first start (warm), and stops it after the first update. With `--other`, a
checkout of another version, both versions alternate. Prints the median of the seconds of each
phase, a table per start, and one line of JSON. Seconds of CPU time are those of the process and its
threads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# phase -> functions whose time it is, without that of functions in other phases; "module:name".
# Names that a version does not have are left out, and their time counts in the phase around them.
PHASES = {
    "config": ["vlp_jax.main:load_stages"],
    "data": ["vlp_jax.training.build:open_mixture"],
    "tokenizer": ["vlp_jax.data.preprocessor:Preprocessor.from_config"],
    "model": ["vlp_jax.training.build:build_update"],
    "targets": ["vlp_jax.training.build:find_targets"],
    "evaluators": ["vlp_jax.training.build:Run.evaluation"],
    "parameters": ["vlp_jax.training.build:Run.initial_state"],
    "restore": ["vlp_jax.training.trainer:Trainer.restore_or_start"],
    "input": ["vlp_jax.training.build:Run.batches", "vlp_jax.training.trainer:Trainer.next_batch"],
    "update": ["vlp_jax.training.trainer:Trainer.update"],
}


class Stopped(BaseException):
    """Raised after the first update."""


class Clock:
    """Exclusive wall seconds of the phases, as a stack."""

    def __init__(self):
        self.seconds, self.stack, self.last = {}, ["rest"], time.monotonic()

    def lap(self):
        """Adds the time since the last change to the phase that runs."""
        now = time.monotonic()
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.last
        self.last = now

    def wrap(self, function, phase, stops):
        """`function` with its time counted as `phase`."""

        def timed(*arguments, **settings):
            self.lap()
            self.stack.append(phase)
            try:
                result = function(*arguments, **settings)
                if stops:
                    import jax

                    jax.block_until_ready(result)
                    raise Stopped
                return result
            finally:
                self.lap()
                self.stack.pop()

        return timed


def child(begun, arguments):
    """Runs `vlp_jax.main` in this process up to the first update; prints the phases as JSON."""
    sys.path.insert(0, os.getcwd())
    clock = Clock()
    clock.seconds["python"] = time.time() - begun
    clock.stack.append("imports")
    import importlib

    for phase, places in PHASES.items():
        for place in places:
            patch(importlib, clock, phase, place)
    from vlp_jax import main

    clock.lap()
    clock.stack.pop()
    events = {}

    import jax

    def observe(event, seconds, **_):
        if clock.stack[-1] == "update":
            events[event] = events.get(event, 0.0) + seconds

    jax.monitoring.register_event_duration_secs_listener(observe)
    try:
        main.main(arguments)
    except Stopped:
        clock.lap()
    names = {
        "/jax/core/compile/jaxpr_trace_duration": "update: trace",
        "/jax/core/compile/jaxpr_to_mlir_module_duration": "update: lower",
        "/jax/core/compile/backend_compile_duration": "update: compile or read from the cache",
    }
    inside = {name: events.get(event, 0.0) for event, name in names.items()}
    total, cpu = time.time() - begun, time.process_time()
    print("\n" + json.dumps({**clock.seconds, "total": total, "cpu": cpu, **inside}), flush=True)
    os._exit(0)


def patch(importlib, clock, phase, place):
    """Counts the time of the function at `place` as `phase`, where this version has it."""
    module, _, name = place.partition(":")
    try:
        owner = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        held = owner.__dict__[last]
    except (ImportError, AttributeError, KeyError):
        return
    stops = phase == "update"
    if isinstance(held, classmethod):
        setattr(owner, last, classmethod(clock.wrap(held.__func__, phase, stops)))
    else:
        setattr(owner, last, clock.wrap(held, phase, stops))


def start(tree, cache, given, overrides):
    """The phases of one start of the version in `tree`."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [
            sys.executable,
            os.path.abspath(__file__),
            f"--child={time.time()}",
            f"--config={given.config}",
            f"--workdir={workdir}",
            *overrides,
        ]
        environment = {**os.environ, "PYTHONPATH": tree, "JAX_COMPILATION_CACHE_DIR": cache}
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{tree}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(rows):
    """{phase: median} of several starts."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}


def main():
    if sys.argv[1:] and sys.argv[1].startswith("--child="):
        child(float(sys.argv[1].partition("=")[2]), sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/clip_emoji.py:smoke")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", help="checkout of another version to alternate with")
    given, overrides = parser.parse_known_args()
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    trees = {"this version": here}
    if given.other:
        trees["other version"] = os.path.abspath(given.other)
    rows = {(version, kind): [] for version in trees for kind in ("cold", "warm")}
    for _ in range(given.rounds):
        for version, tree in trees.items():
            with tempfile.TemporaryDirectory() as cache:
                for kind in ("cold", "warm"):
                    rows[version, kind].append(start(tree, cache, given, overrides))
    result = {f"{version}, {kind}": median(found) for (version, kind), found in rows.items()}
    for name, phases in result.items():
        print(f"\n{name}, seconds")
        for phase, seconds in phases.items():
            print(f"  {phase:<40} {seconds:7.2f}")
    if given.other:
        pairs = zip(rows["this version", "warm"], rows["other version", "warm"], strict=True)
        ratios = sorted(ours["total"] / theirs["total"] for ours, theirs in pairs)
        result["warm ratio"] = statistics.median(ratios)
        print(f"\nwarm, this version / other: {result['warm ratio']:.2f}, each {ratios}")
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
