"""Counts of collectives in compiled programs, against programs whose traffic is known."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlp_jax.sharding.collective_counts import collective_counts, crossing_bytes, result_bytes

MESH = Mesh(np.array(jax.devices()[:8]), ("x",))


def counted(function, *shapes):
    spec = PartitionSpec("x")
    mapped = jax.shard_map(function, mesh=MESH, in_specs=(spec,) * len(shapes), out_specs=PartitionSpec(), check_vma=False)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, spec)) for shape in shapes]
    return collective_counts(jax.jit(mapped).lower(*arguments).compile().as_text())


def test_one_sum_is_one_all_reduce_of_its_bytes():
    assert counted(lambda x: jax.lax.psum(x, "x"), (8, 6)) == {"all-reduce": {"count": 1, "bytes": 24}}


def test_a_loop_counts_as_often_as_it_turns():
    def ring(x):
        def turn(x, _):
            return jax.lax.ppermute(jnp.sin(x), "x", [(i, (i + 1) % 8) for i in range(8)]), None

        return jax.lax.psum(jax.lax.scan(turn, x, length=5)[0], "x")

    counts = counted(ring, (16, 6))
    assert counts["collective-permute"] == {"count": 5, "bytes": 5 * 2 * 6 * 4}
    assert counts["all-reduce"] == {"count": 1, "bytes": 48}
    assert crossing_bytes(counts) == 5 * 48 + 2 * 48


def test_a_program_of_one_device_sends_nothing():
    assert collective_counts(jax.jit(jnp.sin).lower(jnp.ones(3)).compile().as_text()) == {}


def test_what_starts_a_collective_shows_its_operands_and_then_its_results():
    started = "(bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[32,8]{1,0:T(8,128)(2,1)}, u32[]{:T(128)}, u32[]{:T(128)})"
    assert result_bytes(started, "all-gather", started=True) == 32 * 8 * 2
    assert result_bytes("(f32[12,768]{1,0}, f32[3]{0})", "all-reduce", started=False) == (12 * 768 + 3) * 4
