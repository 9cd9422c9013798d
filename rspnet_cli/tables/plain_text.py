"""File names as text that every file, terminal and JSON can hold, and back."""

from __future__ import annotations

import re
import unicodedata

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")


def plain_text(name: str) -> str:
    """A file name as text that every file, terminal and JSON can hold, different for different names."""
    return "".join(_plain_character(character) for character in name)


def from_plain_text(text: str) -> str:
    """The file name that `plain_text` was made of."""
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[0]
    if escape.startswith("\\x") and int(escape[2:], 16) >= 0x80:
        return chr(0xDC00 + int(escape[2:], 16))
    return escape.encode("ascii").decode("unicode_escape")


def _plain_character(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python hands it over
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    # \xNN is kept for bytes that are no UTF-8, from 80 up, and for control characters below.
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode("ascii")
