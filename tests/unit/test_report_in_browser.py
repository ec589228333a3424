"""The page of results in a real browser: no error, no request; toggles, tables, copies; narrow, wide, dark, light."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_report import HOSTILE, folder

from fcbench.cli.main import main
from fcbench.results.folder import PICTURES
from fcbench.results.table import load_points

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("vl_convert", reason="needs vl-convert-python")

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs a browser: one of {', '.join(BROWSERS)}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # a container's root has no sandbox of its own
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("runs"), "first", "second", HOSTILE, suite=HOSTILE)


@pytest.fixture(scope="module")
def file(runs: Path) -> Path:
    page = runs / "report.html"
    done = CliRunner().invoke(main, ["report", str(runs), "-o", str(page)])
    assert done.exit_code == 0, done.output
    return page


def opened(browser: Any, file: Path, width: int = 1440, scheme: str = "light") -> Any:
    """The page with all figures drawn; what goes wrong in it is in ``page.faults``."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda m: page.faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("request", lambda r: page.faults.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.goto(file.as_uri())
    drawn(page)
    return page


def drawn(page: Any) -> None:
    page.wait_for_function("document.querySelectorAll('.chart:not([data-drawn])').length === 0", timeout=30_000)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "light"), (1440, "dark"), (1440, "light")])
def test_it_opens_without_an_error_and_fits(browser: Any, file: Path, width: int, scheme: str) -> None:
    page = opened(browser, file, width, scheme)
    assert page.faults == [] and page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".chart svg.marks").count() == 3, "two tasks, and the distortion of the features"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(22, 24, 27)" if scheme == "dark" else "rgb(255, 255, 255)")
    page.close()


def test_toggles_and_units(browser: Any, file: Path) -> None:
    page = opened(browser, file)
    marks = ".chart >> nth=0 >> .mark-symbol.role-mark path"
    assert page.locator(marks).count() == 15
    page.locator("#codecs input").nth(2).uncheck()
    drawn(page)
    assert page.locator(marks).count() == 10
    assert page.locator(".panel").count() == 3
    for task in ("segmentation", "distortion"):
        page.locator(f"#tasks input[value={task}]").uncheck()
    drawn(page)
    assert page.locator(".panel").count() == 1
    page.select_option("#rate", "bytes")
    page.locator("#log").uncheck()
    drawn(page)
    assert "bytes per image" in page.locator(".chart").inner_text()
    page.locator("#none").click()
    assert "no codec chosen" in page.locator(".chart").inner_text()
    assert page.faults == []
    page.close()


def test_a_point_says_its_numbers(browser: Any, file: Path) -> None:
    page = opened(browser, file)
    page.locator(".chart >> nth=0 >> .mark-symbol.role-mark path").nth(12).hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible").inner_text()
    assert HOSTILE[:20] in tip and "95 % interval" in tip and "0.15 to 0.5" in tip
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0
    page.close()


def test_its_tables_are_those_of_compare(browser: Any, file: Path, runs: Path) -> None:
    page = opened(browser, file)
    page.select_option("#anchor", "second")
    shown = page.evaluate(
        "[...document.querySelectorAll('#compare-tables tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    done = CliRunner().invoke(main, ["compare", str(runs), "--anchor", "second", "--format", "markdown"])
    lines = [line.removeprefix("| ").removesuffix(" |") for line in done.output.splitlines() if line.startswith("|")]
    expected = [line.split(" | ") for line in lines if not line.startswith(("codec |", "--- |"))]
    assert shown == expected and len(shown) == 6
    page.close()


def test_tables_sort_and_copy_as_the_command_writes_them(browser: Any, file: Path, runs: Path) -> None:
    page = opened(browser, file)
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    first = "#compare-tables > div >> nth=0 >> "

    def copied(form: str) -> str:
        page.locator(f"{first} .copies button", has_text=form).click()
        return str(page.evaluate("window.copied"))

    for form, name in (("Markdown", "markdown"), ("LaTeX", "latex")):
        done = CliRunner().invoke(main, ["compare", str(runs), "--anchor", "first", "--format", name])
        assert copied(form).strip() in done.output
    assert copied("CSV").splitlines()[1].startswith("first,5,")
    page.locator(f"{first} thead button").nth(0).click()
    page.locator(f"{first} thead button").nth(0).click()
    rows = page.locator(f"{first} tbody th").all_inner_texts()
    assert rows == ["second", "first", HOSTILE] or rows == sorted(rows, reverse=True)
    assert page.locator(f"{first} thead th").nth(0).get_attribute("aria-sort") == "descending"
    assert [row.split(",")[0] for row in copied("CSV").splitlines()[1:3]] == rows[:2]
    page.close()


PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def with_pictures(runs: Path) -> Path:
    """The folder with two test images at each of its points; every picture differs."""
    numbers = itertools.count()
    points = [
        {
            "keys": {"segmentation": point},
            "samples": [
                {
                    "sample": sample,
                    "bytes": 100 + i,
                    "features": f"{PIXEL}#{next(numbers)}",
                    "outputs": {
                        "segmentation": {"whole": f"{PIXEL}#{next(numbers)}"},
                        "pose": {"marks": f"{PIXEL}#{next(numbers)}", "text": HOSTILE},
                    },
                }
                for sample in ("one", HOSTILE)
            ],
        }
        for i, point in enumerate(dict.fromkeys(r.point for r in load_points(runs) if r.task == "segmentation"))
    ]
    content = {"images": {"one": PIXEL, HOSTILE: PIXEL}, "points": points}
    (runs / PICTURES).write_text(json.dumps(content))
    return runs


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = with_pictures(folder(tmp_path_factory.mktemp("pictured"), "first", HOSTILE))
    page = runs / "report.html"
    done = CliRunner().invoke(main, ["report", str(runs), "-o", str(page)])
    assert done.exit_code == 0, done.output
    return page


def sources(page: Any) -> list[str]:
    return list(page.evaluate("[...document.querySelectorAll('#sample-figures img')].map((i) => i.src)"))


def test_a_slider_moves_the_pictures(browser: Any, pictured: Path) -> None:
    page = opened(browser, pictured)
    slider, said = page.locator("#stop"), page.locator("#stop-now")
    assert page.locator(".sample").count() == 2 and len(sources(page)) == 2 * (1 + 2 * 4)
    assert slider.get_attribute("max") == "6" and "segmentation miou" in said.inner_text()
    seen = []
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(7):
        seen.append((said.inner_text(), tuple(sources(page))))
        assert slider.get_attribute("aria-valuetext") == said.inner_text()
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == 7 and len({pictures for _, pictures in seen}) == 7
    assert seen[0][0].startswith("no bits: ") and seen[-1][0].startswith("uncoded: ")
    rates = [float(text.partition("}: ")[2].split()[0]) for text, _ in seen[1:-1]]
    assert rates == sorted(rates)
    assert page.evaluate("window.hacked") is None and page.faults == []
    page.close()


def test_another_codec_is_shown_at_the_nearest_rate(browser: Any, pictured: Path) -> None:
    page = opened(browser, pictured)
    page.locator("#stop").fill("2")
    before, pictures = page.locator("#stop-now").inner_text(), sources(page)
    page.select_option("#sample-codec", HOSTILE)
    after = page.locator("#stop-now").inner_text()
    assert before.startswith("first ") and after.startswith(HOSTILE[:9]) and sources(page) != pictures
    assert before.partition("}: ")[2].split()[0] == after.rpartition(" bits per pixel")[0].split()[-1]
    page.close()


def test_print_shows_the_chosen_point(browser: Any, pictured: Path) -> None:
    page = opened(browser, pictured)
    page.emulate_media(media="print")
    assert not page.locator("#stop").is_visible() and not page.locator("#sample-codec").is_visible()
    assert page.locator("#stop-now").is_visible() and page.locator(".sample img").first.is_visible()
    page.close()


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_samples_fit(browser: Any, pictured: Path, width: int) -> None:
    page = opened(browser, pictured, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_without_pictures_there_is_no_section(browser: Any, file: Path) -> None:
    page = opened(browser, file)
    assert not page.locator("#samples").is_visible() and not page.locator("#to-samples").is_visible()
    page.close()


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1408, 1409, 1920])
def test_the_gallery_cuts_nothing_off(browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((Path(__file__).parents[2] / "results" / "index.html").as_uri())
    shown, room = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map((s) => [s.scrollWidth, s.clientWidth])[0]"
    )
    assert shown <= room and page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("td.warned", has_text="Random weights").first.is_visible()
    page.close()


def test_every_figure_has_its_numbers_in_a_table(browser: Any, file: Path, runs: Path) -> None:
    page = opened(browser, file)
    page.locator(".panel summary").first.click()
    page.wait_for_selector(".panel tbody")
    cells = page.locator(".panel >> nth=0 >> tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[0] == "first" and json.loads(cells[1]) == {"q": 0} and cells[2:6] == ["0.05", "0.2", "100", "0.2"]
    assert page.locator(".panel >> nth=0 >> tbody tr").count() == 3 * 5 + 2
    page.close()
