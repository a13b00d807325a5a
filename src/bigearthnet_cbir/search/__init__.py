"""Exact nearest-neighbour search: distances, binary codes, kernels and the Ray backend."""

from bigearthnet_cbir.callable_package import make_callable

make_callable(__name__, "bigearthnet_cbir.search.knn:search")
