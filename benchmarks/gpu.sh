#!/usr/bin/env bash
# On a machine with a GPU: are the numbers right there, and how fast is it?
#
#   pip install -e ".[cuda13,digits,test,bench]"
#   bash benchmarks/gpu.sh [FOLDER] [--quick]
#
# The folder (runs/gpu) gets tests.xml, with the mean weights and the acceptance of every
# force, and for each benchmark NAME.json and NAME.txt, whose tables go to docs/gpu.md.
# A benchmark that fails does not stop the others; the last line says which did.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
quick=${2:-}
mkdir -p "$out"
failed=""
export PYTHONPATH=.

python -c 'import jax; assert jax.default_backend() == "gpu", jax.devices()' || exit 1
nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv | tee "$out/gpu.csv"

python -m pytest tests/models/test_precision.py tests/annealing/test_{hmc,ais}.py \
  tests/evidence/test_log_z.py tests/training/test_step.py \
  --junitxml="$out/tests.xml" 2>&1 | tee "$out/tests.txt" || failed+=" tests"

for name in launches fill sampler training_step scaling memory startup; do
  echo "== benchmarks.$name"
  python -m "benchmarks.$name" $quick --output "$out/$name.json" 2> "$out/$name.log" \
    | tee "$out/$name.txt" || failed+=" $name"
done

echo
echo "Paste the tables of $out/*.txt into docs/gpu.md and copy $out/*.json to"
echo "benchmarks/results/gpu. Failed:${failed:- none}"
test -z "$failed"
