"""Files of public checkpoints, as they are written."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer as Definition
from tokenizers import normalizers, processors

from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.data.text.tokenizer_models import sentencepiece_proto
from vlp_jax.errors import ConfigError, user_error_of
from vlp_jax.storage.files import is_folder, upload_folder
from vlp_jax.storage.paths import check_place, is_bucket
from vlp_jax.weights.tensors import INDEX

SHARD_BYTES = 500_000_000  # of a file; so much is in memory at once
# Changes of a text that SigLIP's tokenizer in transformers makes.
SIGLIP_CHANGES = ("lower_case", "punctuation", "whitespace")
# Changes of a text that a tokenizer.json can express.
NORMALIZERS = {
    "lower_case": lambda: normalizers.Lowercase(),
    "whitespace": lambda: normalizers.Sequence(
        [normalizers.Replace(_whitespace(), " "), normalizers.Strip()]
    ),
}


def _whitespace() -> Any:
    from tokenizers import Regex

    return Regex(r"\s+")


def write_json(folder: str, name: str, tree: dict[str, Any]) -> None:
    """Writes a JSON file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_text(folder: str, name: str, text: str) -> None:
    """Writes a text file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


def write_tensors(
    folder: str,
    stem: str,
    tensors: Iterable[tuple[str, np.ndarray]],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes `STEM.safetensors`, or shards of it and their index.

    Args:
      folder: the folder.
      stem: name of the file.
      tensors: (name, array), of which one shard is held at a time.
      shard_bytes: of a shard, at most, unless a tensor alone has more.
    """
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = size = 0

    def write() -> None:
        path = shard(folder, stem, len(shards))
        with open(path, "wb") as file:  # with the permissions of any new file
            permissions = os.fstat(file.fileno()).st_mode
        save_file(held, path, metadata={"format": "pt"})
        os.chmod(path, permissions)
        shards.append(list(held))
        held.clear()

    for name, array in tensors:
        if held and size + array.nbytes > shard_bytes:
            write()
            size = 0
        held[name] = array
        size, total = size + array.nbytes, total + array.nbytes
    write()
    if len(shards) == 1:
        os.rename(shard(folder, stem, 0), os.path.join(folder, f"{stem}.safetensors"))
        return
    places = {}
    for number, names in enumerate(shards):
        final = f"{stem}-{number + 1:05}-of-{len(shards):05}.safetensors"
        os.rename(shard(folder, stem, number), os.path.join(folder, final))
        places |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder, f"{stem}.safetensors{INDEX}", index)


def shard(folder: str, stem: str, number: int) -> str:
    """The path of a shard while their number is not known."""
    return os.path.join(folder, f"{stem}.{number}.part")


def write_tokenizer(folder: str, tokenizer: Tokenizer, settings: dict[str, Any]) -> list[str]:
    """Writes a tokenizer as transformers reads it.

    Args:
      folder: the folder.
      tokenizer: the tokenizer.
      settings: further keys of tokenizer_config.json.
    Returns: the changes of a text that the files do not make, which a user has to make before.
    """
    spec = tokenizer.spec
    proto = sentencepiece_proto(tokenizer.definition)
    if proto is None:
        left: list[str] = [name for name in spec.canonicalize if name not in NORMALIZERS]
        tokenizers_json(tokenizer).save(os.path.join(folder, "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    else:
        left = [name for name in spec.canonicalize if name not in SIGLIP_CHANGES]
        with open(os.path.join(folder, "spiece.model"), "wb") as file:
            file.write(proto)
        settings = {
            "tokenizer_class": "SiglipTokenizer",
            "do_lower_case": "lower_case" in spec.canonicalize,
            **settings,
        }
    # transformers finds its special tokens in texts too, in which CLIP's padding "!" is a character
    padding = spec.padding_token if len(spec.padding_token) > 1 else spec.end_token
    tokens = {"bos_token": spec.start_token, "eos_token": spec.end_token, "pad_token": padding}
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "model_max_length": tokenizer.length,
            "padding_side": "right",
            "truncation_side": spec.truncation_side,
            "clean_up_tokenization_spaces": False,
            **{name: value for name, value in tokens.items() if value is not None},
            **settings,
        },
    )
    return left


def tokenizers_json(tokenizer: Tokenizer) -> Definition:
    """A tokenizer of the tokenizers library that adds start and end token itself."""
    spec = tokenizer.spec
    definition = Definition.from_str(tokenizer.definition)
    changes = [NORMALIZERS[name]() for name in spec.canonicalize if name in NORMALIZERS]
    if changes:
        known = [definition.normalizer] if definition.normalizer is not None else []
        definition.normalizer = normalizers.Sequence([*changes, *known])
    names = [name for name in (spec.start_token, spec.end_token) if name is not None]
    if names:
        start = [f"{spec.start_token}:0"] if spec.start_token is not None else []
        end = [f"{spec.end_token}:0"] if spec.end_token is not None else []
        definition.post_processor = processors.TemplateProcessing(
            single=[*start, "$A:0", *end],
            pair=[*start, "$A:0", *end, "$B:0", *end],
            special_tokens=[(name, tokenizer.id_of("start_token", name)) for name in names],
        )
    definition.no_padding()
    definition.no_truncation()
    return definition


def check_absent(folder: str) -> None:
    """Checks that nothing would be overwritten.

    Raises:
      ConfigError: the folder holds something.
    """
    if is_bucket(folder):
        check_place("--to", folder)
        if is_folder(folder):
            raise ConfigError(f"--to: {folder} exists; choose another folder")
        return
    if os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder)):
        raise ConfigError(f"--to: {folder} exists; choose another folder")


@contextlib.contextmanager
def complete_folder(folder: str) -> Generator[str, None, None]:
    """A context in which a folder is written under another name; it gets its own name at the end,
    and is removed after an error. One in a bucket is written on this machine, and then uploaded.

    Raises:
      UserError: it cannot be written.
    """
    if is_bucket(folder):
        with tempfile.TemporaryDirectory(prefix="vlp_jax_upload_") as here:
            yield here
            upload_folder(here, folder)
        return
    unfinished = f"{os.path.abspath(folder)}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.makedirs(unfinished)
        yield unfinished
        if os.path.isdir(folder):
            os.rmdir(folder)
        os.rename(unfinished, folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise user_error_of(error) or error from None
