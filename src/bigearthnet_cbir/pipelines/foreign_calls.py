"""Calls of another project's code, whose exceptions become one line with the place in that code."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

from bigearthnet_cbir.errors import ConfigError

logger = logging.getLogger(__name__)


def guarded(call: Callable[[], Any], where: str) -> Any:
    """Return the result of a call of external code; raises ConfigError where it raises anything."""
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        raise failure(error, where) from error


def failure(error: Exception, where: str) -> ConfigError:
    """Return a one-line error for an exception in external code, with its message and location."""
    logger.debug("%s failed", where, exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f"{frame.filename}, line {frame.lineno}" for frame in reversed(frames) if _is_theirs(frame)), "")
    reason = " ".join(str(error).split())[:200]
    return ConfigError(
        f"{where} failed: {type(error).__name__}: {reason} ({place or 'unknown line'}); correct that code"
    )


def _is_theirs(frame: traceback.FrameSummary) -> bool:
    return not any(part in frame.filename for part in ("/torch/", "/bigearthnet_cbir/", "<frozen", "/importlib/"))
