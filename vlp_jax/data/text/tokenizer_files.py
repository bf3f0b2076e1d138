"""Loading of tokenizers from the package, a file, a folder, or the Hugging Face hub."""

import importlib.resources
import json
import os

import tokenizers

from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.data.sources.local_files import check_regular
from vlp_jax.data.text.clip_vocabulary import clip_definition
from vlp_jax.data.text.tokenizer_hub import hub_folder, is_hub_name
from vlp_jax.data.text.tokenizer_models import (
    SentencePieceModel,
    model_of,
    sentencepiece_definition,
    word_piece,
)
from vlp_jax.errors import ConfigError, DataError

CONFIGS = ("tokenizer_config.json", "config.json")
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")


def read_definition(name: str) -> str:
    """The JSON (see `model_of`) of the tokenizer that `name` refers to.

    Forms of `name`:
      `embedded:emoji`, `embedded:clip`: tokenizers in this package; the latter has CLIP's
        vocabulary.
      FILE.json: a tokenizer.json.
      FILE.model: a SentencePiece model.
      FILE.txt: a WordPiece vocabulary, one token a line.
      FOLDER: the files of a Hugging Face tokenizer.
      OWNER/NAME: such files on the Hugging Face hub, downloaded once.

    In a folder, a SentencePiece model takes precedence, then tokenizer.json, then whatever
    transformers can load. Where both of the first are present and number their tokens differently,
    tokenizer.json is used: its ids are those of the embedding table.

    Raises:
      ConfigError: if it is missing or cannot be read.
    """
    if name == "embedded:clip":
        return clip_definition()
    if name.startswith("embedded:"):
        resource = (
            importlib.resources.files("vlp_jax.data")
            / name.removeprefix("embedded:")
            / "tokenizer.json"
        )
        if not resource.is_file():
            raise _error(
                f"no embedded tokenizer {name!r}; those in the package are "
                "'embedded:emoji' and 'embedded:clip'"
            )
        return resource.read_text(encoding="utf-8")
    if os.path.isdir(name):
        return _from_folder(name)
    if os.path.isfile(name):
        return _from_file(name)
    if os.path.exists(name):
        _read(name)  # raises an error that names what it is: a named pipe, a device
    if is_hub_name(name):
        return _from_folder(hub_folder(name))
    raise _error(
        f"{name!r} is not there; expected 'embedded:emoji', a tokenizer.json, a .model "
        "file of SentencePiece, a vocab.txt, a folder with a tokenizer's files, or "
        "OWNER/NAME on the Hugging Face hub"
    )


def _error(message: str) -> ConfigError:
    return ConfigError(f"data.text.tokenizer: {message}")


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except DataError as error:
        raise _error(error.args[0]) from error


def _from_file(path: str) -> str:
    if path.endswith(".model"):
        return _checked(path, sentencepiece_definition(_read(path)))
    try:
        text = _read(path).decode("utf-8-sig")
        if path.endswith(".txt"):
            return _from_vocabulary(path, text)
        json.loads(text)
        return text
    except ValueError as error:
        raise _error(
            f"{path} cannot be read as {'text' if path.endswith('.txt') else 'JSON'}: {error}"
        ) from error


def _checked(path: str, definition: str) -> str:
    try:
        model_of(definition)
        return definition
    except ValueError as error:
        raise _error(f"{path} is not a SentencePiece model: {error}") from error


def _from_vocabulary(path: str, text: str) -> str:
    """A BERT vocabulary.

    It is for lower-cased text if none of its words has an upper-case letter.
    """
    words = {
        word: number
        for number, word in enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"))
    }
    if "[UNK]" not in words:
        raise _error(f"{path} is not a WordPiece vocabulary: it has no line [UNK]")
    lower_case = not any(
        word != word.lower() for word in words if not (word.startswith("[") and word.endswith("]"))
    )
    return word_piece(words, lower_case).to_str()


def _from_folder(folder: str) -> str:
    held = set(os.listdir(folder))
    for name in held:
        path = os.path.join(folder, name)
        if os.path.exists(path) and not os.path.isdir(path):
            try:
                check_regular(path)  # transformers would wait for a named pipe
            except DataError as error:
                raise _error(error.args[0]) from error
    definition = (
        _from_file(os.path.join(folder, "tokenizer.json")) if "tokenizer.json" in held else None
    )
    for name in SENTENCEPIECE_FILES:
        if name in held:
            proto = _read(os.path.join(folder, name))
            if definition is None:
                return _checked(os.path.join(folder, name), sentencepiece_definition(proto))
            return sentencepiece_definition(proto) if _same_ids(proto, definition) else definition
    if definition is not None:
        return definition
    if "vocab.txt" in held and "tokenizer_config.json" not in held:
        return _from_file(os.path.join(folder, "vocab.txt"))
    return _from_transformers(folder)


def _same_ids(proto: bytes, definition: str) -> bool:
    try:
        pieces = SentencePieceModel(proto).library
        other = tokenizers.Tokenizer.from_str(definition)
    # not a SentencePiece model despite its name; or no valid tokenizer.json, which is reported
    # later
    except Exception:
        return False
    return all(
        other.token_to_id(pieces.id_to_piece(number)) == number
        for number in range(pieces.get_piece_size())
    )


def _from_transformers(folder: str) -> str:
    """The JSON of other folders, such as CLIP's vocab.json and merges.txt."""
    # no message about missing torch at import
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers  # imported here because the import takes seconds

    transformers.logging.set_verbosity_error()  # a failure is reported below in one line
    try:
        kind = _class_for(folder, transformers)
        # trust_remote_code=False prevents a prompt at the terminal for a folder with its own Python
        # code.
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).backend_tokenizer.to_str()
    except Exception as error:
        found = ", ".join(sorted(os.listdir(folder))[:8]) or "nothing"
        configs = [
            path
            for path in (os.path.join(folder, name) for name in CONFIGS)
            if os.path.isfile(path)
        ]
        if any(b'"auto_map"' in _read(path) for path in configs):
            raise _error(
                f"{folder} brings Python code of its own (auto_map), which is never run; "
                "where you trust it, write its tokenizer.json elsewhere and name that "
                f"file (found {found})"
            ) from error
        raise _error(
            f"{folder} holds no tokenizer that transformers can load (found {found}): "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error


def _class_for(folder: str, transformers):
    """CLIP's own class for a folder with only CLIP's vocab.json and merges.txt; otherwise
    AutoTokenizer."""
    alone = not {"tokenizer_config.json", "config.json"} & set(os.listdir(folder))
    vocabulary = os.path.join(folder, "vocab.json")
    if alone and os.path.isfile(vocabulary) and b"<|startoftext|>" in _read(vocabulary):
        return transformers.CLIPTokenizer
    return transformers.AutoTokenizer
