"""NT-Xent, the contrastive loss between the embeddings of the two sensors, and its decoupled variant.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR),
https://arxiv.org/abs/2002.05709, equation 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.types import LOWEST_LEARNED_TEMPERATURE


class Temperature(nn.Module):
    """A fixed or learned positive divisor of the similarities; learned on a log scale.

    If the optimiser moves the parameter below its lower limit, it is set to the limit before use. Clamping only the
    output would give a zero gradient, and the temperature could not rise again.

    Raises:
        ValueError: the number is not positive.
    """

    def __init__(self, value: float, learned: bool = False) -> None:
        super().__init__()
        if not value > 0:
            raise ValueError(f"temperature is {value}; give a number > 0")
        self.value = value
        self.log = nn.Parameter(torch.tensor(value).log()) if learned else None

    @torch.no_grad()
    def change(self, value: float) -> None:
        """Set another temperature; a learned one is trained further from there."""
        self.value = value
        if self.log is not None:
            self.log.fill_(math.log(value))

    def forward(self) -> Tensor | float:
        """Return the temperature."""
        if self.log is None:
            return self.value
        with torch.no_grad():
            self.log.clamp_(min=math.log(LOWEST_LEARNED_TEMPERATURE))
        return self.log.exp()


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross entropy over the 2B views of a batch.

    The positive of a view is the view of the other sensor of the same pair; the other 2B - 2 views are its negatives.
    The view itself is masked out of the log-sum-exp, so that the loss is exact at any temperature. Subtracting exp(1/t)
    from the sum instead, as some implementations do, loses all digits for small t.

    Args:
        temperature: divisor of the cosine similarities; > 0.
        learned: whether the temperature is trained, starting from the given value.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1, learned: bool = False) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learned)

    def forward(self, z1: Tensor, z2: Tensor, negatives: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """Return the mean loss over 2B views, a float32 scalar; a batch of one pair without negatives gives 0.

        Args:
            z1: (B, P) projections of Sentinel-1; need not be normalised.
            z2: (B, P) projections of Sentinel-2, same order.
            negatives: (M, P) additional negatives, or None.
            allowed: (B, M) bool mask of the additional negatives of each pair; None allows all.
        """
        with torch.autocast(z1.device.type, enabled=False):
            logits, positive = view_logits(z1, z2, self.temperature(), negatives, allowed)
            return self.reduce(logits, positive)

    def reduce(self, logits: Tensor, positive: Tensor) -> Tensor:
        """Return the loss of (2B, 2B + M) logits, self-similarities masked; positive: (2B,) column indices."""
        return functional.cross_entropy(logits, positive)


class DecoupledLoss(NTXentLoss):
    """NT-Xent without the positive in the denominator, which avoids vanishing gradients for small batches.

    Yeh et al. 2022, "Decoupled Contrastive Learning", https://arxiv.org/abs/2110.06848, equation 6 (unweighted).
    A batch of one pair without additional negatives gives 0.
    """

    def reduce(self, logits: Tensor, positive: Tensor) -> Tensor:
        """Return mean over views of logsumexp(negatives) - positive."""
        columns = positive[:, None]
        similarity = logits.gather(1, columns)[:, 0]
        others = logits.scatter(1, columns, -torch.inf)
        has_negatives = others.isfinite().any(dim=1)
        if not bool(has_negatives.any()):
            return 0.0 * similarity.sum()
        return (others[has_negatives].logsumexp(dim=1) - similarity[has_negatives]).mean()


def view_logits(
    z1: Tensor, z2: Tensor, temperature: Tensor | float, negatives: Tensor | None = None, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the float32 similarities of all 2B views divided by the temperature, and the columns of the positives.

    Returns:
        logits (2B, 2B + M), -inf for a view with itself and for masked vectors; positive (2B,) int64.
    """
    size = len(z1)
    views = functional.normalize(torch.cat((z1, z2)).float(), dim=1)
    logits = views @ views.T / temperature
    itself = torch.eye(2 * size, dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(itself, -torch.inf)
    if negatives is not None and len(negatives):
        further = views @ functional.normalize(negatives.float(), dim=1).T / temperature
        if allowed is not None:
            further = further.masked_fill(~torch.cat((allowed, allowed)), -torch.inf)
        logits = torch.cat((logits, further), dim=1)
    positive = torch.arange(2 * size, device=logits.device).roll(size)
    return logits, positive
