"""What an error on reading a checkpoint means: damage, which an older checkpoint makes good, or storage that does not answer.

Only what proves damage counts as such: files that are missing or cut short, contents that cannot be decoded. A server that
answers 503, a stale network mount, memory that does not suffice say nothing about the checkpoint.
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
from typing import TypeVar

import jax

from vlp_jax.distributed.exchange import exchange
from vlp_jax.errors import CheckpointError, StorageError

Value = TypeVar("Value")
PAUSES = (1.0, 5.0)  # seconds, after which what the storage did not give is asked for again

# Files that are missing or hold something else, and what Python raises of JSON that is not what Orbax wrote: a name, a type or
# a number in it is another.
DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, json.JSONDecodeError, UnicodeError, LookupError, TypeError,
          AttributeError, ArithmeticError, AssertionError, RecursionError)
# TensorStore raises ValueErrors that begin with the name of an absl status. Of storage that does not answer, or refuses; any
# other, or a ValueError of other code, is of contents that cannot be those that were written: NOT_FOUND, DATA_LOSS, OUT_OF_RANGE
# (a byte range behind the end of a file), FAILED_PRECONDITION (a compressed stream that ends too early), INVALID_ARGUMENT (of
# JSON), UNIMPLEMENTED (of a codec's name).
PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "UNKNOWN", "INTERNAL", "RESOURCE_EXHAUSTED")
LASTING_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written."""


def read_patiently(what: str, place: str, read: Callable[[], Value]) -> Value:
    """What `read()` gives; storage that does not answer is asked again. what: a part of the checkpoint at `place`.

    Raises: DamagedCheckpoint; StorageError where the storage does not answer; CheckpointError where it refuses, or this
    process cannot take what it gives.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except Exception as error:  # Orbax and TensorStore raise ValueError, OSError, Exception, ...
            logging.debug("reading %s of %s failed", what, place, exc_info=True)
            verdict = judged(what, place, error)
            if pause is None or not isinstance(verdict, StorageError):
                raise verdict from error
        time.sleep(pause)
    raise AssertionError("unreachable")


def root_of(error: BaseException) -> BaseException:
    """What an error was raised from in the first place: Orbax wraps what its storage and JAX raise."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def judged(what: str, place: str, error: Exception) -> DamagedCheckpoint | CheckpointError:
    """What an error on reading means."""
    root = root_of(error)
    code = str(root).partition(":")[0]
    if isinstance(error, (DamagedCheckpoint, CheckpointError)):
        return error
    if isinstance(root, FileNotFoundError) and (refused := unreadable_folder(place, what)):
        root = refused
    if isinstance(root, DAMAGE) or (isinstance(root, ValueError) and code not in PASSING_CODES + LASTING_CODES):
        return DamagedCheckpoint(f"{damaged_file(place, what)}: {words_of(root)}")
    lasting = isinstance(root, (PermissionError, MemoryError, jax.errors.JaxRuntimeError)) or code in LASTING_CODES
    kind, advice = ((CheckpointError, "give it what it lacks (memory, permission)") if lasting else
                    (StorageError, "start again when its storage answers"))
    return kind(f"{place}: {what} cannot be read, which proves no damage: {first_line(root)}; nothing was changed: {advice}, or "
                "move this checkpoint away to go on from an older one")


def unreadable_folder(place: str, item: str) -> PermissionError | None:
    """The refusal of a folder of an item that may not be read, which to Orbax looks as if nothing were there."""
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
    """The JSON file of a checkpoint's item that cannot be parsed, as a path below `place`; the item where none is to blame."""
    for folder, _, names in sorted(os.walk(os.path.join(place, item))):
        for name in sorted(names):
            if name in ("_METADATA", "_sharding", "metadata") or os.path.basename(folder) == "array_metadatas":
                try:
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        json.load(file)
                except (OSError, ValueError):
                    return os.path.relpath(os.path.join(folder, name), place)
    return item


def words_of(error: BaseException) -> str:
    """What is damaged, from the error that shows it; TensorStore's goes on with the state of its storage."""
    code, _, text = str(error).partition(":")
    array = re.search('reading "([^"]+)"', text)
    if isinstance(error, ValueError) and array:
        return f"{array[1]} cannot be read ({code})"
    line = first_line(error)
    return line if isinstance(error, (ValueError, OSError)) else f"not what was written ({type(error).__name__}: {line})"


@functools.cache
def quiet_reads() -> None:
    """Where one array of several cannot be read, Python and asyncio report the reads of the others as exceptions that nobody
    caught. What is to be known of it the first one's error says."""
    logging.getLogger("asyncio").addFilter(lambda record: "tensorstore" not in record.getMessage())
    warnings.filterwarnings("ignore", r"coroutine '(_read_array|Store\.).*' was never awaited", RuntimeWarning)
    report = sys.unraisablehook

    def unless_of_orbax(raised: "sys.UnraisableHookArgs") -> None:
        code = getattr(raised.object, "cr_code", None)
        of_orbax = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
        if not of_orbax and str(raised.exc_value) != "Event loop is closed":  # TensorStore's callbacks, after the reads have ended
            report(raised)

    sys.unraisablehook = unless_of_orbax


def read_together(what: str, read: Callable[[], Value]) -> Value:
    """What `read()` gives this host. Raises: DamagedCheckpoint, CheckpointError or StorageError on all hosts if `read` does on
    one; damage only where nobody's storage fails."""
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
    return value


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none. Of a long one the middle is left out: what the
    disk said stands at the end."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f"{line[:120]} ... {line[-170:]}"
