"""Shows the devices that JAX finds: `python -m vlp_jax.hardware.devices tpu|gpu|cpu`.

`launch/install.sh` ends with it. On the VMs of one TPU it waits until all of them ask.
"""

import sys

import jax

from vlp_jax.hardware.chips import chip_of
from vlp_jax.printing import safe_print as print


def main(arguments: list[str]) -> int:
    """Prints a line about the devices.

    Args:
      arguments: the platform that is expected, `tpu`, `gpu` or `cpu`.
    Returns: the exit status: 1 where JAX finds no such device.
    """
    (platform,) = arguments
    try:
        devices = jax.devices()
    except RuntimeError as error:
        print(f"JAX finds no {platform}: {error}", file=sys.stderr)
        return 1
    if devices[0].platform != platform:
        print(
            f"JAX finds no {platform}, only {described(devices)}; its warnings above, or "
            "JAX_PLATFORMS, say why",
            file=sys.stderr,
        )
        return 1
    print(described(devices))
    return 0


def described(devices: list[jax.Device]) -> str:
    """`8 x TPU v5e (4 here), 197 Tflops and 17.2 GB each; jax 0.10.2`."""
    kind, here = devices[0].device_kind, len(jax.local_devices())
    chip = chip_of(kind)
    peaks = (
        f"{chip.flops / 1e12:g} Tflops and {chip.memory_bytes / 1e9:.3g} GB each"
        if chip
        else "without known peaks"
    )
    return f"{len(devices)} x {kind} ({here} here), {peaks}; jax {jax.__version__}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
