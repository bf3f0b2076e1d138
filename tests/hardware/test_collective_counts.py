"""Counts of collectives in compiled programs, against programs whose traffic is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlp_jax.hardware.collective_counts import (
    collective_counts,
    read_collective,
    result_bytes,
    traffic,
)
from vlp_jax.hardware.replica_groups import groups_of, pairs_of

MESH = Mesh(np.array(jax.devices()[:8]), ("x",))
HOSTS_OF_FOUR = [0] * 4 + [1] * 4


def counted(function, *shapes, islands=None, out=None):
    spec, out = PartitionSpec("x"), out or PartitionSpec()
    mapped = jax.shard_map(
        function, mesh=MESH, in_specs=(spec,) * len(shapes), out_specs=out, check_vma=False
    )
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, spec))
        for shape in shapes
    ]
    return collective_counts(jax.jit(mapped).lower(*arguments).compile().as_text(), islands)


def test_one_sum_is_one_all_reduce_of_which_each_device_sends_seven_eighths_twice():
    assert counted(lambda x: jax.lax.psum(x, "x"), (8, 16)) == {
        "all-reduce": {"count": 1, "bytes": 64, "sent_bytes": 112, "network_bytes": 0}
    }


def test_scattered_or_gathered_arrays_are_counted_whole_but_for_the_devices_own_part():
    expected = {"count": 1, "bytes": 8 * 16 * 4, "sent_bytes": 7 * 16 * 4, "network_bytes": 0}
    scattered = counted(
        lambda x: jax.lax.psum_scatter(x, "x", tiled=True), (64, 16), out=PartitionSpec("x")
    )
    assert scattered == {"reduce-scatter": expected}
    assert counted(lambda x: jax.lax.all_gather(x, "x", tiled=True), (8, 16)) == {
        "all-gather": expected
    }


def test_a_loop_counts_as_often_as_it_turns_and_a_conditional_with_all_its_branches():
    def ring(x):
        def turn(x, _):
            return jax.lax.ppermute(jnp.sin(x), "x", [(i, (i + 1) % 8) for i in range(8)]), None

        x = jax.lax.scan(turn, x, length=5)[0]
        return jax.lax.switch(
            x[0, 0].astype(int), [lambda x: jax.lax.psum(x, "x"), lambda x: jax.lax.pmax(x, "x")], x
        )

    counts = counted(ring, (16, 6))
    assert counts["collective-permute"] == {
        "count": 5,
        "bytes": 240,
        "sent_bytes": 240,
        "network_bytes": 0,
    }
    assert counts["all-reduce"] == {"count": 2, "bytes": 96, "sent_bytes": 168, "network_bytes": 0}


def test_between_hosts_each_device_sends_its_share_and_a_ring_that_crosses_them_all_of_it():
    counts = counted(lambda x: jax.lax.psum(x, "x"), (8, 16), islands=HOSTS_OF_FOUR)
    assert counts["all-reduce"] == {"count": 1, "bytes": 64, "sent_bytes": 96, "network_bytes": 16}
    assert traffic("all-gather", 64, range(8), HOSTS_OF_FOUR) == (48, 8)
    assert traffic("all-to-all", 64, range(8), HOSTS_OF_FOUR) == (48, 32)
    ring = counted(
        lambda x: jax.lax.ppermute(x, "x", [(i, (i + 1) % 8) for i in range(8)]),
        (8, 16),
        islands=HOSTS_OF_FOUR,
    )
    assert ring["collective-permute"] == {
        "count": 1,
        "bytes": 64,
        "sent_bytes": 0,
        "network_bytes": 64,
    }


def test_a_program_of_one_device_sends_nothing():
    assert collective_counts(jax.jit(jnp.sin).lower(jnp.ones(3)).compile().as_text()) == {}


def test_what_starts_a_collective_shows_its_operands_and_then_its_results():
    started = (
        "(bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[32,8]{1,0:T(8,128)(2,1)}, u32[]{:T(128)}, "
        "u32[]{:T(128)})"
    )
    assert result_bytes(started, "all-gather", started=True) == 32 * 8 * 2
    assert (
        result_bytes("(f32[12,768]{1,0}, f32[3]{0})", "all-reduce", started=False)
        == (12 * 768 + 3) * 4
    )


def test_a_tpu_program_scatters_by_a_fusion_around_a_sum_and_sends_between_slices():
    """Lines as the compiler for v5e writes them."""
    line = (
        "  %all-reduce.2 = bf16[2112,2048]{1,0:T(8,128)} all-reduce(%pad), "
        "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add"
    )
    found = read_collective(line, "all-reduce-scatter.1", [0] * 8)
    assert (found.kind, found.bytes, found.sent_bytes) == (
        "reduce-scatter",
        2112 * 2048 * 2,
        2112 * 2048 * 2 * 3 / 4,
    )
    assert read_collective(line, "", [0] * 8).kind == "all-reduce"
    line = (
        "  %send = (bf16[1024,8,128]{2,1,0}, u32[], token[]) send(%a, %b), channel_id=2, "
        "is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    found = read_collective(line, "", HOSTS_OF_FOUR)
    assert (found.kind, found.sent_bytes, found.network_bytes) == (
        "all-reduce",
        0,
        2 * 1024 * 8 * 128,
    )


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, x", [[0, 2], [1, 3]]),
        ("replica_groups={}, x", [[0, 1, 2, 3]]),
        ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4,'b'=1] {'a'}, x", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}, x", [[3, 2], [1, 0]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}, x", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_however_they_are_written(text, groups):
    assert groups_of(f"  %x = f32[2] all-reduce(%y), {text}", 4) == groups


def test_the_pairs_of_a_permutation_are_read():
    assert pairs_of(
        "  %x = f32[2] collective-permute(%y), source_target_pairs={{0,1},{1,0}}, x"
    ) == [(0, 1), (1, 0)]
