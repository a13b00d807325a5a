"""Error classes; each message is one line with the value, the rule and the remedy.

Errors of wrong values are also ValueErrors, and errors of missing files also FileNotFoundErrors.
"""

from __future__ import annotations


class CbirError(Exception):
    """An error that the user can resolve. Scripts print it as one line and exit with code 2."""


class ConfigError(CbirError, ValueError):
    """The YAML file or a command-line argument is invalid."""


class DataError(CbirError, ValueError):
    """A patch, a record, a split list or a patch store is missing or malformed."""


class CheckpointError(CbirError, ValueError):
    """A checkpoint is missing, truncated, or belongs to another model."""


class SearchError(CbirError, ValueError):
    """The input of a search is invalid."""


class ResultsError(CbirError, ValueError):
    """A features or results file is missing, truncated, or belongs to another run."""


class QueryError(CbirError, ValueError):
    """An index cannot answer what was asked, or is missing, damaged or out of date."""


class MissingConfigError(ConfigError, FileNotFoundError):
    """The YAML file, or another file that an option names, is missing."""


class MissingDataError(DataError, FileNotFoundError):
    """A split list, a patch store or a patch is missing."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint is missing."""


class MissingResultsError(ResultsError, FileNotFoundError):
    """A features or results file is missing."""


class MissingIndexError(QueryError, FileNotFoundError):
    """A run has no index."""


class LockedError(CbirError):
    """Another process is writing to the folder."""


class TrainingError(CbirError):
    """Training cannot continue, for example because the loss is not finite."""


def summarize_names(names: list[str], most: int = 5) -> str:
    """Return the first names as text, with the number of the others."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def short(value: object, most: int = 80) -> str:
    """Return the first characters of a value from a file as one printable line."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
