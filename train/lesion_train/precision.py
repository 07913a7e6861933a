"""What this machine calculates fastest; the only module that looks at the hardware."""

from __future__ import annotations

from pathlib import Path


def has_bfloat16() -> bool:
    """Whether a GPU is there or the CPU multiplies bfloat16 natively."""
    import keras

    if keras.distribution.list_devices("gpu"):
        return True
    flags = Path("/proc/cpuinfo")
    return flags.exists() and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.read_text().split()))
