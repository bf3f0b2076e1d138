"""Settings of a training step on one GPU, next to OpenCLIP's step, within a given time.

python benchmarks/gpu_matrix.py [--seconds=480] [--output=gpu_matrix.json] [--write]
python benchmarks/gpu_matrix.py --dry-run      the same on a CPU, with a tiny model and two cells

The matrix: layers scanned or not x rematerialisation x batch x attention x XLA's flags. The cells
of one stage are compiled at the same time, each in a process of its own, into one compilation
cache; then each is timed alone by `benchmarks/accelerator_step.py`. A later stage varies the
fastest cell of those before. OpenCLIP (`--open-clip-python`, an interpreter that has it and torch)
is timed eager and with torch.compile after the first stage. Cells for which no time is left are
listed as such. The fastest cell is timed once more with a profile, whose device time is divided
into matrix products, attention, copies, the rest (elementwise and reductions), and idle.

Writes JSON; prints the table, and with `--write` puts it into docs/results.md.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER.parent / "docs" / "results.md"
BEGIN, END = "<!-- gpu matrix: begin -->", "<!-- gpu matrix: end -->"
SCANNED, UNROLLED = (
    tuple(f"--config.model.{tower}.scan={value}" for tower in ("image", "text"))
    for value in ("true", "false")
)
SHALLOW = tuple(f"--config.model.{tower}.depth=1" for tower in ("image", "text"))
DRY = {"config": "configs/clip_b32.py:smoke", "settings": SHALLOW, "batches": (8, 16)}
FULL = {"config": "configs/clip_b16.py", "settings": (), "batches": (512, 1024, 2048)}
# of XLA, each added to the fastest cell alone
FLAGS = {
    "triton_gemm": "--xla_gpu_enable_triton_gemm=true",
    "no_triton_gemm": "--xla_gpu_enable_triton_gemm=false",
    "latency_hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "no_command_buffer": "--xla_gpu_enable_command_buffer=",
    "double_buffering": "--xla_gpu_enable_while_loop_double_buffering=true",
    "exhaustive_tiling": "--xla_gpu_exhaustive_tiling_search=true",
}


def remat(policy):
    """Overrides for the rematerialisation of both towers."""
    return tuple(
        f"--config.model.{tower}.rematerialisation={policy}" for tower in ("image", "text")
    )


def cell(name, batch, layers, policy, attention="auto", flags=""):
    """One cell of the matrix: what to run, and under what name to report it."""
    return {
        "name": name,
        "batch": batch,
        "scan": layers is SCANNED,
        "rematerialisation": policy,
        "attention": attention,
        "flags": flags,
    }


def overrides_of(cell, settings):
    """The command line of a cell, without the config."""
    attention = tuple(
        f"--config.model.{tower}.attention={cell['attention']}" for tower in ("image", "text")
    )
    return (
        *settings,
        f"--config.data.batch_size={cell['batch']}",
        *(SCANNED if cell["scan"] else UNROLLED),
        *remat(cell["rematerialisation"]),
        *attention,
    )


def first_stage(batch):
    """Scan x rematerialisation at one batch."""
    return [
        cell(f"{'scan' if layers is SCANNED else 'unrolled'}, {policy}", batch, layers, policy)
        for layers in (UNROLLED, SCANNED)
        for policy in ("none", "save_matmuls", "full")
    ]


def second_stage(best, batches):
    """Larger batches, with the fastest kind of layers, with less and more recomputation."""
    layers = SCANNED if best["scan"] else UNROLLED
    kind = "scan" if best["scan"] else "unrolled"
    policies = dict.fromkeys((best["rematerialisation"], "none", "save_matmuls"))
    return [
        cell(f"{kind}, {policy}, batch {batch}", batch, layers, policy)
        for batch in batches
        for policy in policies
    ]


def third_stage(best):
    """The fastest cell without attention's kernel, and with each of XLA's flags."""
    plain = best | {"name": f"{best['name']}, plain attention", "attention": "plain"}
    return [plain] + [
        best | {"name": f"{best['name']}, {name}", "flags": flag} for name, flag in FLAGS.items()
    ]


class Matrix:
    """The cells timed so far, and the time that is left."""

    def __init__(self, given, plan, cache):
        self.given, self.plan, self.cache = given, plan, cache
        self.end = time.monotonic() + given.seconds
        self.rows = []

    def left(self):
        """Seconds that are left."""
        return self.end - time.monotonic()

    def run(self, cell, *extra, share=False):
        """The JSON of `accelerator_step.py` for a cell; an error's last line in `error`."""
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": self.cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {cell['flags']}".strip(),
            "PYTHONPATH": str(FOLDER.parent),
        }
        if share:  # several processes on one GPU
            environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [
            sys.executable,
            str(FOLDER / "accelerator_step.py"),
            f"--config={self.plan['config']}",
            f"--steps={self.given.steps}",
            *extra,
            *overrides_of(cell, self.plan["settings"]),
        ]
        return run_json(command, environment, self.left())

    def stage(self, cells):
        """Compiles the cells at the same time, then times one after the other."""
        with concurrent.futures.ThreadPoolExecutor(self.given.processes) as pool:
            compiled = list(
                pool.map(lambda cell: self.run(cell, "--compile-only", share=True), cells)
            )
        for cell, found in zip(cells, compiled, strict=True):
            row = found if "error" in found else found | self.run(cell)
            self.rows.append(cell | row)
            print(json.dumps(self.rows[-1]), flush=True)

    def best(self):
        """The fastest cell.

        Raises: SystemExit where none has run.
        """
        timed = [row for row in self.rows if "samples_per_second" in row and "flags" in row]
        if not timed:
            sys.exit(f"no cell has run: {self.rows}")
        return max(timed, key=lambda row: row["samples_per_second"])

    def open_clip(self, batch):
        """OpenCLIP's step, eager and compiled."""
        if self.given.open_clip_python is None:
            return
        for extra in ((), ("--compiled",)):
            command = [
                self.given.open_clip_python,
                str(FOLDER / "accelerator_step.py"),
                "--open-clip=ViT-B-16",
                f"--batch={batch}",
                f"--steps={self.given.steps}",
                *extra,
            ]
            name = f"OpenCLIP, {'torch.compile' if extra else 'eager'}"
            row = run_json(command, {**os.environ}, self.left())
            self.rows.append({"name": name, "batch": batch} | row)
            print(json.dumps(self.rows[-1]), flush=True)


def run_json(command, environment, seconds):
    """The last line of a command's output as JSON; else {"error": text}."""
    if seconds <= 0:
        return {"error": "no time left"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": "no time left"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        memory = [line for line in words if "RESOURCE_EXHAUSTED" in line or "out of memory" in line]
        return {"error": (memory or words)[-1][:300]}
    return json.loads(lines[-1])


# The first that matches the name of a kernel, or of an operation on a CPU, decides.
KINDS = {
    "attention": r"fmha|flash|cudnn.*(attn|attention|sdpa)|attention",
    "matmul": r"gemm|nvjet|cutlass|cublas|xmma|wgmma|dot|convolution|conv_",
    "copies": r"memcpy|memset|copy|transpose|dynamic.update.slice|dynamic.slice",
}


def kind_of(name):
    """The kind of a kernel by its name: attention, matmul, copies, or rest."""
    return next((kind for kind, names in KINDS.items() if re.search(names, name.lower())), "rest")


def breakdown(events):
    """The fractions of a span of time that kernels of each kind take.

    Args:
      events: (name, start, duration) of all kernels, in any unit of time.
    Returns: {kind: fraction}, with `idle`, where no kernel runs. Kernels that overlap count each.
    """
    kinds = dict.fromkeys((*KINDS, "rest"), 0.0)
    busy, reached = 0.0, -1.0
    events = sorted(events, key=lambda event: event[1])
    for name, start, duration in events:
        kinds[kind_of(name)] += duration
        busy += max(0.0, start + duration - max(start, reached))
        reached = max(reached, start + duration)
    span = reached - events[0][1]
    return {kind: value / span for kind, value in kinds.items()} | {"idle": 1.0 - busy / span}


def kernels(folder):
    """(name, start, duration) of the kernels in a profile; on a CPU of XLA's operations.

    Raises: SystemExit where the profile has none.
    """
    import jax

    (file,) = glob.glob(f"{folder}/plugins/profile/*/*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(file).planes)
    lines = [
        line
        for plane in planes
        for line in plane.lines
        if (plane.name.startswith("/device:GPU") and line.name.startswith("Stream"))
        or (plane.name == "/host:CPU" and line.name.startswith("tf_XLA"))
    ]
    gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    found = [
        (event.name, event.start_ns, event.duration_ns)
        for line in lines
        if not gpu or line.name.startswith("Stream")
        for event in line.events
        if event.duration_ns and not event.name.startswith(("end: ", "Thunk", "Execute", "TfrtCpu"))
    ]
    if not found:
        names = [(plane.name, line.name) for plane in planes for line in plane.lines]
        sys.exit(f"{file}: no kernels in {names}")
    return found


def table(rows):
    """The rows as Markdown."""
    lines = ["| step | batch | samples/s | memory | of the peak |", "|---|---|---|---|---|"]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['name']} | {row['batch']:,} | {row['error']} | | |")
            continue
        memory, part = row.get("memory_gigabytes"), row.get("model_flops_utilisation")
        lines.append(
            f"| {row['name']} | {row['batch']:,} | {row['samples_per_second']:,.0f} "
            f"| {'' if memory is None else f'{memory:.1f} GB'} "
            f"| {'' if part is None else f'{part:.1%}'} |"
        )
    return "\n".join(lines)


def report(result):
    """Table, breakdown and command as Markdown."""
    parts = ", ".join(f"{kind} {value:.0%}" for kind, value in result["breakdown"].items())
    return (
        f"{result['device']}, {result['date']}, `{result['command']}`:\n\n{table(result['rows'])}"
        f"\n\nDevice time of the fastest, {result['best']}: {parts}.\n"
    )


def write_into(path, text):
    """Replaces what lies between the markers in a file."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything")
    parser.add_argument("--steps", type=int, default=10, help="of a timed block")
    parser.add_argument("--processes", type=int, default=6, help="that compile at the same time")
    parser.add_argument("--open-clip-python", help="interpreter with OpenCLIP and torch")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu_matrix.json"))
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on a CPU")
    given = parser.parse_args()
    plan = DRY if given.dry_run else FULL
    with tempfile.TemporaryDirectory() as folder:
        matrix = Matrix(given, plan, os.path.join(folder, "cache"))
        first, *others = plan["batches"]
        stage = first_stage(first)
        matrix.stage(stage[:2] if given.dry_run else stage)
        matrix.open_clip(first)
        matrix.stage(second_stage(matrix.best(), others)[: 1 if given.dry_run else None])
        if not given.dry_run:
            matrix.stage(third_stage(matrix.best()))
        best = matrix.best()
        matrix.end = max(matrix.end, time.monotonic() + 120.0)
        profile = os.path.join(folder, "profile")
        last = matrix.run(best, f"--profile={profile}")
        if "error" in last:
            sys.exit(f"the profile of {best['name']}: {last['error']}")
        parts = breakdown(kernels(profile))
    result = {
        "device": last["device"],
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/gpu_matrix.py", *sys.argv[1:]]),
        "best": best["name"],
        "breakdown": parts,
        "rows": matrix.rows,
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + report(result))
    if given.write:
        write_into(RESULTS, report(result))


if __name__ == "__main__":
    main()
