"""Checkpoints on the Hugging Face hub: the cached copy first, then the network."""

import os

from vlp_jax.data.text.tokenizer_hub import is_hub_name
from vlp_jax.errors import CheckpointError

WEIGHTS = (".safetensors", ".npz")
FILES = ("*.json", "*.model", "*.txt", *(f"*{ending}" for ending in WEIGHTS))


def local_folder(place: str) -> str:
    """The folder itself, or the local copy of OWNER/NAME or OWNER/NAME@REVISION on the hub.

    Raises:
      CheckpointError: it is neither, or as `downloaded`.
    """
    if os.path.isdir(place):
        return place
    name, _, revision = place.partition("@")
    if not is_hub_name(name):
        raise CheckpointError(f"{place}: is no folder, and not OWNER/NAME on the hub")
    return downloaded(name, revision or None)


def downloaded(name: str, revision: str | None = None) -> str:
    """The local folder with the files of OWNER/NAME, without pickles and code.

    Args:
      name: OWNER/NAME.
      revision: a branch, tag, commit or "refs/pr/NUMBER". Default: the main branch.
    Raises:
      CheckpointError: they are not cached and the hub does not deliver them, or there are no
        weights as safetensors or npz.
    """
    import huggingface_hub

    fetch, patterns = huggingface_hub.snapshot_download, list(FILES)
    try:
        cached = fetch(name, revision=revision, allow_patterns=patterns, local_files_only=True)
        if has_weights(cached):  # a tokenizer alone may be cached
            return cached
    except Exception:  # noqa: S110 - not cached; the hub is tried next
        pass
    try:
        folder = fetch(name, revision=revision, allow_patterns=patterns, etag_timeout=10)
    except Exception as error:  # of the network, or of the hub
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{name}: is no folder here, is not in the cache "
            f"({huggingface_hub.constants.HF_HUB_CACHE}), and the Hugging Face hub did not deliver "
            f"it ({reason}); where there is a network run `hf download {name} --local-dir DIR`, "
            "bring the folder here and name it"
        ) from error
    if not has_weights(folder):
        raise CheckpointError(
            f"{name}{f'@{revision}' if revision else ''}: has no weights as safetensors or npz on "
            f"the hub; pickles are not read. A pull request there may have converted them: name "
            f"it as {name}@refs/pr/NUMBER"
        )
    return folder


def has_weights(folder: str) -> bool:
    """Whether a folder has weights in a format that is read."""
    return any(name.endswith(WEIGHTS) for name in os.listdir(folder))
