"""What a command itself wrote to standard error."""

import re


def own_lines(stderr: str) -> list[str]:
    """Its lines, without those that XLA writes where its compilers for GPUs are installed and no
    GPU is there."""
    return [
        line
        for line in stderr.strip().splitlines()
        if not re.match(
            r"WARNING: All log "
            r"messages|[IWE]\d{4} ",
            line,
        )
    ]
