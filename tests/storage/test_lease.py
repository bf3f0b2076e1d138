"""One run per workdir in a bucket."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest

from vlp_jax.errors import PASSING, WorkdirBusy
from vlp_jax.storage import bucket, lease
from vlp_jax.training.checkpoints.lock import locked

ELSEWHERE = {
    "process": 1,
    "host": "other",
    "machine": "another boot",
    "started": "1",
    "renewals": 0,
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT", 0.2)
    monkeypatch.setattr(lease, "EXPIRY", 2.0)
    monkeypatch.setattr(lease, "WATCH", 0.05)


def left_by(folder, holder):
    bucket.write(f"{folder}/lock", json.dumps(holder).encode())


def acquire(folder):
    return lease.acquire(folder, lost=lambda message: None)


def test_a_second_run_is_refused_while_the_first_renews_its_lease(folder):
    held = acquire(folder)
    try:
        with pytest.raises(WorkdirBusy, match=f"{folder} is in use by process") as error:
            acquire(folder)
        assert error.value.status == PASSING
    finally:
        held.release()
    acquire(folder).release()  # at once


def test_of_many_runs_that_start_together_one_gets_the_workdir(folder):
    held, refused = [], []

    def start():
        try:
            held.append(acquire(folder))
        except WorkdirBusy as error:
            refused.append(error)

    runs = [threading.Thread(target=start) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(held) == 1
    assert len(refused) == 3
    held[0].release()


def test_a_left_lease_is_taken_over_once_it_has_expired_and_not_before(folder):
    left_by(folder, ELSEWHERE)
    start = time.monotonic()
    held = acquire(folder)
    assert time.monotonic() - start >= lease.EXPIRY
    held.release()


def test_a_killed_process_of_this_machine_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 1000.0)
    command = (
        "import json; from vlp_jax.storage import lease; print(json.dumps(lease.this_process()))"
    )
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True).stdout
    left_by(folder, json.loads(said))
    acquire(folder).release()


def test_a_lock_that_was_copied_from_a_folder_holds_nothing(folder, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY", 1000.0)
    bucket.write(f"{folder}/lock", b"process 12 of host\n")
    acquire(folder).release()


def test_this_process_and_unknown_holders_do_not_count_as_dead():
    assert not lease.is_dead(lease.this_process())
    assert not lease.is_dead(ELSEWHERE)
    assert lease.is_dead({**lease.this_process(), "started": "1"})  # its number was given again


def test_a_lost_answer_to_the_creation_of_the_lock_is_noticed(folder):
    here = lease.this_process()
    left_by(folder, here)
    assert lease.left_generation(folder, here)


def test_a_lost_answer_to_a_renewal_costs_no_lease(folder):
    said = []
    held = lease.acquire(folder, said.append)
    left_by(folder, {**held.holder, "renewals": -1})  # what was stored, unknown to the holder
    time.sleep(4 * lease.HEARTBEAT)
    assert said == []
    assert lease.described(bucket.read(f"{folder}/lock"))["renewals"] > 1
    held.release()
    assert bucket.read(f"{folder}/lock") == lease.FREE


def test_the_holder_of_a_lease_that_was_taken_over_is_told(folder):
    said, told = [], threading.Event()

    def lost(message):
        said.append(message)
        told.set()

    held = lease.acquire(folder, lost)
    left_by(folder, ELSEWHERE)
    assert told.wait(10)
    assert "was taken over by another run" in said[0]
    held.release()
    assert lease.described(bucket.read(f"{folder}/lock")) == ELSEWHERE  # and is left alone


def test_an_outage_shorter_than_the_expiry_costs_no_lease(folder, faults, few_retries):
    said = []
    held = lease.acquire(folder, said.append)
    faults.status = 503
    time.sleep(3 * lease.HEARTBEAT)
    faults.status = None
    with pytest.raises(WorkdirBusy):
        acquire(folder)
    held.release()
    assert said == []


def test_the_lock_of_a_run_is_a_lease_in_a_bucket(folder):
    with locked(folder):
        assert lease.described(bucket.read(f"{folder}/lock"))["renewals"] >= 0
        with pytest.raises(WorkdirBusy), locked(folder):
            pass
    assert bucket.read(f"{folder}/lock") == lease.FREE
    with contextlib.suppress(ZeroDivisionError), locked(folder):
        raise ZeroDivisionError
    assert bucket.read(f"{folder}/lock") == lease.FREE
