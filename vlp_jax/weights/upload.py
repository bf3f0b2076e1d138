"""Upload of an exported folder to the Hugging Face hub."""

from vlp_jax.errors import StorageError


def upload(folder: str, name: str) -> str:
    """Uploads all files of a folder as a model repository, which is created where it is missing.

    The token is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names another hub.

    Args:
      folder: the folder.
      name: OWNER/NAME.
    Returns: the address of the repository.
    Raises:
      StorageError: the hub refuses, or does not answer.
    """
    import huggingface_hub

    try:
        hub = huggingface_hub.HfApi()
        address = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by vlp_jax")
    except Exception as error:  # of the network, or of the hub
        reason = " ".join(str(error).split())[:200]
        raise StorageError(
            f"--push-to-hub: {name} was not uploaded ({reason}); {folder} is complete: upload it "
            f"by `hf upload {name} {folder}`"
        ) from error
    return str(address)
