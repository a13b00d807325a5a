"""Reader of the training curves of a run from its TensorBoard event files."""

from __future__ import annotations

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

    The run that began last counts: its values replace those of earlier runs from its first epoch on. The times in
    the files decide, not the file names, which sort wrongly where two runs began in one second.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files:
        return {}
    # Imported lazily: it takes 0.3 s, and only reports need it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = []
    for path in files:
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        scalars = {str(tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
        if scalars:
            runs.append((events.FirstEventTimestamp(), scalars))
    found: dict[str, dict[int, float]] = {}
    for _, scalars in sorted(runs, key=lambda run: run[0]):
        first_epoch = min(event.step for events in scalars.values() for event in events)
        found = {
            tag: {step: value for step, value in by_step.items() if step < first_epoch}
            for tag, by_step in found.items()
        }
        for tag, events in scalars.items():
            found.setdefault(tag, {}).update((int(event.step), float(event.value)) for event in events)
    return {tag: _scalar(by_step) for tag, by_step in found.items() if by_step}


def _scalar(by_step: dict[int, float]) -> Scalar:
    steps = tuple(sorted(by_step))
    return Scalar(steps, tuple(by_step[step] for step in steps))
