"""How well two colours can be told apart: WCAG 2.2, "contrast ratio" and "relative luminance"."""

import re

Colour = tuple[float, float, float]

_RGB = re.compile(r"rgba?\(([\d.]+),? ([\d.]+),? ([\d.]+)")
_SRGB = re.compile(r"color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)")


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
