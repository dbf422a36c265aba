"""The store of encoded tensors: exact, complete after kills and full disks, and checking its own files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.data.shards import DamagedEntry, ProcessInfo, ShardStore, fill

CHECKOUT = Path(__file__).parents[1]


def entry(key: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(int(key, 16))
    return {"a": torch.randn(3, 4, generator=generator).half(), "b": torch.randn(2, generator=generator).bfloat16()}


def encode(keys):
    return {key: entry(key) for key in keys}


def keys(count: int) -> list[str]:
    return [f"{index:04x}" for index in range(count)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_read_is_what_was_written_and_a_key_is_stored_once(tmp_path):
    store = ShardStore(tmp_path / "store")
    assert fill(store, [*keys(10), *keys(7)], encode, "rows", shard=4) == 10
    assert len(store) == 10 and store.missing(keys(12)) == ["000a", "000b"]
    for key in keys(10):
        found, wanted = store.read(key), entry(key)
        assert found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted)
    assert fill(store, keys(10), None, "rows") == 0  # nothing is encoded again


@given(stops=st.lists(st.integers(0, 5), max_size=4), world=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_interrupted_and_shared_work_makes_the_same_files(tmp_path_factory, stops, world):
    class Stopped(Exception):
        pass

    def until(stop):
        calls = iter(range(stop))

        def encoder(wanted):
            if next(calls, None) is None:
                raise Stopped
            return encode(wanted)

        return encoder

    folder = tmp_path_factory.mktemp("stores")
    fill(ShardStore(folder / "full"), keys(22), encode, "rows", shard=4)
    for number, stop in enumerate(stops):
        try:
            process = ProcessInfo(number % world, world)
            fill(ShardStore(folder / "parts"), keys(22), until(stop), "rows", process, shard=4)
        except Stopped:
            pass
    fill(ShardStore(folder / "parts"), keys(22), encode, "rows", shard=4)
    assert files(folder / "full") == files(folder / "parts")


@given(place=st.floats(0, 1), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_anywhere_is_noticed_and_repaired(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("store")
    store = ShardStore(folder)
    fill(store, keys(8), encode, "rows", shard=4)
    path = sorted(folder.iterdir())[0]
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    path.write_bytes(data)
    damaged = ShardStore(folder)
    damaged.repair()
    asked = []
    fill(damaged, keys(8), lambda wanted: asked.extend(wanted) or encode(wanted), "rows", shard=4)
    again = ShardStore(folder)
    assert again.repair() == 0 and again.missing(keys(8)) == []
    for key in keys(8):
        assert all(again.read(key)[name].equal(tensor) for name, tensor in entry(key).items())
    assert len(asked) <= 4  # of the damaged shard at most


def test_damage_in_use_is_an_error_with_a_remedy(tmp_path):
    store = ShardStore(tmp_path)
    store.write(encode(keys(3)))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedEntry, match="run the same command again"):
        for key in keys(3):
            store.read(key)
    assert store.repair() == 1 and len(store.missing(keys(3))) == 1


def test_a_full_disk_costs_one_line_and_nothing_that_was_there(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small file system can only be made by root")
    program = (
        "import sys, torch\n"
        "from imvideoedit.data.shards import ShardStore, fill\n"
        "from imvideoedit.common.errors import exit_cleanly\n"
        "make = lambda keys: {key: {'a': torch.ones(4000)} for key in keys}\n"
        "exit_cleanly(lambda: fill(ShardStore(sys.argv[1]), list('abcdefgh'), make, 'rows', shard=1))()\n"
    )
    try:
        command = [sys.executable, "-c", program, str(disk)]
        done = subprocess.run(command, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "no space left on the disk" in done.stderr
        store = ShardStore(disk)
        assert 1 <= len(store) < 8 and store.repair() == 0
        assert all(store.read(key)["a"].eq(1).all() for key in "ab" if not store.missing([key]))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # the store still looks at its files
