"""Write a synthetic demo archive: python project/make_demo.py --output data/demo."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.make_demo import main

if __name__ == "__main__":
    sys.exit(main())
