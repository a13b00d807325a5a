"""Losses on pairs of views and on label vectors."""
