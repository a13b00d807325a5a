"""Labels for the tests of the evaluation."""

import numpy as np


def labels_of(sets: list[set[int]], classes: int = 19) -> np.ndarray:
    return np.array([[int(c in members) for c in range(classes)] for members in sets], dtype=np.uint8)


def random_labels(rows: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.random((rows, 19)) < generator.random(19) * 0.4).astype(np.uint8)
