"""The same values in every memory layout and type that a caller may hand over."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st


def unaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "transposed": lambda array: array.T.copy().T,
    "some columns": lambda array: np.repeat(array, 3, axis=1)[:, 1::3],
    "chosen columns": lambda array: array[:, ::-1].copy()[:, list(range(array.shape[1]))[::-1]],
    "some rows": lambda array: np.repeat(array, 2, axis=0)[::2],
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "unaligned": unaligned,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "read-only": read_only,
    "data frame": lambda array: pd.DataFrame(array, columns=[f"c{i}" for i in range(array.shape[1])]).to_numpy(),
    "cut from a data frame": lambda array: pd.DataFrame(
        {f"c{i}": column for i, column in enumerate(array.T)}, index=np.arange(len(array))
    ).to_numpy(),
    "middle of three": lambda array: np.stack([array + 1, array, array - 1], axis=1)[:, 1],
}
"""By name: a function from a two-dimensional array to one of equal values."""

layouts = st.sampled_from(sorted(LAYOUTS))


def arranged(array: np.ndarray, layout: str, dtype: object = None) -> np.ndarray:
    """Return equal values in another layout and type."""
    found = LAYOUTS[layout](array if dtype is None else array.astype(dtype))
    assert (np.asarray(found) == array).all()
    return found
