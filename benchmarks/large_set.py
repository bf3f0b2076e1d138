"""Time and memory to index and open a set of ten million samples, each in a fresh process.

python benchmarks/large_set.py [--samples=10000000] [--kinds=webdataset,arrayrecord,jsonl] \
    [--folder=DIR]

The sets are written to DIR (default: a temporary folder; about 2 GB). They are simulated: the 1,000
tars are links to one of 10,000 samples, the 4,000 shards links to one of 2,500 records, and the
JSON lines name one image. Everything that opening them reads and keeps is as large as for different
files. `index` is the first opening, `open` a later one, which also draws a batch of 256 and then 50
more. Memory is that of the process: the peak resident set, including shared pages of mapped files,
and the proportional set at the end; `imports` is the memory of Python and its modules before.
Prints a table and, as the last line, JSON.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import pickle
import resource
import subprocess
import sys
import tarfile
import tempfile
import time

from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig

ROOT = pathlib.Path(__file__).parents[1]
TAR, SHARD, BATCH, MORE = 10_000, 2_500, 256, 50
PHASES = ("index", "open")


def jpeg():
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((24, 24)).save(file, "JPEG")
    return file.getvalue()


def link(target, names):
    for name in names:
        name.unlink(missing_ok=True)
        name.symlink_to(target)


def webdataset_set(folder, samples):
    image = jpeg()
    with tarfile.open(folder / "one", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(TAR):
            for ending, data in (
                ("jpg", image),
                ("json", b'{"url": "x"}'),
                ("txt", f"picture {number}".encode()),
            ):
                info = tarfile.TarInfo(f"{number:09d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    shards = -(-samples // TAR)
    link("one", [folder / f"{shard:05d}.tar" for shard in range(shards)])
    return f"webdataset:{folder}/{{00000..{shards - 1:05d}}}.tar"


def arrayrecord_set(folder, samples):
    from vlp_jax.data.prepare.writer import Options, write_dataset
    from vlp_jax.data.sources.arrayrecord import shard_name
    from vlp_jax.data.sources.registry import open_source

    if not (folder / "one").exists():
        write_dataset(
            {"train": open_source(f"synthetic:{SHARD}?height=24&width=24")},
            folder / "one",
            "set",
            Options(shards=1),
        )
    for name in ("features.json", "dataset_info.json"):
        (folder / name).write_text((folder / "one" / name).read_text())
    shards = -(-samples // SHARD)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = [str(SHARD)] * shards
    (folder / "dataset_info.json").write_text(json.dumps(info))
    link(
        f"one/{shard_name('set', 'train', 0, 1)}",
        [folder / shard_name("set", "train", shard, shards) for shard in range(shards)],
    )
    return f"arrayrecord:{folder}/train"


def jsonl_set(folder, samples):
    (folder / "one.jpg").write_bytes(jpeg())
    with open(folder / "all.jsonl", "w") as file:
        file.writelines(
            f'{{"image": "one.jpg", "caption": "picture {number}"}}\n' for number in range(samples)
        )
    return f"jsonl:{folder}/all.jsonl"


SETS = {"webdataset": webdataset_set, "arrayrecord": arrayrecord_set, "jsonl": jsonl_set}


def memory():
    """MiB: peak resident set, resident set now, proportional set now."""
    now = {
        line.split(":")[0]: int(line.split()[1]) / 1024
        for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    }
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, now["Rss"], now["Pss"]


def work(phase, spec):
    """Opens a set in this process and prints the time and memory used."""
    from vlp_jax.data.mixture import Mixture, Part
    from vlp_jax.data.pipeline import Batches, TrainRows
    from vlp_jax.data.preprocessor import Preprocessor
    from vlp_jax.data.sources.registry import open_source
    from vlp_jax.data.text.tokenizer import load_tokenizer

    _, imports, _ = memory()
    start = time.perf_counter()
    source = open_source(spec)
    source.fingerprint()
    row = {"imports": imports, "samples": len(source), "open_seconds": time.perf_counter() - start}
    if phase == "open":
        row["pickled_bytes"] = len(pickle.dumps(source))
        preprocessor = Preprocessor(32, ImagesConfig(), load_tokenizer(TextConfig(), 16, 4096))
        start = time.perf_counter()
        mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
        rows = TrainRows(mixture, preprocessor, AugmentationConfig(), seed=0)
        with contextlib.closing(Batches(rows, DataConfig(batch_size=BATCH))) as batches:
            bad = next(batches)["reason"].any()
            row["first_batch_seconds"] = time.perf_counter() - start
            for _ in range(MORE):
                bad |= next(batches)["reason"].any()
        assert not bad
    peak, _, proportional = memory()
    print(json.dumps(row | {"peak": peak, "proportional": proportional}))


def measure(phase, spec):
    command = [sys.executable, __file__, f"--phase={phase}", f"--spec={spec}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(kinds, samples, folder):
    results = {}
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        spec = SETS[kind](folder / kind, samples)
        results[kind] = {phase: measure(phase, spec) for phase in PHASES}
        for phase, row in results[kind].items():
            first, pickled = row.get("first_batch_seconds", 0), row.get("pickled_bytes", 0)
            print(
                f"{kind:12}{phase:6}{row['samples']:12,}{row['open_seconds']:10.1f}{first:10.2f}{row['imports']:9.0f}{row['peak']:10.0f}{row['proportional']:9.0f}{pickled:10,}",
                flush=True,
            )
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--kinds", default=",".join(SETS))
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        return work(arguments.phase, arguments.spec)
    columns = {
        "samples": 12,
        "seconds": 10,
        "batch s": 10,
        "imports": 9,
        "peak MiB": 10,
        "PSS MiB": 9,
        "pickle B": 10,
    }
    print(" " * 18 + "".join(name.rjust(width) for name, width in columns.items()))
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        results = run(arguments.kinds.split(","), arguments.samples, folder.absolute())
    print(json.dumps(results))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
