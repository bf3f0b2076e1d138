"""Objects in buckets, read and written whole by TensorStore's key-value drivers.

The same drivers read and write the arrays of checkpoints. They repeat what fails for a passing
reason (a lost connection, 429, 5xx) with growing pauses, about a minute in all; what still fails is
a StorageError that names the object. A write is atomic, and can have a precondition on the
generation of the object that it replaces (GCS `ifGenerationMatch`, S3 `If-None-Match` and
`If-Match`).
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

from vlp_jax.errors import CheckpointError, ConfigError, StorageError
from vlp_jax.storage.paths import split_url

# Of each request; the pauses are 0.5, 1, 2, 4, 8, 8, ... seconds, with jitter.
RETRIES: dict[str, Any] = {"max_retries": 9, "initial_delay": "500ms", "max_delay": "8s"}
# absl status codes with which TensorStore's messages begin
PASSING_CODES = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "UNKNOWN",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
)
REFUSING_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")


def store_spec(url: str) -> dict[str, Any]:
    """The spec of TensorStore's driver for a folder or an object of a bucket.

    S3: the endpoint is that of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, the region that of
    AWS_REGION or AWS_DEFAULT_REGION. GCS: TENSORSTORE_GCS_HTTP_URL is read by the driver itself.
    """
    scheme, bucket, key = split_url(url)
    folder = bool(key) and url.endswith("/")
    spec: dict[str, Any] = {"bucket": bucket, "path": f"{key}/" if folder else key}
    if scheme == "gs":
        driver = os.environ.get("TENSORSTORE_GCS_BACKEND", "gcs")
        return {"driver": driver, **spec, "gcs_request_retries": RETRIES}
    spec |= {"driver": "s3", "s3_request_retries": RETRIES}
    variables = {
        "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    for name, keys in variables.items():
        found = next((os.environ[key] for key in keys if os.environ.get(key)), None)
        spec |= {name: found} if found else {}
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # others look for files, and print that there are none
        spec["aws_credentials"] = {"type": "environment"}
    return spec


@functools.lru_cache(maxsize=8)
def _bucket(root: str, settings: str) -> Any:
    """The open store of a bucket; `settings` are all that its spec depends on."""
    import tensorstore

    return tensorstore.KvStore.open(store_spec(root)).result()


def _located(url: str) -> tuple[Any, str]:
    """The open store of a URL, and the key in it."""
    scheme, bucket, key = split_url(url)
    root = f"{scheme}://{bucket}/"
    try:
        return _bucket(root, repr(store_spec(root))), key
    except ValueError as error:
        raise ConfigError(f"{url}: cannot be opened: {_words(error)}") from error


def _words(error: BaseException) -> str:
    """The first line of a message, without the answer and TensorStore's own state."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line.partition(" [http_response")[0].partition(" [source")[0]


def _named(url: str, error: Exception) -> Exception:
    """The error to raise for one of TensorStore."""
    code = str(error).partition(":")[0]
    if isinstance(error, TimeoutError) or code in PASSING_CODES:
        return StorageError(
            f"{url}: its storage does not answer: {_words(error) or 'no answer in time'}; start "
            "again when it does"
        )
    if code in REFUSING_CODES:
        return CheckpointError(
            f"{url}: its storage refuses: {_words(error)}; give this account the permission to "
            "read, write, list and delete objects there"
        )
    if code == "NOT_FOUND":
        return ConfigError(f"{url}: there is no such bucket: {_words(error)}")
    return CheckpointError(f"{url}: {_words(error)}")


def _finished(url: str, future: Any, seconds: float | None = None) -> Any:
    """The result of a request.

    Raises:
      UserError: the request fails; with `seconds`, also where it takes longer.
    """
    try:
        return future.result(seconds)
    except (ValueError, OSError, RuntimeError) as error:
        raise _named(url, error) from error


def read(url: str) -> bytes:
    """The contents of an object.

    Raises:
      FileNotFoundError: there is none.
      StorageError: the storage does not answer.
      UserError: it refuses.
    """
    return read_with_generation(url)[0]


def read_with_generation(url: str) -> tuple[bytes, bytes]:
    """The contents of an object, and its generation for `write_if`; raises as `read`."""
    store, key = _located(url)
    found = _finished(url, store.read(key))
    if found.state != "value":
        raise FileNotFoundError(2, "no such object", url)
    return found.value, found.stamp.generation


def write(url: str, content: bytes, seconds: float | None = None) -> None:
    """Replaces an object: readers see the old contents or the new ones.

    Args:
      url: the object.
      content: its contents.
      seconds: most seconds to wait. Default: until all retries have failed.
    Raises:
      UserError: as `read`.
    """
    store, key = _located(url)
    _finished(url, store.write(key, content), seconds)


def write_if(
    url: str, content: bytes, generation: bytes | None, seconds: float | None = None
) -> bytes | None:
    """Replaces an object only if it has a generation.

    Args:
      url: the object.
      content: its contents.
      generation: the required generation; None: there must be no such object.
      seconds: as in `write`.
    Returns: the new generation; None where the object has another one.
    Raises:
      UserError: as `read`.
    """
    if url.startswith("s3://"):
        return _write_if_s3(url, content, generation)
    store, key = _located(url)
    required = NO_OBJECT if generation is None else generation
    return _finished(url, store.write(key, content, if_equal=required), seconds).generation or None


def _write_if_s3(url: str, content: bytes, generation: bytes | None) -> bytes | None:
    """`write_if` of S3 by s3fs: TensorStore's driver looks at the object, and then writes without a
    condition."""
    import fsspec

    _, bucket, key = split_url(url)
    etag = None if generation is None else generation.lstrip(b"\0").decode()
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    store = fsspec.filesystem("s3")
    try:
        written = store.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except Exception as error:  # OSError, or what botocore raises
        cause = error.__cause__ or error
        answer = getattr(cause, "response", None) or {}
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        # 404: a required object is gone; 409: another request for it is under way
        if status in (412, 409) or (status == 404 and generation is not None):
            return None
        if status == 403 or isinstance(error, PermissionError):
            raise CheckpointError(
                f"{url}: its storage refuses: {_words(error)}; give this account the permission"
            ) from error
        if status is None or status >= 500 or status == 429:
            raise StorageError(
                f"{url}: its storage does not answer: {_words(error)}; start again when it does"
            ) from error
        raise CheckpointError(f"{url}: {_words(error)}") from error
    return b"\0" + written["ETag"].encode()


NO_OBJECT = b"\x02"  # TensorStore's StorageGeneration::NoValue()


def delete(url: str) -> None:
    """Deletes an object if there is one; raises as `read`."""
    store, key = _located(url)
    _finished(url, store.write(key, None))


def is_object(url: str) -> bool:
    """Whether there is an object of this name; raises as `read`."""
    import tensorstore

    store, key = _located(url)
    if not key:
        return False
    exact = tensorstore.KvStore.KeyRange(key, f"{key}\0")
    return key.encode() in _finished(url, store.list(exact))


def keys_below(url: str) -> list[str]:
    """The keys of all objects below a folder, without the folder's own part, sorted.

    Raises:
      UserError: as `read`; ConfigError where there is no such bucket.
    """
    import tensorstore

    store, key = _located(url)
    prefix = f"{key}/" if key else ""
    keys = tensorstore.KvStore.KeyRange(prefix, f"{prefix[:-1]}0" if prefix else "")  # "0" > "/"
    found = _finished(url, store.list(keys))
    names = (name.decode(errors="replace")[len(prefix) :] for name in found)
    return sorted(name for name in names if name)  # "" is a placeholder of the folder itself


def objects_below(url: str) -> Iterator[str]:
    """The URLs of all objects below a folder; raises as `keys_below`."""
    return (f"{url}/{key}" for key in keys_below(url))


def delete_below(url: str) -> None:
    """Deletes all objects below a folder; raises as `read`."""
    for found in objects_below(url):
        delete(found)


def copy(source: str, target: str) -> None:
    """Copies an object; raises as `read`."""
    write(target, read(source))
