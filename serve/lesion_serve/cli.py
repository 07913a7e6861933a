"""Command line of `lesion-serve`; the options that decide an answer are those of `lesion-infer`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lesion_edge import __version__, console
from lesion_edge.cli import add_model_options, command_parser, positive_int
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """Answer images over HTTP, with the records of lesion-infer: a page at /, POST /classify, the Open
Inference Protocol below /v2, figures for Prometheus at /metrics, and the description of it all at /docs.

Exit codes: 0 ended by SIGTERM, and all that was accepted is answered; 1 the self-test disagrees; 2 the request is
wrong; 130 ended by Ctrl-C, likewise all answered."""


def build_parser() -> argparse.ArgumentParser:
    """Parser of all options of the command."""
    parser = command_parser("lesion-serve", "lesion-serve [OPTIONS]", DESCRIPTION)
    add_model_options(parser.add_argument_group("model and device"))
    add = parser.add_argument_group("service").add_argument
    add(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address to listen on [default: 127.0.0.1, for this machine alone]",
    )
    add("--port", type=_port, metavar="N", default=8000, help="port; 0 takes a free one [default: 8000]")
    add(
        "--max-body",
        type=positive_int,
        metavar="MIB",
        default=64,
        help="largest request; four times as much is held at once [default: 64]",
    )
    add(
        "--queue",
        type=positive_int,
        metavar="N",
        default=64,
        help="requests in work or waiting; one more is turned away with status 429 [default: 64]",
    )
    add(
        "--timeout",
        type=positive_int,
        metavar="SECONDS",
        default=30,
        help="time for a request, that of its body included [default: 30]",
    )
    add("--version", action="version", version=f"lesion-edge {__version__}")
    return parser


def serve(arguments: Sequence[str] | None = None) -> bool:
    """Run the command line; False where the self-test disagrees."""
    options = vars(build_parser().parse_args(arguments))
    try:
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LesionEdgeError(f"{error.name} is not installed: pip install 'lesion-edge[serve,cpu]'") from None
    from lesion_edge.classifier import Classifier
    from lesion_serve.server import run
    from lesion_serve.service import Limits, Service

    host, port = options.pop("host"), options.pop("port")
    limits = Limits(options.pop("max_body") << 20, options.pop("queue"), options.pop("timeout"))
    classifier = Classifier.load(options.pop("model"), **options)
    return run(Service(classifier, limits), host, port)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port, 0 to 65535")
    return int(text)


def main() -> None:
    """Run `lesion-serve`."""
    with console.exit_codes("lesion-serve"):
        sys.exit(0 if serve() else console.SOME_UNUSABLE)
