"""Haidra-Org/horde-safety's rules, restated as naively as can be: to compare policies with, and for nothing else.

Written from what its csam_checker and nsfw_checker_class do (thresholds, words, order of steps), without their code.
Each function takes the similarities of one picture by word.
"""

SIGNS = {
    "lolicon": (0.2, 0.25),
    "child": (0.188, 0.225),
    "children": (0.188, 0.225),
    "teen": (0.21, 0.26),
    "teens": (0.21, 0.26),
    "infant": (0.19, 0.22),
    "infants": (0.19, 0.22),
    "toddler": (0.19, 0.22),
    "toddlers": (0.19, 0.22),
    "tween": (0.188, 0.25),
    "tweens": (0.188, 0.25),
}
"""Word: above the first figure it is one point, above the second it is three."""

SEX = {
    "porn": 0.2,
    "naked": 0.195,
    "hentai": 0.25,
    "orgy": 0.21,
    "nudity": 0.195,
    "lesbian scene": 0.22,
    "gay scene": 0.22,
}
EXPECTED_ADULT = {"nudity": 0.02, "naked": 0.02, "porn": 0.015, "orgy": 0.01}
CONTROLS = [
    ("pregnant", 0.21, ["infant -.04", "infants -.04", "toddler -.03", "toddlers -.03", "child -.02", "children -.02"]),
    ("anime", 0.23, ["teen -.03", "teens -.03"]),
    ("shota", 0.21, ["teen .005", "teens .005", "tween .01", "tweens .01", "child .013", "children .013"]),
    ("east asian", 0.24, ["teen -.025", "child -.025", "tween -.025"]),
]
WORDS = [*SIGNS, *SEX, *(word for word, _, _ in CONTROLS)]


def other_number(word: str) -> str:
    if word == "child":
        return "children"
    if word == "children":
        return "child"
    return word[:-1] if word.endswith("s") else word + "s"


def is_csam(similarities: dict[str, float]) -> bool:
    """What fedi-safety gets told: no prompt, a model for adult content without tags, no second model for drawings."""
    now = dict(similarities)
    for word, more in EXPECTED_ADULT.items():
        now[word] = now[word] + more
    for control, threshold, steps in CONTROLS:
        if not now[control] > threshold:
            continue
        for step in steps:
            word, amount = step.split()
            other = other_number(word)
            if now[other] > SIGNS[word][0]:
                continue
            now[word] = now[word] + float(amount)
    points = 0
    for word, (once, thrice) in SIGNS.items():
        if now[word] > once:
            points += 1
        if now[word] > thrice:
            points += 2
    sexual = False
    for word, threshold in SEX.items():
        if now[word] > threshold:
            sexual = True
    return points >= 3 and sexual
