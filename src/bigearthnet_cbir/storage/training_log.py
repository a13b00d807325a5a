"""Training curves of a run, read back from its TensorBoard event files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scalar:
    """One figure over the epochs.

    Attributes:
        steps: epochs, 1-based, ascending.
        values: as many.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_training_log(folder: Path) -> dict[str, Scalar]:
    """Return every scalar of the event files directly in a folder; empty where there is none.

    What a resumed run wrote again replaces what the interrupted one had written.
    """
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    # Imported here: it takes 0.3 s, which only reports need to pay.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # says in several lines that a run was resumed
    events = EventAccumulator(str(folder))
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        by_step = {int(event.step): float(event.value) for event in events.Scalars(tag)}
        steps = tuple(sorted(by_step))
        found[str(tag)] = Scalar(steps, tuple(by_step[step] for step in steps))
    return found
