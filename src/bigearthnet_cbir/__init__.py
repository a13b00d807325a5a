"""Content-based image retrieval on BigEarthNet-MM: paired Sentinel-1 and Sentinel-2 patches.

The names below are the public API (docs/api.md). They are imported on first use, so that
`import bigearthnet_cbir` takes milliseconds and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bigearthnet_cbir.config import Config, load_config
    from bigearthnet_cbir.data.dataset import BigEarthNetMM
    from bigearthnet_cbir.data.splits import read_split, read_split_labels
    from bigearthnet_cbir.pipelines.embedding import Embeddings, embed, load_encoder
    from bigearthnet_cbir.pipelines.encode import encode
    from bigearthnet_cbir.pipelines.evaluate import Evaluation, evaluate
    from bigearthnet_cbir.pipelines.index import build_index
    from bigearthnet_cbir.pipelines.report import write_report as report
    from bigearthnet_cbir.pipelines.retrieve import retrieve
    from bigearthnet_cbir.pipelines.train import train
    from bigearthnet_cbir.query.filters import Filters
    from bigearthnet_cbir.query.find import find, query_vector
    from bigearthnet_cbir.query.index import open_index
    from bigearthnet_cbir.search.knn import search
    from bigearthnet_cbir.storage.results import read_results
    from bigearthnet_cbir.types import Neighbours, PatchPair

_PLACES = {
    "BigEarthNetMM": "data.dataset",
    "Config": "config",
    "Embeddings": "pipelines.embedding",
    "Evaluation": "pipelines.evaluate",
    "Filters": "query.filters",
    "Neighbours": "types",
    "PatchPair": "types",
    "build_index": "pipelines.index",
    "embed": "pipelines.embedding",
    "encode": "pipelines.encode",
    "evaluate": "pipelines.evaluate",
    "find": "query.find",
    "load_config": "config",
    "load_encoder": "pipelines.embedding",
    "open_index": "query.index",
    "query_vector": "query.find",
    "read_results": "storage.results",
    "read_split": "data.splits",
    "read_split_labels": "data.splits",
    "report": "report",
    "retrieve": "pipelines.retrieve",
    "search": "search",
    "train": "pipelines.train",
}
"""Public name -> its module. The packages search and report are callable themselves."""

__all__ = [
    "BigEarthNetMM",
    "Config",
    "Embeddings",
    "Evaluation",
    "Filters",
    "Neighbours",
    "PatchPair",
    "__version__",
    "build_index",
    "embed",
    "encode",
    "evaluate",
    "find",
    "load_config",
    "load_encoder",
    "open_index",
    "query_vector",
    "read_results",
    "read_split",
    "read_split_labels",
    "report",
    "retrieve",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bigearthnet_cbir' has no attribute {name!r}")
    module = import_module(f"bigearthnet_cbir.{_PLACES[name]}")
    found = module if _PLACES[name] == name else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
