"""The reader of tar headers beside Python's tarfile."""

import io
import tarfile

import numpy as np
import pytest

from vlp_jax.data.sources.tar_headers import CutOffError, TarError, read_members

LAYOUTS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
KINDS = [tarfile.REGTYPE] * 6 + [
    tarfile.CONTTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
]


def random_tar(seed, layout):
    draw, file = np.random.default_rng(seed), io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=LAYOUTS[layout], pax_headers={"comment": "of the whole tar"}
    ) as tar:
        for number in range(60):
            letters = "abc/ä猫 ." if layout != "ustar" else "abc/ä"
            longest = 240 if layout == "ustar" else 400
            name = f"{number}/" + "".join(draw.choice(list(letters), draw.integers(longest // 2)))
            info = tarfile.TarInfo(name.rstrip("/ "))
            info.type = KINDS[draw.integers(len(KINDS))]
            # a fraction goes into a pax header
            info.mtime = draw.random() * 1e9 if layout == "pax" else 7
            if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = "a/" * draw.integers(1, 45 if layout == "ustar" else 90)
            if info.isreg():
                info.size = int(draw.choice([0, 1, 511, 512, 513, draw.integers(5000)]))
            try:
                tar.addfile(info, io.BytesIO(draw.bytes(info.size)))
            except ValueError:  # a name that ustar cannot hold
                assert layout == "ustar"
    return file.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_tarfile_finds(seed, layout):
    data = random_tar(seed, layout)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [
            (member.name, member.offset_data, member.size) for member in tar if member.isreg()
        ]
    assert len(expected) > 10
    assert list(read_members(io.BytesIO(data))) == expected


@pytest.mark.parametrize("layout", ["pax", "gnu"])
def test_sizes_that_octal_digits_cannot_hold(tmp_path, layout):
    info = tarfile.TarInfo("large.png")
    info.size = 2**33 + 5
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(info.tobuf(LAYOUTS[layout]))
        start = file.tell()
        file.truncate(start + 2**33 + 512 + 1024)  # sparse: it takes no room on the disk
    with open(tmp_path / "x.tar", "rb") as file:
        assert list(read_members(file)) == [("large.png", start, 2**33 + 5)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tar_cut_off_at_any_block_gives_the_members_before(layout):
    data = random_tar(0, layout)
    members = list(read_members(io.BytesIO(data)))
    for end in range(512, members[-1][1], 512 * 5 + 100):
        found = []
        with pytest.raises(CutOffError):
            for member in read_members(io.BytesIO(data[:end])):
                found.append(member)
        assert found == [member for member in members if member[1] <= end]


def test_the_oldest_tars_have_types_of_zero_and_mark_folders_by_a_slash():
    data = b""
    for name, size in (("folder/", 0), ("folder/a.png", 3)):
        info = tarfile.TarInfo(name)
        info.type, info.size = tarfile.AREGTYPE, size
        data += info.tobuf(tarfile.USTAR_FORMAT) + (b"abc".ljust(512, b"\0") if size else b"")
    assert list(read_members(io.BytesIO(data + bytes(1024)))) == [("folder/a.png", 1024, 3)]


@pytest.mark.parametrize(
    ("place", "message"),
    [(3, "not a tar file"), (1024 + 3, "the header at byte 1024 of 10240 is damaged")],
)
def test_a_header_that_does_not_add_up_is_named(place, message):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"text"))
    data = bytearray(file.getvalue())
    data[place] ^= 1
    with pytest.raises(TarError, match=message):
        list(read_members(io.BytesIO(data)))


def test_an_attribute_that_leaves_its_header_is_an_error_and_not_an_endless_loop():
    for record in (b"999 path=x\n", b"0 path=x\n", b"-4 path=x\n", b"no number\n"):
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, len(record)
        data = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + bytes(1024)
        with pytest.raises(TarError):
            list(read_members(io.BytesIO(data)))


@pytest.mark.parametrize("size", [-1, -512, -(2**40)])
def test_a_size_below_zero_is_an_error(tmp_path, size):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"size": str(size)}
    with pytest.raises(TarError, match=f"a size of {size} bytes"):
        list(read_members(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT) + bytes(2048))))
