"""Files of the same bytes: one image must not be learned and judged on, whatever its names are."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lesion_edge.console import say
from lesion_train.run import Sample


def find_copies(root: Path, files: Sequence[str]) -> list[list[int]]:
    """Group files by their bytes; only those that share their size are read, and empty ones never.

    Returns:
        Indices of at least two files each, in order.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        by_size[(root / file).stat().st_size].append(index)
    by_content: dict[tuple[int, str], list[int]] = defaultdict(list)
    for size, members in by_size.items():
        if size and len(members) > 1:
            for index in members:
                with (root / files[index]).open("rb") as stream:
                    by_content[size, hashlib.file_digest(stream, "sha256").hexdigest()].append(index)
    return sorted(members for members in by_content.values() if len(members) > 1)


def join_groups(keys: Sequence[Sequence[str]]) -> list[str | None]:
    """Name the group of each sample: samples that share a key, directly or through others, are one group.

    Args:
        keys: of each sample; a sample without any has no group.

    Returns:
        The first name, in sorted order, of all keys of the group.
    """
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for own in keys:
        first, *others = sorted({find(key) for key in own}) or [""]
        parent.update(dict.fromkeys(others, first))
    return [find(own[0]) if own else None for own in keys]


def group_copies(root: Path, samples: Sequence[Sample], keys: Sequence[Sequence[str]]) -> list[Sample]:
    """Give samples their groups by `keys`; files of the same bytes are one group, too, and named aloud."""
    files = [sample.file for sample in samples]
    copies = find_copies(root, files)
    if copies:
        count = sum(map(len, copies))
        images = f"{len(copies)} images" if len(copies) > 1 else "one image"
        say(f"{count} files are {images}, byte for byte, each a group: {_name(files, copies)}")
    contradictory = [members for members in copies if len({samples[index].label for index in members}) > 1]
    if contradictory:
        say(f"warning: {len(contradictory)} of them have two labels, one is wrong: {_name(files, contradictory)}")
    all_keys = [list(own) for own in keys]
    for members in copies:
        shared = next((key for index in members for key in keys[index]), f"copies of {files[members[0]]}")
        for index in members:
            all_keys[index].append(shared)
    groups = join_groups(all_keys)
    return [replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)]


def _name(files: Sequence[str], copies: Sequence[Sequence[int]], limit: int = 5) -> str:
    named = "; ".join(" = ".join(files[index] for index in members) for members in copies[:limit])
    return named + (f"; and {len(copies) - limit} more" if len(copies) > limit else "")
