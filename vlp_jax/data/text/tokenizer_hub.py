"""Tokenizer files from the Hugging Face hub: the cached copy first, then the network, within a
limited time."""

import os
import re
import threading

from vlp_jax.errors import ConfigError

SECONDS = 60.0  # time limit for the download of a few megabytes
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "*.model",
)
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ENDINGS = (".json", ".model", ".txt")
_VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt")


def is_hub_name(name: str) -> bool:
    """Whether `name` could be OWNER/NAME rather than the path of a file."""
    return bool(_NAME.fullmatch(name)) and not name.startswith(".") and not name.endswith(_ENDINGS)


def hub_folder(name: str) -> str:
    """The local folder with the tokenizer files of OWNER/NAME.

    Raises:
      ConfigError: if they are not cached and the hub does not deliver them within SECONDS. The
        message explains how to fetch them elsewhere.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(FILES), local_files_only=True
        )
        if any(file in _VOCABULARY or file.endswith(".model") for file in os.listdir(folder)):
            return folder
    except Exception:  # noqa: S110 - not cached; the hub is tried next
        pass
    outcome: list[str | Exception] = []

    def fetch():
        try:
            outcome.append(
                huggingface_hub.snapshot_download(name, allow_patterns=list(FILES), etag_timeout=10)
            )
        except Exception as error:
            outcome.append(error)

    # daemon: it may never end, because the library retries without a limit
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(SECONDS)
    found = outcome[0] if outcome else f"no answer within {SECONDS:g} seconds"
    if isinstance(found, str) and outcome:
        return found
    reason = " ".join(str(found).split())
    target = f"tokenizers/{name.split('/')[1]}"
    raise ConfigError(
        f"data.text.tokenizer: {name!r} is no file or folder here, is not in the cache "
        f"({huggingface_hub.constants.HF_HUB_CACHE}), and the Hugging Face hub did not deliver it "
        f"({reason[:200]}); where there is a network run `hf download {name} --local-dir "
        f"{target}`, bring the folder here and name it: --config.data.text.tokenizer={target}"
    )
