"""`lesion-infer`: the command line.

It is argparse's, because Typer takes longer to load than the network to answer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lesion_edge import __version__, console
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "coreml", "openvino", "directml")
DESCRIPTION = """Classify dermoscopy images: one row per image, a damaged one as an error row, one that is not like
the lesions of the training as out_of_distribution and without a label.

Exit codes: 0 all done; 1 some images could not be used, or the self-test disagrees; 2 the request is wrong;
130 interrupted."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage, actions, groups, prefix=None):  # type: ignore[no-untyped-def]
        super().add_usage(usage, actions, groups, prefix or "Usage: ")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LesionEdgeError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """All options of the command."""
    made = _Parser(
        "lesion-infer",
        usage="lesion-infer [OPTIONS] PATH...",
        description=DESCRIPTION,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "paths", metavar="PATH", nargs="*", help="folders, images, or - for a list on standard input"
    )
    add = made.add_argument
    add("--model", type=Path, metavar="BUNDLE", help="bundle folder [default: the one that ships]")
    add("--output", type=Path, metavar="FILE", help="file for the predictions [default: standard output]")
    add("--format", choices=("csv", "jsonl"), default="csv", help="CSV or JSON Lines [default: csv]")
    add("--device", choices=DEVICES, default="auto", help="where the network runs; a named one is used or refused")
    add("--variant", choices=("int8", "fp16", "fp32"), help="graph of the bundle [default: what suits the device]")
    add("--threads", type=_count, metavar="N", help="images at once [default: the CPUs it may use]")
    add(
        "--batch-size",
        type=_count,
        metavar="N",
        help="images per call of the network [default: 1 on CPU, else 32]",
    )
    add(
        "--threshold",
        type=_probability,
        metavar="T",
        help="probability of the positive class [default: the bundle's]",
    )
    add("--evaluate", action="store_true", help="compare with the class-named parent folders")
    add("--heatmaps", type=Path, metavar="DIR", help="folder for images of where the network looked")
    add("--report", type=Path, metavar="FILE.html", help="one page with all images and their heat maps")
    add("--resume", action="store_true", help="go on with an --output that was interrupted")
    add("--watch", action="store_true", help="wait for new images, until Ctrl-C; goes on with --output")
    add("--self-test", action="store_true", help="check that this device answers as the bundle was released")
    add("--doctor", action="store_true", help="show what this device has, and check it")
    add("--version", action="version", version=f"lesion-edge {__version__}")
    return made


def infer() -> bool:
    """Do what the command line says; True when every image could be used."""
    given = sys.argv[1:]
    # argparse takes options between the paths only where there is no --, behind which a path may begin with -.
    end = given.index("--") if "--" in given else len(given)
    options = vars(parser().parse_intermixed_args(given[:end]))
    options["paths"] += given[end + 1 :]
    doctor, self_test = options.pop("doctor"), options.pop("self_test")
    if doctor:
        from lesion_edge.doctor import examine

        return examine(options["model"], options["device"], options["threads"], options["variant"])
    if self_test:
        return _self_test(options["model"], options["device"], options["variant"])
    from lesion_edge.inference import InferenceOptions, run

    return run(InferenceOptions(**options))


def _self_test(model: Path | None, device: str, variant: str | None) -> bool:
    from lesion_edge.classifier import Classifier
    from lesion_edge.selftest import describe, self_test

    classifier = Classifier.load(model, device, variant=variant)
    outcome = self_test(classifier)
    console.say(f"self-test of {describe(classifier, outcome)}")
    return outcome.passed


def _within(convert: Callable[[str], float], text: str, low: float, high: float, what: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}")
    return value


def _count(text: str) -> int:
    return int(_within(int, text, 1, sys.maxsize, "a whole number of at least 1"))


def _probability(text: str) -> float:
    return _within(float, text, 0, 1, "within 0 to 1")


def main() -> None:
    """Run `lesion-infer`."""
    with console.exit_codes("lesion-infer"):
        sys.exit(0 if infer() else console.SOME_UNUSABLE)
