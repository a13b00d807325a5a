"""Construction of networks without random initial weights, for weights that are loaded afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS: Final = frozenset(
    {Tensor.normal_, Tensor.uniform_, init.kaiming_normal_, init.kaiming_uniform_, init.normal_, init.uniform_}
)
"""What fills tensors with random numbers: half a second for a ResNet-50."""


class SkipInit(TorchFunctionMode):
    """Context in which tensors keep the content of their memory instead of random numbers.

    Use it for a network whose weights are all loaded afterwards. The meta device would leave out the memory as well,
    but the first network on it takes a second longer.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor as it is where it would be drawn; call every other function."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
