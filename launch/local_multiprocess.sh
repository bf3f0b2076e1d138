#!/usr/bin/env bash
# Trains with several processes on this machine, as several hosts would: a rehearsal on CPUs, or one process a GPU.
#
#   launch/local_multiprocess.sh [--processes=2] [--devices=4] [--port=8476] [--restarts=0] [--dry-run] \
#       --config=configs/clip_emoji.py --workdir=runs/two [flags of python -m vlp_jax.main ...]
#
# --devices: virtual CPU devices of each process. --restarts: how often all start again after status 143 (told to stop), 75 (a step
# that hung, with watchdog.exit) or the death of a process; the run goes on from its last checkpoint. PYTHON chooses the interpreter.
# Output of process I > 0 goes to WORKDIR.processI.log; process 0 speaks here. SIGTERM and Ctrl-C reach every process.
set -euo pipefail

processes=2 devices=4 port=8476 restarts=0 dry_run=false workdir="" arguments=()
for argument in "$@"; do
  case "$argument" in
    --processes=*) processes="${argument#*=}" ;;
    --devices=*) devices="${argument#*=}" ;;
    --port=*) port="${argument#*=}" ;;
    --restarts=*) restarts="${argument#*=}" ;;
    --dry-run) dry_run=true ;;
    *)
      [[ "$argument" == --workdir=* ]] && workdir="${argument#*=}"
      arguments+=("$argument")
      ;;
  esac
done
if [[ -z "$workdir" ]]; then
  echo "--workdir=DIR is missing; usage: launch/local_multiprocess.sh --config=FILE --workdir=DIR" >&2
  exit 2
fi
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"

command_of() {
  echo "${PYTHON:-python}" -m vlp_jax.main "--coordinator=127.0.0.1:$port" "--num-processes=$processes" "--process-id=$1"
}

if $dry_run; then
  for ((i = 0; i < processes; i++)); do
    echo "XLA_FLAGS='${XLA_FLAGS# }' $(command_of "$i") ${arguments[*]}"
  done
  exit 0
fi

pids=() stopping=false
stop_all() {
  stopping=true
  kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap stop_all TERM INT

# Starts every process, waits for all, and returns the first status that is not 0, or 0.
run_once() {
  local i status=0 one
  pids=()
  mkdir -p "$(dirname "$workdir")"
  for ((i = 0; i < processes; i++)); do
    if ((i == 0)); then
      # shellcheck disable=SC2046 # the words of command_of are the words of the command
      $(command_of "$i") "${arguments[@]}" &
    else
      # shellcheck disable=SC2046
      $(command_of "$i") "${arguments[@]}" >"$workdir.process$i.log" 2>&1 &
    fi
    pids+=($!)
  done
  for i in "${!pids[@]}"; do
    one=0
    wait "${pids[$i]}" || one=$?
    while kill -0 "${pids[$i]}" 2>/dev/null; do # a signal to this script ended the wait, not the process
      one=0
      wait "${pids[$i]}" || one=$?
    done
    if ((one != 0 && status == 0)); then status=$one; fi
  done
  return "$status"
}

for ((attempt = 0; ; attempt++)); do
  status=0
  run_once || status=$?
  if ((status == 0 || status == 2 || attempt >= restarts)) || $stopping; then
    exit "$status"
  fi
  echo "status $status: all $processes processes start again (${attempt}/${restarts} restarts so far)" >&2
done
