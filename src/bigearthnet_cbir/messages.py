"""Values in messages: in one line and shortened, so that any input can be reported."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Final

LONGEST_WORD: Final = 60
"""Characters of a value in a message."""

LONGEST_PATH: Final = 4000
"""Characters of a path."""

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = LONGEST_WORD
_short.maxlevel = 2


def brief(value: Any) -> str:
    """Return a value for a message: as written, in one line of at most about 60 characters."""
    written = getattr(value, "written", None)
    if isinstance(written, str) and len(written) <= LONGEST_WORD:
        return written
    try:
        return " ".join(_short.repr(value).split())
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return f"a number of over {LONGEST_WORD} digits"


def plain(word: str) -> str:
    """Return a word for a message: unchanged, or quoted and shortened if needed."""
    return word if len(word) <= LONGEST_WORD and word.isprintable() and word else brief(word)


def brief_path(path: Path) -> str:
    """Return a path for a message: unchanged, or quoted and shortened if it is invalid."""
    text = str(path)
    return text if text.isprintable() and len(text) < LONGEST_PATH else brief(text)
