#!/usr/bin/env bash
# Trains on Cloud TPU VMs with gcloud.
#
#   launch/tpu_vm.sh ACTION NAME [--zone=ZONE] [--type=v5litepod-256] [--version=v2-alpha-tpuv5-lite] [--bucket=NAME] \
#       [--spot] [--dry-run] [-- flags of python -m vlp_jax.main ...]
#
# create   makes the TPU at once.              queue   asks for it; it is made when there is room.
# status   how far that is.                    install copies this checkout to every worker and installs it.
# run      starts training on every worker; it goes on when this shell ends, and starts again by itself after status 143 or 75.
# logs     follows worker 0's output.          stop    tells every worker to save and leave.
# resume   after a preemption: deletes what is left, asks for it again, installs and runs, with the same flags.
# delete   gives the TPU back.
#
# Needs git, and gcloud with a project (gcloud config set project ...). The workdir must be a folder that every worker sees:
# --bucket=NAME mounts that bucket at /mnt/NAME on every worker (install), for --workdir=/mnt/NAME/runs/clip_b16.
# --dry-run prints the commands.
set -euo pipefail

usage="usage: launch/tpu_vm.sh create|queue|status|install|run|logs|stop|resume|delete NAME [--zone=ZONE] [--type=TYPE] [-- flags]"
action="${1:-}" name="${2:-}"
if [[ -z "$action" || -z "$name" || "$name" == -* ]]; then
  echo "$usage" >&2
  exit 2
fi
shift 2
zone=us-west4-a type=v5litepod-256 version=v2-alpha-tpuv5-lite bucket="" spot=() dry_run=false arguments=()
while (($#)); do
  case "$1" in
    --zone=*) zone="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --bucket=*) bucket="${1#*=}" ;;
    --spot) spot=(--spot) ;;
    --dry-run) dry_run=true ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    *)
      echo "unknown flag $1; $usage" >&2
      exit 2
      ;;
  esac
  shift
done

do_it() {
  if $dry_run; then printf '%q ' "$@" && echo; else "$@"; fi
}

on_workers() { # WORKER COMMAND
  do_it gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

create() {
  do_it gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$type" --version="$version" "${spot[@]}"
}

queue() {
  do_it gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" --accelerator-type="$type" \
    --runtime-version="$version" "${spot[@]}"
}

wait_until_active() {
  local state=""
  if $dry_run; then
    echo "# wait until the queued resource is ACTIVE"
    return
  fi
  while [[ "$state" != ACTIVE ]]; do
    state="$(gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format='value(state.state)')"
    if [[ "$state" == FAILED || "$state" == SUSPENDED ]]; then
      echo "queued resource $name is $state" >&2
      exit 1
    fi
    sleep 30
  done
}

install() {
  local archive
  archive="$(mktemp -d)/vlp_jax.tar.gz"
  do_it git archive --format=tar.gz --output="$archive" HEAD
  do_it gcloud compute tpus tpu-vm scp "$archive" "$name:vlp_jax.tar.gz" --zone="$zone" --worker=all
  on_workers all "mkdir -p vlp_jax && tar -xzf vlp_jax.tar.gz -C vlp_jax && cd vlp_jax && python3.11 -m venv .venv && \
.venv/bin/pip install -q '.[tpu]'"
  if [[ -n "$bucket" ]]; then
    on_workers all "sudo apt-get install -y -q gcsfuse && sudo mkdir -p /mnt/$bucket && sudo chmod a+rwx /mnt/$bucket && \
gcsfuse --implicit-dirs $bucket /mnt/$bucket"
  fi
}

run() {
  local flags loop
  if [[ " ${arguments[*]} " != *" --config="* || " ${arguments[*]} " != *" --workdir="* ]]; then
    echo "--config=FILE and --workdir=DIR are needed behind --; $usage" >&2
    exit 2
  fi
  # A loop of its own on every worker: it starts the run again as long as that was only told to stop, or hung.
  printf -v flags '%q ' "${arguments[@]}"
  loop="status=143; while [ \$status = 143 ] || [ \$status = 75 ]; do test -e stop && break; \
.venv/bin/python -m vlp_jax.main $flags; status=\$?; done; rm -f stop"
  printf -v loop '%q' "$loop"
  on_workers all "cd vlp_jax && nohup bash -c $loop > run.log 2>&1 < /dev/null &"
}

case "$action" in
  create) create ;;
  queue) queue ;;
  status) do_it gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format="value(state.state)" ;;
  install) install ;;
  run) run ;;
  logs) on_workers 0 "tail -n 100 -f vlp_jax/run.log" ;;
  stop) on_workers all "touch vlp_jax/stop; pkill -TERM -f 'python -m vlp_jax.main'" ;;
  resume)
    do_it gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
    queue
    wait_until_active
    install
    run
    ;;
  delete)
    do_it gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet ||
      do_it gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet
    ;;
  *)
    echo "unknown action $action; $usage" >&2
    exit 2
    ;;
esac
