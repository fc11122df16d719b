#!/usr/bin/env bash
# On a machine with a GPU: builds for it, tests, sanitizes and measures, in under 8 minutes.
#
#     bench/gpu.sh [FOLDER]
#
# Needs python3 with torch (CUDA), pybind11, ninja and numpy, and nvcc; pytest and hypothesis for the
# tests. No network. Every part writes under bench/results/, which is copied to FOLDER if one is
# named, as soon as it ends; what could not run says why in gpu_parts.json.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results=bench/results
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYDENOISE_CUDA_ARCHITECTURES=native
mkdir -p "$results"
parts=$results/gpu_parts.json
echo "{}" >"$parts"

# note PART TEXT: keeps how a part ended.
note() {
  "$python" - "$parts" "$1" "$2" <<'PY'
import json, sys
path, part, text = sys.argv[1:]
found = json.load(open(path)) | {part: text}
json.dump(found, open(path, "w"), indent=1)
PY
  echo "gpu.sh: $1: $2"
  if [ -n "${folder:-}" ]; then cp "$results"/gpu_*.json "$results"/gpu_*.log "$folder" 2>/dev/null; fi
}

# part NAME SECONDS COMMAND...: runs it within so many seconds, its output in a log.
part() {
  local name=$1 limit=$2 log=$results/gpu_$1.log code
  shift 2
  SECONDS=0
  timeout "$limit" "$@" >"$log" 2>&1
  code=$?
  case $code in
    0) note "$name" "done in $SECONDS s" ;;
    124) note "$name" "stopped after $limit s; see gpu_$name.log" ;;
    *) note "$name" "failed with status $code: $(tail -n 1 "$log")" ;;
  esac
  return $code
}

folder=${1:-}
part build 100 "$python" setup.py -q build_ext --inplace || exit 1
"$python" -c 'from pydenoise import ops; import sys; sys.exit(ops.backends()["cuda"])' 2>"$results/gpu_build.log" ||
  { note build "the CUDA backend does not run: $(tail -n 1 "$results/gpu_build.log")"; exit 1; }

if "$python" -c "import pytest, hypothesis" 2>/dev/null; then
  part tests 110 "$python" -m pytest -q -x -p no:cacheprovider -k cuda tests
else
  note tests "not run: pytest and hypothesis are not installed for $python"
fi

for tool in memcheck racecheck initcheck; do
  if ! command -v compute-sanitizer >/dev/null; then
    note "$tool" "not run: there is no compute-sanitizer"
  elif part "$tool" 25 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" bench/gpu_sanitize.py; then
    :
  elif grep -q -i "not supported\|unable to\|failed to initialize" "$results/gpu_$tool.log"; then
    note "$tool" "not run: $(grep -i -m 1 "not supported\|unable to\|failed to initialize" "$results/gpu_$tool.log")"
  fi
done

part step 75 "$python" bench/gpu.py step
part epochs 30 "$python" bench/gpu.py epochs
part convolutions 60 "$python" bench/gpu.py convolutions
part columns 20 "$python" bench/gpu.py columns
