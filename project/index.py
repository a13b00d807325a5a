"""Make the index of a run: python project/index.py --filepath logs/<name>/<run>."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.index import main

if __name__ == "__main__":
    sys.exit(main())
