"""What a value in the YAML file may be: each rule checks one value and can say itself in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class RuleError(ValueError):
    """The value breaks the rule; the message is the rule in words."""


class Rule(Protocol):
    """Checks one value and returns it in its canonical form."""

    def check(self, value: Any) -> Any:
        """Return the value as the program uses it, or raise RuleError."""
        ...

    @property
    def words(self) -> str:
        """The rule in words, for messages and for the README's table."""
        ...


def nearest(word: str, choices: Sequence[str]) -> str:
    """Return '; did you mean ...?' for the nearest valid spelling, or nothing where none is near."""
    lowered = {choice.lower(): choice for choice in choices}
    match = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean {lowered[match[0]]}?" if match else ""


def _number(value: Any) -> float | None:
    # PyYAML reads 1e-3 (no point) as text; people mean the number.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def words(self) -> str:
        """The options."""
        return "one of " + ", ".join(self.options)

    def check(self, value: Any) -> str:
        """Return the word in its canonical spelling of case."""
        for option in self.options:
            if isinstance(value, str) and value.strip().lower() == option:
                return option
        hint = nearest(value, self.options) if isinstance(value, str) else ""
        raise RuleError(f"choose {self.words}{hint}")


@dataclass(frozen=True)
class Integer:
    """A whole number of at least `least`."""

    least: int

    @property
    def words(self) -> str:
        """The lower bound."""
        return f"a whole number >= {self.least}"

    def check(self, value: Any) -> int:
        """Return the number as an int."""
        number = _number(value)
        if number is None or not math.isfinite(number) or number != int(number) or number < self.least:
            raise RuleError(f"give {self.words}")
        return int(number)


@dataclass(frozen=True)
class Number:
    """A finite number, above or from `least`, and up to `most`."""

    least: float
    exclusive: bool = False
    most: float = math.inf

    @property
    def words(self) -> str:
        """The lower bound."""
        lower = f"a number {'>' if self.exclusive else '>='} {self.least:g}"
        return lower if self.most == math.inf else f"{lower} and <= {self.most:g}"

    def check(self, value: Any) -> float:
        """Return the number as a float."""
        number = _number(value)
        low = number is None or number < self.least or (self.exclusive and number == self.least)
        if number is None or low or number > self.most or not math.isfinite(number):
            raise RuleError(f"give {self.words}")
        return number


@dataclass(frozen=True)
class Flag:
    """True or false."""

    words: str = "true or false"

    def check(self, value: Any) -> bool:
        """Return the value if it is a YAML boolean."""
        if not isinstance(value, bool):
            raise RuleError(f"give {self.words}")
        return value


@dataclass(frozen=True)
class Text:
    """Non-empty text; a plain name may be used as one folder's name."""

    plain_name: bool = False

    @property
    def words(self) -> str:
        """What the text may hold."""
        return "a name without slashes" if self.plain_name else "a non-empty text"

    def check(self, value: Any) -> str:
        """Return the text; numbers are taken as they are written."""
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise RuleError(f"give {self.words}")
        text = str(value).strip()
        if self.plain_name and (text in {".", ".."} or "/" in text or "\\" in text):
            raise RuleError(f"give {self.words}")
        return text


@dataclass(frozen=True)
class PathText:
    """A path; whether something is there is checked by the one who opens it."""

    words: str = "a path (relative: from the repository root)"

    def check(self, value: Any) -> str:
        """Return the path as text."""
        if not isinstance(value, str) or not value.strip():
            raise RuleError(f"give {self.words}")
        return value.strip()
