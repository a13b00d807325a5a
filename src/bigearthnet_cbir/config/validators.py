"""Validation rules of YAML values; each rule checks one value and has a description."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bigearthnet_cbir.messages import LONGEST_PATH, LONGEST_WORD, brief


class RuleError(ValueError):
    """The value violates the rule; the message is the description of the rule."""


class Rule(Protocol):
    """Checks one value and returns it in its canonical form."""

    def check(self, value: Any) -> Any:
        """Return the value in its canonical form, or raise RuleError."""
        ...

    @property
    def words(self) -> str:
        """Description of the rule, for messages and the README's table."""
        ...


LONGEST_NAME: Final = 200
"""File systems allow 255 bytes, and temporary files add a prefix and a suffix."""

LONGEST_PART: Final = 255


def nearest(word: str, choices: Sequence[str]) -> str:
    """Return '; did you mean ...?' for the nearest valid spelling, or nothing if none is similar."""
    if len(word) > LONGEST_WORD:
        return ""
    lowered = {choice.lower(): choice for choice in choices}
    match = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean {lowered[match[0]]}?" if match else ""


def _number(value: Any) -> float | None:
    # PyYAML parses 1e-3 (without a point) as text, but the number is meant.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _whole(value: Any) -> int | None:
    """Return the exact integer of a value; conversion through float would lose digits of large ones."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    number = _number(value)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    try:
        return int(value)
    except ValueError:  # text such as "1e3"
        return int(number)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def words(self) -> str:
        """The options."""
        return "one of " + ", ".join(self.options)

    def check(self, value: Any) -> str:
        """Return the option in its canonical case."""
        for option in self.options:
            if isinstance(value, str) and value.strip().lower() == option:
                return option
        hint = nearest(value, self.options) if isinstance(value, str) else ""
        raise RuleError(f"choose {self.words}{hint}")


def _bounds(lower: str, most: float) -> str:
    return lower if most == math.inf else f"{lower} and <= {most if isinstance(most, int) else format(most, 'g')}"


@dataclass(frozen=True)
class Integer:
    """A whole number from `least` up to `most`."""

    least: int
    most: float = math.inf

    @property
    def words(self) -> str:
        """The bounds."""
        return _bounds(f"a whole number >= {self.least}", self.most)

    def check(self, value: Any) -> int:
        """Return the number as an int."""
        number = _whole(value)
        if number is None or not self.least <= number <= self.most:
            raise RuleError(f"give {self.words}")
        return number


@dataclass(frozen=True)
class Multiple:
    """A whole number of units: step, 2 step, ... up to `most`."""

    step: int
    most: int

    @property
    def words(self) -> str:
        """The rule."""
        return f"a multiple of {self.step} from {self.step} to {self.most}"

    def check(self, value: Any) -> int:
        """Return the number as an int."""
        number = _whole(value)
        if number is None or not self.step <= number <= self.most or number % self.step:
            raise RuleError(f"give {self.words}")
        return number


@dataclass(frozen=True)
class Number:
    """A finite number, above or from `least`, and up to `most`."""

    least: float
    exclusive: bool = False
    most: float = math.inf

    @property
    def words(self) -> str:
        """The bounds."""
        return _bounds(f"a number {'>' if self.exclusive else '>='} {self.least:g}", self.most)

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
        """The allowed text."""
        return "a name without slashes" if self.plain_name else "a non-empty text"

    def check(self, value: Any) -> str:
        """Return the text; a number is accepted if it prints as it was written."""
        if isinstance(value, bool | int | float):
            _refuse_changed(value)
        elif not isinstance(value, str) or not value.strip():
            raise RuleError(f"give {self.words}")
        text = str(value).strip()
        if self.plain_name and (text in {".", ".."} or "/" in text or "\\" in text):
            raise RuleError(f"give {self.words}")
        _refuse_unprintable(text)
        if self.plain_name and len(text.encode()) > LONGEST_NAME:
            raise RuleError(f"give {self.words}, of {LONGEST_NAME} bytes at most")
        return text


def _refuse_changed(value: bool | int | float) -> None:
    """Refuse values that YAML parses as numbers or booleans and that print differently: 1.10, 010, 1_000, yes."""
    if isinstance(value, bool):
        raise RuleError("YAML reads it as true or false; put it in quotes")
    if isinstance(value, int) and abs(value) >= 10**LONGEST_NAME:
        raise RuleError("it is too long for a name; give a shorter one")
    written = getattr(value, "written", str(value) if isinstance(value, int) else None)
    if written != str(value):
        raise RuleError(f'YAML reads it as {value}; put it in quotes: "{brief(value)}"')


def _refuse_unprintable(text: str) -> None:
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text):
        raise RuleError("it has a control character; remove it")


@dataclass(frozen=True)
class PathText:
    """A path; its existence is checked when it is opened."""

    words: str = "a path (relative: from the repository root)"

    def check(self, value: Any) -> str:
        """Return the path as text."""
        if not isinstance(value, str) or not value.strip():
            raise RuleError(f"give {self.words}")
        text = value.strip()
        _refuse_unprintable(text)
        if len(text.encode()) > LONGEST_PATH or max(len(part.encode()) for part in text.split("/")) > LONGEST_PART:
            raise RuleError(f"it is too long; give at most {LONGEST_PART} bytes between two slashes")
        return text
