"""Train a dual-branch encoder: python project/train.py --filepath config/args.yaml."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
