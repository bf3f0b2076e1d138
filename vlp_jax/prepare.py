"""Prepare data: write a source as sharded ArrayRecord, train a vocabulary from its captions, or
convert caption files.

python -m vlp_jax.prepare '--source=webdataset:/data/{000000..000331}.tar' --output=/data/prepared \
    --image-size=256 --workers=8
python -m vlp_jax.prepare '--split=train=webdataset:/data/train-*.tar' \
    '--split=val=webdataset:/data/val.tar' --output=DIR
python -m vlp_jax.prepare --source=arrayrecord:/data/prepared/train \
    --train-tokenizer=tokenizer.json --vocab-size=4096
python -m vlp_jax.prepare --convert=dataset_flickr30k.json --split=test \
    --output=flickr30k_test.jsonl

The folder is read back as arrayrecord:DIR/SPLIT, and by
tfds.builder_from_directory(DIR).as_data_source(SPLIT). The same command after any interruption
resumes after the last complete shard.
"""

import argparse
import json
import os
import pathlib
import sys
import time

from vlp_jax.command_line import Flags, run_entry_point
from vlp_jax.data.notifications import listed
from vlp_jax.data.prepare import record_schema, writer
from vlp_jax.data.sources.caption_files import convert
from vlp_jax.data.sources.registry import Source, open_source
from vlp_jax.data.text import train_tokenizer
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.interrupts import as_exception
from vlp_jax.printing import safe_print as print
from vlp_jax.training.hooks.metric_writers import format_seconds


def _flags() -> Flags:
    """The flags of the command."""
    parser = Flags(prog="prepare", description=__doc__)
    parser.add_argument("--source", help="KIND:PATTERN, quoted where it has braces")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        help="name of the split that "
        "--source "
        "becomes, or "
        "NAME=KIND:PATTERN, as often as there are splits (default: train)",
    )
    parser.add_argument("--output", help="the folder to write; it must not exist")
    parser.add_argument(
        "--convert",
        metavar="FILE",
        help="COCO's captions, or a Karpathy split, "
        "which --output gets as JSON "
        "lines; --split, if given, chooses the split",
    )
    parser.add_argument("--name", help="name of the data set (default: that of the folder)")
    parser.add_argument(
        "--shards", type=_positive, help="of each split (default: 1 per 2,500 samples)"
    )
    parser.add_argument(
        "--image-format",
        choices=record_schema.IMAGE_FORMATS,
        default="keep",
        help="webp and png are lossless RGBA",
    )
    parser.add_argument(
        "--image-size",
        type=_positive,
        help="downscale larger images, whose "
        "shorter side becomes this many "
        "pixels; JPEG stays JPEG (quality 95), all others are lossless (default: "
        "leave them)",
    )
    parser.add_argument(
        "--compression",
        choices=writer.COMPRESSIONS,
        default="zstd",
        help="of records; brotli is the smallest and slow to write",
    )
    parser.add_argument("--workers", type=_positive, default=1, help="processes that encode")
    parser.add_argument(
        "--train-tokenizer",
        metavar="FILE",
        help="train a vocabulary, write it here: a .json, or a .model for sentencepiece",
    )
    parser.add_argument("--tokenizer-kind", choices=list(train_tokenizer.KINDS), default="bpe")
    parser.add_argument(
        "--vocab-size", type=_positive, default=4096, help="special tokens included"
    )
    parser.add_argument(
        "--lower-case",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the vocabulary lower-cases text itself",
    )
    return parser


def _positive(text: str) -> int:
    """A positive integer from a flag."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _splits(flags: argparse.Namespace) -> dict[str, Source]:
    """The sources to read, by split.

    Raises:
      UserError: flags that do not fit together, or a source that cannot be opened.
    """
    pairs = [split.split("=", 1) for split in flags.split if "=" in split]
    names = [split for split in flags.split if "=" not in split]
    if flags.source is not None:
        pairs.insert(0, [(names or ["train"])[0], flags.source])
    elif names:
        raise ConfigError(
            f"--split={names[0]} needs --source=KIND:PATTERN; or write "
            f"--split={names[0]}=KIND:PATTERN"
        )
    if not pairs:
        raise ConfigError("nothing to read; give --source=KIND:PATTERN")
    given = [name for name, _ in pairs] + names[1:]
    for name in given:
        if given.count(name) > 1:
            raise ConfigError(
                f"--split={name} is given twice; quote brace patterns: "
                f"'--split={name}=...{{00..31}}...'"
            )
    if len(names) > 1:
        raise ConfigError(
            f"--split={names[1]}: --source is one split already; write "
            f"--split={names[1]}=KIND:PATTERN"
        )
    return {name: open_source(spec) for name, spec in pairs}


class _Progress:
    """Samples done, their rate and the time left: a live line, or one every ten seconds without a
    terminal."""

    def __init__(self):
        self.live = sys.stderr.isatty()
        self.split: str | None = None
        self.began, self.first, self.shown = 0.0, 0, 0.0

    def __call__(self, split: str, done: int, of: int) -> None:
        now = time.monotonic()
        if split != self.split:
            self.split, self.began, self.first, self.shown = split, now, done, now
        due = now - self.shown > (0.2 if self.live else 10.0)
        if not due and not (self.live and done == of):
            return
        self.shown = now
        line = self.line(done, of, now - self.began)
        sys.stderr.write(
            (f"\r{line}\033[K" if self.live else line) + ("" if self.live and done < of else "\n")
        )
        sys.stderr.flush()

    def line(self, done: int, of: int, seconds: float) -> str:
        """The text of the line."""
        rate = (done - self.first) / seconds if seconds > 0 else 0.0
        left = f", {format_seconds((of - done) / rate)} left" if rate and done < of else ""
        return f"{self.split}: {done:,} of {of:,} samples, {rate:,.0f}/s{left}"


def _write(flags: argparse.Namespace, splits: dict[str, Source]) -> None:
    """Writes the data set and prints a summary."""
    options = writer.Options(
        flags.shards, flags.image_format, flags.image_size, flags.compression, flags.workers
    )
    manifest = writer.write_dataset(splits, flags.output, flags.name, options, _Progress())
    lines = []
    for split, entry in manifest["splits"].items():
        skipped = (
            ", ".join(f"{count} {reason}" for reason, count in entry["skipped"].items()) or "none"
        )
        smaller = f"; made smaller: {entry['resized']:,}" if flags.image_size else ""
        left = f"; part of no sample: {listed(entry['left_out'])}" if entry["left_out"] else ""
        lines.append(
            f"{split}: {entry['count']:,} samples, {entry['bytes'] / 1e6:.1f} MB in "
            f"{len(entry['shards'])} shard(s); skipped: {skipped}{left}{smaller}"
        )
    lines.append(
        f"wrote {flags.output}; read it as arrayrecord:{flags.output}/{next(iter(splits))}"
    )
    print("\n".join(lines))  # in one call, as a reader of a pipe may stop after the first line


def _convert(flags: argparse.Namespace) -> None:
    """Writes a caption file as JSON lines."""
    if flags.source or flags.train_tokenizer or not flags.output or len(flags.split) > 1:
        raise ConfigError(
            "--convert=FILE goes with --output=FILE.jsonl, and at most one --split=NAME"
        )
    path = pathlib.Path(flags.output)
    if path.exists():
        raise ConfigError(f"--output={path} exists; name a new file")
    lines = [json.dumps(line, ensure_ascii=False) for line in convert(flags.convert, *flags.split)]
    if not lines:
        raise ConfigError(f"--convert={flags.convert}: none of its images has a caption")
    _replace(path, ("\n".join(lines) + "\n").encode(), "--output")
    print(
        f"wrote {path}: {len(lines):,} images; read it as jsonl:{path}?root=FOLDER, that of the "
        "images"
    )


def _replace(path: pathlib.Path, content: bytes, flag: str) -> None:
    """Writes a file that gets its name only when it is complete.

    Raises:
      ConfigError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"{flag}={path} cannot be written: {error.strerror}") from error


def _check_tokenizer(path: str, kind: str, vocab_size: int) -> None:
    """Checks what can be checked before any caption is read.

    Raises:
      ConfigError: the vocabulary size or the file's ending is wrong.
    """
    train_tokenizer.check_vocab_size(kind, vocab_size)
    ending = ".model" if kind == "sentencepiece" else ".json"
    if not path.endswith(ending):
        raise ConfigError(
            f"--train-tokenizer={path}: a {kind} vocabulary is read back by its "
            f"ending; name it {path}{ending}"
        )


def _train(flags: argparse.Namespace, splits: dict[str, Source]) -> None:
    """Trains a vocabulary and writes it."""
    path, kind = pathlib.Path(flags.train_tokenizer), train_tokenizer.KINDS[flags.tokenizer_kind]
    texts = train_tokenizer.texts_of(splits.values())
    content = train_tokenizer.train_tokenizer(
        texts, flags.vocab_size, flags.tokenizer_kind, flags.lower_case
    )
    _replace(path, content, "--train-tokenizer")
    spec = TextConfig(
        tokenizer=str(path), start_token=kind.start, end_token=kind.end, padding_token=kind.padding
    )
    size = load_tokenizer(spec, 3, flags.vocab_size).vocab_size
    print(f"wrote {path}: {size:,} tokens, first {' '.join(kind.special)}; use it with")
    print(
        f"  '--config.data.text.tokenizer={path}' '--config.data.text.start_token={kind.start}' "
        f"'--config.data.text.end_token={kind.end}' "
        f"'--config.data.text.padding_token={kind.padding}' "
        f"--config.model.text.vocab_size={size}"
    )


def main(arguments: list[str]) -> int:
    """Writes the outputs that the arguments name.

    Returns: the exit status: 0, or 130 after Ctrl-C.
    Raises:
      UserError: anything that the user can fix.
    """
    flags = _flags().parse(arguments, repeatable=("--split",))
    if flags.convert:
        _convert(flags)
        return 0
    if not flags.output and not flags.train_tokenizer:
        raise ConfigError("nothing to write; give --output=DIR or --train-tokenizer=FILE")
    if flags.train_tokenizer:
        _check_tokenizer(flags.train_tokenizer, flags.tokenizer_kind, flags.vocab_size)
    splits = _splits(flags)
    try:
        with as_exception():
            if flags.output:
                _write(flags, splits)
            if flags.train_tokenizer:
                _train(flags, splits)
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run_entry_point(main)
