"""Command line of `lesion-infer`.

It is argparse's: Typer, built as late as can be, makes the answer for one image a third more expensive.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lesion_edge import __version__, console
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "coreml", "openvino", "directml")
DESCRIPTION = """Classify dermoscopy images: one row per image, a damaged one as an error row, one that is not like
the lesions of the training as out_of_distribution and without a label.

Exit codes: 0 all done; 1 some images could not be used, or the self-test disagrees; 2 the request is wrong;
3 --monitor finds the images unlike those of the release; 130 interrupted."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def add_usage(self, usage, actions, groups, prefix=None):  # type: ignore[no-untyped-def]
        super().add_usage(usage, actions, groups, prefix or "Usage: ")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LesionEdgeError(f"{message}; see {self.prog} --help")


class _PrintCompletion(argparse.Action):
    """Prints a completion script of the parser and ends the process."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: object, *_: object) -> NoReturn:
        import shtab

        fresh = build_parser()  # argparse has taken the paths out of the one that it is using
        for action in fresh._actions:
            if action.type is Path or action.dest == "paths":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(fresh, shell=str(shell)))
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Parser of all options of the command."""
    parser = command_parser("lesion-infer", "lesion-infer [OPTIONS] PATH...", DESCRIPTION)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="folders (searched recursively), image files, or - for a list on standard input",
    )
    device = parser.add_argument_group("model and device")
    add_model_options(device)
    device.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="images per call of the network [default: 1 on CPU, else 32]",
    )
    _add_output_options(parser.add_argument_group("output"))
    _add_record_options(parser.add_argument_group("records of use"))
    _add_other_actions(parser.add_argument_group("in place of a run"))
    return parser


def command_parser(name: str, usage: str, description: str) -> argparse.ArgumentParser:
    """Parser of a command without its options; a wrong request raises `LesionEdgeError`."""
    return _Parser(name, usage=usage, description=description, formatter_class=_Formatter, allow_abbrev=False)


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """Options that decide the answer to an image, and where it is made; named as those of `Classifier.load`."""
    add = group.add_argument
    add("--model", type=Path, metavar="BUNDLE", help="bundle folder [default: the one that ships]")
    add(
        "--trust",
        type=Path,
        metavar="KEY.pub",
        help="public key that must have signed the bundle [default: $LESION_EDGE_TRUST, else none]",
    )
    add(
        "--site",
        type=Path,
        metavar="FILE",
        help="side file of --fit-site: probabilities, threshold and refusals as they fit this clinic",
    )
    add(
        "--device",
        choices=DEVICES,
        default="auto",
        help="device that runs the network; a named one is used or refused",
    )
    add(
        "--variant",
        choices=("int8", "fp16", "fp32"),
        help="ONNX file of the bundle [default: what suits the device]",
    )
    add("--threads", type=positive_int, metavar="N", help="images in work at once [default: the CPUs it may use]")
    add(
        "--threshold",
        type=_probability,
        metavar="T",
        help="decision threshold on the probability of the positive class [default: the bundle's]",
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", type=Path, metavar="FILE", help="file for the predictions [default: standard output]")
    add("--format", choices=("csv", "jsonl"), default="csv", help="CSV or JSON Lines [default: csv]")
    add("--heatmaps", type=Path, metavar="DIR", help="folder for heat maps (Grad-CAM) over the images")
    add("--report", type=Path, metavar="FILE.html", help="HTML page with all images and their heat maps")
    add("--sr", type=Path, metavar="DIR", help="folder for DICOM structured reports, one per DICOM image or frame")
    add("--sr-patient", action="store_true", help="copy patient and study from the image into --sr's reports")
    add(
        "--evaluate",
        action="store_true",
        help="metrics against the class-named parent folders, with confidence intervals",
    )
    add("--lesions", type=Path, metavar="LIST.csv", help="one answer per lesion, too: CSV with file,lesion")
    add(
        "--lesions-output",
        type=Path,
        metavar="FILE",
        help="file for the answers of --lesions [default: NAME.lesions.csv beside --output]",
    )
    add("--resume", action="store_true", help="complete an --output that was interrupted")
    add(
        "--watch", action="store_true", help="classify new images as they arrive, until Ctrl-C; completes --output"
    )


def _add_record_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--audit", type=Path, metavar="FILE", help="log with one line per image, chained by digests; appended to")
    add("--audit-paths", action="store_true", help="name the images in the --audit by their paths, too")
    add(
        "--monitor",
        type=Path,
        metavar="FILE",
        help="state of a comparison of the last 200 images with the release",
    )
    add("--stop-on-drift", action="store_true", help="end once --monitor finds a difference [default: go on]")


def _add_other_actions(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--fit-site",
        type=Path,
        metavar="FILE",
        help="write a side file, fitted to labelled images: class-named folders, or a CSV with file,label[,group]",
    )
    add(
        "--target-sensitivity",
        type=_probability,
        metavar="S",
        help="sensitivity that the threshold of --fit-site is chosen for [default: 0.9]",
    )
    add(
        "--verify-audit",
        type=Path,
        metavar="FILE",
        help="name the first line of a log that was changed or removed",
    )
    add("--self-test", action="store_true", help="compare this device's logits with those recorded in the bundle")
    add(
        "--doctor",
        action="store_true",
        help="versions, providers and CPU features of this device, and the self-test",
    )
    add(
        "--benchmark",
        nargs="?",
        const="full",
        choices=("full", "quick"),
        help="time each variant and compare its answers, for two minutes or, quick, for seconds [default: full]",
    )
    add(
        "--completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "fish", "powershell"),
        default=argparse.SUPPRESS,
        help="print the completion script of a shell, and end",
    )
    add("--version", action="version", version=f"lesion-edge {__version__}")


def infer() -> bool:
    """Run the command line; True when every image could be used."""
    arguments = sys.argv[1:]
    # argparse takes options between the paths only where there is no --, behind which a path may begin with -.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = vars(build_parser().parse_intermixed_args(arguments[:end]))
    options["paths"] += arguments[end + 1 :]
    doctor, self_test, audit = options.pop("doctor"), options.pop("self_test"), options.pop("verify_audit")
    if audit is not None:
        from lesion_edge.audit import verify_audit

        count, digest = verify_audit(audit)
        console.say(
            f"{audit}: {count} lines, none changed, removed or moved before the last; its digest is {digest}"
        )
        return True
    if doctor:
        from lesion_edge.doctor import examine

        return examine(
            options["model"], options["device"], options["threads"], options["variant"], options["trust"]
        )
    if self_test:
        return _self_test(options["model"], options["device"], options["variant"], options["trust"])
    effort = options.pop("benchmark")
    if effort is not None:
        _refuse_others(
            "--benchmark", options, "model", "device", "threads", "variant", "trust", "format", "batch_size"
        )
        from lesion_edge.benchmark import benchmark

        return benchmark(options, effort)
    fit_site, target_sensitivity = options.pop("fit_site"), options.pop("target_sensitivity")
    if fit_site is not None:
        return _fit_site(options, fit_site, 0.9 if target_sensitivity is None else target_sensitivity)
    if target_sensitivity is not None:
        raise LesionEdgeError("--target-sensitivity needs --fit-site, the side file to write")
    from lesion_edge.inference import run
    from lesion_edge.inference_options import InferenceOptions

    return run(InferenceOptions(**options))


def _fit_site(options: dict[str, Any], output: Path, target_sensitivity: float) -> bool:
    used = ("model", "device", "threads", "variant", "trust")
    _refuse_others("--fit-site only fits: it", options, "paths", "format", *used)
    from lesion_edge.classifier import Classifier
    from lesion_edge.labeled import fit_site_file

    arguments = {name: options[name] for name in used}
    return fit_site_file(
        Classifier.load(arguments.pop("model"), **arguments), options["paths"], output, target_sensitivity
    )


def _refuse_others(action: str, options: dict[str, Any], *used: str) -> None:
    """Refuse what an action would ignore."""
    if others := [name for name, value in options.items() if value and name not in used]:
        names = ["PATH" if name == "paths" else f"--{name.replace('_', '-')}" for name in others]
        raise LesionEdgeError(f"{action} goes without {', '.join(names)}")


def _self_test(model: Path | None, device: str, variant: str | None, trust: Path | None) -> bool:
    from lesion_edge.classifier import Classifier
    from lesion_edge.selftest import format_result, self_test

    classifier = Classifier.load(model, device, variant=variant, trust=trust)
    outcome = self_test(classifier)
    console.say(f"self-test of {format_result(classifier, outcome)}")
    return outcome.passed


def _within(convert: Callable[[str], float], text: str, low: float, high: float, expected: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"'{text}' is not {expected}")
    return value


def positive_int(text: str) -> int:
    """Argument of an option: a whole number of at least 1."""
    return int(_within(int, text, 1, sys.maxsize, "a whole number of at least 1"))


def _probability(text: str) -> float:
    return _within(float, text, 0, 1, "within 0 to 1")


def main() -> None:
    """Run `lesion-infer`."""
    with console.exit_codes("lesion-infer"):
        sys.exit(0 if infer() else console.SOME_UNUSABLE)
