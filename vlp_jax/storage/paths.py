"""Paths of local folders and of buckets."""

import os
import re

from vlp_jax.errors import ConfigError

SCHEMES = ("gs", "s3")


def is_bucket(path: str | os.PathLike) -> bool:
    """Whether a path begins with gs:// or s3://."""
    return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL of any kind."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)) is not None


def split_url(path: str) -> tuple[str, str, str]:
    """gs://bucket/a/b -> ("gs", "bucket", "a/b")."""
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, "/".join(part for part in key.split("/") if part)


def absolute(path: str | os.PathLike) -> str:
    """An absolute local path, or the URL of a bucket without needless slashes."""
    given = os.fspath(path)
    if not is_bucket(given):
        return os.path.abspath(given)
    scheme, bucket, key = split_url(given)
    return f"{scheme}://{bucket}/{key}".rstrip("/")


def parent(path: str | os.PathLike) -> str:
    """The folder that holds a file or folder, as an absolute path."""
    return os.path.dirname(absolute(path))


def name_of(path: str | os.PathLike) -> str:
    """The last part of a path."""
    return os.path.basename(absolute(path))


def check_place(where: str, path: str | os.PathLike) -> None:
    """Checks that a path is local, or in a kind of bucket that can be written.

    Args:
      where: the flag or key, for messages.
      path: the path.
    Raises:
      ConfigError: it is another URL, or names no bucket or no folder in it.
    """
    given = os.fspath(path)
    if shortened := re.match("(gs|s3):/[^/]", given):
        raise ConfigError(
            f"{where}: {given} is of pathlib, which makes one slash of two; give the text "
            f"{shortened[1]}://BUCKET/PATH"
        )
    if not is_url(given):
        return
    if not is_bucket(given):
        raise ConfigError(
            f"{where}: {given} is a URL; give gs://BUCKET/PATH, s3://BUCKET/PATH, or a folder, "
            "which every host sees (mount other storage)"
        )
    scheme, bucket, key = split_url(given)
    if not re.fullmatch("[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket) or not key:
        raise ConfigError(
            f"{where}: {given}: expected {scheme}://BUCKET/PATH, with a bucket's name of small "
            "letters, digits, dots and dashes, and a folder in it"
        )
    if set(given) & set("*?[]#\n\r"):
        raise ConfigError(f"{where}: {given!r} has a character of patterns; choose another name")
