"""The node's own figures, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.docker.machine import Machine, interfaces
from vkubelet.model.stats import InterfaceStats

KIB = 1024
PROC = {
    "stat": (
        "cpu  1000 200 300 90000 500 10 20 30 400 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        "intr 5\nbtime 1767225600\nprocesses 99\n"
    ),
    "meminfo": (
        "MemTotal:       24684096 kB\nMemFree:        10000000 kB\nCached:          5000000 kB\n"
        "Inactive(file):  2000000 kB\nAnonPages:       1500000 kB\nMapped:           300000 kB\n"
        "SwapTotal:       1000000 kB\nSwapFree:         900000 kB\nHugePages_Total:       0\n"
    ),
    "vmstat": "nr_free_pages 1\npgfault 12345\npgmajfault 67\n",
    "loadavg": "3.81 3.84 2.86 27/534 20298\n",
    "sys/kernel/pid_max": "4194304\n",
    "sys/kernel/threads-max": "192000\n",
    "self/statm": "5000 1000 500 1 0 800 0\n",
    "net/dev": (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n"
        "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0\n"
        "  eth0:    2000      20    1    2    0     0          0         0     3000      30    3    4    0\n"
        "docker0:      5       5    0    0    0     0          0         0        5       5    0    0    0\n"
        "vethab12:     5       5    0    0    0     0          0         0        5       5    0    0    0\n"
    ),
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    proc = tmp_path / "proc"
    for name, text in PROC.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(text)
    return Machine(tmp_path, tmp_path, proc, tmp_path / "cgroup")


def test_the_machine_is_described(machine: Machine) -> None:
    found = machine.read(brief=False)

    assert found.start_ns == 1_767_225_600 * 10**9
    assert found.memory is not None
    assert found.memory.usage_bytes == 14_684_096 * KIB
    assert found.memory.working_set_bytes == 12_684_096 * KIB
    assert found.memory.available_bytes == 12_000_000 * KIB
    assert (found.memory.rss_bytes, found.memory.page_faults) == (1_500_000 * KIB, 12_345)
    assert found.swap is not None
    assert (found.swap.usage_bytes, found.swap.available_bytes) == (100_000 * KIB, 900_000 * KIB)
    assert found.process_limits is not None
    assert (found.process_limits.max_pids, found.process_limits.running) == (192_000, 534)
    assert found.fs is not None
    assert found.fs.capacity_bytes
    assert [each.name for each in found.system_containers] == ["kubelet"]
    assert found.memory_bytes == machine.memory_bytes == 24_684_096 * KIB


def test_only_the_nodes_own_interfaces_are_counted(machine: Machine) -> None:
    found = machine.read(brief=False)

    assert found.network is not None
    assert found.network.interfaces == (InterfaceStats("eth0", 2000, 3000, 1, 3, 20, 30, 2, 4),)


def test_time_is_counted_by_ticks_where_there_is_no_root_group(machine: Machine) -> None:
    found = machine.read(brief=True)

    assert found.cpu is not None
    assert found.cpu.usage_core_ns == (1000 + 200 + 300 + 10 + 20 + 30) * 10_000_000
    assert (found.network, found.fs, found.process_limits) == (None, None, None)


@pytest.mark.parametrize(
    ("file", "text"),
    [("cpuacct/cpuacct.usage", "99000000000\n"), ("cpu.stat", "usage_usec 99000000\nuser_usec 5\n")],
    ids=["version 1", "version 2"],
)
def test_the_root_group_counts_finer(machine: Machine, file: str, text: str) -> None:
    (machine.cgroup_root / file).parent.mkdir(parents=True)
    (machine.cgroup_root / file).write_text(text)

    found = machine.read(brief=True)

    assert found.cpu is not None
    assert found.cpu.usage_core_ns == 99_000_000_000


def test_a_root_that_is_only_a_part_of_the_machine_does_not_count(machine: Machine) -> None:
    machine.cgroup_root.mkdir()
    (machine.cgroup_root / "cpu.stat").write_text("usage_usec 7\n")

    found = machine.read(brief=True)

    assert found.cpu is not None
    assert found.cpu.usage_core_ns == 15_600_000_000


def test_the_loopback_is_no_interface_of_a_pod() -> None:
    assert [each.name for each in interfaces(PROC["net/dev"])] == ["eth0", "docker0", "vethab12"]
