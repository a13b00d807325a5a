"""Reader of the training curves of a run from its TensorBoard event files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scalar:
    """One logged value over the epochs.

    Attributes:
        steps: epochs, 1-based, ascending.
        values: values at these epochs.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_training_log(folder: Path) -> dict[str, Scalar]:
    """Return every scalar of the event files directly in a folder; empty if there are none.

    Values of a resumed run replace those of the interrupted run for the same epochs.
    """
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    # Imported lazily: it takes 0.3 s, and only reports need it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it prints several lines about resumed runs
    events = EventAccumulator(str(folder))
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        by_step = {int(event.step): float(event.value) for event in events.Scalars(tag)}
        steps = tuple(sorted(by_step))
        found[str(tag)] = Scalar(steps, tuple(by_step[step] for step in steps))
    return found
