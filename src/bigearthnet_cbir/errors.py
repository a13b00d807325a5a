"""The error family: one line each, with the offending value, the rule it breaks and the cure.

Wrong values are ValueErrors too, missing files FileNotFoundErrors, so that scripts may catch what Python would raise.
"""

from __future__ import annotations


class CbirError(Exception):
    """Something the user can mend. Scripts print it as one line and exit with code 2."""


class ConfigError(CbirError, ValueError):
    """The YAML file or a command-line argument is wrong."""


class DataError(CbirError, ValueError):
    """A patch, a record, a split list or a patch store is missing or malformed."""


class CheckpointError(CbirError, ValueError):
    """A checkpoint is missing, truncated, or belongs to another model."""


class SearchError(CbirError, ValueError):
    """A search was asked for something that has no defined answer."""


class ResultsError(CbirError, ValueError):
    """A features or results file is missing, truncated, or belongs to another run."""


class QueryError(CbirError, ValueError):
    """An index cannot answer what was asked, or is missing, damaged or out of date."""


class MissingConfigError(ConfigError, FileNotFoundError):
    """The YAML file, or another file that an option names, is not there."""


class MissingDataError(DataError, FileNotFoundError):
    """A split list, a patch store or a patch is not there."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint is not there."""


class MissingResultsError(ResultsError, FileNotFoundError):
    """A features or results file is not there."""


class MissingIndexError(QueryError, FileNotFoundError):
    """A run has no index."""


class LockedError(CbirError):
    """Another process is writing to the folder."""


class TrainingError(CbirError):
    """Training cannot go on, for example because the loss is not finite."""


def summarize_names(names: list[str], most: int = 5) -> str:
    """Return the first few of many names as readable text, with a count of the rest."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def short(value: object, most: int = 80) -> str:
    """Return the first characters of a value that a file holds, as one printable line."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
