"""Printing without control characters.

Keys, captions, paths, class names and config values come from others. They may contain escape
sequences that hide lines of a terminal, change its title or answer for the user. Every module that
prints imports its `print` from here, and `errors.UserError` its text, so that no other code has to
handle this.
"""

import builtins
import re
from typing import Any, TextIO

# C0 except tab and line feed, DEL, C1; marks of text direction and line separators; surrogates,
# which no stream accepts
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` with its control characters escaped, except tabs and line feeds.

    ESC becomes the six characters \\u001b, so that JSON stays JSON.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def safe_print(
    *values: Any, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False
) -> None:
    """The built-in print, applied to `printable` text."""
    builtins.print(printable(sep.join(map(str, values))), end=end, file=file, flush=flush)
