"""The error family: one line each, with the offending value, the rule it breaks and the cure."""

from __future__ import annotations


class CbirError(Exception):
    """Something the user can mend. Scripts print it as one line and exit with code 2."""


class ConfigError(CbirError):
    """The YAML file or a command-line argument is wrong."""


class DataError(CbirError):
    """A patch, a record, a split list or a patch store is missing or malformed."""


class CheckpointError(CbirError):
    """A checkpoint is missing, truncated, or belongs to another model."""


class SearchError(CbirError):
    """A search was asked for something that has no defined answer."""


class ResultsError(CbirError):
    """A features or results file is missing, truncated, or belongs to another run."""


class LockedError(CbirError):
    """Another process is writing to the folder."""


class TrainingError(CbirError):
    """Training cannot go on, for example because the loss is not finite."""


def shown(names: list[str], most: int = 5) -> str:
    """Return the first few of many names as readable text, with a count of the rest."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"
