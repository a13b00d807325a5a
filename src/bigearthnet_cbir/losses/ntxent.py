"""NT-Xent, the contrastive loss between the two sensors' views of the same places.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR),
https://arxiv.org/abs/2002.05709, equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross entropy over the 2B views of a batch.

    Each view's positive is the other sensor's view of its place; the other 2B - 2 views are its negatives.
    The view itself is masked out of the log-sum-exp, which keeps the loss exact at any temperature: subtracting
    exp(1/t) from the sum afterwards, as is sometimes done, loses all digits when t is small.

    Args:
        temperature: divides the cosine similarities; > 0.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; give a number > 0")
        self.temperature = temperature

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the mean loss over 2B views, a float32 scalar; a batch of one pair gives 0.

        Args:
            z1: (B, P) of Sentinel-1; need not be normalised.
            z2: (B, P) of Sentinel-2, same order.
        """
        size = len(z1)
        with torch.autocast(z1.device.type, enabled=False):
            views = functional.normalize(torch.cat((z1, z2)).float(), dim=1)
            logits = views @ views.T / self.temperature
            itself = torch.eye(2 * size, dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(itself, -torch.inf)
            positive = torch.arange(2 * size, device=logits.device).roll(size)
            return functional.cross_entropy(logits, positive)
