"""Cross-batch memory: embeddings of recent batches as additional negatives.

Wang et al. 2020, "Cross-Batch Memory for Embedding Learning", https://arxiv.org/abs/1912.06798. Embeddings change
slowly, so those of recent steps can be used as negatives. The memory stores the embeddings of both sensors; the
embeddings of a pair are never its own negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CrossBatchMemory(nn.Module):
    """Ring buffer of the normalised embeddings of the latest pairs, saved and restored with the model.

    Args:
        size: number of stored pairs; >= 1.
        projection_dim: length of an embedding.
    """

    places: Tensor
    vectors: Tensor
    next_row: Tensor

    def __init__(self, size: int, projection_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(2, size, projection_dim))
        # The buffer keeps the name that checkpoints of earlier versions have it under.
        self.register_buffer("places", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("next_row", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, z1: Tensor, z2: Tensor, pair_index: Tensor) -> None:
        """Put a batch's embeddings over the oldest ones.

        Args:
            z1: (B, P) of Sentinel-1.
            z2: (B, P) of Sentinel-2.
            pair_index: (B,) number of each pair in the training list.
        """
        size = len(self.places)
        z1, z2, pair_index = z1[-size:], z2[-size:], pair_index[-size:]
        rows = (self.next_row + torch.arange(len(pair_index), device=pair_index.device)) % size
        self.vectors[0, rows] = functional.normalize(z1.float(), dim=1)
        self.vectors[1, rows] = functional.normalize(z2.float(), dim=1)
        self.places[rows] = pair_index
        self.next_row.copy_((self.next_row + len(pair_index)) % size)

    def negatives(self, pair_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kept embeddings and which of them are negatives of which pair.

        Args:
            pair_index: (B,) number of each pair.

        Returns:
            vectors (2 size, P), Sentinel-1 first; allowed (B, 2 size), false for empty rows and the pair itself.
        """
        allowed = (self.places[None, :] >= 0) & (self.places[None, :] != pair_index[:, None])
        return self.vectors.flatten(0, 1).clone(), torch.cat((allowed, allowed), dim=1)
