"""Classification of errors on reading a checkpoint: damage or failing storage.

An older checkpoint can replace a damaged one.

Only proofs of damage count as such: missing or truncated files, and contents that cannot be
decoded. A server that answers 503, a stale network mount or too little memory prove nothing about
the checkpoint.
"""

import functools
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import jax

from vlp_jax.distributed.exchange import exchange
from vlp_jax.errors import CheckpointError, StorageError
from vlp_jax.storage.bucket import PASSING_CODES, REFUSING_CODES
from vlp_jax.storage.paths import is_bucket

Value = TypeVar("Value")
PAUSES = (1.0, 5.0)  # seconds before each further attempt to read from storage that failed

# Missing files, files of other contents, and what Python raises for JSON with other names, types or
# numbers than Orbax wrote.
DAMAGE = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    json.JSONDecodeError,
    UnicodeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
)
# TensorStore raises ValueErrors that begin with the name of an absl status. Those below mean that
# the storage does not answer, or refuses. Any other status, or a ValueError of other code, means
# that the contents are not those that were written: NOT_FOUND, DATA_LOSS, OUT_OF_RANGE (a byte
# range past the end of a file), FAILED_PRECONDITION (a truncated compressed stream),
# INVALID_ARGUMENT (in JSON), UNIMPLEMENTED (an unknown codec name).
# (storage.bucket.PASSING_CODES, REFUSING_CODES)


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written."""


def read_patiently(what: str, place: str, read: Callable[[], Value]) -> Value:
    """The result of `read()`, which is repeated while the storage does not answer.

    Args:
      what: a part of the checkpoint, for messages.
      place: path of the checkpoint.
      read: reads the part.
    Raises:
      DamagedCheckpoint: the part is damaged.
      StorageError: the storage does not answer.
      CheckpointError: the storage refuses, or this process cannot take the contents.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        # Orbax and TensorStore raise ValueError, OSError, Exception, ...
        except Exception as error:
            logging.debug("reading %s of %s failed", what, place, exc_info=True)
            verdict = judged(what, place, error)
            if pause is None or not isinstance(verdict, StorageError):
                raise verdict from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def root_of(error: BaseException) -> BaseException:
    """The original cause of an error: Orbax wraps the errors of its storage and of JAX."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def judged(what: str, place: str, error: Exception) -> DamagedCheckpoint | CheckpointError:
    """The error to raise for an error on reading."""
    root = root_of(error)
    code = str(root).partition(":")[0]
    if isinstance(error, (DamagedCheckpoint, CheckpointError)):
        return error
    if isinstance(root, FileNotFoundError) and (refused := unreadable_folder(place, what)):
        root = refused
    if isinstance(root, DAMAGE) or (
        isinstance(root, ValueError) and code not in PASSING_CODES + REFUSING_CODES
    ):
        return DamagedCheckpoint(f"{damaged_file(place, what)}: {words_of(root)}")
    lasting = (
        isinstance(root, (PermissionError, MemoryError, jax.errors.JaxRuntimeError))
        or code in REFUSING_CODES
    )
    kind, advice = (
        (CheckpointError, "give it what it lacks (memory, permission)")
        if lasting
        else (StorageError, "start again when its storage answers")
    )
    return kind(
        f"{place}: {what} cannot be read, which proves no damage: {first_line(root)}; "
        f"nothing was changed: {advice}, or move this checkpoint away to go on from an "
        "older one"
    )


def is_passing(error: BaseException) -> bool:
    """Whether an error on access to a bucket is one of the connection, or of a server that cannot
    answer now.

    TensorStore names such errors by their code; the libraries below fsspec raise their own types,
    or have the server's status.
    """
    status = getattr(error, "status", None) or getattr(error, "code", None)
    library = type(error).__module__.partition(".")[0]
    lasting = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError)
    return (
        str(error).partition(":")[0] in PASSING_CODES
        or (isinstance(error, OSError) and not isinstance(error, lasting))
        or (isinstance(status, int) and (status == 429 or status >= 500))
        or (library in ("aiohttp", "requests", "urllib3") and not isinstance(status, int))
    )


def unreadable_folder(place: str, item: str) -> PermissionError | None:
    """The permission error of a folder of an item; None without one.

    Orbax reports such a folder as if it were empty.
    """
    if is_bucket(place):
        return None
    try:
        for folder, _, _ in os.walk(os.path.join(place, item), onerror=_raise):
            os.stat(os.path.join(folder, "."))
    except PermissionError as error:
        return error
    except OSError:
        return None
    return None


def _raise(error: OSError) -> None:
    raise error


def damaged_file(place: str, item: str) -> str:
    """The JSON file of a checkpoint's item that cannot be parsed, as a path below `place`.

    The item itself where all of them can be.
    """
    # of a bucket there are none
    for folder, _, names in sorted(os.walk(os.path.join(place, item))):
        for name in sorted(names):
            if (
                name in ("_METADATA", "_sharding", "metadata")
                or os.path.basename(folder) == "array_metadatas"
            ):
                try:
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        json.load(file)
                except (OSError, ValueError):
                    return os.path.relpath(os.path.join(folder, name), place)
    return item


def words_of(error: BaseException) -> str:
    """What is damaged, in words, from the error that shows it.

    TensorStore's message continues with the state of its storage.
    """
    code, _, text = str(error).partition(":")
    array = re.search('reading "([^"]+)"', text)
    if isinstance(error, ValueError) and array:
        return f"{array[1]} cannot be read ({code})"
    line = first_line(error)
    return (
        line
        if isinstance(error, (ValueError, OSError))
        else f"not what was written ({type(error).__name__}: {line})"
    )


@functools.cache
def quiet_reads() -> None:
    """Silences reports about the other reads where one array of several cannot be read.

    Python and asyncio report these as exceptions that nobody caught. The first error has all the
    information.
    """
    logging.getLogger("asyncio").addFilter(lambda record: "tensorstore" not in record.getMessage())
    warnings.filterwarnings(
        "ignore",
        r"coroutine '(_read_array|Store\.).*' was never "
        r"awaited",
        RuntimeWarning,
    )
    report = sys.unraisablehook

    def unless_of_orbax(raised: "sys.UnraisableHookArgs") -> None:
        code = getattr(raised.object, "cr_code", None)
        of_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
        # TensorStore's callbacks, after the reads have ended
        if not of_orbax and str(raised.exc_value) != "Event loop is closed":
            report(raised)

    sys.unraisablehook = unless_of_orbax


def read_together(what: str, read: Callable[[], Value]) -> Value:
    """The result of `read()` in this process, with errors shared between all processes.

    Raises:
      DamagedCheckpoint, CheckpointError, StorageError: on all processes if `read` raises it on one.
        Damage is raised only where no process has a storage error.
    """
    kinds = {kind.__name__: kind for kind in (StorageError, CheckpointError, DamagedCheckpoint)}
    value, fault = None, None
    try:
        value = read()
    except tuple(kinds.values()) as error:
        fault = [type(error).__name__, error.args[0]]
    faults = [found for found in exchange(what, fault) if found]
    if faults:
        kind, message = min(faults, key=lambda found: list(kinds).index(found[0]))
        raise kinds[kind](message)
    return cast(Value, value)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none.

    Long lines are cut in the middle, as the disk's own message is at the end.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f"{line[:120]} ... {line[-170:]}"
