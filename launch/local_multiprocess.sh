#!/usr/bin/env bash
# Trains with several processes on this machine's CPU, as several hosts would: a rehearsal. GPUs need none: one process uses all.
#
#   launch/local_multiprocess.sh [--processes=2] [--devices=4] [--port=8476] [--restarts=10] [--dry-run] \
#       --config=configs/clip_emoji.py --workdir=runs/two [--accept-changes] [--config.KEY=VALUE ...]
#
# --devices: virtual CPU devices of each process. --restarts: how often all start again without a new checkpoint, after any status
# but 0 and 2 (a mistake): one was told to stop, hung, or died; the run goes on from its last checkpoint. PYTHON chooses the
# interpreter, JAX_PLATFORMS is cpu unless it is set. Output of process I > 0 is added to WORKDIR.processI.log; process 0 speaks
# here. SIGTERM and Ctrl-C reach every process, and end this.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/restarts.sh"

mistaken() { # WHAT
  echo "$1; usage: launch/local_multiprocess.sh [--processes=2] [--devices=4] [--port=8476] [--restarts=10] [--dry-run]" \
    "--config=FILE --workdir=DIR [--accept-changes] [--config.KEY=VALUE ...]" >&2
  exit 2
}

number() { # FLAG=VALUE LEAST: the value
  local value="${1#*=}"
  if [[ ! "$value" =~ ^[0-9]{1,5}$ ]] || ((10#$value < $2)); then mistaken "${1%%=*}: '$value' is not a number from $2"; fi
  echo "$((10#$value))"
}

processes=2 devices=4 port=8476 restart_limit=10 dry_run=false workdir="" arguments=()
for argument in "$@"; do
  case "$argument" in
    --processes=*) processes="$(number "$argument" 1)" ;;
    --devices=*) devices="$(number "$argument" 1)" ;;
    --port=*) port="$(number "$argument" 1)" ;;
    --restarts=*) restart_limit="$(number "$argument" 0)" ;;
    --dry-run) dry_run=true ;;
    --config | --config=* | --config.* | --workdir=* | --accept-changes)
      if [[ "$argument" == --workdir=* ]]; then workdir="${argument#*=}"; fi
      arguments+=("$argument")
      ;;
    --*) mistaken "unknown flag $argument" ;;
    *) arguments+=("$argument") ;; # the value of a flag
  esac
done
if [[ -z "$workdir" ]]; then mistaken "--workdir=DIR is missing"; fi
export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices" JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"

command=("${PYTHON:-python}" -m vlp_jax.main "--coordinator=127.0.0.1:$port" "--num-processes=$processes")
if $dry_run; then
  for ((i = 0; i < processes; i++)); do
    printf 'XLA_FLAGS=%q JAX_PLATFORMS=%q ' "$XLA_FLAGS" "$JAX_PLATFORMS"
    printf '%q ' "${command[@]}" "--process-id=$i" "${arguments[@]}" && echo
  done
  exit 0
fi

pids=() stopping=false
stop_all() {
  stopping=true
  kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap stop_all TERM INT

# Starts every process, waits for all, and returns 2 if one left with that, else the first status that is not 0, or 0.
run_once() {
  local i status=0 one
  pids=()
  for ((i = 0; i < processes; i++)); do
    if ((i == 0)); then
      "${command[@]}" "--process-id=$i" "${arguments[@]}" &
    else
      "${command[@]}" "--process-id=$i" "${arguments[@]}" >>"$logs.process$i.log" 2>&1 &
    fi
    pids+=($!)
  done
  for i in "${!pids[@]}"; do
    one=0
    wait_for "${pids[$i]}" || one=$?
    if ((status == 0 || one == 2)); then status=$one; fi
  done
  return "$status"
}

logs="$workdir"
if [[ "$workdir" == *://* ]]; then logs="${workdir##*/}"; fi # in this folder
mkdir -p "$(dirname "$logs")"
count_restarts "$restart_limit" "$workdir"
while true; do
  status=0
  run_once || status=$?
  if $stopping || ! starts_again "$status"; then exit "$status"; fi
  pause
  if $stopping; then exit "$status"; fi
done
