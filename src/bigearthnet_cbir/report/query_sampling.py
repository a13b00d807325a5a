"""Sampling of gallery queries: best, median, worst and random."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.types import DoubleArray

SAMPLE_REASONS = ("best", "median", "worst", "random")


def sample_queries(scores: DoubleArray, tie_breaker: DoubleArray, count: int, seed: int) -> list[tuple[str, int]]:
    """Return (reason, query) of at most `count` distinct queries, in the order of SAMPLE_REASONS.

    Each reason has a quarter of them; the remainder goes to the first reasons. Random queries do not depend on the
    scores.

    Args:
        scores: (Q,) of each query; NaN leaves it out.
        tie_breaker: (Q,) a second score for queries of equal score; after it, the query's index decides.
        count: how many.
        seed: of the random ones.
    """
    known = np.flatnonzero(~np.isnan(scores))
    ranked = known[np.lexsort((known, -tie_breaker[known], -scores[known]))]
    sampled: set[int] = set()
    chosen: list[tuple[str, int]] = []
    middle = np.argsort(np.abs(np.arange(len(ranked)) - (len(ranked) - 1) / 2), kind="stable")
    orders = {
        "best": ranked,
        "median": ranked[middle],
        "worst": ranked[::-1],
        "random": np.random.default_rng(seed).permutation(known),
    }
    for index, reason in enumerate(SAMPLE_REASONS):
        share = count // 4 + (index < count % 4)
        fresh = [int(query) for query in orders[reason] if int(query) not in sampled][:share]
        sampled.update(fresh)
        chosen += [(reason, query) for query in fresh]
    return chosen
