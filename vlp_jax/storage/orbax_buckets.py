"""Orbax on buckets: S3 as GCS, retries that end, and no need to read a bucket's settings.

Orbax writes `gs://` paths by TensorStore's driver and commits a checkpoint by writing
`commit_success.txt` last; it finds small files by etils.epath, which uses fsspec (gcsfs, s3fs). It
has no such branch for `s3://`, whose parts are all there. `prepare` has Orbax treat both alike. It
replaces four private functions of Orbax 0.12, to which setup.py pins it;
tests/storage/test_orbax_buckets.py notices when they change.
"""

import functools
import logging
import os
from typing import Any

from vlp_jax.errors import ConfigError
from vlp_jax.storage.bucket import store_spec
from vlp_jax.storage.paths import SCHEMES, is_bucket

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}


def prepare(folder: str) -> None:
    """Makes Orbax ready for checkpoints in a folder; does nothing for a local one.

    Raises:
      ConfigError: a package is not installed.
    """
    if is_bucket(folder):
        need_package(folder)
        patch_orbax()


def need_package(folder: str) -> None:
    """Checks that fsspec's part for a bucket is installed.

    Raises:
      ConfigError: it is not.
    """
    import importlib.util
    import sys

    package, extra = PACKAGES[folder.partition(":")[0]]
    hidden = package in sys.modules and sys.modules[package] is None
    if hidden or importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{folder}: needs the package {package}: pip install 'vlp_jax[{extra}]', or mount the "
            "bucket and give the folder"
        )


@functools.cache
def patch_orbax() -> None:
    """Has Orbax treat s3:// as it treats gs://, once for this process."""
    # TensorFlow's file system, where it is installed, has other retries and no S3.
    os.environ.setdefault("EPATH_USE_TF", "false")
    import fsspec.config
    from orbax.checkpoint._src.path import gcs_utils as paths
    from orbax.checkpoint._src.serialization import tensorstore_utils as stores

    # of Any type, as attributes of modules are replaced
    gcs_utils: Any = paths
    tensorstore_utils: Any = stores

    for library in ("gcsfs", "s3fs"):  # they log errors with tracebacks besides raising them
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for scheme in ("gs", "gcs", "s3"):
        # objects written by TensorStore are not in fsspec's cache
        fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    hierarchical, normalized = (
        gcs_utils.is_hierarchical_namespace_enabled,
        tensorstore_utils._normalize_path,
    )

    def is_hierarchical(path: str) -> bool:
        # an account that may write objects need not be allowed to read the bucket's settings
        try:
            return hierarchical(path)
        except Exception:
            return False

    gcs_utils._GCS_PATH_PREFIX = tuple(f"{scheme}://" for scheme in SCHEMES)
    gcs_utils.is_hierarchical_namespace_enabled = is_hierarchical
    gcs_utils.get_kvstore_for_gcs = store_spec
    tensorstore_utils._use_gcs_driver = is_bucket
    tensorstore_utils._normalize_path = lambda path: normalized(path).replace("s3:/", "s3://", 1)
