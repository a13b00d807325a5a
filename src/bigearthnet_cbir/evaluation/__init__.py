"""Retrieval metrics, their intervals and chance levels, and classification scores."""
