#!/usr/bin/env bash
# Python and what this checkout needs, in .venv, on a fresh machine; then shows the devices that JAX finds:
#
#   launch/install.sh cuda12        a machine with NVIDIA GPUs and their driver; cuda12,gcs for workdirs in a bucket
#   launch/install.sh tpu,gcs       a TPU VM
#
# Where there is no Python 3.11 with venv, uv brings one. Fails where JAX finds only the CPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
case ",$extras," in
  *,tpu,*) platform=tpu ;;
  *,cuda12,*) platform=gpu ;;
  *)
    echo "usage: launch/install.sh tpu|cuda12[,EXTRA...]" >&2
    exit 2
    ;;
esac
if [[ ! -x .venv/bin/python ]]; then
  if python3.11 -c 'import ensurepip' 2>/dev/null; then # not on every image of TPU VMs
    python3.11 -m venv .venv
  else
    PATH="$HOME/.local/bin:$PATH"
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    uv venv --quiet --seed --python 3.11 .venv
  fi
fi
.venv/bin/python -m pip install -q ".[$extras]"
if [[ -e run.lock ]] && ! flock -n run.lock true; then
  echo "a run holds the devices here, so they are not looked at"
else
  .venv/bin/python -m vlp_jax.hardware.devices "$platform"
fi
