"""How well two colours can be told apart: WCAG 2.2, "contrast ratio" and "relative luminance"."""

import re

from playwright.sync_api import Page

Colour = tuple[float, float, float]

_RGB = re.compile(r"rgba?\(([\d.]+),? ([\d.]+),? ([\d.]+)")
_SRGB = re.compile(r"color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)")


TEXTS = """() => {
  const clear = (colour) => colour === 'transparent' || /, 0\\)$|\\/ 0\\)$/.test(colour);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility({ visibilityProperty: true })) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    let ground = 'rgb(255, 255, 255)';
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!clear(colour)) { ground = colour; break; }
    }
    const style = getComputedStyle(element);
    found.push([text.slice(0, 40), style.color, ground, parseFloat(style.fontSize), parseInt(style.fontWeight)]);
  }
  for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea, button')) {
    if (!field.checkVisibility() || field.matches('.quiet')) continue;
    let ground = 'rgb(255, 255, 255)';
    for (let at = field.parentElement; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!clear(colour)) { ground = colour; break; }
    }
    found.push(['edge of ' + (field.id || field.textContent), getComputedStyle(field).borderTopColor, ground, 0, 0]);
  }
  return found;
}"""
"""Of all that is seen on a page: text, colour, ground, size in pixels (0: an edge, not text) and weight."""


def check_contrast(page: Page, where: str) -> int:
    """Make sure that all that is seen on a page can be read (AA); how much it is. `where` is named in a failure."""
    texts = page.evaluate(TEXTS)
    for text, colour, ground, size, weight in texts:
        large = size >= 24 or (size >= 18.66 and weight >= 700)
        least = 3.0 if size == 0 or large else 4.5
        ratio = contrast(parse_colour(colour), parse_colour(ground))
        assert ratio >= least, f"{where}: {text!r} {colour} on {ground} is {ratio:.2f}"
    return len(texts)


def parse_colour(text: str) -> Colour:
    """Red, green and blue in 0 to 1 of a computed colour that is not see-through."""
    if matched := _RGB.match(text):
        red, green, blue = (float(each) / 255 for each in matched.groups())
    elif matched := _SRGB.match(text):
        red, green, blue = map(float, matched.groups())
    else:
        raise ValueError(f"not a colour that this reads: {text}")
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    """From 1 (the same) to 21 (black and white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
