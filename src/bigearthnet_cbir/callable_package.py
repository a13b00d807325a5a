"""Callable sub-packages, so that both cbir.search(...) and cbir.search.knn work.

Python binds the name of a sub-package in its parent as soon as one of its modules is imported, which would replace a
function of that name. The sub-package itself is therefore callable.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A callable package; `main_function` names its function as "module:function"."""

    main_function: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the main function."""
        return self._main()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature of the main function, for help texts."""
        return inspect.signature(self._main())

    def _main(self) -> Any:
        module, _, name = self.main_function.partition(":")
        return getattr(import_module(module), name)


def make_callable(package: str, main_function: str) -> None:
    """Make a package callable like its main function.

    Args:
        package: __name__ of the package.
        main_function: "module:function".
    """
    module = sys.modules[package]
    module.__class__ = CallablePackage
    module.main_function = main_function  # type: ignore[attr-defined]
