"""Exact nearest-neighbour search: codes, distances, kernels and Ray."""
