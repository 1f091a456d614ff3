"""The page for everyone: axe-core, contrast, narrow screens, and an answer on the first screen."""

from pathlib import Path

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
WIDER_THAN_THE_SCREEN = """() => [...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  if (box.width === 0 || (box.right <= innerWidth + 0.5 && box.left >= -0.5) || one.closest(".skip")) return false;
  for (let above = one.parentElement; above; above = above.parentElement) // what scrolls inside its own place
    if (getComputedStyle(above).overflowX !== "visible" && above.getBoundingClientRect().right <= innerWidth + 0.5)
      return false;
  return true;
}).map((one) => `${one.tagName} ${one.id} ${one.className}`)"""


@pytest.mark.parametrize(
    ("scheme", "screen"),
    [
        pytest.param("light", DESKTOP, id="light-desktop"),
        pytest.param("dark", PHONE, id="dark-phone"),
        pytest.param("dark", DESKTOP, id="dark-desktop", marks=pytest.mark.slow),
        pytest.param("light", PHONE, id="light-phone", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_serious_contrast_is_aa_and_nothing_is_wider_than_the_screen(whole, visit, screen, scheme):
    page = visit(whole.path, viewport=screen, color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    serious = [
        (violation["id"], violation["nodes"][0]["target"])
        for violation in axe.Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(WIDER_THAN_THE_SCREEN) == []
    assert page.evaluate("document.documentElement.scrollWidth") == screen["width"]


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_answer_and_a_picture_of_it_are_on_the_first_screen(made, visit, screen):
    page = visit(made.path, viewport=screen).page
    box = page.locator(".chart svg").first.bounding_box()
    assert box["y"] < 700
    assert page.locator("#answer .headline").bounding_box()["y"] < box["y"]
    assert "dims" in page.locator("#answer .headline").text_content()


def test_the_contrast_check_sees_a_text_that_is_too_pale(made, visit):
    page = visit(made.path).page
    page.evaluate("document.querySelector('.headline').style.color = '#999'")
    assert len(page.evaluate(CONTRAST)) == 1


DARKEST = """() => {
  const map = document.querySelector("#zoom canvas");
  const dots = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
  let least = 765;
  for (let i = 0; i < dots.length; i += 4)
    if (dots[i + 3] === 255) least = Math.min(least, dots[i] + dots[i + 1] + dots[i + 2]);
  return least;
}"""


def test_a_dark_page_is_printed_dark_on_white(made, visit):
    page = visit(made.path, color_scheme="dark").page
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 23, 27)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    words = [found for found in page.evaluate(CONTRAST) if not found[0].startswith("text.")]
    assert words == []
    inverted = "getComputedStyle(document.querySelector('.chart svg')).filter !== 'none'"
    assert page.evaluate(f"document.documentElement.dataset.charts === 'light' || {inverted}")
    page.wait_for_function(f"({DARKEST})() === 26 + 31 + 37")  # names and rings of the map in the ink of the light page
