"""MkDocs hook: writes what the code knows into the pages when the site is built.

A page asks for it by a comment on a line of its own:

    <!-- command: lesion-infer -->                     usage and options, from the command's own parser
    <!-- fields: lesion_edge.manifest.Variant -->      fields of a dataclass, with the docstrings below them
    <!-- values: lesion_train.paper.PaperConfig -->    the same with default values, fields of fields included
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import re
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("edge_runtime", "train", "export", "serve")]

import schemas  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

DIRECTIVE = re.compile(r"^<!-- (command|fields|values): (\S+) -->$", re.MULTILINE)
SCHEMAS = {
    "reference/manifest.schema.json": schemas.manifest_schema,
    "reference/prediction.schema.json": schemas.prediction_schema,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the JSON Schemas."""
    from mkdocs.structure.files import File

    for path, schema in SCHEMAS.items():
        files.append(File.generated(config, path, content=json.dumps(schema(), indent=2) + "\n"))
    return files


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Put tables in the place of the comments that ask for them."""
    writers = {"command": command_reference, "fields": field_table, "values": value_table}
    return DIRECTIVE.sub(lambda match: writers[match[1]](match[2]), markdown)


def on_page_content(html: str, **page: Any) -> str:
    """Keep short words with hyphens whole in code, so that no line breaks behind the hyphens of an option."""

    def keep_words(code: re.Match[str]) -> str:
        words = re.sub(r"(?<!\S)(?=\S*-)\S{1,32}(?!\S)", r'<span class="word">\g<0></span>', code[1])
        return f"<code>{words}</code>"

    return re.sub(r"<code>([^<]+)</code>", keep_words, html)


def command_reference(name: str) -> str:
    """Usage, purpose and options of a command, in Markdown."""
    if name in ("lesion-infer", "lesion-serve"):
        package = "lesion_edge" if name == "lesion-infer" else "lesion_serve"
        usage, purpose, options = _of_argparse(_load(f"{package}.cli.build_parser")())
    else:
        from lesion_export.cli import export
        from lesion_train.check import check
        from lesion_train.cli import train

        functions = {"lesion-check": check, "lesion-train": train, "lesion-export": export}
        usage, purpose, options = _of_typer(name, functions[name])
    rows = "".join(f"| {_code(option)} | {_cell(text)} |\n" for option, text in options)
    return f"```text\n{usage}\n```\n\n{purpose}\n\n| option | meaning |\n|---|---|\n{rows}"


def field_table(path: str) -> str:
    """Fields of a dataclass: name, type, meaning."""
    cls = _load(path)
    docs = schemas.field_docs(cls)
    rows = "".join(
        f"| `{field.name}` | {_code(str(field.type))} | {_cell(docs[field.name])} |\n"
        for field in dataclasses.fields(cls)
        if field.metadata.get("in_file", True)
    )
    return f"| field | type | meaning |\n|---|---|---|\n{rows}"


def value_table(path: str) -> str:
    """Fields of a config: dotted name, default value, meaning."""
    rows = "".join(
        f"| `{name}` | {_code(value)} | {_cell(text)} |\n" for name, value, text in _values(_load(path)())
    )
    return f"| name | default | meaning |\n|---|---|---|\n{rows}"


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    docs = schemas.field_docs(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            yield prefix + field.name, text.lower() if isinstance(value, bool) else text, docs[field.name]


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _of_argparse(parser: argparse.ArgumentParser) -> tuple[str, str, list[tuple[str, str]]]:
    formatter = argparse.HelpFormatter(parser.prog)
    options = [
        (formatter._format_action_invocation(action), action.help or "")
        for action in parser._actions
        if action.help != argparse.SUPPRESS
    ]
    usage = parser.format_usage().partition(":")[2]
    return " ".join(usage.split()), parser.description or "", options


def _of_typer(name: str, function: Any) -> tuple[str, str, list[tuple[str, str]]]:
    import typer
    import typer.main

    app = typer.Typer(add_completion=False)
    app.command()(function)
    command = typer.main.get_command(app)
    context = command.make_context(name, [], resilient_parsing=True)
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    usage = command.get_usage(context).partition(":")[2].strip()
    return usage, command.help or "", [record for record in records if record]


def _code(text: str) -> str:
    return f"<code>{escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    # What stands in brackets is neither HTML nor a link, and a bar ends no cell.
    return re.sub(r"[\[\]|<]", lambda match: f"&#{ord(match[0])};", " ".join(text.split()))
