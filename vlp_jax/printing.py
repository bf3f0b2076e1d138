"""What the package prints, without control characters.

Keys, captions, paths, class names and config values come from others, and may hold what a terminal obeys: escape sequences that
hide lines, change the title or answer for the user. Every module that prints takes its `print` from here, and `errors.UserError`
its text, so that no other place has to think of it.
"""

import builtins
import re
from typing import Any, TextIO

# C0 but for tab and line feed, DEL, C1; what turns the direction of text or ends a line; halves of characters, which no stream
# takes
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with its control characters escaped, ESC as the six characters \\u001b, so that JSON stays JSON; tabs and line feeds
    stay."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def safe_print(*values: Any, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """The built-in print, of `printable` text."""
    builtins.print(printable(sep.join(map(str, values))), end=end, file=file, flush=flush)
