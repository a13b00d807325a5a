"""Split lists (CSV), metadata.parquet of BigEarthNet v2, and YAML configurations."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tests.faults.hostile.damage import Spans
from tests.faults.hostile.edits import ODD, edited
from tests.faults.hostile.subject import Subject, require

from bigearthnet_cbir.config import Config, load_config
from bigearthnet_cbir.config.loader import parse_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.splits import read_list, read_split, read_split_labels

_ROWS = 30
_NAME = re.compile(r"S([12])[A-D]_[!-~]+")


def _pair(row: int) -> tuple[str, str]:
    return f"S2A_MSIL2A_20170613T101031_{row}_48", f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{row}_48"


def _build_lists(folder: Path) -> None:
    pairs = [_pair(row) for row in range(_ROWS)]
    (folder / "two.csv").write_text("".join(f"{s2},{s1}\n" for s2, s1 in pairs))
    (folder / "quoted.csv").write_text("\ufeff" + "".join(f'"{s2}", "{s1}"\r\n' for s2, s1 in pairs))
    (folder / "one.csv").write_text("".join(f"{s2}\n" for s2, _ in pairs))


def _read_lists(folder: Path) -> list[Any]:
    return [list(read_list(path)) for path in sorted(folder.glob("*.csv"))]


def _check_lists(found: list[Any]) -> None:
    for rows in found:
        require(rows, "an empty list")
        names = [row if isinstance(row, tuple) else (row,) for row in rows]
        for number, column in enumerate(zip(*names, strict=True)):
            require(len(set(column)) == len(column), "a name twice")
            for name in column:
                known = _NAME.fullmatch(name)
                require(known and known[1] == "21"[number] and len(name) < 512, f"name {name!r}")


def _edit_lists(folder: Path, random: Random) -> str:
    path = random.choice(sorted(folder.glob("*.csv")))
    rows = [line.split(",") for line in path.read_text(encoding="utf-8-sig").splitlines()]
    changed, told = edited(rows, random)
    if not isinstance(changed, list):
        changed = [changed]
    lines = [",".join(map(str, row)) if isinstance(row, list) else str(row) for row in changed]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
    return f"{path.name}: {told}"


def _columns() -> dict[str, list[Any]]:
    rows = range(_ROWS)
    return {
        "patch_id": [_pair(row)[0] for row in rows],
        "labels": [[CLASSES[row % 19], CLASSES[(row * 7 + 3) % 19]] for row in rows],
        "split": [("train", "validation", "test")[row % 3] for row in rows],
        "country": ["Austria"] * _ROWS,
        "s1_name": [_pair(row)[1] for row in rows],
        "s2v1_name": [_pair(row)[0] for row in rows],
        "contains_seasonal_snow": [row % 5 == 0 for row in rows],
        "contains_cloud_or_shadow": [False] * _ROWS,
    }


def _build_parquet(folder: Path) -> None:
    table = pa.table(_columns())
    pq.write_table(table, folder / "plain.parquet")
    options: dict[str, Any] = {"compression": "zstd", "version": "1.0", "write_page_checksum": True}
    pq.write_table(table, folder / "packed.parquet", row_group_size=7, use_dictionary=False, **options)


def _read_parquet(folder: Path) -> list[Any]:
    found: list[Any] = []
    for path in sorted(folder.glob("*.parquet")):
        rows = read_metadata(path)
        splits = {split: read_split(f"{path}:{split}") for split in ("train", "val", "test")}
        labels = {split: read_split_labels(f"{path}:{split}") for split in splits}
        found.append([rows, {split: list(pairs) for split, pairs in splits.items()}])
        for split, pairs in splits.items():
            expected = {row.s2: row.labels for row in rows if row.split == split}
            require([pair.s2 for pair in pairs] == list(expected), f"rows and pairs of {split} differ")
            require({name: labels[split][name] for name in labels[split]} == expected, f"labels of {split} differ")
    return found


def _check_parquet(found: list[Any]) -> None:
    for rows, splits in found:
        _check_lists(list(splits.values()))
        for row in rows:
            columns = [CLASSES.index(name) for name in row.labels]
            require(columns == sorted(set(columns)), f"labels {row.labels}")
            require(row.split in ("train", "val", "test"), f"split {row.split!r}")
            require(type(row.country) is str and type(row.snow) is bool and type(row.cloud) is bool, f"{row}")


def _edit_parquet(folder: Path, random: Random) -> str:
    """Write a table of other types or with odd values; what Arrow does not take is left out."""
    path = folder / "plain.parquet"
    columns = _columns()
    name = random.choice(list(columns))
    row = random.randrange(_ROWS)
    action = random.choice(("value", "value", "label", "type", "null", "rename", "drop", "twice", "kind", "empty"))
    if action == "value":
        columns[name][row] = random.choice([value for value in ODD if isinstance(value, str)] + [None, "Test", "S2"])
    elif action == "label":
        columns["labels"][row] = random.choice(([], None, [None], [""], ["Moon"], ["Airports"], ["Pastures"] * 9))
    elif action == "type":
        columns[name] = [random.choice((1.5, float("nan"), 3)) for _ in range(_ROWS)]
    elif action == "null":
        columns[name] = [None] * _ROWS
    elif action == "rename":
        columns[f"{name}_"] = columns.pop(name)
    elif action == "drop":
        del columns[name]
    elif action == "twice":
        columns[name][row] = columns[name][row - 1]
    try:
        table = pa.table(columns)
        if action == "kind":
            kinds = (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view())
            kind = random.choice(kinds)
            table = table.set_column(table.column_names.index(name), name, table.column(name).cast(kind))
            action = f"as {kind}"
        elif action == "empty":
            table = table.slice(0, 0)
        pq.write_table(table, path)
    except (pa.ArrowException, TypeError, ValueError):
        pq.write_table(pa.table({"patch_id": columns.get("patch_id", [])}), path)
        action = "one column only"
    return f"{path.name}: {name} {action}"


def _values() -> dict[str, Any]:
    return {
        "batch_size": 32, "start_epoch": 0, "epochs": 5, "type": "joint", "train_csv": "a/train.csv",
        "val_csv": "a/val.csv", "test_csv": "a/metadata.parquet:test", "loss_func": "contrastive", "fusion": "concat",
        "bigEarthPthLMDB_S2": "a/b.lmdb", "bigEarthPthLMDB_S1": "a/b.lmdb", "num_cpu": 2, "name": "group",
        "n_features": 512, "backbone": "resnet18", "projection_dim": 16, "out_channels": 8, "optimizer": "sgd",
        "learning_rate": 0.01, "weight_decay": 1e-4, "scheduler": True, "temperature": 0.1, "seed": 3,
        "logging_params": {"save_dir": "logs", "name": "run"}, "top_k": 10, "distance": "hamming", "augment": True,
        "learn_temperature": True, "memory_size": 0, "crop_area": 0.5, "precision": "fp32", "num_workers": 0,
    }  # fmt: skip


def _build_yaml(folder: Path) -> None:
    (folder / "args.yaml").write_text(yaml.safe_dump(_values(), sort_keys=False))


def _read_yaml(folder: Path) -> Config:
    return load_config(folder / "args.yaml", root=Path("/nowhere"))


def _check_yaml(config: Config) -> None:
    """Require numbers that are finite, and that what was read is what it would be read as again."""
    values = dataclasses.asdict(config)
    source = values.pop("source")
    for key, value in values.items():
        require(not isinstance(value, float) or math.isfinite(value), f"{key} is {value!r}")
        require(not isinstance(value, str) or "\n" not in value, f"{key} is {value!r}")
    require(parse_config(values, source=source, root=Path("/nowhere")) == config, "read again it is another")


def _edit_yaml(folder: Path, random: Random) -> str:
    changed, told = edited(_values(), random)
    (folder / "args.yaml").write_text(yaml.safe_dump(changed, sort_keys=False, allow_unicode=random.random() < 0.5))
    return told


def _parquet_spans(_: str, content: bytes) -> Spans:
    footer = int.from_bytes(content[-8:-4], "little") + 8
    return [(0, len(content)), (len(content) - footer, len(content))]


TABLES = (
    Subject("split list, CSV", _build_lists, _read_lists, _check_lists, edit=_edit_lists),
    Subject(
        "metadata.parquet", _build_parquet, _read_parquet, _check_parquet, spans=_parquet_spans, edit=_edit_parquet
    ),
    Subject("configuration, YAML", _build_yaml, _read_yaml, _check_yaml, edit=_edit_yaml),
)
