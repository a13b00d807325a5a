"""Contrastive loss with positives weighted by the overlap of label sets.

Khosla et al. 2020, "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362, equation 2, with each
positive weighted by the Jaccard similarity of the label sets instead of class equality; the weighting follows
Zaigrajew and Zieba 2022, "Contrastive Learning for Multi-Label Classification",
https://arxiv.org/abs/2201.09847. The view of the other sensor always has weight 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigearthnet_cbir.losses.ntxent import Temperature, view_logits


class LabelAwareLoss(nn.Module):
    """Cross entropy of each view against all others, weighted by label overlap.

    Args:
        temperature: divisor of the cosine similarities; > 0.
        learned: whether the temperature is trained.
    """

    def __init__(self, temperature: float = 0.1, learned: bool = False) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learned)

    def forward(self, z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss over 2B views, a float32 scalar; a batch of one pair gives 0.

        Args:
            z1: (B, P) projections of Sentinel-1.
            z2: (B, P) projections of Sentinel-2.
            label: (B, L) multi-hot labels.
        """
        with torch.autocast(z1.device.type, enabled=False):
            logits, positive = view_logits(z1, z2, self.temperature())
            weight = jaccard_overlap(torch.cat((label, label)))
            weight = weight.scatter(1, positive[:, None], 1.0).fill_diagonal_(0.0)
            itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            # The view itself has weight 0, and 0 * -inf would be NaN.
            log_probability = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
            return -((weight * log_probability).sum(dim=1) / weight.sum(dim=1)).mean()


def jaccard_overlap(label: Tensor) -> Tensor:
    """Return (N, N) float32 |A and B| / |A or B| of (N, L) label vectors, 0 for two empty sets."""
    sets = label.float()
    shared = sets @ sets.T
    sizes = sets.sum(dim=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return shared / union.clamp(min=1.0)
