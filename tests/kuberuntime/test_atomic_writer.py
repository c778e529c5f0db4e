"""Files of volumes: replaced all at once, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.kuberuntime import atomic_writer
from vkubelet.model.volumes import VolumeFile


def files(**contents: str) -> dict[str, VolumeFile]:
    return {name.replace("__", "/"): VolumeFile(text.encode(), 0o640) for name, text in contents.items()}


def nothing(path: Path) -> None:
    del path


def shown(target: Path) -> dict[str, str]:
    """What a container sees, without the book-keeping."""
    return {
        str(p.relative_to(target)): p.read_text()
        for name in os.listdir(target)
        if not name.startswith("..")
        for p in ([target / name] if (target / name).is_file() else (target / name).rglob("*"))
        if p.is_file()
    }


def test_the_layout_is_the_kubelets(tmp_path: Path) -> None:
    assert atomic_writer.write(tmp_path, files(a="1", dir__b="2"), nothing)

    assert shown(tmp_path) == {"a": "1", "dir/b": "2"}
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "dir") == "..data/dir"
    data = os.readlink(tmp_path / "..data")
    assert data.startswith("..20")
    assert stat.S_IMODE((tmp_path / data / "a").stat().st_mode) == 0o640


def test_an_update_replaces_the_data_directory(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1", gone="x", dir__b="2"), nothing)
    before = os.readlink(tmp_path / "..data")

    assert atomic_writer.write(tmp_path, files(a="2", new="y"), nothing)

    assert shown(tmp_path) == {"a": "2", "new": "y"}
    assert os.readlink(tmp_path / "..data") != before
    assert not (tmp_path / before).exists()
    assert sorted(os.listdir(tmp_path)) == sorted([os.readlink(tmp_path / "..data"), "..data", "a", "new"])


def test_equal_files_are_left_alone(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1"), nothing)
    before = os.readlink(tmp_path / "..data")

    assert not atomic_writer.write(tmp_path, files(a="1"), nothing)
    assert os.readlink(tmp_path / "..data") == before


def test_a_lost_link_comes_back(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1"), nothing)
    (tmp_path / "a").unlink()

    atomic_writer.write(tmp_path, files(a="1"), nothing)
    assert shown(tmp_path) == {"a": "1"}


def test_no_files_are_an_empty_volume(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1"), nothing)
    atomic_writer.write(tmp_path, {}, nothing)

    assert shown(tmp_path) == {}
    assert (tmp_path / "..data").is_dir()


def test_a_failed_update_leaves_what_was_there(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1"), nothing)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(OSError, match="No space left"):
        atomic_writer.write(tmp_path, files(a="2"), full)

    assert shown(tmp_path) == {"a": "1"}
    assert len(os.listdir(tmp_path)) == 3


def test_what_a_crash_left_half_done_is_overcome(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, files(a="1"), nothing)
    (tmp_path / "..data_tmp").symlink_to("..2026_nowhere")

    atomic_writer.write(tmp_path, files(a="2"), nothing)
    assert shown(tmp_path) == {"a": "2"}


NAMES = st.sampled_from(["a", "b", "c", "d/e", "d/f", "g/h/i"])


@given(st.lists(st.dictionaries(NAMES, st.binary(max_size=4)), min_size=1, max_size=4))
def test_any_row_of_updates_ends_with_the_last(
    tmp_path_factory: pytest.TempPathFactory, row: list[dict[str, bytes]]
) -> None:
    target = tmp_path_factory.mktemp("volume")
    for contents in row:
        atomic_writer.write(target, {n: VolumeFile(c, 0o644) for n, c in contents.items()}, nothing)

    seen = {str(p.relative_to(target / "..data")): p.read_bytes() for p in files_below(target / "..data")}
    assert seen == row[-1]
    assert {n for n in os.listdir(target) if not n.startswith("..")} == {n.split("/")[0] for n in row[-1]}


def files_below(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.is_file()]
