"""The folder in which the tests keep compiled programs between runs."""

import hashlib
import os
import pathlib
import platform


def folder() -> pathlib.Path:
    """A folder for this kind of processor: programs for the CPU use its instructions, and a home
    directory may be shared."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        kind = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        kind = platform.processor() + platform.machine()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (
        pathlib.Path(home)
        / "vlp_jax"
        / "compiled_tests"
        / hashlib.sha256(kind.encode()).hexdigest()[:12]
    )


def limit(place: str, *, gigabytes: float) -> None:
    """Removes the programs that were used longest ago, down to half of `gigabytes`, if there are
    more."""
    files = [(found.stat(), found) for found in pathlib.Path(place).glob("*") if found.is_file()]
    total = sum(status.st_size for status, _ in files)
    if total <= gigabytes * 1e9:
        return
    for status, file in sorted(files, key=lambda entry: max(entry[0].st_atime, entry[0].st_mtime)):
        file.unlink(missing_ok=True)
        total -= status.st_size
        if total <= gigabytes * 5e8:
            return
