"""How devices become a mesh, and what is said where they, the batch and the sizes do not fit
together."""

import dataclasses

import jax
import numpy as np
import pytest

from vlp_jax.errors import MeshError
from vlp_jax.sharding.mesh import (
    MeshConfig,
    abstract_mesh,
    build_mesh,
    check_batch,
    check_microbatch,
)


@dataclasses.dataclass(frozen=True)
class Device:
    """A device of another machine: number `id`, in slice `slice_index`."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "imagined"
    process_index: int = 0


def slices(count, each):
    return [Device(number, number // each) for number in range(count * each)]


def numbers(mesh):
    return np.vectorize(lambda device: device.id)(mesh.devices)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (dict(), (8, 1, 1)),
        (dict(data=1, fsdp=-1), (1, 8, 1)),
        (dict(data=-1, fsdp=2, tensor=2), (2, 2, 2)),
        (dict(data=2, fsdp=1, tensor=-1), (2, 1, 4)),
        (dict(data=2, fsdp=2), (2, 2, 1)),
    ],
)
def test_one_size_may_take_the_remaining_devices(sizes, shape):
    mesh = build_mesh(MeshConfig(**sizes))
    assert mesh.devices.shape == shape and mesh.axis_names == ("data", "fsdp", "tensor")
    assert dict(abstract_mesh(MeshConfig(**sizes), 8).shape) == dict(mesh.shape)


def test_an_absent_mesh_takes_as_few_devices_as_the_config_allows():
    assert tuple(abstract_mesh(MeshConfig(fsdp=8, tensor=2)).shape.values()) == (1, 8, 2)


def test_data_spans_slices_and_the_other_axes_stay_within_one():
    """Two slices of eight: neighbours along fsdp and tensor belong to one slice, the halves of data
    to the two."""
    mesh = build_mesh(MeshConfig(data=-1, fsdp=2, tensor=2), slices(2, 8))
    assert numbers(mesh).tolist() == np.arange(16).reshape(4, 2, 2).tolist()
    owners = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (owners[:2] == 0).all() and (owners[2:] == 1).all()


def test_fsdp_spans_the_slices_that_data_does_not():
    """Four slices of four, two of them along each of data and fsdp: data * fsdp of each slice is a
    2 x 2 block."""
    owners = np.vectorize(lambda device: device.slice_index)(
        build_mesh(MeshConfig(data=4, fsdp=4, dcn_data=2), slices(4, 4)).devices
    )[:, :, 0]
    assert owners.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    alone = build_mesh(MeshConfig(data=1, fsdp=-1), slices(2, 4))  # data has no room for any
    assert numbers(alone).ravel().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("sizes", "devices", "words"),
    [
        (
            dict(data=-1, fsdp=-1),
            8,
            "mesh data=-1 x fsdp=-1 x tensor=1: sizes are at least 1, and one of them may be -1",
        ),
        (dict(data=0), 8, "sizes are at least 1"),
        (dict(fsdp=3), 8, "8 devices do not divide by 3: nearest are 6 and 9"),
        (
            dict(data=4, tensor=4),
            8,
            "mesh data=4 x fsdp=1 x tensor=4: needs 16 devices, 8 are here; set one size to -1",
        ),
        (
            dict(data=1, tensor=-1),
            slices(2, 4),
            "fsdp=1 does not divide over 2 of 2 slices: nearest are 2; tensor stays within",
        ),
        (
            dict(data=6, dcn_data=4),
            slices(4, 6),
            "mesh.dcn_data 4: the devices form 1 slice; expected",
        ),
        (
            dict(data=6, fsdp=4, dcn_data=4),
            slices(4, 6),
            "mesh data=6 does not divide over 4 of 4 slices: nearest are 4 and 8",
        ),
        (dict(data=6), slices(2, 4), "takes 4, 2 devices of 2 slices; use the same number of each"),
        (
            dict(dcn_data=3),
            slices(2, 4),
            "mesh.dcn_data 3: the devices form 2 slices; expected a divisor of that, or -1",
        ),
        (dict(dcn_data=2), 8, "mesh.dcn_data 2: the devices form 1 slice; expected"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_those_that_do(sizes, devices, words):
    with pytest.raises(MeshError, match=words):
        build_mesh(
            MeshConfig(**sizes), jax.devices()[:devices] if isinstance(devices, int) else devices
        )


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            1000,
            r"data.batch_size 1000 does not divide over data=8 x fsdp=4 \(32\): nearest are 992 "
            r"and 1024",
        ),
        (31, "nearest are 32$"),
    ],
)
def test_a_batch_that_does_not_divide_names_the_axes_and_the_nearest_sizes(batch, words):
    mesh = abstract_mesh(MeshConfig(data=8, fsdp=4, tensor=2))
    with pytest.raises(MeshError, match=words):
        check_batch(batch, mesh)
    check_batch(1024, mesh)


def test_a_microbatch_that_does_not_divide_names_the_batch_sizes_that_would():
    mesh = abstract_mesh(MeshConfig(data=8))
    check_batch(40, mesh)
    with pytest.raises(
        MeshError,
        match=r"microbatches 4: a microbatch of 10 .*data=8 x fsdp=1 "
        r"\(8\).*batch_size are 32 and 64",
    ):
        check_microbatch(40, 4, mesh)
    check_microbatch(64, 4, mesh)
