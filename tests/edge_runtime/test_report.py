"""The report as its reader meets it: a page in a browser, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lesion_edge import Classifier
from lesion_edge.report import Report

pytest.importorskip("onnxruntime")

COMMAND = [sys.executable, "-c", "from lesion_edge.cli import main; main()"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = "<img src=x onerror=document.title='taken'>&amp;\"'.png"
LEVELS = {"low.png": 40, "middle.png": 110, "high.png": 240, NASTY: 200, "caf\udce9.png": 170}


@pytest.fixture(scope="module")
def page(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of five images and a broken file, as the command writes it."""
    root = tmp_path_factory.mktemp("report")
    (root / "in").mkdir()
    for name, level in LEVELS.items():
        Image.new("RGB", (90, 60), (level, 100, 100)).save(root / "in" / name)
    (root / "in" / "<b>broken.jpg").write_text("no image")
    run = subprocess.run(
        [*COMMAND, root / "in", "--model", bundle, "--threshold", "0.6", "--report", root / "report.html"],
        capture_output=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert sorted(path.name for path in root.iterdir()) == ["in", "report.html"]
    return root / "report.html"


def cards(page: Path) -> list[tuple[str, str, float]]:
    """Name, label and probability of each card, in order."""
    observed = re.findall(
        r'data-p="([\d.]+)" data-label="(\w+)".*?<p class="soft">(.*?)</p>', page.read_text(), re.DOTALL
    )
    return [(os.path.basename(html.unescape(path)), label, float(p)) for p, label, path in observed]


def test_cards_are_sorted_by_probability_and_named(page: Path) -> None:
    observed = cards(page)
    assert [name for name, *_ in observed] == ["high.png", NASTY, "caf\\udce9.png", "middle.png", "low.png"]
    assert [label for _, label, _ in observed] == ["malignant"] * 3 + ["benign"] * 2
    assert [p for *_, p in observed] == sorted((p for *_, p in observed), reverse=True)


def test_page_needs_nothing_else_and_names_are_escaped(page: Path) -> None:
    content = page.read_text()
    assert not re.search(r"https?:|src=\"(?!data:)|@import|<link", content)
    assert "<img src=x" not in content
    assert "<b>broken" not in content
    assert "&lt;b&gt;broken.jpg" in content
    assert content.count('<img class="heat"') == 5


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_works_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    script = """<script>
    const state = () => ({counts: document.getElementById("counts").textContent,
      labels: [...cards].map((card) => card.querySelector(".label").textContent),
      marked: [...cards].filter((card) => card.classList.contains("positive")).length,
      value: value.textContent});
    const move = (to) => { slider.value = to; slider.dispatchEvent(new Event("input")); return state(); };
    addEventListener("load", () => {
      const box = (element) => element.getBoundingClientRect();
      const image = document.querySelector(".image"), heat = image.querySelector(".heat");
      const observed = {start: state(), none: move(1), all: move(0),
        wide: document.documentElement.scrollWidth > innerWidth, title: document.title,
        over: ["left", "top", "width", "height"].map((side) => box(heat)[side] - box(image)[side]),
        loaded: [...document.images].filter((image) => image.complete && image.naturalWidth).length};
      document.getElementById("reset").click();
      observed.reset = state();
      document.getElementById("heat").click();
      observed.hidden = getComputedStyle(heat).display;
      document.title = JSON.stringify(observed);
    });
    </script>"""
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace('loading="lazy"', "").replace("</body>", script + "</body>"))
    run = subprocess.run(
        [
            *(
                str(BROWSER),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'profile'}",
            ),
            *(f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert title, run.stderr
    observed: dict[str, Any] = json.loads(html.unescape(title[1]))
    assert observed["start"] == observed["reset"]
    assert observed["start"]["counts"] == "3 malignant, 2 benign"
    assert (observed["start"]["marked"], observed["start"]["value"]) == (3, "0.600")
    assert observed["none"]["counts"] == "5 benign"
    assert (observed["none"]["labels"], observed["none"]["marked"]) == (["benign"] * 5, 0)
    assert observed["all"]["counts"] == "5 malignant"
    assert not observed["wide"], "nothing sticks out to the right"
    assert observed["title"] == "Lesion Edge: 6 images"
    assert observed["loaded"] == 10, "five images and five heat maps"
    assert observed["over"] == pytest.approx([0, 0, 0, 0], abs=1), "the heat lies on the image"
    assert observed["hidden"] == "none"


def test_refused_images_stand_apart(scored_bundle: Path, paint: Callable[..., Path], tmp_path: Path) -> None:
    """None of them among the others, however probable; and a threshold leaves them alone."""
    colors = {"a.png": (250, 90, 90), "b.png": (90, 90, 90), "far.png": (90, 90, 230), "odd.png": (255, 0, 220)}
    sources = [paint(name, color) for name, color in colors.items()]
    classifier = Classifier(scored_bundle)
    with Report(tmp_path / "report.html", classifier) as report:
        for prediction in classifier.predict(sources, cam=True):
            report.add(prediction)
    content = (tmp_path / "report.html").read_text()
    assert [name for name, *_ in cards(tmp_path / "report.html")] == ["a.png", "b.png", "odd.png", "far.png"]
    assert [label for _, label, _ in cards(tmp_path / "report.html")] == [
        "malignant",
        "benign",
        "out_of_distribution",
        "out_of_distribution",
    ]
    others, refused = content.split('<h2 id="out-of-distribution">')
    assert refused.startswith("2 out of distribution: not like the lesions of the training")
    assert (
        others.count('data-status="out_of_distribution"'),
        refused.count('data-status="out_of_distribution"'),
    ) == (0, 2)
    assert '<a href="#out-of-distribution">2 out of distribution, without a label</a>' in others
    assert "<title>Lesion Edge: 4 images</title>" in content
    assert "2 out_of_distribution, 1 malignant, 1 benign" in content


def test_report_without_refused_images_does_not_speak_of_them(page: Path) -> None:
    assert "out of distribution" not in page.read_text()


def test_failed_run_leaves_no_report(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Report(tmp_path / "report.html", Classifier(bundle)):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
