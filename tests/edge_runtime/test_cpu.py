"""The CPUs that this process may use, and what they can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lesion_edge.cpu import available_cpus, cpu_features, has_bfloat16

V2, V1 = "0::/app/worker\n", "9:name=systemd:/\n4:memory:/app\n2:cpu,cpuacct:/app\n"


@pytest.mark.parametrize(
    ("cpus", "groups", "files", "available"),
    [
        pytest.param(8, V2, {"app/worker/cpu.max": "max 100000"}, 8, id="no quota"),
        pytest.param(8, V2, {"app/worker/cpu.max": "250000 100000"}, 3, id="two and a half CPUs: three threads"),
        pytest.param(8, V2, {"app/worker/cpu.max": "10000 100000"}, 1, id="never none"),
        pytest.param(2, V2, {"app/worker/cpu.max": "400000 100000"}, 2, id="the affinity is lower"),
        pytest.param(8, V2, {"app/cpu.max": "200000 100000"}, 2, id="the quota of a group around it"),
        pytest.param(8, V2, {"cpu.max": "200000 100000"}, 2, id="a container sees its own group as the root"),
        pytest.param(8, "0::/\n", {"cpu.max": "200000 100000"}, 2, id="and itself in the root"),
        pytest.param(8, V2, {"app/worker/cpu.max": "nonsense"}, 8, id="a quota that cannot be read"),
        pytest.param(8, V2, {"other/cpu.max": "100000 100000"}, 8, id="the quota of another group"),
        pytest.param(
            8,
            V1,
            {"cpu/app/cpu.cfs_quota_us": "150000\n", "cpu/app/cpu.cfs_period_us": "100000\n"},
            2,
            id="version 1",
        ),
        pytest.param(
            8,
            V1,
            {"cpu/app/cpu.cfs_quota_us": "-1\n", "cpu/app/cpu.cfs_period_us": "100000\n"},
            8,
            id="none in v1",
        ),
        pytest.param(4, None, {}, 4, id="no control groups"),
    ],
)
def test_cpus_are_those_this_process_may_use(
    cpus: int,
    groups: str | None,
    files: dict[str, str],
    available: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    own = tmp_path / "own groups"
    if groups is not None:
        own.write_text(groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
    assert available_cpus(tmp_path, own) == available


def test_cpu_features_are_read_from_linux(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nFeatures\t: fp asimd asimddp\nflags : sse avx2 avx512_vnni\n"
    )
    assert cpu_features(tmp_path / "cpuinfo") == ["avx2", "avx512_vnni", "asimd", "asimddp"]
    assert cpu_features(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("flags", "native"), [("avx512f avx512_bf16", True), ("asimd bf16", True), ("avx2", False)]
)
def test_bfloat16_is_found_on_x86_and_arm(flags: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert has_bfloat16(tmp_path / "cpuinfo") is native
