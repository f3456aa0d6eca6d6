#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under nine minutes on one H100:
#
#     bash benchmarks/on_gpu.sh                               # the GPU tests, then the speed of two shapes
#     bash benchmarks/on_gpu.sh --out results/h100            # where its files go (default build/on_gpu)
#     bash benchmarks/on_gpu.sh --device cpu --rehearse       # the same with tiny models, on a CPU
#
# A finished part leaves a file in OUT/done, and a second call goes on after it. No part may take longer
# than its limit, nor all together longer than --seconds (default 520). Models have random weights in the
# real shapes: nothing is fetched but Python packages, and those only where they are not there already.
set -uo pipefail
cd "$(dirname "$0")/.."

out=build/on_gpu device=cuda rehearse=no seconds=520
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --rehearse) rehearse=yes; shift ;;
    *) echo "unknown option '$1'; the options are --out, --device, --seconds and --rehearse" >&2; exit 2 ;;
  esac
done
mkdir -p "$out/done"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
ends=$((SECONDS + seconds))
failed=0

# part NAME LIMIT COMMAND…: run it unless it is done; at most LIMIT seconds, and no longer than all may take.
part() {
  local name=$1 limit=$2 left=$((ends - SECONDS))
  shift 2
  if [ -e "$out/done/$name" ]; then echo "== $name: done before"; return; fi
  if [ $left -lt 10 ]; then echo "== $name: no time left; call again to go on"; failed=1; return; fi
  echo "== $name"
  local began=$SECONDS status
  timeout --kill-after=5 $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
  status=$?
  tail -n 20 "$out/$name.log"
  if [ $status -eq 0 ]; then
    echo "$((SECONDS - began)) s" >"$out/done/$name"
  else
    echo "== $name: failed with $status after $((SECONDS - began)) s; its log is $out/$name.log"
    failed=1
  fi
}

# An environment: the one that is here, the python of the machine, or a new one.
needed='import accelerate, beartype, hypothesis, jaxtyping, peft, pytest, regex, rich, torch, transformers, typer, yaml, pyarrow'
for python in .venv/bin/python build/gpu-venv/bin/python python3; do
  "$python" -c "$needed" 2>/dev/null && break
  python=
done
if [ -z "$python" ]; then
  python=build/gpu-venv/bin/python
  # A torch that the machine has of its own knows its GPU, and stays.
  python3 -c 'import torch' 2>/dev/null && own='^torch==' || own='^$'
  grep -v "$own" constraints.txt >"$out/constraints.txt"
  part setup 300 sh -c "python3 -m venv --system-site-packages build/gpu-venv &&
    $python -m pip install -q -c $out/constraints.txt '.[test]'"
  "$python" -c "$needed" || { echo "The packages that are needed could not be installed." >&2; exit 1; }
fi
if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "PyTorch sees no GPU here; --device cpu --rehearse tries the script without one." >&2
  exit 1
fi

mapfile -t tests < <(grep -rl 'mark.gpu' tests --include='*.py')
part tests 150 "$python" -m pytest -q -m gpu "${tests[@]}"

# speed SHAPE LIMIT SECONDS ROW…: each of the rows for about SECONDS, in a process of its own.
speed() {
  local shape=$1 limit=$2 row=$3 rows
  shift 3
  for rows in "$@"; do
    part "$shape-${rows//[\/,]/_}" "$limit" "$python" -m benchmarks.speed --device "$device" \
      --shape "$shape" --only "$rows" --seconds "$row" --json "$out/speed-$shape.json"
  done
}

if [ $rehearse = yes ]; then
  speed tiny 90 0.2 forward/1x64,decode generate
else
  # The shortest first, and of each shape what it is judged by; memory last, a process for each case.
  speed llama-135m 60 5 decode,graph forward/1x256,forward/1x1024 generate train
  speed llama-8b 90 8 decode,graph forward/1x256 forward/1x1024 train
  speed llama-135m 60 5 trace memory/train
fi

shopt -s nullglob
reports=("$out"/speed-*.json)
if [ ${#reports[@]} -gt 0 ]; then
  "$python" -m benchmarks.speed.tables "$out/speed.md" "${reports[@]}" && echo "The tables are in $out/speed.md."
fi
exit $failed
