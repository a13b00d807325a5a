#!/usr/bin/env bash
# `make demo`: the whole pipeline from GeoTIFF folders to printed metrics, with the commands of a user.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}

step() {
  printf '\n# %s\n' "$1"; shift
  printf '$ python %s\n' "$*"
  "$python" "$@"
}

step "1. Generate a small synthetic data set as BigEarthNet-v1 GeoTIFF folders" \
  project/make_demo.py --output demo_data
step "2. Encode the GeoTIFFs into one LMDB patch store" \
  project/encode_patches.py --s2-root demo_data/BigEarthNet-v1.0 --s1-root demo_data/BigEarthNet-S1-v1.0 \
  --output demo_data/patches.lmdb --split-from demo_data
step "3. Train the dual encoder without labels" \
  project/train.py --filepath config/demo.yaml --overwrite
step "4. Search the test split with all validation pairs, and evaluate the results" \
  project/retrieval.py --filepath logs/demo/default/parameters.yaml
step "5. Baselines: the network with random weights, and band means and standard deviations" \
  project/retrieval.py --filepath logs/demo/default/parameters.yaml --baseline untrained
step "   (without a network)" \
  project/retrieval.py --filepath logs/demo/default/parameters.yaml --baseline band_statistics
step "6. Train the recipe of the original scripts equally long (shared batch norm, no augmentation)" \
  project/train.py --filepath config/demo_original.yaml --overwrite
step "   and search with it" \
  project/retrieval.py --filepath logs/demo/original/parameters.yaml
step "7. Print the metrics" \
  utils/utils.py --filepath logs/demo/default/parameters.yaml
step "   and the difference between the recommended and the original recipe, with intervals" \
  utils/utils.py --filepath logs/demo/default --against logs/demo/original
step "8. Compare both runs on one page" \
  project/report.py --filepath logs/demo/default logs/demo/original
step "9. Build the index of the run" \
  project/index.py --filepath logs/demo/default
step "   and query it with the first validation patch, without its neighbours and its acquisition" \
  project/query.py --filepath logs/demo/default --patch "$(head -n 1 demo_data/val.csv | cut -d , -f 1)" \
  --top 5 --exclude-within 1
printf '\nOpen in a browser: logs/demo/default/report.html (the run with its baselines), logs/demo/comparison.html\n'
printf 'Search in a browser:\n$ python project/serve.py --filepath logs/demo/default      (or: make serve-demo)\n'
