"""Door: data sets in. Writes a source as sharded ArrayRecord, or trains a vocabulary from its captions.

python -m vlp_jax.prepare '--source=webdataset:/data/{000000..000331}.tar' --output=/data/prepared
python -m vlp_jax.prepare '--split=train=webdataset:/data/train-*.tar' '--split=val=webdataset:/data/val.tar' --output=DIR
python -m vlp_jax.prepare --source=arrayrecord:/data/prepared/train --train-tokenizer=tokenizer.json --vocab-size=4096

The folder is read back as arrayrecord:DIR/SPLIT, and by tfds.builder_from_directory(DIR).as_data_source(SPLIT).
"""

import argparse
import os
import pathlib
import sys
import time

from vlp_jax.command_line import Flags, run_door
from vlp_jax.data import records, vocabulary, writer
from vlp_jax.data.sources import Source, open_source
from vlp_jax.errors import ConfigError


def _flags() -> Flags:
    parser = Flags(prog="prepare", description=__doc__)
    parser.add_argument("--source", help="KIND:PATTERN, quoted where it has braces")
    parser.add_argument("--split", action="append", default=[], help="name of the split that --source becomes, or "
                        "NAME=KIND:PATTERN, as often as there are splits (default: train)")
    parser.add_argument("--output", help="the folder to write; it must not exist")
    parser.add_argument("--name", help="name of the data set (default: that of the folder)")
    parser.add_argument("--shards", type=_positive, help="of each split (default: 1 per 2,500 samples)")
    parser.add_argument("--image-format", choices=records.IMAGE_FORMATS, default="keep",
                        help="webp and png are lossless RGBA")
    parser.add_argument("--compression", choices=writer.COMPRESSIONS, default="zstd",
                        help="of records; brotli is the smallest and slow to write")
    parser.add_argument("--workers", type=_positive, default=1, help="processes that encode")
    parser.add_argument("--train-tokenizer", metavar="FILE", help="train a BPE vocabulary, write it here")
    parser.add_argument("--vocab-size", type=_positive, default=4096)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _splits(flags: argparse.Namespace) -> dict[str, Source]:
    """The sources to read, by split. Raises: UserError."""
    pairs = [split.split("=", 1) for split in flags.split if "=" in split]
    names = [split for split in flags.split if "=" not in split]
    if flags.source is not None:
        pairs.insert(0, [(names or ["train"])[0], flags.source])
    elif names:
        raise ConfigError(f"--split={names[0]} needs --source=KIND:PATTERN; or write --split={names[0]}=KIND:PATTERN")
    if not pairs:
        raise ConfigError("nothing to read; give --source=KIND:PATTERN")
    given = [name for name, _ in pairs] + names[1:]
    for name in given:
        if given.count(name) > 1:
            raise ConfigError(f"--split={name} is given twice; quote brace patterns: '--split={name}=...{{00..31}}...'")
    if len(names) > 1:
        raise ConfigError(f"--split={names[1]}: --source is one split already; write --split={names[1]}=KIND:PATTERN")
    return {name: open_source(spec) for name, spec in pairs}


class _Progress:
    """A live line on a terminal, nothing elsewhere."""

    def __init__(self):
        self.shown = 0.0

    def __call__(self, split: str, done: int, of: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and (now - self.shown > 0.2 or done == of):
            self.shown = now
            print(f"\r{split}: {done:,} of {of:,} samples", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _write(flags: argparse.Namespace, splits: dict[str, Source]) -> None:
    manifest = writer.write_dataset(splits, flags.output, flags.name, flags.shards, flags.image_format,
                                    flags.compression, flags.workers, _Progress())
    for split, entry in manifest["splits"].items():
        skipped = ", ".join(f"{count} {reason}" for reason, count in entry["skipped"].items()) or "none"
        print(f"{split}: {entry['count']:,} samples, {entry['bytes'] / 1e6:.1f} MB in {len(entry['shards'])} shard(s); "
              f"skipped: {skipped}")
    print(f"wrote {flags.output}; read it as arrayrecord:{flags.output}/{next(iter(splits))}")


def _train(flags: argparse.Namespace, splits: dict[str, Source]) -> None:
    path = pathlib.Path(flags.train_tokenizer)
    definition = vocabulary.train_tokenizer(vocabulary.texts_of(splits.values()), flags.vocab_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(definition + "\n", encoding="utf-8")
    os.replace(partial, path)
    print(f"wrote {path}")


def main(arguments: list[str]) -> int:
    """Writes what the arguments ask for. Raises: UserError."""
    flags = _flags().parse(arguments, repeatable=("--split",))
    if not flags.output and not flags.train_tokenizer:
        raise ConfigError("nothing to write; give --output=DIR or --train-tokenizer=FILE")
    splits = _splits(flags)
    if flags.output:
        _write(flags, splits)
    if flags.train_tokenizer:
        _train(flags, splits)
    return 0


if __name__ == "__main__":
    run_door(main)
