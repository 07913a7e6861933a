"""Config dataclasses: bounds of their fields, and fields set by name.

Each recipe has one such config beside its code; a field may itself be a config, whose fields have dotted names.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COUNT = {"low": 1}
NOT_NEGATIVE = {"low": 0}
POSITIVE = {"low": 1e-12}
SHARE = {"low": 0, "high": 1}
"""Bounds of a field, its metadata; both belong to the range."""

Config = TypeVar("Config")


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Copy of a config with fields set by `name=value`, as on a command line.

    Pairs are written `0.5,1.5`, truth values `true` and `false`.

    Raises:
        LesionEdgeError: there is no such field, or the value has another type or lies out of its bounds.
    """
    leaves = dict(_leaves(config))
    seen: set[str] = set()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in leaves:
            problem = "is not name=value" if not equals else f"names no field of {type(config).__name__}"
            raise LesionEdgeError(f"--set {assignment} {problem}, which has:\n{field_table(config)}")
        if name in seen:
            raise LesionEdgeError(f"{name} is set twice: leave one out")
        seen.add(name)
        kind, metadata, _ = leaves[name]
        try:
            value = _parse(text, kind)
            _check(value, metadata)
        except ValueError as error:
            raise LesionEdgeError(f"--set {assignment}: {error}; the fields are:\n{field_table(config)}") from None
        config = _replaced(config, name.split("."), value)
    return config


def field_table(config: Any) -> str:
    """One line per field: name, type and value."""
    return "\n".join(
        f"  {name}: {_type_name(kind)} = {_format(value)}" for name, (kind, _, value) in _leaves(config)
    )


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Dotted name, type, metadata and value of every field."""
    hints = get_type_hints(type(config))
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, (hints[entry.name], entry.metadata, value)


def _replaced(config: Any, path: list[str], value: Any) -> Any:
    name, *inner = path
    return replace(config, **{name: _replaced(getattr(config, name), inner, value) if inner else value})


def _parse(text: str, kind: Any) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"'{text}' is neither true nor false")
        return text == "true"
    if kinds := get_args(kind):
        items = text.split(",")
        if len(items) != len(kinds):
            raise ValueError(f"'{text}' is not {len(kinds)} values with commas between them")
        return tuple(_parse(item, inner) for item, inner in zip(items, kinds, strict=True))
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"'{text}' is not {_type_name(kind)}") from None
    if kind is float and not math.isfinite(value):
        raise ValueError(f"'{text}' is not a finite number")
    return value


def _check(value: Any, bounds: Any) -> None:
    """Raise ValueError where a number lies out of its bounds, or a pair runs downwards."""
    values = value if isinstance(value, tuple) else (value,)
    low, high = bounds.get("low"), bounds.get("high")
    if low is not None and min(values) < low:
        raise ValueError(f"{_format(value)} is out of bounds: at least {low}")
    if high is not None and max(values) > high:
        raise ValueError(f"{_format(value)} is out of bounds: at most {high}")
    if list(values) != sorted(values):
        raise ValueError(f"{_format(value)} runs downwards")


def _type_name(kind: Any) -> str:
    return ",".join(inner.__name__ for inner in get_args(kind)) or str(kind.__name__)


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_format, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
