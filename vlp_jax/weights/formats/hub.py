"""Checkpoints on the Hugging Face hub: the cached copy first, then the network."""

import os

from vlp_jax.data.text.tokenizer_hub import is_hub_name
from vlp_jax.errors import CheckpointError

FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.npz")


def local_folder(place: str) -> str:
    """The folder itself, or the local copy of OWNER/NAME on the hub.

    Raises:
      CheckpointError: it is neither, or as `downloaded`.
    """
    if os.path.isdir(place):
        return place
    if not is_hub_name(place):
        raise CheckpointError(f"{place}: is no folder, and not OWNER/NAME on the hub")
    return downloaded(place)


def downloaded(name: str) -> str:
    """The local folder with the files of OWNER/NAME, without pickles and code.

    Raises:
      CheckpointError: they are not cached and the hub does not deliver them.
    """
    import huggingface_hub

    patterns = list(FILES)
    try:
        return huggingface_hub.snapshot_download(
            name, allow_patterns=patterns, local_files_only=True
        )
    except Exception:  # noqa: S110 - not cached; the hub is tried next
        pass
    try:
        return huggingface_hub.snapshot_download(name, allow_patterns=patterns, etag_timeout=10)
    except Exception as error:  # of the network, or of the hub
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{name}: is no folder here, is not in the cache "
            f"({huggingface_hub.constants.HF_HUB_CACHE}), and the Hugging Face hub did not deliver "
            f"it ({reason}); where there is a network run `hf download {name} --local-dir DIR`, "
            "bring the folder here and name it"
        ) from error
