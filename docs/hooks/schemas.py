"""JSON Schemas of what a bundle and a run of lesion-infer hold, made out of the dataclasses that read them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any, Literal

from lesion_edge.manifest import SCHEMA_VERSION, VARIANTS, BundleFile, Manifest, Variant
from lesion_edge.output import columns
from lesion_edge.preprocess import VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RANGES: dict[tuple[type, str], dict[str, Any]] = {
    (Variant, "file"): {"pattern": r"^[^/\\]+$"},
    (Variant, "sha256"): {"minLength": 64, "maxLength": 64},
    (Variant, "graph_sha256"): {"minLength": 64, "maxLength": 64},
    (Variant, "temperature"): {"exclusiveMinimum": 0},
    (Variant, "threshold"): {"minimum": 0, "maximum": 1},
    (Variant, "outlier_limit"): {"exclusiveMinimum": 0},
    (BundleFile, "sha256"): {"minLength": 64, "maxLength": 64},
    (Manifest, "class_names"): {"minItems": 2, "uniqueItems": True},
    (Manifest, "image_size"): {"minimum": 32, "maximum": 4096},
    (Manifest, "variants"): {"minProperties": 1, "propertyNames": {"enum": list(VARIANTS)}},
    (Manifest, "preprocessing_version"): {"const": VERSION},
    (Manifest, "schema_version"): {"const": SCHEMA_VERSION},
}
"""What `__post_init__` and the loader demand beyond the types."""


def field_docs(cls: type) -> dict[str, str]:
    """The docstring that stands below each field of a class, on one line; empty where there is none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            docs[name] = ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            docs[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return docs


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of `manifest.json`."""
    return {
        "$schema": DIALECT,
        "title": "manifest.json of a Lesion Edge bundle",
        **_object(Manifest),
        "$defs": {"Variant": _object(Variant), "BundleFile": _object(BundleFile)},
    }


def prediction_schema() -> dict[str, Any]:
    """JSON Schema of one row that `lesion-infer --format jsonl` writes."""
    path, status, label, confidence, probability, error = columns(["<class>"])
    number = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    null = {"type": "null"}
    return {
        "$schema": DIALECT,
        "title": "one row of lesion-infer --format jsonl",
        "type": "object",
        "properties": {
            path: {
                "type": "string",
                "description": "The image as it was given; with #frame=N, a frame of a DICOM file.",
            },
            status: {"enum": ["ok", "out_of_distribution", "error"]},
            label: {"type": ["string", "null"], "description": "Class name; only where the status is ok."},
            confidence: {**number, "description": "Probability of the label."},
            error: {"type": ["string", "null"], "description": "A short reason; only where the status is error."},
        },
        "patternProperties": {
            f"^{probability.removesuffix('<class>')}": {**number, "description": "Probability of a class."}
        },
        "required": [path, status, label, confidence, error],
        "additionalProperties": False,
        "oneOf": [
            {"properties": {status: {"const": "ok"}, label: {"type": "string"}, error: null}},
            {"properties": {status: {"const": "out_of_distribution"}, label: null, confidence: null, error: null}},
            {"properties": {status: {"const": "error"}, label: null, confidence: null, error: {"type": "string"}}},
        ],
    }


def _object(cls: Any) -> dict[str, Any]:
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    properties, required = {}, []
    for field in dataclasses.fields(cls):
        if not field.metadata.get("in_file", True):
            continue
        properties[field.name] = {**_type(hints[field.name]), **RANGES.get((cls, field.name), {})}
        if docs[field.name]:
            properties[field.name]["description"] = docs[field.name].replace("`", "")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    # The loader asks for these although the class has them by itself.
    required += [name for name in properties if name.endswith("_version") or name in ("files", "digest")]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _type(hint: Any) -> dict[str, Any]:
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in plain:
        return {"type": plain[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"type": [_type(argument)["type"] for argument in arguments]}
    if origin in (tuple, list):
        return {"type": "array", "items": _type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": arguments[1] is Any or _type(arguments[1])}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    raise TypeError(f"no JSON Schema for {hint}")
