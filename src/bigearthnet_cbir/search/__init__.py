"""Exact nearest-neighbour search: codes, distances, kernels and Ray."""

from bigearthnet_cbir.callable_package import make_callable

make_callable(__name__, "bigearthnet_cbir.search.knn:search")
