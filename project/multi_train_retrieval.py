"""Train and score the grid: python project/multi_train_retrieval.py --folder_name test --loss_func contrastive."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.sweep import main


class Config:
    """What all runs share; edit it, or use --base FILE and --set KEY=VALUE. Every key of args.yaml may stand here."""

    train_csv = "data/train.csv"
    val_csv = "data/val.csv"
    test_csv = "data/test.csv"
    bigEarthPthLMDB_S2 = "data/BigEarth.lmdb"
    bigEarthPthLMDB_S1 = "data/BigEarth.lmdb"
    backbone = "resnet50"
    batch_size = 256
    epochs = 100
    optimizer = "adamw"
    learning_rate = 1e-3
    weight_decay = 1e-4
    scheduler = True
    temperature = 0.1
    augment = True
    projection_head = "original"
    projection_dim = 128
    out_channels = 32
    num_cpu = 2


if __name__ == "__main__":
    sys.exit(main(Config))
