"""Measure embeddings made anywhere: python project/evaluate.py --queries FILE --archive FILE --name MODEL."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
