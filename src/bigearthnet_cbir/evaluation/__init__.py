"""Retrieval metrics and their summary."""
