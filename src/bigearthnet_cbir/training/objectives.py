"""What a training step minimises: an encoder's output and the labels in, a loss out.

An objective is a module, because it may have weights of its own: they are trained, saved and restored with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigearthnet_cbir.losses.multilabel import MultiLabelLoss
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.models.fusion import fuse, fused_width


class Objective(nn.Module):
    """A loss over a batch of pairs, and class probabilities where the objective has classes."""

    needs_labels = False

    def forward(self, output: DualOutput, label: Tensor) -> Tensor:
        """Return the loss of a batch, a float32 scalar; label is (B, 19)."""
        raise NotImplementedError

    def probabilities(self, output: DualOutput) -> Tensor | None:
        """Return (B, 19) class probabilities, or None where the objective knows no classes."""
        return None


class ContrastiveObjective(Objective):
    """NT-Xent between the two sensors' projections; labels are not read."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.loss = NTXentLoss(temperature)

    def forward(self, output: DualOutput, label: Tensor) -> Tensor:
        """Return the contrastive loss of the batch."""
        loss: Tensor = self.loss(output.z1, output.z2)
        return loss


class ClassificationObjective(Objective):
    """Multi-label classification of the fused vector by a linear head."""

    needs_labels = True

    def __init__(self, projection_dim: int, fusion: str, n_classes: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.head = nn.Linear(fused_width(projection_dim, fusion), n_classes)
        self.loss = MultiLabelLoss()

    def logits(self, output: DualOutput) -> Tensor:
        """Return (B, n_classes)."""
        logits: Tensor = self.head(fuse(output.z1, output.z2, self.fusion))
        return logits

    def forward(self, output: DualOutput, label: Tensor) -> Tensor:
        """Return the mean binary cross entropy of the batch."""
        loss: Tensor = self.loss(self.logits(output), label)
        return loss

    def probabilities(self, output: DualOutput) -> Tensor:
        """Return the sigmoid of the logits, (B, n_classes) float32."""
        return torch.sigmoid(self.logits(output).float())
