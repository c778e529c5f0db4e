"""Control groups of both versions, from files as the kernel writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from providers.docker.cgroups import Cgroup, locate, memory_stats, read
from vkubelet.model.stats import DiskIo

ID = "7b801b1621d2"
V1_FILES = {
    "cpuacct/docker/{id}/cpuacct.usage": "2500000000\n",
    "cpuacct/docker/{id}/cpuacct.stat": "user 200\nsystem 50\n",
    "cpu/docker/{id}/cpu.stat": (
        "nr_periods 10\nnr_throttled 2\nthrottled_time 300000000\nnr_bursts 0\nburst_time 0\n"
    ),
    "memory/docker/{id}/memory.usage_in_bytes": "40000000\n",
    "memory/docker/{id}/memory.max_usage_in_bytes": "45000000\n",
    "memory/docker/{id}/memory.failcnt": "1\n",
    "memory/docker/{id}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "memory/docker/{id}/memory.stat": (
        "cache 1\nrss 2\nswap 0\npgfault 5\nhierarchical_memory_limit 9223372036854771712\n"
        "total_cache 15000000\n"
        "total_rss 20000000\ntotal_mapped_file 1000000\ntotal_swap 4096\ntotal_pgfault 123\n"
        "total_pgmajfault 4\ntotal_inactive_file 10000000\ntotal_active_file 0\n"
    ),
    "memory/docker/{id}/cgroup.procs": "11\n12\n13\n",
    "pids/docker/{id}/pids.current": "7\n",
    "blkio/docker/{id}/blkio.throttle.io_service_bytes_recursive": (
        "9999:1 Read 4096\n9999:1 Write 8192\n9999:1 Sync 0\n9999:1 Total 12288\nTotal 12288\n"
    ),
    "blkio/docker/{id}/blkio.throttle.io_serviced_recursive": "9999:1 Read 1\n9999:1 Write 2\nTotal 3\n",
}
V1_PROC = "\n".join(
    f"{number}:{name}:/docker/{ID}"
    for number, name in enumerate(("name=systemd", "pids", "blkio", "memory", "cpuacct", "cpu"), 1)
)
V2_DIRECTORY = "system.slice/docker-{id}.scope"
V2_FILES = {
    f"{V2_DIRECTORY}/cpu.stat": (
        "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"
        "nr_periods 10\nnr_throttled 2\nthrottled_usec 300000\n"
    ),
    f"{V2_DIRECTORY}/memory.current": "40000000\n",
    f"{V2_DIRECTORY}/memory.peak": "45000000\n",
    f"{V2_DIRECTORY}/memory.swap.current": "4096\n",
    f"{V2_DIRECTORY}/memory.events": "low 0\nhigh 0\nmax 1\noom 3\noom_kill 3\n",
    f"{V2_DIRECTORY}/memory.stat": (
        "anon 20000000\nfile 15000000\nkernel 1\nfile_mapped 1000000\ninactive_file 10000000\n"
        "pgfault 123\npgmajfault 4\n"
    ),
    f"{V2_DIRECTORY}/cgroup.procs": "11\n12\n13\n",
    f"{V2_DIRECTORY}/pids.current": "7\n",
    f"{V2_DIRECTORY}/io.stat": "9999:1 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
}
V2_PROC = f"0::/{V2_DIRECTORY.format(id=ID)}\n"
VERSIONS = pytest.mark.parametrize(
    ("files", "proc"), [(V1_FILES, V1_PROC), (V2_FILES, V2_PROC)], ids=["version 1", "version 2"]
)


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        file = root / name.format(id=ID)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def located(root: Path, files: Mapping[str, str], proc: str) -> Cgroup:
    write(root, files)
    found = locate(proc, ID, root)
    assert found is not None
    return found


@VERSIONS
def test_both_versions_give_the_same_figures(tmp_path: Path, files: Mapping[str, str], proc: str) -> None:
    found = read(located(tmp_path, files, proc), 100_000_000, brief=False)

    cpu, memory = found.cpu, found.memory
    assert (cpu.usage_core_ns, cpu.user_core_ns, cpu.system_core_ns) == (2_500_000_000, 2 * 10**9, 5 * 10**8)
    assert (cpu.periods, cpu.throttled_periods, cpu.throttled_ns) == (10, 2, 300_000_000)
    assert (memory.usage_bytes, memory.working_set_bytes, memory.rss_bytes) == (
        40_000_000,
        30_000_000,
        20_000_000,
    )
    assert (memory.available_bytes, memory.max_usage_bytes) == (70_000_000, 45_000_000)
    assert (memory.cache_bytes, memory.mapped_file_bytes) == (15_000_000, 1_000_000)
    assert (memory.page_faults, memory.major_page_faults) == (123, 4)
    assert (memory.failures, memory.oom_kills) == (1, 3)
    assert found.swap is not None
    assert found.swap.usage_bytes == 4096
    assert found.disk_io == (DiskIo("9999:1", 4096, 8192, 1, 2),)
    assert (found.process_count, found.thread_count) == (3, 7)


@VERSIONS
def test_a_brief_reading_needs_few_files(tmp_path: Path, files: Mapping[str, str], proc: str) -> None:
    needed = ("cpuacct.usage", "usage_in_bytes", "memory.stat", "cpu.stat", "current")
    cgroup = located(tmp_path, files, proc)
    for file in tmp_path.rglob("*"):
        if file.is_file() and not file.name.endswith(needed):
            file.unlink()

    found = read(cgroup, None, brief=True)

    assert found.cpu.usage_core_ns == 2_500_000_000
    assert found.memory.working_set_bytes == 30_000_000
    assert found.memory.available_bytes is None


def test_older_kernels_have_less(tmp_path: Path) -> None:
    absent = ("memory.peak", "memory.swap.current", "io.stat", "pids.current")
    files = {name: text for name, text in V2_FILES.items() if not name.endswith(absent)}

    found = read(located(tmp_path, files, V2_PROC), None, brief=False)

    assert (found.memory.max_usage_bytes, found.swap, found.disk_io, found.thread_count) == (
        None,
        None,
        (),
        None,
    )


def test_controllers_that_are_mounted_together_are_found(tmp_path: Path) -> None:
    files = {
        name.replace("cpuacct/", "cpu,cpuacct/").replace("cpu/", "cpu,cpuacct/"): text
        for name, text in V1_FILES.items()
    }
    proc = f"1:cpu,cpuacct:/docker/{ID}\n2:memory:/docker/{ID}\n3:pids:/docker/{ID}\n4:blkio:/docker/{ID}\n"

    found = read(located(tmp_path, files, proc), None, brief=False)

    assert found.cpu.usage_core_ns == 2_500_000_000
    assert found.cpu.periods == 10


@pytest.mark.parametrize(
    "proc",
    [
        "",
        "0::/\n",
        "0::/system.slice/docker-another.scope\n",
        f"0::/../../docker/{ID}\n",
        f"4:memory:/docker/{ID}\n",
    ],
    ids=["nothing", "the root", "another process", "another namespace", "not all controllers"],
)
def test_a_group_that_is_not_the_containers_or_cannot_be_seen_is_not_read(tmp_path: Path, proc: str) -> None:
    write(tmp_path, V1_FILES)
    write(tmp_path, V2_FILES)

    assert locate(proc, ID, tmp_path) is None


@VERSIONS
def test_a_container_that_has_ended_has_no_files(tmp_path: Path, files: Mapping[str, str], proc: str) -> None:
    cgroup = located(tmp_path, files, proc)
    for file in tmp_path.rglob("memory.stat"):
        file.unlink()

    with pytest.raises(OSError, match=r"memory\.stat"):
        read(cgroup, None, brief=True)


@VERSIONS
def test_files_of_another_form_are_told(tmp_path: Path, files: Mapping[str, str], proc: str) -> None:
    cgroup = located(tmp_path, files, proc)
    for file in tmp_path.rglob("memory.stat"):
        file.write_text("something 1\n")

    with pytest.raises(ValueError, match="has no inactive_file"):
        read(cgroup, None, brief=True)


def test_the_working_set_is_never_negative() -> None:
    """The usage and the page cache are not counted at one moment."""
    found = memory_stats(1, 100, 1000, {"inactive_file": 300})

    assert (found.working_set_bytes, found.available_bytes) == (0, 1000)
