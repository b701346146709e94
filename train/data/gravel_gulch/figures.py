"""The actors: people and dinosaurs, in any pose. Local pixels: the origin is between the feet, y grows downwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.data.gravel_gulch.shapes import BONE, INK, blend, bone, ellipse, group, limb, path, prop, shade
from train.data.gravel_gulch.world import COLORS, Actor, Look


SKIN = "#f3bf92"
ANGRY_SKIN = "#ee8468"
BLUSH = "#dd8f63"


@dataclass(frozen=True)
class Body:
    """Measures of a figure: height, half of the body's width at the hem, radius of the head."""

    height: float
    half: float
    head: float


BODIES = {
    "big": Body(190, 46, 45),
    "tall": Body(206, 30, 41),
    "small": Body(164, 36, 44),
    "average": Body(184, 33, 42),
}
CHILD, TODDLER = Body(156, 29, 41), Body(136, 30, 41)
DINOSAUR = Body(200, 48, 36)

# where the hands go, in units of shoulder width and arm length: (front hand, back hand), x towards the front
_HANDS = {
    "standing": ((0.25, 0.72), (-0.25, 0.72)),
    "talking": ((0.85, -0.05), (-0.2, 0.72)),
    "walking": ((0.65, 0.55), (-0.65, 0.55)),
    "running": ((0.85, 0.15), (-0.9, 0.25)),
    "driving": ((0.75, 0.3), (0.55, 0.4)),
    "eating": ((0.1, -0.3), (-0.2, 0.72)),
    "sleeping": ((-0.1, 0.65), (0.1, 0.65)),
    "holding": ((0.3, 0.4), (0.75, 0.45)),
    "pointing": ((1.15, -0.1), (-0.25, 0.72)),
    "sitting": ((0.25, 0.62), (-0.25, 0.62)),
    "laughing": ((-0.3, 0.42), (0.3, 0.42)),
    "waving": ((0.25, 0.72), (-0.75, -0.95)),  # to the back, where nobody's face is
    "dancing": ((0.85, -0.8), (-0.95, -0.75)),
    "crying": ((-0.1, -0.1), (0.1, -0.1)),
    "thinking": ((-0.2, -0.1), (0.3, 0.5)),
    "working": ((0.3, 0.3), (-0.75, -0.85)),
    "reading": ((0.1, 0.4), (0.75, 0.45)),
    "jumping": ((0.85, -0.75), (-0.85, -0.75)),
}
_SEATED = {"sitting", "reading"}
_SWINGING = {"talking", "waving", "dancing", "working", "walking", "running"}
HELD_BY = {"reading": "book", "working": "hammer", "eating": "drumstick"}  # what an action holds of itself
SEAT, LIFT = 26, 34  # pixels: how high one sits, how high one jumps


def body_of(look: Look) -> Body:
    if look.kind == "dinosaur":
        return DINOSAUR
    if look.kind == "toddler":
        return TODDLER
    return CHILD if look.kind in ("boy", "girl") else BODIES[look.build]


def box_of(actor: Actor) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of somebody in their pose, in local pixels."""
    body = body_of(actor.look)
    half = body.half * 1.3
    if actor.action == "sleeping":
        return (-body.height / 2, -2 * max(half, body.head), body.height / 2, 0)
    rise = _rise(actor.action, body.height, _hem(actor.look))
    return (-half, rise - body.height, half, min(rise, 0))


def figure(actor: Actor, t: float, seed: int, tag: str, upright: bool = False) -> str:
    """The figure of `actor` at time `t` (0 to 1 of the clip). `tag` makes the clip paths' ids its own.

    `upright` keeps a sleeper on the seat of a car.
    """
    swing = math.sin(2 * math.pi * (2 * t + (seed % 7) / 7))
    draw = _dinosaur if actor.look.kind == "dinosaur" else _person
    inner, head_y, r = draw(actor, swing, tag)
    if actor.action != "sleeping" or upright:
        return _placed(inner + _signs(actor, head_y, r, swing), actor, swing)
    body = body_of(actor.look)
    muzzle = actor.look.kind == "dinosaur"  # which points upwards then
    middle = -max(body.half, body.head) * 0.95
    # on the back, the head to the left of who faces right; the signs stay upright above it
    lying = group(inner, body.height / 2, middle, 1, -90) + group(
        _signs(actor, 0, body.head, swing), -body.height / 2 + body.head, middle - body.head * (1.9 if muzzle else 0.3)
    )
    return f'<g transform="scale({actor.facing} 1)">{lying}</g>'


def _hem(look: Look) -> float:
    """y of the lower end of somebody's clothes."""
    body = body_of(look)
    if look.kind == "dinosaur":
        return -22.0
    return -body.height * (0.13 if look.garment == "dress" and look.kind != "toddler" else 0.2)


def _rise(action: str, height: float, hem: float) -> float:
    """How much lower (above 0) or higher a pose has the body than standing."""
    if action in _SEATED:
        return max(0.0, -hem - SEAT) + 0.04 * height
    return -LIFT if action == "jumping" else 0.0


def _person(actor: Actor, swing: float, tag: str) -> tuple[str, float, float]:
    """The figure, y of its head's middle, and the head's radius."""
    look, body, action = actor.look, body_of(actor.look), actor.action
    H, r = body.height, body.head
    head_y = -H + r
    shoulder_y = head_y + r + 8
    hem_y = _hem(look)
    shoulder = body.half * 0.72
    arm = H * 0.34
    thick = 13 if look.kind in ("boy", "girl", "toddler") else 16
    main = COLORS[look.garment_color]
    trousers = shade(main, 0.86) if look.garment == "suit" else "#5b6b8c"
    sleeve = main if look.garment == "suit" else SKIN
    leg = trousers if look.garment in ("suit", "shirt") else SKIN

    front, back = _HANDS[action]
    arms, hands = [], []
    for (hx, hy), side in ((back, -1), (front, 1)):
        wave = swing * (0.12 if action in _SWINGING else 0.03)
        x0, y0 = side * shoulder, shoulder_y + 6
        x1, y1 = x0 + hx * arm * 0.9 + (wave * arm if side > 0 else -wave * arm), y0 + (hy + wave * 0.4) * arm
        bend = side * thick * 0.9
        hand = thick * (0.95 if (action, side) in (("waving", -1), ("pointing", 1)) else 0.68)
        arms.append(
            limb([(x0, y0), ((x0 + x1) / 2 + bend, (y0 + y1) / 2 + 6), (x1, y1)], sleeve, thick)
            + ellipse(x1, y1, hand, hand, SKIN, 3)
        )
        hands.append((x1, y1))
    at = hands[0 if action == "working" else 1]
    if action == "pointing":
        arms[1] += limb([(at[0] + 8, at[1]), (at[0] + 16, at[1] - 1), (at[0] + 24, at[1] - 2)], SKIN, 6)
    held = actor.holding or HELD_BY.get(action)
    if action in ("holding", "reading"):  # before the chest, where it is seen whole
        at = (body.half * 0.55, shoulder_y + 0.45 * (hem_y - shoulder_y) + 4)
    size = 1.75 if action in ("holding", "reading") else 1.5
    carried = group(prop(held), at[0] + 6, at[1] - 4, size, 4 * swing) if held else ""
    tilt = {"laughing": -14, "crying": 8, "thinking": -6, "sleeping": 24}.get(action, 0) + 2.0 * swing
    inner = (
        group(_back_hair(look, 0, r), 0, head_y, 1, tilt)
        + arms[0]
        + _legs(action, body, look, hem_y, leg, thick, swing)
        + _garment(look, body, shoulder_y, hem_y, main, trousers, tag)
        + group(_head(actor, r), 0, head_y, 1, tilt)
        + (carried + arms[1] if action == "holding" else arms[1] + carried)
    )
    return inner, head_y, r


def _placed(inner: str, actor: Actor, swing: float) -> str:
    """A figure with its seat or its shadow, turned to where it faces."""
    action, body = actor.action, body_of(actor.look)
    rise = _rise(action, body.height, _hem(actor.look))
    under = ""
    if action in _SEATED:
        under = path(f"M-62 2L-54 -{SEAT}L46 -{SEAT + 2}L56 2Z", "#9d978d")
    if action == "jumping":
        under = ellipse(0, 0, body.half * 1.2, 6, "#4a4a4a", 0)
        rise -= 5 * abs(swing)
    if action == "running":
        under = "".join(
            ellipse(x, y, w, w * 0.75, "#f4efe2", 2.6) for x, y, w in ((-70, -10, 15), (-92, -20, 11), (-88, -4, 9))
        )
    lean = {"running": 17, "walking": 5, "dancing": 8 + 6 * swing}.get(action, 0)
    bob = -abs(swing) * (4 if action in ("walking", "running", "dancing", "laughing") else 1.2)
    leaning = group(group(inner, 0, body.height / 2), 0, rise + bob - body.height / 2, 1, lean)
    return f'<g transform="scale({actor.facing} 1)">{under}{leaning}</g>'


def _legs(action: str, body: Body, look: Look, hem: float, color: str, thick: float, swing: float) -> str:
    gap = body.half * 0.42
    out = ""
    shoe = "#3a302d" if look.garment in ("suit", "shirt") else SKIN
    for side in (-1, 1):
        x0, hip = side * gap, hem - 8
        knee, foot = None, (x0, -7.0)
        if action == "walking":
            foot = (x0 + side * (20 + 5 * swing), -7.0)
        elif action == "running":  # the one behind is in the air
            foot = (x0 + 42 + 5 * swing, -12.0) if side > 0 else (x0 - 46 - 5 * swing, -26.0)
        elif action == "dancing":
            foot = (x0 + 44, -30.0 - 4 * swing) if side > 0 else (x0 - 4, -7.0)
        elif action == "jumping":
            foot = (x0 + side * 24, -14.0)
        elif action in _SEATED:  # bent before the seat; the body is lower by `_rise`
            ground = -_rise(action, body.height, hem)
            knee, foot = (x0 + 42, hip + 2), (x0 + 46, ground - 6)
        knee = knee or ((x0 + foot[0]) / 2, (hip + foot[1]) / 2)
        out += limb([(x0, hip), knee, foot], color, thick + 2)
        out += ellipse(foot[0] + 5, foot[1] + 1, thick * 1.05, 8, shoe, 3)
    return out


def _garment(look: Look, body: Body, shoulder_y: float, hem: float, main: str, trousers: str, tag: str) -> str:
    w, n = body.half, body.half * 0.62
    top = shoulder_y - 6
    if look.garment == "dress":
        waist = (top + hem) / 2
        d = (
            f"M{-n:.1f} {top:.1f}L{n:.1f} {top:.1f}Q{n * 0.95:.1f} {waist:.1f} {w * 1.25:.1f} {hem:.1f}"
            f"Q0 {hem + 9:.1f} {-w * 1.25:.1f} {hem:.1f}Q{-n * 0.95:.1f} {waist:.1f} {-n:.1f} {top:.1f}Z"
        )
    elif look.garment == "tunic":
        zig = "".join(
            f"L{w * (1 - 2 * (i + 0.5) / 5):.1f} {hem + 9:.1f}L{w * (1 - 2 * (i + 1) / 5):.1f} {hem - 3:.1f}"
            for i in range(5)
        )
        d = f"M{-n:.1f} {top:.1f}Q0 {top - 6:.1f} {n:.1f} {top:.1f}L{w:.1f} {hem - 3:.1f}{zig}Z"
    elif look.garment == "none":
        d = f"M{-n:.1f} {top:.1f}L{n:.1f} {top:.1f}L{w:.1f} {hem:.1f}L{-w:.1f} {hem:.1f}Z"
    else:
        d = f"M{-n * 1.15:.1f} {top:.1f}L{n * 1.15:.1f} {top:.1f}L{w:.1f} {hem:.1f}L{-w:.1f} {hem:.1f}Z"
    out = path(d, main)
    marks = ""
    if look.pattern == "spotted":
        dark = "#2b1c1a" if look.garment_color not in ("black", "brown") else "#f3d9a8"
        for i, (x, y) in enumerate(
            ((-0.45, 0.25), (0.4, 0.18), (-0.05, 0.5), (0.55, 0.62), (-0.6, 0.72), (0.1, 0.86))
        ):
            px, py = x * w, top + y * (hem - top)
            marks += path(
                f"M{px - 7:.0f} {py:.0f}L{px:.0f} {py - 6:.0f}L{px + 7:.0f} {py + 1:.0f}L{px:.0f} {py + 6:.0f}Z",
                dark,
                1,
            )
    elif look.pattern == "striped":
        light = "#fff6e0" if look.garment_color != "white" else "#4a5fa8"
        for i in range(4):
            y = top + (i + 0.7) * (hem - top) / 4
            marks += path(f"M{-w * 1.4:.0f} {y:.0f}L{w * 1.4:.0f} {y:.0f}", width=6, stroke=light)
    if marks:
        out += f'<clipPath id="g{tag}"><path d="{d}"/></clipPath><g clip-path="url(#g{tag})">{marks}</g>' + path(d)
    if look.garment == "suit":
        out += path(f"M{-n * 0.6:.0f} {top:.0f}L0 {top + 30:.0f}L{n * 0.6:.0f} {top:.0f}Z", "#fbfaf4", 2.5)
        out += path(
            f"M-5 {top + 4:.0f}L5 {top + 4:.0f}L7 {top + 30:.0f}L0 {top + 40:.0f}L-7 {top + 30:.0f}Z", "#c8302a", 2
        )
        out += path(f"M0 {top + 40:.0f}L0 {hem:.0f}", width=2.5)
    if look.garment == "shirt":
        belt = hem - 16
        out += path(
            f"M{-w * 0.93:.0f} {belt:.0f}L{w * 0.93:.0f} {belt:.0f}L{w:.0f} {hem + 4:.0f}L{-w:.0f} {hem + 4:.0f}Z",
            trousers,
        )
        out += path(f"M{-n * 0.5:.0f} {top:.0f}L0 {top + 12:.0f}L{n * 0.5:.0f} {top:.0f}", "#fbfaf4", 2)
    if look.garment == "dress":
        beads = "".join(
            ellipse(x * n, top + 3 + 4 * (1 - abs(x)), 4.4, 4.4, BONE, 1.8) for x in (-0.8, -0.4, 0, 0.4, 0.8)
        )
        out += beads
    return out


def _back_hair(look: Look, y: float, r: float) -> str:
    hair = COLORS[look.hair_color]
    if look.hair_style == "long":
        return path(
            f"M{-r * 1.08:.1f} {y - 4:.1f}Q{-r * 1.4:.1f} {y + r * 1.3:.1f} {-r * 1.15:.1f} {y + r * 2.1:.1f}"
            f"L{r * 1.15:.1f} {y + r * 2.1:.1f}Q{r * 1.4:.1f} {y + r * 1.3:.1f} {r * 1.08:.1f} {y - 4:.1f}Z",
            hair,
        )
    if look.hair_style == "ponytail":
        return path(
            f"M{-r * 0.7:.1f} {y - r * 0.5:.1f}Q{-r * 2.0:.1f} {y - r * 0.6:.1f} {-r * 1.9:.1f} {y + r * 0.9:.1f}"
            f"Q{-r * 1.3:.1f} {y + r * 0.7:.1f} {-r * 0.8:.1f} {y + r * 0.2:.1f}Z",
            hair,
        )
    return ""


def _front_hair(look: Look, r: float) -> str:
    hair = COLORS[look.hair_color]
    cap = path(
        f"M{-r * 1.04:.1f} {-r * 0.05:.1f}C{-r * 1.2:.1f} {-r * 1.5:.1f} {r * 1.2:.1f} {-r * 1.5:.1f} {r * 1.04:.1f} {-r * 0.1:.1f}"
        f"Q{r * 0.8:.1f} {-r * 0.6:.1f} {r * 0.35:.1f} {-r * 0.52:.1f}Q{-r * 0.5:.1f} {-r * 0.45:.1f} {-r * 0.78:.1f} {-r * 0.38:.1f}Z",
        hair,
    )
    if look.hair_style == "bald":
        return ""
    if look.hair_style == "bun":
        return ellipse(-r * 0.1, -r * 1.28, r * 0.46, r * 0.42, hair) + cap
    if look.hair_style == "topknot":
        tuft = path(
            f"M-5 {-r * 0.9:.1f}Q-22 {-r * 1.75:.1f} -6 {-r * 1.6:.1f}Q0 {-r * 1.95:.1f} 7 {-r * 1.6:.1f}Q22 {-r * 1.75:.1f} 5 {-r * 0.9:.1f}Z",
            hair,
        )
        return cap + tuft + group(bone(14), 0, -r * 1.02, 0.85)
    if look.hair_style == "curly":
        curls = "".join(
            ellipse(r * 1.02 * math.sin(a), -r * 0.18 - r * 0.86 * math.cos(a), r * 0.34, r * 0.33, hair, 2.6)
            for a in (-1.75, 1.75, -1.2, 1.2, -0.7, 0.7, -0.22, 0.25)
        )
        return curls
    if look.hair_style == "short":
        return cap + path(
            f"M-4 {-r * 1.1:.1f}Q2 {-r * 1.42:.1f} 12 {-r * 1.3:.1f}Q8 {-r * 1.15:.1f} 10 {-r * 1.05:.1f}Z", hair, 2.4
        )
    return cap


def _head(actor: Actor, r: float) -> str:
    look, action, mood = actor.look, actor.action, actor.mood
    fx = r * 0.2  # the face looks to the front
    woman = look.kind in ("woman", "girl", "toddler")
    skin = ANGRY_SKIN if mood == "angry" and action not in ("crying", "sleeping", "laughing") else SKIN
    out = ellipse(-r * 0.92, r * 0.12, r * 0.2, r * 0.24, skin, 2.8)
    out += ellipse(0, 0, r, r * 1.02, skin, 3.2)
    if look.extra == "beard":
        out += path(
            f"M{-r * 0.92:.1f} {r * 0.15:.1f}Q{-r * 0.9:.1f} {r * 1.35:.1f} {r * 0.1:.1f} {r * 1.42:.1f}"
            f"Q{r:.1f} {r * 1.3:.1f} {r * 0.95:.1f} {r * 0.15:.1f}Q{r * 0.5:.1f} {r * 0.45:.1f} {fx:.1f} {r * 0.38:.1f}"
            f"Q{-r * 0.5:.1f} {r * 0.45:.1f} {-r * 0.92:.1f} {r * 0.15:.1f}Z",
            COLORS[look.hair_color],
        )
    elif look.kind == "man" and look.extra is None:
        out += path(
            f"M{-r * 0.78:.1f} {r * 0.5:.1f}Q{fx:.1f} {r * 0.05:.1f} {r * 0.94:.1f} {r * 0.4:.1f}Q{r * 0.6:.1f} {r * 1.0:.1f} 0 {r * 1.0:.1f}Q{-r * 0.55:.1f} {r:.1f} {-r * 0.78:.1f} {r * 0.5:.1f}Z",
            shade(skin, 0.93),
            0,
        ) + ellipse(0, 0, r, r * 1.02, "none", 3.2)
    out += _face(mood, action, fx, r, woman)
    out += ellipse(fx + r * 0.14, r * 0.18, r * (0.17 if woman else 0.24), r * (0.13 if woman else 0.2), BLUSH, 2.4)
    if look.extra == "moustache":
        out += path(
            f"M{fx + 4:.1f} {r * 0.34:.1f}Q{-r * 0.35:.1f} {r * 0.3:.1f} {-r * 0.6:.1f} {r * 0.68:.1f}Q{-r * 0.1:.1f} {r * 0.72:.1f} {fx + 4:.1f} {r * 0.52:.1f}"
            f"Q{r * 0.55:.1f} {r * 0.74:.1f} {r * 0.95:.1f} {r * 0.6:.1f}Q{r * 0.75:.1f} {r * 0.3:.1f} {fx + 4:.1f} {r * 0.34:.1f}Z",
            COLORS[look.hair_color],
            2.4,
        )
    out += _front_hair(look, r)
    if look.extra == "glasses":
        eye = r * 0.36
        out += ellipse(fx - eye, -r * 0.12, r * 0.31, r * 0.31, "none", 3.4) + ellipse(
            fx + eye, -r * 0.12, r * 0.31, r * 0.31, "none", 3.4
        )
    elif look.extra == "hat":
        out += path(
            f"M{-r * 1.3:.1f} {-r * 0.62:.1f}Q0 {-r * 0.95:.1f} {r * 1.3:.1f} {-r * 0.62:.1f}L{r * 0.8:.1f} {-r * 0.72:.1f}L{r * 0.62:.1f} {-r * 1.55:.1f}L{-r * 0.62:.1f} {-r * 1.55:.1f}L{-r * 0.8:.1f} {-r * 0.72:.1f}Z",
            "#7a5230",
        )
    elif look.extra == "bow":
        out += path(
            f"M0 {-r:.1f}L{-r * 0.6:.1f} {-r * 1.35:.1f}L{-r * 0.6:.1f} {-r * 0.75:.1f}ZM0 {-r:.1f}L{r * 0.6:.1f} {-r * 1.35:.1f}L{r * 0.6:.1f} {-r * 0.75:.1f}Z",
            "#e0457b",
            2.6,
        )
    return out


def _face(mood: str, action: str, fx: float, r: float, woman: bool) -> str:
    if action == "crying":
        mood = "sad"
    eye, ey = r * 0.37, -r * 0.12
    out = ""
    shut = action in ("sleeping", "laughing", "crying")
    for side in (-1, 1):
        x = fx + side * eye
        if shut:
            curve = -r * 0.3 if action == "laughing" else r * 0.24
            out += path(f"M{x - r * 0.24:.1f} {ey:.1f}Q{x:.1f} {ey + curve:.1f} {x + r * 0.24:.1f} {ey:.1f}", width=4)
        else:
            big = 1.28 if mood == "surprised" else 1.0
            out += ellipse(x, ey, r * 0.27 * big, r * 0.33 * big, "#ffffff", 2.8)
            out += ellipse(x + r * 0.08, ey + r * 0.03, r * 0.14, r * 0.17, INK, 0)
        if woman:
            out += path(
                f"M{x + side * r * 0.2:.1f} {ey - r * 0.2:.1f}L{x + side * r * 0.38:.1f} {ey - r * 0.36:.1f}", width=3
            )
        tilt = {"angry": 0.26, "sad": -0.24, "worried": -0.2}.get(mood, 0.0)
        lift = {"surprised": 0.74, "angry": 0.34}.get(mood, 0.52) * r
        inner, outer = x - side * r * 0.24, x + side * r * 0.26
        out += path(
            f"M{inner:.1f} {ey - lift + tilt * r:.1f}L{outer:.1f} {ey - lift - tilt * r * 0.7:.1f}",
            width=3.4 if woman else 4.6,
        )
    return out + _mouth(mood, action, fx + r * 0.05, r * 0.6, r, woman)


def _mouth(mood: str, action: str, x: float, y: float, r: float, woman: bool) -> str:
    wide = r * 0.42
    if action == "laughing":
        d = f"M{x - wide:.1f} {y - 7:.1f}L{x + wide:.1f} {y - 7:.1f}Q{x:.1f} {y + r * 0.6:.1f} {x - wide:.1f} {y - 7:.1f}Z"
        return path(d, "#8c2a25", 3)
    if action == "sleeping":
        return ellipse(x, y, r * 0.12, r * 0.12, "#8c2a25", 2.6)
    if mood == "surprised":
        return ellipse(x, y + 2, r * 0.2, r * 0.28, "#8c2a25", 3)
    if action in ("talking", "eating"):
        return ellipse(x, y, wide * 0.66, r * 0.22, "#8c2a25", 3)
    if mood in ("sad", "angry"):
        d = f"M{x - wide * 0.8:.1f} {y + 8:.1f}Q{x:.1f} {y - 11:.1f} {x + wide * 0.8:.1f} {y + 8:.1f}"
        return path(d, width=4)
    if mood == "worried":
        return path(f"M{x - wide:.1f} {y + 2:.1f}q{wide / 2:.1f} -11 {wide:.1f} 0t{wide:.1f} 0", width=4)
    d = f"M{x - wide:.1f} {y - 5:.1f}Q{x:.1f} {y + 17:.1f} {x + wide:.1f} {y - 5:.1f}"
    return path(d, "#c8453a" if woman else "none", 3.6)


def _signs(actor: Actor, y: float, r: float, swing: float) -> str:
    """What a cartoon draws beside a head, whose middle is at `y`, to say what one does and feels."""
    action, mood = actor.action, actor.mood
    out = ""
    if action == "sleeping":
        z = "M0 0L14 0L0 16L14 16"
        for x, up, size in ((0.7, 1.35, 1.1), (1.3, 1.75, 1.4), (2.0, 2.2, 1.8)):
            out += group(path(z, "none", 4, "#ffffff"), r * x, y - r * up + 2 * swing, size)
            out += group(path(z, "none", 4), r * x - 2, y - r * up - 2 + 2 * swing, size)
    elif action == "thinking":  # behind the head, where nobody stands
        out += ellipse(-r * 0.95, y - r * 0.62, 6, 5, "#ffffff", 3)
        out += ellipse(-r * 1.5, y - r * 1.0, r * 0.62, r * 0.46, "#ffffff", 3.2)
        out += "".join(ellipse(-r * 1.5 + dx, y - r * 1.0, 4, 4, INK, 0) for dx in (-12, 0, 12))
    elif action == "dancing":
        for x, up in ((1.5, 0.35), (-1.75, 0.1)):
            note = "M0 0L0 -30L19 -36L19 -6"
            out += group(
                path(note, width=4.5) + ellipse(-6, 0, 8, 6, INK, 0) + ellipse(13, -6, 8, 6, INK, 0), r * x, y - r * up
            )
    elif action == "crying":
        for side in (-1, 1):
            x = r * 0.2 + side * r * 0.46
            d = f"M{x - 5:.1f} {y:.1f}L{x + 5:.1f} {y:.1f}L{x + side * 4 + 9:.1f} {y + r * 0.95:.1f}L{x + side * 4 - 9:.1f} {y + r * 0.95:.1f}Z"
            out += path(d, "#5cb4f0", 2.6)
    elif action == "laughing":
        ray = path(f"M{r * 1.28:.1f} 0L{r * 1.6:.1f} 0", width=5, stroke="#e8542a")
        turns = (148, 172, 196) if actor.look.kind == "dinosaur" else (-32, -8, 16, 164, 188, 212)
        out += "".join(group(ray, 0, y, 1, turn) for turn in turns)
    elif action == "waving":
        out += path(
            f"M{-r * 2.0:.1f} {y - r * 0.75:.1f}q-12 14 -6 32M{-r * 1.2:.1f} {y - r * 0.95:.1f}q10 -4 16 -16", width=4
        )
    if action in ("crying", "sleeping", "laughing"):
        return out
    if mood == "angry":
        for side in (-1, 1):
            puff = "".join(
                ellipse(side * x, up, size, size * 0.8, "#ffffff", 2.8) for x, up, size in ((0, 0, 9), (13, -9, 12))
            )
            out += group(puff, side * r * 1.12, y - r * 0.55)
    elif mood == "sad":
        out += path(f"M{r * 0.72:.1f} {y + r * 0.1:.1f}q-13 22 0 25q13 -3 0 -25z", "#5cb4f0", 2.8)
    elif mood == "surprised":
        for turn in (-38, -90, -142):
            out += group(path(f"M{r * 1.5:.1f} 0L{r * 1.85:.1f} 0", width=5, stroke="#e8542a"), 0, y, 1, turn)
    elif mood == "worried":
        for x, up in ((-0.75, 0.75), (-1.15, 0.2)):
            out += path(f"M{r * x:.1f} {y - r * up - 12:.1f}q-13 20 0 23q13 -3 0 -23z", "#8fd0f5", 2.8)
    return out


def _dinosaur(actor: Actor, swing: float, tag: str) -> tuple[str, float, float]:
    look, action, mood = actor.look, actor.action, actor.mood
    main = COLORS[look.garment_color]
    belly = shade(main, 1.5)
    spot = shade(main, 0.55)
    tail = path(f"M-20 -56Q-66 -40 -88 {-78 - 8 * swing:.0f}Q-80 -12 -24 -10Z", main)
    body = path("M-42 -26Q-48 -92 -8 -104Q34 -104 42 -56Q46 -8 0 -8Q-40 -6 -42 -26Z", main)
    front = path("M14 -92Q38 -80 36 -44Q32 -14 6 -12Q-4 -50 14 -92Z", belly, 0)
    apart = {"walking": 12 + 4 * swing, "running": 24 + 5 * swing, "dancing": 10, "jumping": 10}.get(action, 0)
    feet = ""
    for x, side in ((-24, -1), (22, 1)):
        x += side * apart + (26 if action in _SEATED else 0)
        up = {"dancing": 24 if side > 0 else 0, "running": 20 if side < 0 else 0}.get(action, 0)
        up += _rise(action, DINOSAUR.height, -22.0) if action in _SEATED else 0
        feet += path(f"M{x - 17} {-up}q-2 -22 16 -22q20 0 22 22z", main) + path(
            f"M{x - 2} {-1 - up}l0 -7M{x + 10} {-1 - up}l0 -7", width=2.4
        )
    neck = path("M-16 -94Q-14 -132 -8 -150L30 -146Q24 -112 24 -90Z", main)
    spots = ""
    if look.pattern == "spotted":
        for x, y, s in ((-26, -70, 8), (-14, -44, 6), (-30, -30, 6), (-2, -120, 6), (-50, -34, 6), (-8, -84, 7)):
            spots += ellipse(x, y, s, s * 0.85, spot, 0)
    arms = []
    for (hand_x, hand_y), x0 in zip(_HANDS[action][::-1], (-22, 26), strict=True):
        hx, hy = x0 + 4 + hand_x * 50 + 4 * swing, -76 + hand_y * 50
        arms.append(limb([(x0, -80), ((x0 + hx) / 2 + 4, (hy - 80) / 2 + 8), (hx, hy)], main, 15))
    held = actor.holding or HELD_BY.get(action)
    if action in ("holding", "reading"):
        hx, hy = 34, -58
    if action == "working":
        hx, hy = -22 + 4 + _HANDS[action][1][0] * 50 + 4 * swing, -76 + _HANDS[action][1][1] * 50
    if action == "eating":
        hx, hy = 56, -132
    carried = group(prop(held), hx + 6, hy - 4, 1.75 if action in ("holding", "reading") else 1.5) if held else ""
    turn = {"sleeping": 24, "laughing": -14, "crying": 8}.get(action, 0) + 2 * swing
    inner = (
        tail
        + (arms[0] if action in ("dancing", "jumping", "running", "walking", "waving", "working") else "")
        + feet
        + body
        + front
        + neck
        + spots
        + group(_snout(mood, action, main), 8, -152, 1.15, turn)
        + (carried + arms[1] if action == "holding" else arms[1] + carried)
    )
    return inner, -156.0, float(DINOSAUR.head)


def _snout(mood: str, action: str, main: str) -> str:
    """The head of a dinosaur: eyes on top of a long muzzle, around the origin."""
    if mood == "angry" and action not in ("crying", "sleeping", "laughing"):
        main = blend(main, ANGRY_SKIN)
    out = path("M-30 -8Q-30 -34 0 -34Q22 -34 30 -20Q58 -22 60 0Q60 18 30 18L-8 18Q-30 16 -30 -8Z", main, 3.2)
    out += path("M-8 -33l4 -10l6 9l5 -9l5 10", "#f0b428", 2.4)
    shut = action in ("sleeping", "laughing", "crying")
    for x in (-8, 15):
        if shut:
            curve = -10 if action == "laughing" else 8
            out += path(f"M{x - 9} -16Q{x} {-16 + curve} {x + 9} -16", width=4)
        else:
            big = 1.25 if mood == "surprised" else 1.0
            out += ellipse(x, -17, 10 * big, 12 * big, "#ffffff", 2.8) + ellipse(x + 3, -16, 5, 6, INK, 0)
        tilt = {"angry": 6, "sad": -6, "worried": -5}.get("sad" if action == "crying" else mood, 0)
        side = -1 if x < 0 else 1
        out += path(f"M{x - side * 9} {-34 + tilt}L{x + side * 9} {-34 - tilt}", width=4)
    out += ellipse(53, -8, 3, 3.4, INK, 0)
    if action in ("talking", "laughing", "eating") or mood == "surprised":
        depth = 34 if action == "laughing" else 26
        out += path(f"M6 4L57 2Q50 {depth} 24 {depth}Q8 {depth} 6 4Z", "#8c2a25", 3)
    elif mood in ("sad", "angry", "worried") or action == "crying":
        out += path("M10 15Q34 -4 54 11", width=4)
    else:
        out += path("M4 3Q26 20 56 3", width=4)
    return out
