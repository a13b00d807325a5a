"""Ask an index: python project/query.py --filepath logs/<name>/<run> --patch <name>."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.query import main

if __name__ == "__main__":
    sys.exit(main())
