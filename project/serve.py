"""Find similar patches in a browser: python project/serve.py --filepath logs/<name>/<run>."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.cli.serve import main

if __name__ == "__main__":
    sys.exit(main())
