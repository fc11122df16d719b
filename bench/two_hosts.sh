#!/bin/bash
# Two hosts in one machine: network namespaces with addresses of their own train together, the link
# between them is cut, both end, and the run goes on. For root on Linux, with `ip` installed.
#
#   bench/two_hosts.sh [PYTHON]
#
# Prints a line for each thing seen; the exit status is 1 if any was missed.
set -u
python=${1:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
first=pydenoise-first second=pydenoise-second
missed=0

clean() {
    for host in $first $second; do
        ip netns pids $host 2>/dev/null | xargs -r kill -9 2>/dev/null
        ip netns del $host 2>/dev/null
    done
    rm -rf "$folder"
}
trap clean EXIT

see() {  # see WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then echo "seen    $what"; else echo "MISSED  $what"; missed=1; fi
}

ip netns add $first && ip netns add $second || exit 1
ip link add to-second netns $first type veth peer name to-first netns $second
ip -n $first addr add 10.77.0.1/24 dev to-second
ip -n $second addr add 10.77.0.2/24 dev to-first
for host in $first $second; do ip -n $host link set lo up; done
ip -n $first link set to-second up
ip -n $second link set to-first up

cd "$folder" || exit 1
PYTHONPATH=$here $python - <<'EOF'
import numpy as np
from pathlib import Path
from pydenoise.data import write

Path("pictures").mkdir()
numbers = np.random.default_rng(0)
for index in range(4):
    coarse = numbers.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    write(Path(f"pictures/{index}.png"), coarse.repeat(4, 0).repeat(4, 1))
EOF

words=(train pictures --noise gauss:25 --hold-out 1 --crop 16 --channels "8,12" --batch-size 8
    --pairs-count 64 --average 0.9 --seed 5 --checkpoint-every 0 --deterministic)

start() {  # start HOST NUMBER INTERFACE WORD... : one process of two on a host
    local host=$1 number=$2 interface=$3
    shift 3
    ip netns exec "$host" env PYTHONPATH="$here" GLOO_SOCKET_IFNAME="$interface" \
        "$python" -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --node-rank="$number" \
        --master-addr=10.77.0.1 --master-port=29511 -m pydenoise "${words[@]}" "$@" \
        >"host$number.txt" 2>&1 &
}

both() {  # both WORD...
    start $first 0 to-second "$@"; one=$!
    start $second 1 to-first "$@"; two=$!
}

both --epochs 100000 -o run
for _ in $(seq 600); do
    [ "$(ls run/checkpoints/*.json 2>/dev/null | wc -l)" -gt 1 ] && break
    sleep 0.1
done
see "two hosts train together" test "$(ls run/checkpoints/*.json 2>/dev/null | wc -l)" -gt 1

began=$(date +%s)
ip -n $first link set to-second down
wait $one; code_one=$?
wait $two; code_two=$?
took=$(($(date +%s) - began))
see "both end behind the cut, in $took s, within 60" test $took -le 60
see "with exit codes $code_one and $code_two, not 0" test $code_one -ne 0 -a $code_two -ne 0
see "the first says who is lost" grep -q "error: rank 1 was killed or cannot be reached" host0.txt
see "so does the second" grep -q "error: rank 0 was killed or cannot be reached" host1.txt

ip -n $first link set to-second up
steps() { ls run/checkpoints/*.json | sed 's/[^0-9]*0*\([0-9]*\)\.json/\1/' | sort -n | tail -1; }
before=$(steps)
both --epochs 100000 -o run --resume
for _ in $(seq 600); do
    [ "$(steps)" -gt $((before + 8)) ] && break
    sleep 0.1
done
see "the run goes on, from step $before" test "$(steps)" -gt $((before + 8))
kill $one $two
wait $one $two

both --epochs 6 -o short
wait $one $two
ip netns exec $first env PYTHONPATH="$here" $python -m pydenoise "${words[@]}" --epochs 6 -o one \
    >/dev/null 2>&1
see "two hosts come to the weights of one process" cmp -s short/model.safetensors one/model.safetensors
[ $missed -eq 0 ] || tail -n 5 host0.txt host1.txt
exit $missed
