"""Encode patch folders: python project/encode_patches.py --s1-root ... --s2-root ... --output archive.lmdb."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.encode import main

if __name__ == "__main__":
    sys.exit(main())
