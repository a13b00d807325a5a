"""Binary cross entropy over the 19 labels of a patch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class MultiLabelLoss(nn.Module):
    """Mean sigmoid cross entropy over all labels of all patches."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a float32 scalar.

        Args:
            logits: (B, 19).
            labels: (B, 19) multi-hot labels, any dtype.
        """
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
