#!/usr/bin/env bash
# The part of tpu_vm.sh that runs on each TPU VM, in the checkout that was copied there:
#
#   launch/tpu_worker.sh install [BUCKET]        by install.sh; mounts the bucket at /mnt/BUCKET
#   launch/tpu_worker.sh run RESTARTS FLAGS...   starts a loop around the training that goes on when the shell ends; run.log
#   launch/tpu_worker.sh stop                    has the training save and leave, and the loop end; waits for both
#
# run.lock is held by the loop and the training, as long as one of them lives; run.pid is the loop's number.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
source launch/restarts.sh
# shellcheck disable=SC2034 # read by restarts.sh
PYTHON=.venv/bin/python

install() { # [BUCKET]
  launch/install.sh tpu,gcs
  if (($#)); then mount_bucket "$1"; fi
}

mount_bucket() { # BUCKET
  local packages=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
  if ! command -v gcsfuse >/dev/null; then
    curl -fsSL "$packages/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
    sudo apt-get update -q
    sudo apt-get install -y -q gcsfuse
  fi
  if ! mountpoint -q "/mnt/$1"; then
    sudo mkdir -p "/mnt/$1"
    sudo chmod a+rwx "/mnt/$1"
    # Orbax commits a checkpoint by renaming its folder, which gcsfuse refuses by default in a bucket without folders.
    gcsfuse --implicit-dirs --rename-dir-limit=200000 "$1" "/mnt/$1"
  fi
}

run() { # RESTARTS FLAGS...
  exec 9>run.lock
  if ! flock -n 9; then
    echo "a run is going on here, or still saving (run.log); stop it first" >&2
    exit 1
  fi
  setsid bash launch/tpu_worker.sh loop "$@" >>run.log 2>&1 </dev/null &
  echo $! >run.pid
}

loop() { # RESTARTS FLAGS...
  local stopping=false status argument
  for argument in "$@"; do
    if [[ "$argument" == --workdir=* ]]; then count_restarts "$1" "${argument#*=}"; fi
  done
  shift
  trap 'stopping=true; kill -TERM $! 2>/dev/null || true' TERM
  while ! $stopping; do
    status=0
    .venv/bin/python -m vlp_jax.main "$@" &
    if $stopping; then kill -TERM $!; fi # the signal came before there was a process to pass it to
    wait_for $! || status=$?
    if $stopping || ! starts_again "$status"; then break; fi
    pause
  done
  echo "the run has ended with status $status" >&2
}

stop() {
  if flock -n run.lock true; then
    echo "nothing runs here"
    return
  fi
  kill -TERM "$(cat run.pid)"
  if ! flock -w 600 run.lock true; then
    echo "told to stop 10 minutes ago, and still not gone (run.log)" >&2
    exit 1
  fi
}

"$@"
