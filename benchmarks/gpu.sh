#!/usr/bin/env bash
# On a machine with a GPU: are the numbers right there, and how fast is it?
# bash benchmarks/gpu.sh [FOLDER]; needs `pip install -e ".[cuda13,digits,test,bench]"`.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
mkdir -p "$out"
python -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()'
python -m pytest tests/test_precision.py tests/test_ais.py tests/test_evaluation.py \
  | tee "$out/tests.txt"
for name in sampler training_step scaling memory; do
  python -m benchmarks.$name --output "$out/$name.json" | tee "$out/$name.txt"
done
