#!/usr/bin/env bash
# Trains on Cloud TPU VMs with gcloud.
#
#   launch/tpu_vm.sh ACTION NAME [--zone=us-west4-a] [--type=v5litepod-256] [--version=v2-alpha-tpuv5-lite] [--bucket=NAME] \
#       [--spot] [--restarts=10] [--dry-run] [-- flags of python -m vlp_jax.main ...]
#
# create   makes the TPU at once.              queue   asks for it; it is made when there is room.
# status   how far that is.                    install copies this working tree to every worker and installs it.
# run      starts training on every worker; it goes on when this shell ends. After any exit status but 0 and 2 it starts again,
#          at most --restarts times without a new checkpoint. A worker on which a run is going on refuses.
# logs     follows worker 0's output.          stop    has every worker save and leave, and waits for that.
# resume   after a preemption: deletes what is left, makes or queues the same again, installs and runs. Give the flags of `run`
#          (and --bucket); type, version and spot are those of what is there, unless flags say otherwise.
# delete   gives the TPU back.
#
# Needs git, and gcloud with a project (gcloud config set project ...). The workdir is in a bucket,
# --workdir=gs://NAME/runs/clip_b16, which the workers' service account reads and writes. --bucket=NAME mounts that bucket at
# /mnt/NAME on every worker (install), for data that need files, or for --workdir=/mnt/NAME/runs/clip_b16.
# --dry-run prints the commands.
set -euo pipefail

usage="usage: launch/tpu_vm.sh create|queue|status|install|run|logs|stop|resume|delete NAME [--zone=ZONE] [--type=TYPE] [-- flags]"
mistaken() { # WHAT
  echo "$1; $usage" >&2
  exit 2
}
action="${1:-}" name="${2:-}"
if [[ -z "$action" || -z "$name" || "$name" == -* ]]; then mistaken "an action and a name are needed"; fi
shift 2
zone=us-west4-a type="" version="" bucket="" spot="" restarts=10 dry_run=false arguments=()
while (($#)); do
  case "$1" in
    --zone=*) zone="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --bucket=*) bucket="${1#*=}" ;;
    --restarts=*) restarts="${1#*=}" ;;
    --spot) spot=--spot ;;
    --dry-run) dry_run=true ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    *) mistaken "unknown flag $1" ;;
  esac
  shift
done
if [[ ! "$restarts" =~ ^[0-9]{1,6}$ ]]; then mistaken "--restarts: $restarts is not a number"; fi

do_it() {
  if $dry_run; then printf '%q ' "$@" && echo; else "$@"; fi
}

on_workers() { # WORKER COMMAND
  do_it gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

queued_resource() { # VERB FLAGS...
  do_it gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"
}

tpu_vm() { # VERB FLAGS...
  do_it gcloud compute tpus tpu-vm "$1" "$name" --zone="$zone" "${@:2}"
}

check_what_is_made() {
  if [[ -z "$version" && "${type:-v5litepod-256}" != v5litepod-* ]]; then
    mistaken "--version is missing: the software of the workers, which for --type=$type is another than for v5litepod-256"
  fi
  type="${type:-v5litepod-256}" version="${version:-v2-alpha-tpuv5-lite}"
}

create() {
  tpu_vm create --accelerator-type="$type" --version="$version" ${spot:+"$spot"}
}

queue() {
  queued_resource create --node-id="$name" --accelerator-type="$type" --runtime-version="$version" ${spot:+"$spot"}
}

# What `queue` made, and where there is no such thing what `create` made; a dry run shows both commands.
status() {
  { queued_resource describe --format="value(state.state)" && ! $dry_run; } || tpu_vm describe --format="value(state)"
}

delete() {
  { queued_resource delete --force --quiet && ! $dry_run; } || tpu_vm delete --quiet
}

# Sets `make` to queue or create, whichever made what is there, and takes type, version and spot from it where no flag gave them.
read_what_was_made() {
  local made
  make=queue
  if $dry_run; then
    echo "# type, version and spot that no flag gives are read from one of these, and it is made again in the same way"
    queued_resource describe
    tpu_vm describe
  elif made="$(queued_resource describe --format=yaml)" || { make=create && made="$(tpu_vm describe --format=yaml)"; }; then
    type="${type:-$(sed -n 's/^[ -]*acceleratorType: *//p' <<<"$made")}"
    version="${version:-$(sed -n 's/^[ -]*runtimeVersion: *//p' <<<"$made")}"
    if [[ -z "$type" || -z "$version" ]]; then mistaken "--type and --version are missing: $name does not say its own"; fi
    if grep -Eq '^ *spot: *(\{\}|true)' <<<"$made"; then spot=--spot; fi
  else
    mistaken "$name: neither a queued resource nor a TPU VM in zone $zone that could be resumed"
  fi
}

resume() {
  local make
  check_run_flags
  if [[ -z "$bucket" && " ${arguments[*]}" == *" --workdir=/mnt/"* ]]; then
    mistaken "--bucket=NAME is missing: the workdir lies below /mnt, where the new workers would have nothing mounted"
  fi
  read_what_was_made
  check_what_is_made
  if [[ "$make" == queue ]]; then queued_resource delete --force --quiet; else tpu_vm delete --quiet; fi
  "$make"
  if [[ "$make" == queue ]]; then wait_until_active; fi
  install
  run
}

wait_until_active() {
  local state
  if $dry_run; then
    echo "# wait until it is ACTIVE"
    return
  fi
  while true; do
    state="$(queued_resource describe --format="value(state.state)")"
    case "$state" in
      ACTIVE) return ;;
      FAILED | SUSPENDED)
        echo "queued resource $name is $state" >&2
        exit 1
        ;;
    esac
    sleep 30
  done
}

# Copies the working tree as it is, uncommitted changes included: what git tracks, and new files beside code and configs.
install() {
  local archive="${TMPDIR:-/tmp}/vlp_jax.$$.tar.gz" root files existing
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  files="git ls-files -z && git ls-files -z --others --exclude-standard -- vlp_jax configs launch"
  existing="while IFS= read -r -d '' file; do if [ -e \"\$file\" ]; then printf '%s\\0' \"\$file\"; fi; done"
  do_it bash -o pipefail -c "cd $(printf %q "$root") && { $files; } | $existing | tar --null -T - -czf $(printf %q "$archive")"
  do_it gcloud compute tpus tpu-vm scp "$archive" "$name:vlp_jax.tar.gz" --zone="$zone" --worker=all
  do_it rm -f "$archive"
  on_workers all "mkdir -p vlp_jax && tar -xzf vlp_jax.tar.gz -C vlp_jax && bash vlp_jax/launch/tpu_worker.sh install $bucket"
}

check_run_flags() {
  if [[ " ${arguments[*]-} " != *" --config="* || " ${arguments[*]-} " != *" --workdir="* ]]; then
    mistaken "--config=FILE and --workdir=DIR are needed behind --"
  fi
}

run() {
  local flags
  printf -v flags '%q ' "${arguments[@]}"
  on_workers all "bash vlp_jax/launch/tpu_worker.sh run $restarts $flags"
}

case "$action" in
  create | queue)
    check_what_is_made
    "$action"
    ;;
  run)
    check_run_flags
    run
    ;;
  status | install | resume | delete) "$action" ;;
  logs) on_workers 0 "tail -n 100 -F vlp_jax/run.log" ;;
  stop) on_workers all "bash vlp_jax/launch/tpu_worker.sh stop" ;;
  *) mistaken "unknown action $action" ;;
esac
