"""Command `lesion-train`: fine-tune ResNet50 on labelled images and write a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

with contextlib.suppress(ImportError):  # without the extra; run_command says so
    import typer

from lesion_edge import atomic, console
from lesion_edge.console import say
from lesion_edge.errors import LesionEdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lesion_train.recipe import TrainingResult
    from lesion_train.run import TrainConfig


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with one sub-folder per class, or with train, val and test of such, or CSV: "
            "file,label[,group][,split][,source][,diagnosis], HAM10000's, one-hot, or of the ISIC archive.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Run folder to write.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images that a CSV names. [default: the CSV's]"),
    ] = None,
    recipe: Annotated[Literal["paper", "robust"], typer.Option(help="Training recipe.")] = "paper",
    weights: Annotated[
        str, typer.Option(help="Initial weights of ResNet50: imagenet, none or a file.")
    ] = "imagenet",
    image_size: Annotated[int, typer.Option(min=32, max=1024, help="Input size of the network, pixels.")] = 180,
    resize: Annotated[
        Literal["squash", "crop", "pad"], typer.Option(help="Way to make an image square.")
    ] = "squash",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs per stage. [default: the recipe's]")] = None,
    validation_split: Annotated[float, typer.Option(help="Fraction of images held out.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of split, initial weights and order.")] = 0,
    positive_class: Annotated[
        str | None, typer.Option(help="Class to detect. [default: malignant, or the disease that the names tell]")
    ] = None,
    data_license: Annotated[str | None, typer.Option(help="Licence of the images, for the model card.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Hyperparameter of the recipe, repeatable; an unknown name lists them all.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
) -> None:
    """Fine-tune ResNet50 and write a run: model.keras, run.json, history.csv and plots.

    Exit codes: 0 all done; 1 trained, but some images could not be used; 2 the request is wrong; 130 interrupted.
    """
    _require_tensorflow()
    from lesion_train.config import override
    from lesion_train.paper import PaperConfig, train_paper
    from lesion_train.robust import train_robust
    from lesion_train.robust_config import RobustConfig
    from lesion_train.run import TrainConfig

    recipes: dict[str, tuple[Any, Callable[..., TrainingResult]]] = {
        "paper": (PaperConfig(), train_paper),
        "robust": (RobustConfig(), train_robust),
    }
    config, train_recipe = recipes[recipe]
    assignments = [*([] if epochs is None else [f"epochs={epochs}"]), *(assignments or [])]
    settings = TrainConfig(
        data=str(data.resolve()),
        recipe=recipe,
        weights=weights if weights in ("imagenet", "none") else str(Path(weights).resolve()),
        image_size=image_size,
        resize=resize,
        validation_split=validation_split,
        seed=seed,
        positive_class=positive_class,
        data_license=data_license,
        config=override(config, assignments),
        images=str(images.resolve()) if images else None,
    )
    _train(settings, train_recipe, output, resume)


def _train(
    settings: TrainConfig[Any], train_recipe: Callable[..., TrainingResult], output: Path, resume: bool
) -> None:
    """Train, or go on with an interrupted run, and write the run; without a run, nothing stays behind."""
    from lesion_train.recipe import CHECKPOINT

    work = _open_run(output, settings, resume)
    if work is None:
        return say(f"{output} is finished already")
    try:
        trained = train_recipe(settings, work)
    except LesionEdgeError:
        if not resume and not (work / CHECKPOINT).exists():
            shutil.rmtree(output)
        raise
    except KeyboardInterrupt:
        say(f"\ninterrupted; the same command with --resume goes on after the last finished epoch in {output}")
        raise
    _write_run(settings, trained, output)
    shutil.rmtree(work)
    say(f"run: {output}")
    if skipped := trained.data.skipped:
        say(f"{len(skipped)} images could not be used (named above and in run.json)")
        raise typer.Exit(console.SOME_UNUSABLE)


def _write_run(settings: TrainConfig[Any], trained: TrainingResult, output: Path) -> None:
    """Evaluate the model and write all files of the run, `run.json` last."""
    from lesion_train.evaluate import draw_plots, evaluate, table
    from lesion_train.probe import probe_sentence, probe_sources
    from lesion_train.run import MODEL_NAME, run_metadata, save_run, write_history

    figures = evaluate(trained)
    write_history(trained.history, output / "history.csv")
    draw_plots(trained, figures, output)
    trained.model.save(output / MODEL_NAME)
    if trained.outlier_score is not None:
        trained.outlier_score.save(output)
    probes = probe_sources(trained)
    scores = {**figures, "probe": probes} if probes else figures
    save_run(run_metadata(settings, trained.data, scores, trained.seconds), output)
    say(table(figures))
    if probes:
        say(probe_sentence(probes))


def _open_run(output: Path, settings: TrainConfig[Any], resume: bool) -> Path | None:
    """Folder for unfinished work, or None where the run is finished."""
    from lesion_train.run import differences

    work = output / "unfinished"
    record = work / "settings.json"
    requested = asdict(settings)
    if resume:
        if (output / "run.json").exists():
            return None
        if not record.exists():
            raise LesionEdgeError(f"{output} is not an interrupted run: leave --resume out")
        if names := differences(json.loads(record.read_text(encoding="utf-8")), requested):
            fields = ", ".join(name.removeprefix("config.") for name in names)
            raise LesionEdgeError(f"{output} was started with other settings, see {record}: {fields}")
        return work
    if output.exists():
        raise LesionEdgeError(f"{output} exists already: choose another --output, or --resume an interrupted run")
    if not Path(settings.data).exists():
        raise LesionEdgeError(
            f"{settings.data} does not exist: give a folder with one sub-folder per class, or a CSV"
        )
    work.mkdir(parents=True)
    atomic.write_text(record, json.dumps(requested, indent=1))
    return work


def _require_tensorflow() -> None:
    # TensorFlow writes pages to standard error otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with console.native_errors_dropped():
            import keras  # noqa: F401
    except ImportError:
        raise LesionEdgeError("TensorFlow is not installed: pip install 'lesion-edge[train]'") from None


def main() -> None:
    """Run `lesion-train`."""
    console.run_command("lesion-train", train, extra="train")
