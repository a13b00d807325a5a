"""Scores of a multi-label classifier over a whole split (scikit-learn's definitions)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.types import ByteArray

AVERAGES = ("macro", "micro", "samples")


def classification_scores(labels: ByteArray, probabilities: npt.NDArray[np.floating]) -> dict[str, float]:
    """Return all scores by name.

    Precision, recall, F1, F2 and accuracy come in macro (mean over classes), micro (over all decisions) and
    samples (mean over patches) averages; accuracy is the Jaccard overlap of the two label sets, the usual
    meaning for multi-label data (Godbole and Sarawagi 2004, https://doi.org/10.1007/978-3-540-24775-3_5).
    A class is predicted if its probability is at least 0.5. Undefined ratios count as 0.

    Args:
        labels: (N, L) multi-hot labels, N >= 1.
        probabilities: (N, L) class probabilities.
    """
    from sklearn import metrics  # imported lazily: it takes 3 s

    predicted = (probabilities >= 0.5).astype(np.uint8)
    scores: dict[str, float] = {}
    for average in AVERAGES:
        options = {"average": average, "zero_division": 0}
        scores[f"precision_{average}"] = metrics.precision_score(labels, predicted, **options)
        scores[f"recall_{average}"] = metrics.recall_score(labels, predicted, **options)
        scores[f"f1_{average}"] = metrics.f1_score(labels, predicted, **options)
        scores[f"f2_{average}"] = metrics.fbeta_score(labels, predicted, beta=2, **options)
        scores[f"accuracy_{average}"] = metrics.jaccard_score(labels, predicted, **options)
    scores["hamming_loss"] = metrics.hamming_loss(labels, predicted)
    scores["subset_accuracy"] = metrics.accuracy_score(labels, predicted)
    best = probabilities.argmax(axis=1)
    scores["one_error"] = 1.0 - labels[np.arange(len(labels)), best].mean()
    # Depth of the ranking that includes all labels; the optimum is the mean number of labels, not that minus one.
    scores["coverage"] = metrics.coverage_error(labels, probabilities)
    scores["ranking_loss"] = metrics.label_ranking_loss(labels, probabilities)
    scores["label_ranking_average_precision"] = metrics.label_ranking_average_precision_score(labels, probabilities)
    return {name: float(value) for name, value in scores.items()}
