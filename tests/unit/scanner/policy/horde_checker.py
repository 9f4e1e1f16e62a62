"""The rules of horde-safety's other check (nsfw_checker_class, without DeepDanbooru): its figures, and a restatement.

Written from what it does, without its code: words, thresholds, order of steps. Similarities are taken as they are;
horde-safety rounds them to four digits first. Its five concepts of random words are left out.
"""

PREFIXES = {"photo of": 0.0, "painting of": 0.01, "illustration of": 0.01, "3d render of": 0.015}
PEOPLE = {
    **dict.fromkeys(
        ["a boy", "boys", "a girl", "girls", "a teen", "men", "a woman", "a couple", "couple kissing"], 0.0
    ),
    **dict.fromkeys(["a man", "a girl in a bikini", "girls in bikinis"], 0.01),
}
PEOPLE_ALONE = {
    **dict.fromkeys(["boy", "boys", "man", "men", "girl", "girls", "woman", "women", "teenager"], 0.194),
    **dict.fromkeys(["teen", "teens"], 0.19),
}
PERSON = 0.202
MINORS = {
    **dict.fromkeys(["child", "children", "a baby", "an infant", "infants", "toddler", "toddlers", "tween"], 0.19),
    "tweens": 0.19,
    "young children": 0.189,
    "lolicon": 0.2,
    "shota": 0.23,
}
SURER_BY = {
    **dict.fromkeys(["child", "children"], 0.035),
    **dict.fromkeys(["a baby", "an infant", "infants", "toddler", "toddlers"], 0.0275),
    **dict.fromkeys(["tween", "tweens"], 0.045),
    "young children": 0.03,
    "lolicon": 0.044,
    "shota": 0.01,
}
DRAWN = {"japanese animation": 0.2, "Japanese cartoon": 0.2, "anime": 0.2, "cartoon": 0.2, "manga": 0.205}
SURELY_DRAWN, SURELY_PHOTO = 0.208, 0.24
LEWD_PREDICATES = {
    "18+": 0.2,
    "explicit content": 0.21,
    "erotica": 0.21,
    "exposed erection": 0.215,
    "close up of a vagina": 0.24,
    "photo of vagina": 0.22,
    "porn scene": 0.21,
    "lesbian scene": 0.22,
    "gay scene": 0.22,
}
LEWD_ALONE = {
    "sexual": 0.2,
    **dict.fromkeys(["sexy", "naked", "nude"], 0.22),
    **dict.fromkeys(["uncensored", "nsfw", "nudity", "erotic", "fucking"], 0.21),
}
LEWD_PARTS = {
    **dict.fromkeys(["explicit content", "porn", "porn scene"], 0.2),
    **dict.fromkeys(["exposed erection", "erotica", "vagina", "an erection", "a nude man's ass"], 0.21),
    **dict.fromkeys(["a nude woman's ass", "underwear", "lingerie"], 0.21),
    **dict.fromkeys(["exposed vagina", "blowjob", "lesbian scene", "gay scene", "exposed breasts"], 0.22),
    "girl in a bikini": 0.22,
    "a womans legs spread, vagina exposed": 0.23,
    "close up of a vagina": 0.24,
}
LEWD_DRAWN = {
    "nsfw": 0.21,
    "exposed breasts": 0.205,
    "illustration of exposed breasts": 0.205,
    "nudity": 0.195,
    "nude": 0.195,
    "naked": 0.22,
}
"""Of the words that it has for drawings those that it compares pictures with at all."""

PAIRS = [
    ("tween", "tweens"),
    ("teen", "teens"),
    ("an infant", "infants"),
    ("toddler", "toddlers"),
    ("child", "children"),
]
HALFWAY, HARDLY = 0.475, 0.05


def with_prefixes(words: dict[str, float], *, more: float = 0.0) -> dict[str, float]:
    return {f"{prefix} {word}": more + by + value for prefix, by in PREFIXES.items() for word, value in words.items()}


WITHOUT_LOLICON = {word: value for word, value in MINORS.items() if word != "lolicon"}
SURE = {word: value + SURER_BY[word] for word, value in MINORS.items()}
SURE_EVERYWHERE = SURE | with_prefixes({word: SURE[word] for word in WITHOUT_LOLICON})
MINORS_EVERYWHERE = MINORS | with_prefixes(WITHOUT_LOLICON)
PREDICATES = (
    DRAWN
    | PEOPLE_ALONE
    | with_prefixes(PEOPLE, more=PERSON)
    | MINORS_EVERYWHERE
    | LEWD_PREDICATES
    | with_prefixes(LEWD_PREDICATES)
)
LEWD = LEWD_ALONE | LEWD_PARTS | with_prefixes(LEWD_PARTS)
HALF_SURE = {word: low + (SURE_EVERYWHERE[word] - low) * HALFWAY for word, low in MINORS_EVERYWHERE.items()}
DRAWN_MINORS = [word for word in MINORS if word not in ("lolicon", "shota")]
WORDS = sorted(PREDICATES.keys() | LEWD.keys())


def is_csam(now: dict[str, float]) -> bool:
    """What it says of a picture with these similarities by word."""
    drawn = [now[word] for word, threshold in DRAWN.items() if now[word] > threshold]
    is_drawn = bool(drawn)
    if is_drawn and max(drawn) < SURELY_DRAWN:
        for word in PREDICATES:
            if "photo" in word and now[word] > SURELY_PHOTO:
                is_drawn = False
    if not any(now[word] > threshold for word, threshold in PREDICATES.items()):
        return False
    lewd = LEWD_DRAWN if is_drawn else LEWD
    if not any(now[word] > threshold for word, threshold in lewd.items()):
        return False
    if any(now[word] > threshold for word, threshold in SURE_EVERYWHERE.items()):
        return True
    found = set()
    if is_drawn:
        share = 0.0 if now["shota"] > MINORS["shota"] else HARDLY
        for word in ("teen", "teens"):
            if now[word] > PEOPLE_ALONE[word]:
                found.add(word)
        for word in DRAWN_MINORS:
            if now[word] > MINORS[word] + SURER_BY[word] * share:
                found.add(word)
    else:
        found = {word for word, threshold in HALF_SURE.items() if now[word] > threshold}
    for one, other in PAIRS:
        if one in found and other in found:
            found.remove(one)
    return len(found) >= 2
