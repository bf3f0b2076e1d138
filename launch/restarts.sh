#!/usr/bin/env bash
# When a run starts again; read by local_multiprocess.sh and tpu_worker.sh. RESTART_PAUSE: seconds before a new
# start. PYTHON: the Python that looks into a workdir in a bucket.

# At most LIMIT restarts without a new checkpoint in WORKDIR.
count_restarts() { # LIMIT WORKDIR
  limit="$1" workdir="$2" restarts=0
  reached="$(newest_checkpoint)"
}

# The step of the newest checkpoint in the workdir, or -1; the one known before where its bucket does not answer.
newest_checkpoint() {
  local path newest=-1
  if [[ "$workdir" == *://* ]]; then
    "${PYTHON:-python}" -m vlp_jax.storage.newest "$workdir" || echo "${reached:--1}"
    return
  fi
  for path in "$workdir"/checkpoints/*; do
    path="${path##*/}"
    if [[ "$path" =~ ^[0-9]+$ ]] && ((10#$path > newest)); then newest=$((10#$path)); fi
  done
  echo "$newest"
}

# Whether a run that left with STATUS starts again: not after 0 and 2, and not once the restarts are used up.
starts_again() { # STATUS
  local newest
  if (($1 == 0 || $1 == 2)); then return 1; fi
  newest="$(newest_checkpoint)"
  if ((newest > reached)); then restarts=0 reached=$newest; fi
  if ((restarts >= limit)); then
    echo "status $1: not started again, $restarts restarts brought no new checkpoint" >&2
    return 1
  fi
  restarts=$((restarts + 1))
  echo "status $1: starts again in ${RESTART_PAUSE:-10} s, restart $restarts of $limit since the newest checkpoint" >&2
}

# The exit status of PID, also where a signal to this script interrupts the wait.
wait_for() { # PID
  local status=0
  wait "$1" || status=$?
  while kill -0 "$1" 2>/dev/null; do
    status=0
    wait "$1" || status=$?
  done
  return "$status"
}

# Like sleep, but a signal that is trapped ends it.
pause() {
  sleep "${RESTART_PAUSE:-10}" &
  wait $! || true
}
