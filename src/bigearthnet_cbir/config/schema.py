"""Every configuration key: what it affects, its rule, its meaning, its default. The README's table is held against it.

Own rules in place of pydantic: messages with value, rule, cure and nearest spelling would need as much code around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bigearthnet_cbir.config.keys import MEASUREMENT, MODEL, NOTHING, TRAINING, declared_keys, key, names_affecting
from bigearthnet_cbir.config.name_validators import ChoiceOrName, FunctionName
from bigearthnet_cbir.config.protocols import CUSTOM, DEFAULT, PROTOCOLS
from bigearthnet_cbir.config.validators import Choice, Flag, Integer, Multiple, Number, PathText, Text

BACKBONE_WIDTHS: Final = {
    "resnet10": 512, "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048
}  # fmt: skip
"""Length of the pooled feature vector of each torchvision ResNet."""

_SPLITS: Final = Choice(("train", "val", "test"))


@dataclass(frozen=True)
class LoggingParams:
    """Where the run folder is: save_dir/<Config.name>/name."""

    name: str = key(NOTHING, Text(plain_name=True), "name of the run folder")
    save_dir: str = key(NOTHING, PathText(), "parent folder of all results", "logs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment. Paths are absolute once read; `source` names the file in messages and is not compared."""

    name: str = key(NOTHING, Text(plain_name=True), "sub-folder of save_dir for a group of runs")
    logging_params: LoggingParams

    train_csv: str = key(NOTHING, PathText(), "training pairs: CSV without header (S2 name, S1 name)")
    val_csv: str = key(NOTHING, PathText(), "validation pairs")
    test_csv: str = key(NOTHING, PathText(), "test pairs")
    bigEarthPthLMDB_S2: str = key(NOTHING, PathText(), "LMDB folder with the Sentinel-2 patches")
    bigEarthPthLMDB_S1: str = key(NOTHING, PathText(), "LMDB folder with the Sentinel-1 patches; may be the same")

    type: str = key(
        MODEL,
        Choice(("joint", "separate")),
        "joint: one backbone with a stem per sensor; separate: one backbone per sensor",
        "joint",
    )
    backbone: str = key(
        MODEL,
        ChoiceOrName(tuple(BACKBONE_WIDTHS), "timm:"),
        "backbone: a ResNet of torchvision, or a network of timm by its name",
        "resnet50",
    )
    n_features: int | None = key(
        NOTHING, Integer(1), "length of the backbone's features; must match it (resnet50: 2048)", None, optional=True
    )
    projection_dim: int = key(MODEL, Integer(1, 16384), "length of the projections z1 and z2", 128)
    projection_head: str = key(
        MODEL, Choice(("mlp", "original")), "original: Linear + ReLU; mlp: two layers as in SimCLR", "original"
    )
    out_channels: int = key(MODEL, Integer(1, 2048), "output channels of the 1x1 stems (type joint)", 32)
    sensor_norm: str = key(
        MODEL, Choice(("shared", "per_sensor")), "batch-norm statistics of the backbone (type joint)", "per_sensor"
    )
    init_weights: str | None = key(
        TRAINING, PathText(), "local file with initial weights of the backbones", None, optional=True
    )
    init_weights_s1: str | None = key(
        TRAINING, PathText(), "separate file for the Sentinel-1 backbone (type separate)", None, optional=True
    )
    fusion: str = key(
        TRAINING | MEASUREMENT,
        Choice(("concat", "avg", "max", "sum")),
        "how z1 and z2 are combined into one vector",
        "concat",
        trains_with=("loss_func", "classification"),
    )

    loss_func: str = key(
        TRAINING,
        Choice(("contrastive", "classification")),
        "NT-Xent between the sensors, or classification of the fused vector",
        "contrastive",
    )
    temperature: float = key(TRAINING, Number(0, exclusive=True, most=100), "temperature of the contrastive loss", 0.1)

    contrastive_loss: str = key(
        TRAINING,
        Choice(("ntxent", "decoupled", "label_aware")),
        "variant of NT-Xent; label_aware needs labels; docs/training.md",
        "ntxent",
    )
    learn_temperature: bool = key(
        TRAINING, Flag(), "true: the temperature is trained, starting from `temperature`", False
    )
    alignment_weight: float = key(
        TRAINING, Number(0, most=1000), "weight of the alignment term 1 - cos(z1, z2) added to the loss", 0.0
    )
    memory_size: int = key(
        TRAINING, Integer(0, 1048576), "recent pairs used as additional negatives (cross-batch memory); 0: none", 0
    )

    batch_size: int = key(TRAINING, Integer(1, 1048576), "pairs per batch, in total over all processes", 256)
    micro_batch_size: int = key(
        TRAINING, Integer(0, 1048576), "pairs per forward pass (gradient caching), over all processes; 0: batch_size", 0
    )
    accumulate_steps: int = key(
        TRAINING, Integer(1, 1000000), "batches whose gradients are averaged per optimiser step", 1
    )
    clip_norm: float = key(TRAINING, Number(0, most=100000), "largest gradient norm (clipping); 0: no clipping", 0.0)
    compile: bool = key(NOTHING, Flag(), "true: compile the training step with torch.compile", False)
    epochs: int = key(
        TRAINING, Integer(1, 1000000), "passes over the training pairs", 100, trains_with=("scheduler", True)
    )
    start_epoch: int = key(NOTHING, Integer(0), "> 0: resume from the last checkpoint, which must be at this epoch", 0)
    optimizer: str = key(TRAINING, Choice(("sgd", "adam", "adamw")), "optimiser", "adamw")
    learning_rate: float = key(
        TRAINING, Number(0, exclusive=True, most=100), "learning rate; the peak with the one-cycle schedule", 1e-3
    )
    weight_decay: float = key(TRAINING, Number(0, most=100), "weight decay", 1e-4)
    scheduler: bool = key(TRAINING, Flag(), "true: one-cycle learning rate over the whole run", True)
    augment: bool = key(TRAINING, Flag(), "true: random flips and 90-degree rotations, equal for both sensors", True)
    window: int = key(
        TRAINING, Integer(32, 120), "side of the random training window in 10 m pixels; 120: the whole patch", 120
    )
    crop_area: float = key(
        TRAINING, Number(0, exclusive=True, most=1), "smallest area share of random resized crops; 1: no crops", 1.0
    )
    band_dropout: float = key(
        TRAINING, Number(0, most=1), "probability of dropping a Sentinel-2 band, or one of the Sentinel-1 bands", 0.0
    )
    noise: float = key(TRAINING, Number(0, most=10), "noise on Sentinel-2 in standard deviations of each band", 0.0)
    speckle_looks: int = key(TRAINING, Integer(0, 1000), "number of looks of additional Sentinel-1 speckle; 0: none", 0)
    seed: int = key(TRAINING, Integer(0, 2**63 - 1), "seed of weights, order and augmentation", 42)

    device: str = key(NOTHING, Text(), "auto, cpu, cuda or cuda:N", "auto")
    precision: str = key(
        TRAINING,
        Choice(("auto", "fp32", "bf16", "int8")),
        "auto: bf16 if the hardware supports it; int8: extraction on a CPU by onnxruntime",
        "auto",
    )
    extract_backend: str = key(
        NOTHING,
        Choice(("auto", "torch", "onnxruntime")),
        "program that computes embeddings; auto: onnxruntime for fp32 on a CPU if installed",
        "auto",
    )
    num_workers: int = key(NOTHING, Integer(0, 256), "processes that read patches; 0: read in the training process", 2)

    state_dict: str | None = key(
        NOTHING, PathText(), "checkpoint for retrieval; default: the best one of the run", None, optional=True
    )
    encoder: str | None = key(
        MEASUREMENT,
        FunctionName(),
        "encoder of another project for retrieval (docs/embeddings.md); its code is executed",
        None,
        optional=True,
    )
    encoder_path: str | None = key(
        NOTHING, PathText(), "folder of that module; default: the folder of the YAML file", None, optional=True
    )
    protocol: str = key(
        MEASUREMENT,
        Choice((*PROTOCOLS, CUSTOM)),
        "query and archive split; original: train in test, csmae: val in test",
        DEFAULT,
    )
    query_split: str = key(MEASUREMENT, _SPLITS, "query split, for protocol custom", "val")
    archive_split: str = key(MEASUREMENT, _SPLITS, "archive split, for protocol custom", "test")
    exclude_within: int | None = key(
        MEASUREMENT,
        Integer(0, 1000),
        "spatial exclusion radius in patches: evaluate also without near patches",
        None,
        optional=True,
    )
    feature: str = key(
        MEASUREMENT,
        Choice(("projection", "backbone")),
        "vectors to search with: projections z or backbone features h",
        "projection",
    )
    distance: str = key(
        MEASUREMENT, Choice(("cosine", "hamming", "euclidean", "chi2")), "distance of the search", "cosine"
    )
    code: str = key(
        MEASUREMENT,
        Choice(("median", "mean", "rotation", "itq", "learned")),
        "how distance hamming makes codes; docs/codes.md",
        "median",
    )
    code_bits: int | None = key(
        MEASUREMENT,
        Multiple(8, 8192),
        "bits of a code; median and mean have one a feature, others 64 by default",
        None,
        optional=True,
    )
    hash_loss: str = key(
        MEASUREMENT,
        Choice(("contrastive", "orthohash")),
        "loss of train.py --hash, for code learned; orthohash also reads the labels",
        "contrastive",
    )
    rerank: int = key(
        MEASUREMENT, Integer(0, 2**31 - 1), "candidates by distance hamming that are ordered by cosine; 0: none", 0
    )
    top_k: int = key(MEASUREMENT, Integer(1, 2**31 - 1), "number of neighbours per query", 1000)
    num_cpu: int = key(
        NOTHING, Integer(0, 10000), "Ray workers for retrieval; 0: search in this process, or on the GPU of `device`", 0
    )
    extract_workers: int = key(
        NOTHING, Integer(0, 10000), "Ray workers that compute embeddings (equal up to rounding); 0: this process", 0
    )
    ray_address: str | None = key(
        NOTHING, Text(), "running Ray cluster to join: auto or host:port", None, optional=True
    )

    source: str = field(default="configuration", compare=False)

    @property
    def run_folder(self) -> Path:
        """The run folder."""
        return Path(self.logging_params.save_dir) / self.name / self.logging_params.name

    def split_csv(self, split: str) -> str:
        """Return the path of the list of pairs of train, val or test."""
        return {"train": self.train_csv, "val": self.val_csv, "test": self.test_csv}[split]


KEYS: Final = declared_keys(Config)
LOGGING_KEYS: Final = declared_keys(LoggingParams)

MODEL_KEYS: Final = names_affecting(Config, MODEL)
"""Keys that decide which weights a network has: the keywords of DualEncoder."""

PATH_KEYS: Final = tuple(name for name, item in KEYS.items() if isinstance(item.metadata["rule"], PathText))

OBSOLETE_KEYS: Final = ("pretrain", "reload", "epoch_num", "scheduler_gamma")
"""Keys of the original scripts that had no effect there; accepted with a warning."""

OBSOLETE_LOGGING_KEYS: Final = ("summaries", "suffix")
