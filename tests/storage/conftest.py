"""Buckets on loopback."""

import uuid

import bucket_servers
import pytest

from vlp_jax.storage import bucket

PACKAGES = {"gs": ("gcp_storage_emulator", "gcsfs"), "s3": ("moto.server", "s3fs", "boto3")}


@pytest.fixture(scope="module", params=["gs", "s3"])
def served(request):
    """(URL of a bucket, its faults or None) of an emulator, for all tests of a module."""
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    with bucket_servers.serving(request.param) as (url, faults):
        yield url, faults


@pytest.fixture
def folder(served):
    """A fresh folder of the bucket."""
    return f"{served[0]}/runs/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def faults(served):
    """The faults of the emulator, where it has some."""
    if served[1] is None:
        pytest.skip("the emulator has no faults")
    yield served[1]
    served[1].status, served[1].at = None, lambda method, key: None


@pytest.fixture
def few_retries(monkeypatch):
    """Retries that end within a second."""
    quick = {"max_retries": 3, "initial_delay": "50ms", "max_delay": "50ms"}
    monkeypatch.setattr(bucket, "RETRIES", quick)
