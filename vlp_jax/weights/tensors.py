"""Tensors of public checkpoints by name, read one at a time."""

import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import safetensors

from vlp_jax.data.sources.local_files import check_regular
from vlp_jax.errors import CheckpointError, DataError

INDEX = ".index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = {"F64", "F32", "F16", "BF16"}


class Tensors(Protocol):
    """The tensors of one checkpoint."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """{name: shape} of its floating-point tensors, read from the headers alone."""
        ...

    def file_of(self, name: str) -> str:
        """The file that holds a tensor, for messages."""
        ...

    def read(self, name: str) -> np.ndarray:
        """A tensor, float32.

        Raises:
          CheckpointError: it cannot be read, or has values that are not finite.
        """
        ...


class SafetensorsFiles:
    """The tensors of one or several safetensors files.

    Args:
      paths: the files. A name may be in one of them only.
    Raises:
      CheckpointError: a file is missing, truncated or no safetensors file.
    """

    def __init__(self, paths: Iterable[str]):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, str] = {}
        for path in paths:
            with opened(path) as file:
                for name in list(file.keys()):
                    part = file.get_slice(name)
                    if part.get_dtype() in FLOATS:
                        self.shapes[name], self.files[name] = tuple(part.get_shape()), path

    def file_of(self, name: str) -> str:
        """The file that holds a tensor."""
        return self.files[name]

    def read(self, name: str) -> np.ndarray:
        """A tensor, float32.

        Raises: as `Tensors.read`.
        """
        path = self.files[name]
        with opened(path) as file:
            try:
                return finite(file.get_tensor(name), path, name)
            except safetensors.SafetensorError as error:
                raise CheckpointError(f"{path}: {name} cannot be read: {error}") from error


class NpzFile:
    """The arrays of an .npz file.

    Args:
      path: the file.
    Raises:
      CheckpointError: the file is missing or damaged, or holds pickled objects.
    """

    def __init__(self, path: str):
        check_file(path)
        self.path = path
        try:
            self.archive = np.load(path, allow_pickle=False)
            self.shapes = {
                name: shape
                for name in self.archive.files
                if (shape := header_of(self.archive, name, path)) is not None
            }
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: is no npz file, or is truncated: {error}") from error

    def file_of(self, name: str) -> str:
        """The file."""
        return self.path

    def read(self, name: str) -> np.ndarray:
        """An array, float32.

        Raises: as `Tensors.read`.
        """
        try:
            return finite(self.archive[name], self.path, name)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self.path}: {name} cannot be read: {error}") from error


def header_of(archive: Any, name: str, path: str) -> tuple[int, ...] | None:
    """The shape of an array of an npz file, read from its header; None for one that is not of
    floating-point numbers.

    Raises:
      CheckpointError: it is pickled.
    """
    with archive.zip.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"{name} has version {version} of the npy format")
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise CheckpointError(f"{path}: {name} is a pickled object, which is not read")
    # NumPy writes bfloat16, which is not its own type, as two bytes without a type ("|V2").
    return shape if dtype.kind == "f" or dtype.str == "|V2" else None


def opened(path: str) -> Any:
    """A safetensors file, as a context.

    Raises:
      CheckpointError: it is missing, truncated or no safetensors file.
    """
    check_file(path)
    try:
        return safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is no safetensors file, or is truncated: {error}"
        ) from error


def check_file(path: str) -> None:
    """Checks that a path is a regular file and no pickle.

    Raises:
      CheckpointError: it is not.
    """
    if path.endswith(PICKLES):
        raise CheckpointError(
            f"{path}: is a pickle, which can run code when it is read; where you trust it, convert "
            f'it with PyTorch: python -c "import sys, torch; from safetensors.torch import '
            "save_file; d = torch.load(sys.argv[1], weights_only=True, map_location='cpu'); "
            "d = d.get('state_dict', d.get('model', d)); "
            'save_file({k: v.clone().contiguous() for k, v in d.items()}, sys.argv[2])" '
            f"{path} {os.path.splitext(path)[0]}.safetensors"
        )
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: does not exist")
    try:
        check_regular(path)
    except DataError as error:
        raise CheckpointError(error.args[0]) from error


def finite(array: np.ndarray, path: str, name: str) -> np.ndarray:
    """The array, float32.

    Raises:
      CheckpointError: a value is infinite or NaN.
    """
    if array.dtype.str == "|V2":
        import ml_dtypes

        array = array.view(ml_dtypes.bfloat16)
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} has values that are infinite or not a number")
    return array


def safetensors_in(folder: str, stem: str) -> SafetensorsFiles:
    """The tensors of a folder with `STEM.safetensors`, or shards and `STEM.safetensors.index.json`.

    Raises:
      CheckpointError: there are none, or a shard is missing or lacks one of its tensors.
    """
    single = os.path.join(folder, f"{stem}.safetensors")
    index = single + INDEX
    if os.path.exists(single):
        return SafetensorsFiles([single])
    if os.path.exists(index):
        places = shard_names(index)
        found = SafetensorsFiles(
            os.path.join(folder, name) for name in dict.fromkeys(places.values())
        )
        lacking = next((name for name in places if name not in found.files), None)
        if lacking and not re.search(r"position_ids|num_batches_tracked", lacking):
            raise CheckpointError(
                f"{os.path.join(folder, places[lacking])}: lacks {lacking}, which {index} names"
            )
        return found
    pickles = sorted(name for name in os.listdir(folder) if name.endswith(PICKLES))
    if pickles:
        check_file(os.path.join(folder, pickles[0]))
    raise CheckpointError(f"{single}: does not exist; the folder has no weights as safetensors")


def shard_names(index: str) -> dict[str, str]:
    """{tensor: file} of an index of shards.

    Raises:
      CheckpointError: it is no index, or names a file outside of its folder.
    """
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensors to files")
    for name in found.values():
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise CheckpointError(f"{index}: names {name!r}, which is no file of its folder")
    return found


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      CheckpointError: the file is missing or holds no JSON object.
    """
    check_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return found
