"""Training objectives: they compute the loss from the encoder output and the labels.

An objective is a module, because it may have its own weights, which are trained, saved and restored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigearthnet_cbir.losses.alignment import pair_alignment
from bigearthnet_cbir.losses.label_aware import LabelAwareLoss
from bigearthnet_cbir.losses.memory_bank import CrossBatchMemory
from bigearthnet_cbir.losses.multilabel import MultiLabelLoss
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.models.fusion import fuse, fused_width
from bigearthnet_cbir.training.distributed import all_gather_with_grad


class Objective(nn.Module):
    """A loss over a batch of pairs, and class probabilities if the objective has classes.

    Attributes:
        compares_pairs: whether the loss of a pair depends on the other pairs of its batch, so that distributed
            processes must gather their batches.
    """

    compares_pairs = False

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of a batch, a float32 scalar.

        Args:
            output: of the encoder.
            label: (B, 19) of 0 and 1.
            pair_index: (B,) number of each pair in its list.
        """
        raise NotImplementedError

    def probabilities(self, output: DualOutput) -> Tensor | None:
        """Return (B, 19) class probabilities, or None if the objective has no classes."""
        return None

    def change_temperature(self, value: float) -> None:
        """Change the temperature, if the objective has one."""
        return


class ContrastiveObjective(Objective):
    """A contrastive loss between the two sensors' projections.

    Args:
        loss: NT-Xent, its decoupled variant, or the label-aware loss; only the last uses labels.
        alignment_weight: weight of the alignment term 1 - cos(z1, z2); 0: none.
        memory: additional negatives for NT-Xent and its variant; used and filled in training only, so that the
            validation loss does not depend on earlier batches.
    """

    compares_pairs = True

    def __init__(
        self,
        loss: NTXentLoss | LabelAwareLoss,
        alignment_weight: float = 0.0,
        memory: CrossBatchMemory | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.alignment_weight = alignment_weight
        self.memory = memory

    def change_temperature(self, value: float) -> None:
        """Change the temperature of the loss."""
        self.loss.temperature.change(value)

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the contrastive loss of the batch plus the weighted alignment."""
        z1, z2 = output.z1, output.z2
        loss: Tensor
        if isinstance(self.loss, LabelAwareLoss):
            loss = self.loss(z1, z2, label)
        elif self.memory is not None and self.training:
            loss = self.loss(z1, z2, *self.memory.negatives(pair_index))
            self.memory.add(z1.detach(), z2.detach(), pair_index)
        else:
            loss = self.loss(z1, z2)
        return loss + self.alignment_weight * pair_alignment(z1, z2) if self.alignment_weight else loss


class ClassificationObjective(Objective):
    """Multi-label classification of the fused vector by a linear head."""

    def __init__(self, projection_dim: int, fusion: str, n_classes: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.head = nn.Linear(fused_width(projection_dim, fusion), n_classes)
        self.loss = MultiLabelLoss()

    def logits(self, output: DualOutput) -> Tensor:
        """Return (B, n_classes)."""
        logits: Tensor = self.head(fuse(output.z1, output.z2, self.fusion))
        return logits

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the mean binary cross entropy of the batch."""
        loss: Tensor = self.loss(self.logits(output), label)
        return loss

    def probabilities(self, output: DualOutput) -> Tensor:
        """Return the sigmoid of the logits, (B, n_classes) float32."""
        return torch.sigmoid(self.logits(output).float())


class TrainingStep(nn.Module):
    """Encoder and objective as one module, from network input to loss, so that both are synchronised together.

    For a loss that compares pairs, every process computes the loss of the gathered batch; gradients flow back through
    the gather to the process of each pair.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, s1: Tensor, s2: Tensor, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of the batch."""
        return self.loss(self.model(s1, s2), label, pair_index)

    def loss(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of this process's embeddings, gathered first if the objective compares pairs."""
        if self.objective.compares_pairs:
            output = DualOutput(output.h1, output.h2, all_gather_with_grad(output.z1), all_gather_with_grad(output.z2))
            label, pair_index = all_gather_with_grad(label), all_gather_with_grad(pair_index)
        loss: Tensor = self.objective(output, label, pair_index)
        return loss
