"""The watchdog, on steps that hang."""

import pathlib
import subprocess
import sys
import time

from vlp_jax.training.hooks.watchdog import Watchdog, WatchdogConfig

ROOT = pathlib.Path(__file__).parents[3]


def a_slow_disk(seconds):
    time.sleep(seconds)


def test_a_step_that_hangs_leaves_the_stacks_of_all_threads_with_its_number(tmp_path, capfd):
    with Watchdog(WatchdogConfig(seconds=0.2), str(tmp_path), host=3) as watchdog:
        watchdog.done(41)
        a_slow_disk(1.0)
    written = (tmp_path / "hang_step_42_host_3.txt").read_text()
    for text in (written, capfd.readouterr().err):
        assert "step 42 on host 3 has taken more than 0.2 s (watchdog.seconds)" in text
        assert "in a_slow_disk" in text
        assert text.count("step 42") == 1


def test_the_start_is_watched_like_all_that_comes_after_it(tmp_path):
    with Watchdog(WatchdogConfig(seconds=0.2), str(tmp_path)):
        a_slow_disk(1.0)
    assert ("the start, a checkpoint's restoration included, on host 0") in (
        tmp_path / "hang_step_1_host_0.txt"
    ).read_text()


def test_signs_of_life_keep_it_quiet(tmp_path, capfd):
    with Watchdog(WatchdogConfig(seconds=2.0), str(tmp_path)) as watchdog:
        for step in range(50):
            watchdog.done(step)
            watchdog.expect("a batch")
            a_slow_disk(0.05)
    assert not list(tmp_path.iterdir()) and not capfd.readouterr().err


def test_without_a_limit_there_is_no_watchdog(tmp_path):
    with Watchdog(WatchdogConfig(seconds=None), str(tmp_path)) as watchdog:
        watchdog.done(1)
        assert not watchdog.thread.is_alive()


def test_a_hanging_process_leaves_with_status_75_where_it_is_told_to(tmp_path):
    code = (
        "import sys, time; from vlp_jax.training.hooks.watchdog import Watchdog, "
        "WatchdogConfig\n"
        "with Watchdog(WatchdogConfig(seconds=0.2, exit=True), sys.argv[1]) as dog: "
        "dog.done(6); time.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 75, done.stderr
    assert (tmp_path / "hang_step_7_host_0.txt").exists()
