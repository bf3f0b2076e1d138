"""Images per second of the training input, ours and open_clip's.

Both read the same WebDataset tars and return batches of the same size.

python -m venv /tmp/open_clip && /tmp/open_clip/bin/pip install torch torchvision open_clip_torch \
    "webdataset<=0.2.86" pandas
python benchmarks/input_pipeline.py --photographs=DIR --open-clip-python=/tmp/open_clip/bin/python \
    [--workers=1,2]

DIR holds JPEG files, such as `benchmarks/photographs.py` writes. The `webdataset` library writes
them into tars, each with a caption. Both sides read these tars, decode, crop a random part of
`--area` of an image, resize it to 224x224 and tokenize to 77 tokens, in the same number of worker
processes. Ours also flips, and leaves the normalisation, which open_clip's workers do, to the
device. open_clip's side is its own `get_wds_dataset` with its `image_transform(is_train=True)` and
tokenizer. `decoder` is simplejpeg, the decoder of our side, and `pillow` is Pillow, that of
open_clip: each decodes the same full images to RGB, one after the other in one process, and does
nothing else. Every block of batches is a fresh process that warms up first; blocks alternate, in
both orders, and never overlap. CPU seconds are those of a process and its workers: on a machine
with other load, images per CPU-second are the figure to compare. Without --open-clip-python
open_clip's side is left out. Prints medians over the rounds and, as the last line, JSON.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from vlp_jax.data.config import DataConfig, TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.text.tokenizer import TextConfig

ROOT = pathlib.Path(__file__).parents[1]
SIZE, LENGTH = 224, 77
CAPTION = "a photograph of {} things on a table by the window, number {}"


def write_tars(photographs, folder, samples, shards):
    """Writes tars of the photographs, repeated until there are `samples`; returns their pattern."""
    import webdataset

    files = sorted(photographs.glob("*.jpg"))
    if not files:
        sys.exit(f"{photographs} holds no .jpg; write some by benchmarks/photographs.py")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as tar:
            for number in range(samples * shard // shards, samples * (shard + 1) // shards):
                photograph = files[number % len(files)].read_bytes()
                tar.write(
                    {
                        "__key__": f"{number:09d}",
                        "jpg": photograph,
                        "txt": CAPTION.format(number % 12, number),
                    }
                )
    return f"{folder}/{{00000..{shards - 1:05d}}}.tar"


@contextlib.contextmanager
def our_batches(options):
    from vlp_jax.data.mixture import open_mixture
    from vlp_jax.data.pipeline import Batches, TrainRows
    from vlp_jax.data.preprocessor import Preprocessor
    from vlp_jax.data.text.tokenizer import load_tokenizer

    augmentation = AugmentationConfig(area=area_of(options), flip=0.5)
    preprocessor = Preprocessor(SIZE, ImagesConfig(), load_tokenizer(TextConfig(), LENGTH, 4096))
    mixture = open_mixture(TrainSourceConfig(source=f"webdataset:{options.pattern}"))
    rows = TrainRows(mixture, preprocessor, augmentation, seed=0)
    data = DataConfig(batch_size=options.batch, workers=int(options.workers), threads=1, prefetch=2)
    with contextlib.closing(Batches(rows, data)) as batches:
        yield batches


@contextlib.contextmanager
def open_clip_batches(options):
    import open_clip
    import open_clip_train.data
    from open_clip.transform import image_transform

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    flags = argparse.Namespace(
        train_data=options.pattern,
        train_num_samples=10_000_000,
        dataset_resampled=True,
        train_data_upsampling_factors=None,
        seed=0,
        batch_size=options.batch,
        workers=int(options.workers),
        world_size=1,
    )
    transform = image_transform(SIZE, True, mean, std, aug_cfg={"scale": area_of(options)})
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    # otherwise a buffer of 5,000 samples would fill up during the measurement
    open_clip_train.data._SAMPLE_SHUFFLE_SIZE = open_clip_train.data._SAMPLE_SHUFFLE_INITIAL
    data = open_clip_train.data.get_wds_dataset(
        flags, transform, is_train=True, tokenizer=tokenizer
    )
    yield iter(data.dataloader)


@contextlib.contextmanager
def decoded_batches(options, decode):
    from vlp_jax.data.sources.registry import open_source

    images = [
        sample.image
        for sample in itertools.islice(
            open_source(f"webdataset:{options.pattern}"), 4 * options.batch
        )
    ]

    def decoded():
        for first in itertools.cycle(range(0, len(images), options.batch)):
            yield [decode(image) for image in images[first : first + options.batch]]

    yield decoded()


def decoder_batches(options):
    import simplejpeg

    return decoded_batches(options, simplejpeg.decode_jpeg)


def pillow_batches(options):
    import io

    from PIL import Image

    return decoded_batches(options, lambda image: Image.open(io.BytesIO(image)).convert("RGB"))


SIDES = {
    "ours": our_batches,
    "decoder": decoder_batches,
    "pillow": pillow_batches,
    "open_clip": open_clip_batches,
}


def area_of(options):
    low, high = map(float, options.area.split(","))
    return low, high


def cpu_seconds():
    """CPU time of this process and of all its living descendants."""
    parents, ticks = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)], ticks[int(stat.parent.name)] = (
                int(fields[1]),
                int(fields[11]) + int(fields[12]),
            )
    family = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[process] for process in family) / os.sysconf("SC_CLK_TCK")


def work(options):
    """Runs a block: warm-up batches, then the measured ones."""
    with SIDES[options.side](options) as batches:
        for _ in range(options.warm):
            next(batches)
        start, cpu_start = time.perf_counter(), cpu_seconds()
        for _ in range(options.batches):
            batch = next(batches)
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu_start
    # a short block may end within one tick of the clock
    cpu = max(cpu, 1 / os.sysconf("SC_CLK_TCK"))
    images = options.batch * options.batches
    shape = (
        list(batch["image"].shape)
        if isinstance(batch, dict)
        else list(getattr(batch[0], "shape", ()))
    )
    print(
        json.dumps(
            {
                "images_per_second": images / seconds,
                "images_per_cpu_second": images / cpu,
                "shape": shape,
            }
        ),
        flush=True,
    )


def block(options, side, workers):
    python = options.open_clip_python if side == "open_clip" else sys.executable
    command = [
        python,
        __file__,
        f"--side={side}",
        f"--workers={workers}",
        f"--pattern={options.pattern}",
        f"--batch={options.batch}",
        f"--batches={options.batches}",
        f"--warm={options.warm}",
        f"--area={options.area}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"a block of {side} ended with status {done.returncode}; its message stands above")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options, workers):
    """Medians of every side, with this number of worker processes."""
    sides = [side for side in SIDES if side != "open_clip" or options.open_clip_python]
    blocks = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            blocks[side].append(block(options, side, workers))
            print(
                f"  {side:10}{blocks[side][-1]['images_per_cpu_second']:8.0f} images/CPU s",
                file=sys.stderr,
                flush=True,
            )
    names = ("images_per_second", "images_per_cpu_second")
    rows = {
        side: {name: statistics.median(found[name] for found in blocks[side]) for name in names}
        | {
            "all": [round(found["images_per_cpu_second"], 1) for found in blocks[side]],
            "shape": blocks[side][0]["shape"],
        }
        for side in sides
    }
    for other in sides[1:]:
        rows[f"ours/{other}"] = {name: rows["ours"][name] / rows[other][name] for name in names}
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=pathlib.Path, help="a folder of JPEG files")
    parser.add_argument(
        "--open-clip-python",
        help="the interpreter of an environment with open_clip_torch and webdataset",
    )
    parser.add_argument("--workers", default="1,2", help="numbers of worker processes")
    parser.add_argument(
        "--folder", type=pathlib.Path, help="where to write the tars (default: a temporary folder)"
    )
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument(
        "--rounds",
        type=int,
        default=4,
        help="blocks of each side; an even number has both orders as often",
    )
    parser.add_argument(
        "--area",
        default="0.9,1.0",
        help="of the random resized crop; the default is that of open_clip and CLIP",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=16, help="that are measured, in each block")
    parser.add_argument("--warm", type=int, default=6, help="batches before that")
    for hidden in ("--side", "--pattern"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return work(options)
    if not options.photographs:
        parser.error("--photographs=DIR is missing")
    results = {}
    with contextlib.ExitStack() as stack:
        folder = options.folder or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options.pattern = write_tars(
            options.photographs, folder.absolute(), options.samples, shards=8
        )
        for workers in map(int, options.workers.split(",")):
            results[workers] = compare(options, workers)
            print(f"{workers} worker process(es){'images/s':>12}{'images/CPU s':>14}")
            for name, row in results[workers].items():
                digits = 2 if "/" in name else 0
                print(
                    f"{name:20}{row['images_per_second']:12.{digits}f}{row['images_per_cpu_second']:14.{digits}f}"
                )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
