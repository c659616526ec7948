"""Free memory, in made-up trees of control groups."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from memlab import device
from memlab.device import free_memory

OF_THE_HOST = 10**12
CPU = torch.device("cpu")
NO_LIMIT_V1 = 2**63 - 4096
"""What version 1 has in the place of ``max``."""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a made-up file system; the host has `OF_THE_HOST` free."""
    monkeypatch.setattr(device, "ROOT", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=OF_THE_HOST, total=OF_THE_HOST))
    return tmp_path


def belongs_to(root: Path, *lines: str) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))


def group(root: Path, path: str, *, limit: int | str, used: int, reclaimable: int) -> None:
    """A group of version 2."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_anon 8\ninactive_file {reclaimable}\nactive_file 9\n")


def old_group(root: Path, path: str, *, limit: int, used: int, reclaimable: int) -> None:
    """A group of version 1; its own ``inactive_file`` leaves the groups below it out."""
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 7\ninactive_file 1\ntotal_inactive_file {reclaimable}\n")


def test_without_groups_it_is_what_the_host_has_free() -> None:
    assert free_memory(CPU) == OF_THE_HOST


def test_a_container_that_sees_its_own_group_as_the_root(root: Path) -> None:
    belongs_to(root, "0::/")
    group(root, "", limit=4000, used=3000, reclaimable=500)
    assert free_memory(CPU) == 1500


def test_the_tightest_of_the_group_and_those_above_it_counts(root: Path) -> None:
    belongs_to(root, "0::/user.slice/run:1.scope")
    (root / "sys/fs/cgroup").mkdir(parents=True)  # the true root has no limit
    group(root, "user.slice", limit=5000, used=4500, reclaimable=100)
    group(root, "user.slice/run:1.scope", limit=2000, used=1000, reclaimable=0)
    group(root, "user.slice/other", limit=10, used=10, reclaimable=0)
    assert free_memory(CPU) == 600
    group(root, "user.slice", limit="max", used=4500, reclaimable=100)
    assert free_memory(CPU) == 1000
    group(root, "user.slice/run:1.scope", limit="max", used=1000, reclaimable=0)
    assert free_memory(CPU) == OF_THE_HOST


def test_a_group_above_its_limit_has_nothing_free(root: Path) -> None:
    belongs_to(root, "0::/")
    group(root, "", limit=4000, used=4100, reclaimable=50)
    assert free_memory(CPU) == 0


def test_a_group_that_cannot_be_seen_is_taken_for_the_root(root: Path) -> None:
    belongs_to(root, "0::/../../docker/abc")
    group(root, "", limit=4000, used=1000, reclaimable=0)
    assert free_memory(CPU) == 3000


def test_version_1(root: Path) -> None:
    belongs_to(root, "5:cpu,cpuacct:/elsewhere", "4:memory:/docker/abc", "1:name=systemd:/docker/abc")
    old_group(root, "", limit=NO_LIMIT_V1, used=9000, reclaimable=0)
    old_group(root, "docker/abc", limit=3000, used=1000, reclaimable=200)
    assert free_memory(CPU) == 2200


def test_both_versions_at_once(root: Path) -> None:
    belongs_to(root, "4:memory:/docker/abc", "0::/docker/abc")
    (root / "sys/fs/cgroup/docker/abc").mkdir(parents=True)  # memory is the other version's
    old_group(root, "", limit=3000, used=1000, reclaimable=200)
    assert free_memory(CPU) == 2200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_of_a_gpu_what_torch_has_reserved_and_does_not_use_is_free() -> None:
    device = torch.device("cuda")
    before = free_memory(device)
    taken = torch.empty(2**28, dtype=torch.uint8, device=device)
    assert free_memory(device) <= before - 2**27
    del taken
    assert free_memory(device) == pytest.approx(before, abs=2**26)


@pytest.mark.parametrize(
    "kind", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
)
def test_moments_follow_one_another(kind: str) -> None:
    moments = []
    for _ in range(3):
        moments.append(device.Moment(torch.device(kind)))
        torch.ones(100, 100, device=kind).mm(torch.ones(100, 100, device=kind))
    first, second, third = moments
    assert first.until(second) >= 0
    assert first.until(third) == pytest.approx(first.until(second) + second.until(third), abs=1e-5)
    assert first.until(first) == 0


class TestUsableCores:
    """Those that a process is bound to, or fewer where its group has less time."""

    def test_without_a_quota_it_is_those_that_it_is_bound_to(self, root: Path) -> None:
        belongs_to(root, "0::/")
        (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
        assert device.usable_cores() == len(os.sched_getaffinity(0))

    def test_the_tightest_quota_counts(self, root: Path) -> None:
        belongs_to(root, "0::/job")
        (root / "sys/fs/cgroup/job").mkdir(parents=True)
        (root / "sys/fs/cgroup/job/cpu.max").write_text("50000 100000\n")
        (root / "sys/fs/cgroup/cpu.max").write_text("75000 100000\n")
        assert device.usable_cores() == 0.5

    def test_version_1(self, root: Path) -> None:
        belongs_to(root, "4:cpu,cpuacct:/")
        (root / "sys/fs/cgroup/cpu").mkdir(parents=True)
        (root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("25000\n")
        (root / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
        assert device.usable_cores() == 0.25


def test_limit_of_the_groups_is_the_least(root: Path) -> None:
    belongs_to(root, "0::/a/b")
    assert device.memory_limit() is None
    group(root, "a", limit=300, used=100, reclaimable=0)
    group(root, "a/b", limit="max", used=100, reclaimable=0)
    assert device.memory_limit() == 300


def test_kind_of_a_file_system() -> None:
    assert device.file_system(Path("/proc/self")) == "proc"
    assert device.file_system(Path.cwd())
