"""CPUs of this machine: how many this process may use, and the instructions they have."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups."""
OWN_CGROUPS = Path("/proc/self/cgroup")
"""Where Linux says which of them a process is in."""

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
"""CPU features by Linux's names that decide how fast int8 is, slowest first."""

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the CPU."""
DEVICE_TREE = Path("/proc/device-tree/model")
"""Where Linux names the board, on ARM."""


def available_cpus(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> int:
    """CPUs this process may use: its affinity, and the quotas of its control groups where there are any."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([count, *(-(-quota // period) for quota, period in _quotas(cgroups, own_cgroups))]))


def cpu_features(cpuinfo: Path = CPUINFO) -> list[str]:
    """Those of `FEATURES` that this CPU has, as far as Linux tells; empty elsewhere."""
    flags = _flags(cpuinfo)
    return [name for name in FEATURES if name in flags]


def has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU multiplies bfloat16 natively, as far as Linux tells."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _flags(cpuinfo))


def cpu_model(cpuinfo: Path = CPUINFO, device_tree: Path = DEVICE_TREE) -> str:
    """Name of the CPU, or of the board that it is on; `unknown` where the system does not tell."""
    for line in _text(cpuinfo).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return _text(device_tree).strip("\0\n") or platform.processor() or "unknown"


def _flags(cpuinfo: Path) -> set[str]:
    return {
        flag
        for line in _text(cpuinfo).splitlines()
        if line.lower().startswith(("flags", "features"))
        for flag in line.partition(":")[2].split()
    }


def _quotas(cgroups: Path, own_cgroups: Path) -> Iterator[tuple[int, int]]:
    """Quota and period in µs of this process's control groups, versions 2 and 1 (Linux alone has them)."""
    for line in _text(own_cgroups).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):  # version 1, about something else
            continue
        root = cgroups / "cpu" if controllers else cgroups
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        folder = root / name.lstrip("/")
        for place in (folder, *folder.parents):
            values = " ".join(_text(place / file) for file in files).split()
            if len(values) == 2 and values[0].isdecimal() and values[1].isdecimal():
                yield int(values[0]), int(values[1])
            if place == root:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
