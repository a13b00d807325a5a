"""Sub-packages that are called like their main function: cbir.search(...) beside cbir.search.knn.

Python binds a sub-package's name in its parent as soon as anything in it is imported, so a function of that name in
the parent would be replaced. The sub-package itself therefore passes calls on.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package with a main function, which `main_function` names as "module:function"."""

    main_function: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the main function."""
        return self._main()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """The main function's signature, for help texts."""
        return inspect.signature(self._main())

    def _main(self) -> Any:
        module, _, name = self.main_function.partition(":")
        return getattr(import_module(module), name)


def make_callable(package: str, main_function: str) -> None:
    """Let calls of a package reach its main function.

    Args:
        package: its __name__.
        main_function: "module:function".
    """
    module = sys.modules[package]
    module.__class__ = CallablePackage
    module.main_function = main_function  # type: ignore[attr-defined]
