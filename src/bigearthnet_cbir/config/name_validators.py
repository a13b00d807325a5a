"""Rules for values that name something which another package, or the user's own module, has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bigearthnet_cbir.config.validators import Choice, RuleError


@dataclass(frozen=True)
class ChoiceOrName:
    """One of a few words, or a name after a prefix, which only the package that knows such names can check."""

    options: tuple[str, ...]
    prefix: str

    @property
    def words(self) -> str:
        """The options, and the form of a name."""
        return f"{Choice(self.options).words}, or {self.prefix}NAME"

    def check(self, value: Any) -> str:
        """Return the word in its canonical spelling of case, or the name as it is."""
        text = value.strip() if isinstance(value, str) else ""
        if text.startswith(self.prefix) and re.fullmatch(r"[\w.]{1,200}", text.removeprefix(self.prefix), re.ASCII):
            return text
        try:
            return Choice(self.options).check(value)
        except RuleError as error:
            raise RuleError(str(error).replace(Choice(self.options).words, self.words)) from error


@dataclass(frozen=True)
class FunctionName:
    """A function in a module, as Python imports it."""

    words: str = "package.module:function"

    def check(self, value: Any) -> str:
        """Return the text; whether it can be imported is checked by the one who imports it."""
        name = r"[A-Za-z_]\w{0,100}"
        if not isinstance(value, str) or not re.fullmatch(rf"{name}(\.{name}){{0,20}}:{name}", value.strip(), re.ASCII):
            raise RuleError(f"give {self.words}")
        return value.strip()
