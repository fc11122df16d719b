#!/usr/bin/env bash
# On a machine with a GPU: builds for it, tests, sanitizes and measures, in under 8 minutes.
#
#     [TO=FOLDER] [COMMIT=HASH] bench/gpu.sh [PART...]
#
# Needs python3 with torch (CUDA), pybind11, ninja and numpy, and nvcc; pytest and hypothesis for the
# tests. No network. Every part writes under bench/results/, and to FOLDER if one is named, as soon as
# it ends; what could not run says why in gpu_parts.json. It always builds; PART chooses among tests,
# memcheck, racecheck, initcheck, limits, step, epochs, columns, convolutions, tiles; all if omitted.
# COMMIT says what is measured where the tree has come without its .git.
# The exit status is 1 if any part failed or was stopped.
set -uo pipefail
folder=${TO:+$(realpath -m "$TO")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results=bench/results
python=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PYDENOISE_BUILD=cuda PYDENOISE_CUDA_ARCHITECTURES=native
timed="limits epochs columns convolutions step tiles"
known="tests memcheck racecheck initcheck $timed"
for name in "$@"; do
  [[ " $known " == *" $name "* ]] || { echo "gpu.sh: there is no part $name, but $known" >&2; exit 2; }
done
wanted=" ${*:-$known} "
mkdir -p "$results" ${folder:+"$folder"}
rm -f "$results"/gpu_*.log
for name in $wanted; do rm -f "$results/gpu_$name.json"; done
parts=$results/gpu_parts.json
echo "{}" >"$parts"

# note PART TEXT: keeps how a part ended.
note() {
  (
    flock 9
    "$python" - "$parts" "$1" "$2" <<'PY'
import json, sys
path, part, text = sys.argv[1:]
found = json.load(open(path)) | {part: text}
json.dump(found, open(path, "w"), indent=1)
PY
    if [ -n "$folder" ]; then
      cat "$results"/gpu_*.log >"$folder/gpu.log"
      for name in parts $wanted; do cp "$results/gpu_$name.json" "$folder" 2>/dev/null; done
    fi
  ) 9>"$results/gpu_note.log"
  echo "gpu.sh: $1: $2"
}

# part NAME SECONDS COMMAND...: runs it within so many seconds, its output in a log.
part() {
  local name=$1 limit=$2 log=$results/gpu_$1.log code
  shift 2
  SECONDS=0
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  code=$?
  case $code in
    0) note "$name" "done in $SECONDS s: $(tail -n 1 "$log" | cut -c -200)" ;;
    124 | 137) note "$name" "stopped after $limit s; see gpu_$name.log" ;;
    *) note "$name" "failed with status $code: $(tail -n 1 "$log" | cut -c -200)" ;;
  esac
  return $code
}

chosen() { [[ $wanted == *" $1 "* ]]; }

part build 60 "$python" setup.py -q build_ext --inplace || exit 1
"$python" -c 'from pydenoise import ops; import sys; sys.exit(ops.backends()["cuda"])' 2>>"$results/gpu_build.log" ||
  { note build "the CUDA backend does not run: $(tail -n 1 "$results/gpu_build.log")"; exit 1; }

# sanitize TOOL: over one small call of every kernel.
sanitize() {
  local refused="not supported\|unable to\|failed to initialize" log=$results/gpu_$1.log
  part "$1" 70 compute-sanitizer --tool "$1" --error-exitcode 9 "$python" bench/gpu_sanitize.py && return
  if grep -q -i "$refused" "$log"; then note "$1" "not run: $(grep -i -m 1 "$refused" "$log")"; fi
}

# What finds faults runs side by side, before anything is timed.
for tool in memcheck racecheck initcheck; do
  if ! chosen "$tool"; then
    :
  elif ! command -v compute-sanitizer >/dev/null; then
    note "$tool" "not run: there is no compute-sanitizer"
  else
    sanitize "$tool" &
  fi
done
if ! chosen tests; then
  :
elif "$python" -c "import pytest, hypothesis" 2>/dev/null; then
  workers=$("$python" -c "import xdist" 2>/dev/null && echo "-n 8")
  cases="nn fusion gradients optim losses trajectory winograd tiles"
  # shellcheck disable=SC2086
  part tests 120 "$python" -m pytest -q --tb=short --maxfail=40 -p no:cacheprovider $workers \
    -k "(cuda or nccl) and not host" tests/test_distributed.py tests/test_cuda.py tests/test_ops_*.py \
    $(printf "tests/test_%s.py " $cases)
else
  note tests "not run: pytest and hypothesis are not installed for $python"
fi

wait
declare -A seconds=([limits]=15 [epochs]=30 [columns]=25 [convolutions]=60 [step]=100 [tiles]=60)
for name in $timed; do
  script=(bench/gpu.py "$name")
  if [ "$name" = tiles ]; then script=(bench/gpu_tiles.py); fi
  if chosen "$name"; then part "$name" "${seconds[$name]}" "$python" "${script[@]}"; fi
done
! grep -q '": "\(failed\|stopped\)' "$parts"
