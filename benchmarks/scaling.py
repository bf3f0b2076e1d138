"""Cost against chips, batch and model size: the tables and plots of docs/scaling.md.

All figures are from `python -m vlp_jax.compile`.

pip install '.[compile,notebook]' && python benchmarks/scaling.py [--only=PREFIX] [--render]

Compiles every row of ROWS that is absent from docs/scaling.json (minutes each on two cores; an
interrupted call resumes), fills the tables of docs/scaling.md and launch/README.md, and writes
docs/scaling_*.svg. `--only` selects rows whose name starts with PREFIX; `--render` compiles
nothing; to compile a row again, delete it from the JSON.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from vlp_jax.config import load_config

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "docs/scaling.json"
BEGIN, END = "<!-- written by benchmarks/scaling.py: begin -->", "<!-- end -->"
FULL = ("model.image.rematerialisation=full", "model.text.rematerialisation=full")
FSDP = ("mesh.data=1", "mesh.fsdp=-1")

ROWS = {  # name: (config, topology, batch, overrides)
    "bar/clip_b16": ("clip_b16", "v5e:16x16", 32_768, ()),
    "bar/siglip_b16": ("siglip_b16", "v5e:16x16", 32_768, ()),
    "bar/clip_b16 kept": ("clip_b16", "v5e:8x8", 8_192, ()),
    "bar/siglip_b16 kept": ("siglip_b16", "v5e:8x8", 8_192, ()),
    "bar/clip_b16 full": ("clip_b16", "v5e:8x8", 8_192, FULL),
    "bar/siglip_b16 full": ("siglip_b16", "v5e:8x8", 8_192, FULL),
    "bar/siglip_so400m14": ("siglip_so400m14", "v5e:8x8", 4_096, FSDP),
    "bar/clip_g14": ("clip_g14", "v5p:4x4x4", 8_192, ()),
    **{
        f"loss/{kind} {chips}": (
            "clip_b16",
            shape,
            256 * chips,
            (*FULL, f"objectives.contrastive.implementation={kind}"),
        )
        for kind in ("ring", "chunked")
        for chips, shape in ((32, "v5e:4x8"), (256, "v5e:16x16"))
    },
    **{
        f"chips/{chips}": ("clip_b16", f"v5e:{shape}", 128 * chips, ())
        for chips, shape in ((1, "1x1"), (4, "2x2"), (16, "4x4"), (64, "8x8"), (256, "16x16"))
    },
    **{
        f"batch/{batch}": ("clip_b16", "v5e:8x8", batch, FULL)
        for batch in (1_024, 4_096, 16_384, 65_536)
    },
    **{
        f"model/{name}": (name, "v5p:4x4x4", 4_096, (*FULL, *FSDP))
        for name in ("clip_b16", "clip_l14", "siglip_so400m14", "clip_g14")
    },
    "gpu/clip_b16": ("clip_b16", "h100:8", 1_024, ()),
    "launch/clip_l14": ("clip_l14", "v5e:16x16", 32_768, ()),
    "launch/siglip_so400m14": ("siglip_so400m14", "v5p:4x4x8", 32_768, FSDP),
}


def compile_row(name):
    """The cost estimate of a row, as written by `python -m vlp_jax.compile --json`."""
    config, topology, batch, overrides = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "vlp_jax.compile",
            f"--config={ROOT}/configs/{config}.py",
            f"--topology={topology}",
            f"--json={folder}/cost.json",
            f"--config.data.batch_size={batch}",
            *(f"--config.{item}" for item in overrides),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if not pathlib.Path(folder, "cost.json").exists():
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        cost = json.loads(pathlib.Path(folder, "cost.json").read_text())
    return cost | {
        "config": config,
        "overrides": list(overrides),
        "date": time.strftime("%Y-%m-%d"),
    }


def table(results, prefix, heading):
    """A Markdown table of the rows whose name starts with `prefix`."""
    lines = [
        f"| {heading} | chips | batch | rematerialisation | arguments | temporaries | free | "
        "floor of a step | bounded by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in ROWS if name.startswith(prefix) and name in results):
        cost = results[name]
        fits = (
            f"{1 - cost['memory_bytes'] / cost['chip_memory_bytes']:.1%}"
            if cost["fits"]
            else "does not fit"
        )
        parts = [
            "-" if cost[key] is None else f"{cost[key] / 1e9:.2f} GB"
            for key in ("arguments_bytes", "temporaries_bytes")
        ]
        floors = {
            key: cost[f"floor_{key}_seconds"] or 0 for key in ("compute", "memory", "interconnect")
        }
        lines.append(
            f"| {name.split('/', 1)[1]} ({cost['config']}) | {cost['topology']} | "
            f"{cost['batch_size']:,} | {cost['rematerialisation']} | {' | '.join(parts)} "
            f"| {fits} | {cost['floor_seconds'] * 1e3:.1f} ms | "
            f"{max(floors, key=floors.get)} |"
        )
    return "\n".join(lines)


def costs(results):
    """The table of launch/README.md: complete runs at the chips' peak."""
    lines = [
        "| config | chips | batch | memory a chip | free | examples | exaflops | hours at "
        "peak | chip-hours at peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("bar/clip_b16", "bar/siglip_b16", "launch/clip_l14", "launch/siglip_so400m14"):
        if name in results:
            cost = results[name]
            examples = load_config(f"{ROOT}/configs/{cost['config']}.py").examples
            steps = examples / cost["batch_size"]
            hours = steps * cost["floor_compute_seconds"] / 3600
            lines.append(
                f"| {cost['config']} | {cost['topology']} | {cost['batch_size']:,} | "
                f"{cost['memory_bytes'] / 1e9:.1f} GB | "
                f"{1 - cost['memory_bytes'] / cost['chip_memory_bytes']:.0%} | "
                f"{examples / 1e9:.1f}e9 | {steps * cost['flops_per_step'] / 1e18:,.0f} | "
                f"{hours:,.0f} | {hours * cost['chips']:,.0f} |"
            )
    return (
        "\n".join(lines) if len(lines) > 2 else "Not computed yet: `python benchmarks/scaling.py`."
    )


def fill(page, begin, end, text):
    """Puts `text` between two marks of a page."""
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def plot(results, prefix, label, key_of_x):
    """A plot of temporaries and arguments per chip, and of the least time, over chips, batch or
    model."""
    from matplotlib import pyplot

    rows = [
        (results[name][key_of_x], results[name])
        for name in ROWS
        if name.startswith(prefix) and name in results
    ]
    rows = [(x, cost) for x, cost in rows if cost["temporaries_bytes"] is not None]
    figure, (memory, seconds) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for key in ("arguments_bytes", "temporaries_bytes"):
        memory.plot(
            [x for x, _ in rows],
            [cost[key] / 1e9 for _, cost in rows],
            marker="o",
            label=key.removesuffix("_bytes"),
        )
    for key in ("compute", "memory", "interconnect"):
        seconds.plot(
            [x for x, _ in rows],
            [cost[f"floor_{key}_seconds"] * 1e3 for _, cost in rows],
            marker="o",
            label=key,
        )
    memory.set(xlabel=label, ylabel="GB a chip", xscale="log", ylim=(0, None))
    seconds.set(xlabel=label, ylabel="ms a step, at least", xscale="log", yscale="log")
    memory.legend()
    seconds.legend()
    figure.savefig(ROOT / f"docs/scaling_{prefix.strip('/')}.svg", metadata={"Date": None})
    pyplot.close(figure)


def render(results):
    """Writes the tables and the plots."""
    sections = [
        ("bar/", "What the configs ship with", "row"),
        ("loss/", "The loss inside the step", "loss, chips"),
        ("chips/", "From 1 to 256 chips, 128 examples a chip", "chips"),
        ("batch/", "From 1k to 64k on 64 chips", "batch"),
        ("model/", "From B/16 to g/14 on 64 chips, parameters divided over all", "model"),
        ("gpu/", "GPUs", "row"),
    ]
    text = "\n\n".join(
        f"### {title}\n\n{table(results, prefix, heading)}"
        for prefix, title, heading in sections
        if any(name.startswith(prefix) for name in results)
    )
    fill(ROOT / "docs/scaling.md", BEGIN, END, text)
    fill(ROOT / "launch/README.md", "<!-- costs: begin -->", "<!-- costs: end -->", costs(results))
    for prefix, label, key in (
        ("chips/", "chips", "chips"),
        ("batch/", "global batch", "batch_size"),
        ("model/", "parameters", "parameters"),
    ):
        if any(name.startswith(prefix) for name in results):
            plot(results, prefix, label, key)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name starts so")
    parser.add_argument(
        "--render", action="store_true", help="write tables and plots of what is there"
    )
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in (
        ()
        if given.render
        else [name for name in ROWS if name.startswith(given.only) and name not in results]
    ):
        same = [other for other in results if ROWS[other] == ROWS[name]]
        results[name] = results[same[0]] if same else compile_row(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        cost = results[name]
        print(
            f"{name}: {cost['memory_bytes'] / 1e9:.2f} GB, "
            f"{'fits' if cost['fits'] else 'does not fit'}",
            flush=True,
        )
    render(results)


if __name__ == "__main__":
    main()
