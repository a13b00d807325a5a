"""Export a trained encoder: python project/export_model.py --filepath logs/<name>/<run>/parameters.yaml."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
