"""The page at `/`, as the person meets it who drops images on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")

from tests.browser import CHROMIUM, Browser

if TYPE_CHECKING:
    from tests.serve.conftest import RunningService

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

NASTY = "<img src=x onerror=document.title='taken'>.png"
STATE = """(() => {
const texts = (list) => [...document.querySelectorAll(list + " .card")].map(
  (card) => card.innerText.split("\\n").filter(Boolean));
return {
  counts: document.getElementById("counts").textContent,
  cards: texts("#cards"),
  refused: texts("#refused"),
  errors: [...document.querySelectorAll("#errors td")].map((cell) => cell.textContent),
  marked: [...document.querySelectorAll(".positive .soft")].map((name) => name.textContent),
  images: [...document.images].filter((image) => image.complete && image.naturalWidth).length,
  heat: [...document.querySelectorAll(".heat")].map((heat) => {
    const box = heat.getBoundingClientRect(), image = heat.parentElement.getBoundingClientRect();
    return ["left", "top", "width", "height"].every((side) => Math.abs(box[side] - image[side]) < 1);
  }),
  wide: document.documentElement.scrollWidth > innerWidth,
  title: document.title,
}})()"""


@pytest.fixture
def dropped(images: Path, tmp_path: Path) -> list[Path]:
    Image.new("RGB", (40, 60), (150, 60, 60)).save(tmp_path / NASTY)
    return [*sorted(images.iterdir()), tmp_path / NASTY]


@pytest.mark.parametrize("width", [390, 1280])
def test_dropped_images_become_a_report(width: int, served: RunningService, dropped: list[Path]) -> None:
    with Browser(width) as browser:
        browser.open(f"{served.url}/")
        assert browser.run("document.getElementById('results').hidden")
        browser.drop(dropped)
        browser.wait_for("document.querySelectorAll('.card, #errors tr').length === 5")
        browser.wait_for("[...document.images].every((image) => image.complete)")
        state: dict[str, Any] = browser.run(STATE)
        assert [(label, name) for label, _, name in state["cards"]] == [
            ("malignant", "red.png"),
            ("malignant", NASTY),
            ("benign", "green.png"),
        ]
        assert [(label, name) for label, _, name in state["refused"]] == [("out of distribution", "blue.png")]
        assert state["errors"] == [
            "broken.jpg",
            "not an image in an accepted format (JPEG, PNG, WEBP, TIFF, BMP, GIF)",
        ]
        assert state["counts"] == "2 malignant, 1 benign, 1 out_of_distribution"
        assert state["marked"] == ["red.png", NASTY]
        assert (state["images"], state["heat"]) == (8, [True] * 4), "each has a heat map, which lies on it"
        assert not state["wide"], "nothing sticks out to the right"
        assert state["title"] == "Lesion Edge"
        browser.wait_for("document.getElementById('progress').textContent === ''")

        move = "slider.value = {}; slider.dispatchEvent(new Event('input'));"
        browser.run(move.format(1))
        assert browser.run(STATE)["counts"] == "3 benign, 1 out_of_distribution"
        browser.run("document.getElementById('reset').click()")
        assert browser.run(STATE) == state

        browser.drop(dropped[-1:])
        browser.wait_for("document.querySelectorAll('#cards .card').length === 4")
        assert {address.partition("data:")[0] for address in browser.addresses()} == {
            f"{served.url}/",
            f"{served.url}/card",
            "",
        }, "nothing is asked for but the page itself, answers, and images within it"
        assert browser.complaints() == []


def test_images_may_be_chosen_instead(served: RunningService, dropped: list[Path]) -> None:
    with Browser(1280) as browser:
        browser.open(f"{served.url}/")
        node = browser.call("DOM.getDocument")["root"]["nodeId"]
        chooser = browser.call("DOM.querySelector", nodeId=node, selector="#files")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(path) for path in dropped])
        browser.wait_for("document.querySelectorAll('.card, #errors tr').length === 5")


def test_page_of_the_description_obeys_its_policy(served: RunningService) -> None:
    with Browser(390) as browser:
        browser.open(f"{served.url}/docs")
        assert browser.run("document.querySelectorAll('h2').length") > 10
        assert not browser.run("document.documentElement.scrollWidth > innerWidth")
        assert browser.run("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
        assert browser.complaints() == []
