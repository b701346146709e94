"""The actors: people and dinosaurs, in any pose. Local pixels: the origin is between the feet, y grows downwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.data.gravel_gulch.shapes import BONE, INK, bone, ellipse, group, limb, path, prop, shade
from train.data.gravel_gulch.world import COLORS, Actor, Look


SKIN = "#f3bf92"
BLUSH = "#dd8f63"


@dataclass(frozen=True)
class Body:
    """Measures of a figure: height, half of the body's width at the hem, radius of the head."""

    height: float
    half: float
    head: float


BODIES = {
    "big": Body(186, 44, 35),
    "tall": Body(206, 29, 31),
    "small": Body(156, 33, 34),
    "average": Body(180, 32, 32),
}
CHILD, TODDLER = Body(138, 26, 32), Body(112, 26, 33)
DINOSAUR = Body(184, 46, 34)

# where the hands go, in units of shoulder width and arm length: (front hand, back hand), x towards the front
_HANDS = {
    "standing": ((0.25, 0.98), (-0.25, 0.98)),
    "talking": ((0.95, 0.05), (-0.2, 0.95)),
    "walking": ((0.6, 0.8), (-0.6, 0.8)),
    "running": ((0.9, 0.35), (-0.9, 0.45)),
    "driving": ((0.75, 0.45), (0.55, 0.55)),
    "eating": ((0.1, -0.35), (-0.2, 0.95)),
    "sleeping": ((-0.1, 0.8), (0.1, 0.8)),
    "holding": ((0.35, 0.45), (0.25, 0.6)),
    "pointing": ((1.25, -0.15), (-0.25, 0.95)),
    "sitting": ((0.2, 0.85), (-0.2, 0.85)),
    "laughing": ((-0.25, 0.55), (0.25, 0.55)),
    "waving": ((0.75, -0.85), (-0.25, 0.95)),
    "dancing": ((0.85, -0.75), (-0.95, -0.65)),
    "crying": ((-0.05, -0.2), (0.05, -0.2)),
    "thinking": ((-0.15, -0.02), (0.2, 0.6)),
    "working": ((0.75, -0.7), (0.45, -0.35)),
    "reading": ((0.3, 0.35), (0.35, 0.42)),
    "jumping": ((0.8, -0.8), (-0.8, -0.8)),
}
_SEATED = {"sitting", "reading", "driving"}


def body_of(look: Look) -> Body:
    if look.kind == "dinosaur":
        return DINOSAUR
    if look.kind == "toddler":
        return TODDLER
    return CHILD if look.kind in ("boy", "girl") else BODIES[look.build]


def figure(actor: Actor, t: float, seed: int, tag: str) -> str:
    """The figure of `actor` at time `t` (0 to 1 of the clip). `tag` makes the clip paths' ids its own."""
    if actor.look.kind == "dinosaur":
        return _dinosaur(actor, t, seed, tag)
    return _person(actor, t, seed, tag)


def _person(actor: Actor, t: float, seed: int, tag: str) -> str:
    look, body, action = actor.look, body_of(actor.look), actor.action
    swing = math.sin(2 * math.pi * (2 * t + (seed % 7) / 7))
    H, r = body.height, body.head
    head_y = -H + r
    shoulder_y = head_y + r + 9
    hem_y = -H * (0.13 if look.garment == "dress" and look.kind != "toddler" else 0.22)
    shoulder = body.half * 0.72
    arm = (hem_y - shoulder_y) * 0.82 + 8
    thick = 11 if look.kind in ("boy", "girl", "toddler") else 14
    main = COLORS[look.garment_color]
    trousers = shade(main, 0.86) if look.garment == "suit" else "#5b6b8c"
    sleeve = main if look.garment == "suit" else SKIN
    leg = trousers if look.garment in ("suit", "shirt") else SKIN

    front, back = _HANDS[action]
    arms = []
    for (hx, hy), side in ((back, -1), (front, 1)):
        wave = swing * (0.16 if action in ("talking", "waving", "dancing", "working", "walking", "running") else 0.03)
        x0, y0 = side * shoulder, shoulder_y + 6
        x1, y1 = x0 + hx * arm * 0.9 + (wave * arm if side > 0 else -wave * arm), y0 + (hy + wave * 0.4) * arm
        bend = side * thick * 0.9
        arms.append(
            limb([(x0, y0), ((x0 + x1) / 2 + bend, (y0 + y1) / 2 + 6), (x1, y1)], sleeve, thick)
            + ellipse(x1, y1, thick * 0.62, thick * 0.62, SKIN, 2.6)
        )
        hand = (x1, y1)  # the front one stays
    held = actor.holding or {"reading": "book", "working": "hammer", "eating": "drumstick"}.get(action)
    carried = group(prop(held), hand[0] + 5, hand[1] - 4, 1.05 * max(0.85, r / 33), 4 * swing) if held else ""

    head = _head(actor, t, swing, r)
    tilt = {"sleeping": 12, "laughing": -8, "crying": 6, "thinking": -4}.get(action, 0) + 2.0 * swing
    top = (
        _back_hair(look, head_y, r)
        + arms[0]
        + _legs(action, look, body, hem_y, leg, thick, swing)
        + _garment(look, body, shoulder_y, hem_y, main, trousers, tag)
        + group(head, 0, head_y, 1, tilt)
        + arms[1]
        + carried
    )
    return _placed(top + _effects(action, head_y, r, swing), action, H, t, swing, actor.facing)


def _placed(inner: str, action: str, height: float, t: float, swing: float, facing: int) -> str:
    """A figure with its seat or lift, turned to where it faces."""
    drop, seat = 0.0, ""
    if action in _SEATED and action != "driving":
        drop = height * 0.07
        seat = path("M-46 2L-40 -36L40 -38L46 2Z", "#9d978d")
    if action == "sleeping":
        drop = height * 0.05
    if action == "jumping":
        drop = -14 - 6 * abs(swing)
    lean = {"running": 9, "walking": 3, "dancing": 7 * swing}.get(action, 0)
    mark = path("M-26 2L-14 2M-6 4L8 4M16 2L28 2", width=3, stroke="#6b6b6b") if action == "jumping" else ""
    bob = -abs(swing) * (4 if action in ("walking", "running", "dancing", "laughing") else 1.2)
    turned = f'<g transform="scale({facing} 1)">{group(inner, 0, drop + bob, 1, lean)}</g>'
    return seat + mark + turned


def _legs(action: str, look: Look, body: Body, hem: float, color: str, thick: float, swing: float) -> str:
    gap = body.half * 0.42
    spread = {"walking": 16 + 5 * swing, "running": 26 + 6 * swing, "dancing": 12, "jumping": 14}.get(action, 0)
    out = ""
    for side in (-1, 1):
        x0, foot = side * gap, side * (gap + spread)
        y1 = -7.0
        if action in ("running", "jumping") and side < 0:
            y1 -= 16
        if action == "dancing" and side > 0:
            y1 -= 18
        if action in _SEATED:
            foot = side * (gap + 10)
        out += limb([(x0, hem - 8), ((x0 + foot) / 2, (hem + y1) / 2), (foot, y1)], color, thick + 2)
        shoe = "#3a302d" if look.garment in ("suit", "shirt") else SKIN
        out += ellipse(foot + 5, y1 + 1, thick * 0.95, 7, shoe, 2.8)
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


def _head(actor: Actor, t: float, swing: float, r: float) -> str:
    look, action, mood = actor.look, actor.action, actor.mood
    fx = r * 0.2  # the face looks to the front
    woman = look.kind in ("woman", "girl", "toddler")
    out = ellipse(-r * 0.92, r * 0.12, r * 0.2, r * 0.24, SKIN, 2.8)
    out += ellipse(0, 0, r, r * 1.02, SKIN, 3.2)
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
            "#e3a878",
            0,
        ) + ellipse(0, 0, r, r * 1.02, "none", 3.2)
    out += _face(mood, action, t, fx, r, woman)
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


def _face(mood: str, action: str, t: float, fx: float, r: float, woman: bool) -> str:
    if action == "crying":
        mood = "sad"
    eye, ey = r * 0.36, -r * 0.12
    out = ""
    shut = action == "sleeping" or (action == "laughing") or (action == "crying")
    blink = 0.46 < t < 0.5
    for side in (-1, 1):
        x = fx + side * eye
        if shut or blink:
            curve = -r * 0.24 if action == "laughing" else r * 0.2
            out += path(
                f"M{x - r * 0.22:.1f} {ey:.1f}Q{x:.1f} {ey + curve:.1f} {x + r * 0.22:.1f} {ey:.1f}", width=3.2
            )
        else:
            big = 1.25 if mood == "surprised" else 1.0
            out += ellipse(x, ey, r * 0.25 * big, r * 0.31 * big, "#ffffff", 2.4)
            out += ellipse(x + r * 0.08, ey + r * 0.03, r * 0.12, r * 0.15, INK, 0)
        if woman:
            out += path(
                f"M{x + side * r * 0.2:.1f} {ey - r * 0.2:.1f}L{x + side * r * 0.36:.1f} {ey - r * 0.34:.1f}",
                width=2.4,
            )
        tilt = {"angry": 0.2, "sad": -0.2, "worried": -0.16}.get(mood, 0.0)
        lift = {"surprised": 0.66, "angry": 0.38}.get(mood, 0.5) * r
        inner, outer = x - side * r * 0.22, x + side * r * 0.24
        out += path(
            f"M{inner:.1f} {ey - lift + tilt * r:.1f}L{outer:.1f} {ey - lift - tilt * r * 0.7:.1f}",
            width=2.4 if woman else 3.8,
        )
    my, mx = r * 0.6, fx + r * 0.05
    wide = r * 0.36
    if action == "laughing":
        out += path(
            f"M{mx - wide:.1f} {my - 5:.1f}L{mx + wide:.1f} {my - 5:.1f}Q{mx:.1f} {my + r * 0.52:.1f} {mx - wide:.1f} {my - 5:.1f}Z",
            "#8c2a25",
            2.6,
        )
    elif action == "sleeping":
        out += ellipse(mx, my, r * 0.11, r * 0.11, "#8c2a25", 2.2)
    elif action == "talking" and mood != "surprised":
        out += ellipse(mx, my, wide * 0.62, r * (0.16 + 0.07 * math.sin(50 * t)), "#8c2a25", 2.6)
    elif mood == "surprised":
        out += ellipse(mx, my + 2, r * 0.17, r * 0.24, "#8c2a25", 2.6)
    elif mood in ("sad", "angry"):
        out += path(
            f"M{mx - wide * 0.8:.1f} {my + 6:.1f}Q{mx:.1f} {my - 8:.1f} {mx + wide * 0.8:.1f} {my + 6:.1f}", width=3.2
        )
    elif mood == "worried":
        out += path(f"M{mx - wide:.1f} {my + 2:.1f}q{wide / 2:.1f} -7 {wide:.1f} 0t{wide:.1f} 0", width=3)
    else:
        out += path(
            f"M{mx - wide:.1f} {my - 4:.1f}Q{mx:.1f} {my + 13:.1f} {mx + wide:.1f} {my - 4:.1f}",
            "#c8453a" if woman else "none",
            3,
        )
    if action == "crying":
        for side in (-1, 1):
            x = fx + side * eye
            out += path(f"M{x:.1f} {ey + 3:.1f}q-7 14 0 16q7 -2 0 -16z", "#6db9ea", 2)
    return out


def _effects(action: str, head_y: float, r: float, swing: float) -> str:
    """Signs beside the head: z z z, a thought, notes."""
    if action == "sleeping":
        z = "M0 0L11 0L0 13L11 13"
        return group(path(z, width=3.6), r * 1.05, head_y - r * 0.9 + 2 * swing) + group(
            path(z, width=3.6), r * 1.6, head_y - r * 1.55 - 2 * swing, 1.3
        )
    if action == "thinking":
        return (
            ellipse(r * 1.15, head_y - r * 0.85, 4, 4, "#ffffff", 2.4)
            + ellipse(r * 1.45, head_y - r * 1.15, 6, 5, "#ffffff", 2.4)
            + ellipse(r * 2.0, head_y - r * 1.5, 19, 12, "#ffffff", 2.6)
        )
    if action == "dancing":
        return (
            path(f"M{r * 1.5:.0f} {head_y - r * 0.2:.0f}l0 -20l12 -4l0 20", width=3)
            + ellipse(r * 1.5 - 4, head_y - r * 0.2, 5, 4, INK, 0)
            + ellipse(r * 1.5 + 8, head_y - r * 0.2 - 4, 5, 4, INK, 0)
        )
    return ""


def _dinosaur(actor: Actor, t: float, seed: int, tag: str) -> str:
    look, action, mood = actor.look, actor.action, actor.mood
    swing = math.sin(2 * math.pi * (2 * t + (seed % 7) / 7))
    main = COLORS[look.garment_color]
    belly = shade(main, 1.5)
    spot = shade(main, 0.55)
    tail = path(f"M-20 -56Q-66 -40 -88 {-78 - 8 * swing:.0f}Q-80 -12 -24 -10Z", main)
    body = path("M-42 -26Q-48 -92 -8 -104Q34 -104 42 -56Q46 -8 0 -8Q-40 -6 -42 -26Z", main)
    front = path("M14 -92Q38 -80 36 -44Q32 -14 6 -12Q-4 -50 14 -92Z", belly, 0)
    step = 8 * swing if action in ("walking", "running", "dancing") else 0
    feet = "".join(
        path(f"M{x - 17 + side * step:.0f} 0q-2 -22 16 -22q20 0 22 22z", main)
        + path(f"M{x - 2 + side * step:.0f} -1l0 -7M{x + 10 + side * step:.0f} -1l0 -7", width=2.4)
        for x, side in ((-24, -1), (22, 1))
    )
    neck = path("M-16 -94Q-14 -132 -8 -150L30 -146Q24 -112 24 -90Z", main)
    spots = ""
    if look.pattern == "spotted":
        for x, y, s in ((-26, -70, 8), (-14, -44, 6), (-30, -30, 6), (-2, -120, 6), (-50, -34, 6), (-8, -84, 7)):
            spots += ellipse(x, y, s, s * 0.85, spot, 0)
    front_hand, _ = _HANDS[action]
    hx, hy = 30 + front_hand[0] * 34 + 4 * swing, -72 + front_hand[1] * 30
    arm = limb([(26, -78), ((26 + hx) / 2 + 4, (hy - 78) / 2 + 8), (hx, hy)], main, 12)
    held = actor.holding or {"reading": "book", "working": "hammer", "eating": "drumstick"}.get(action)
    carried = group(prop(held), hx + 6, hy - 4, 1.0) if held else ""
    return _placed(
        tail
        + feet
        + body
        + front
        + neck
        + spots
        + group(_snout(mood, action, t, main), 8, -152, 1.0, 2 * swing + (10 if action == "sleeping" else 0))
        + arm
        + carried
        + _effects(action, -156, 34, swing),
        action,
        186,
        t,
        swing,
        actor.facing,
    )


def _snout(mood: str, action: str, t: float, main: str) -> str:
    """The head of a dinosaur: eyes on top of a long muzzle, around the origin."""
    out = path("M-30 -8Q-30 -34 0 -34Q22 -34 30 -20Q58 -22 60 0Q60 18 30 18L-8 18Q-30 16 -30 -8Z", main, 3.2)
    out += path("M-8 -33l4 -10l6 9l5 -9l5 10", "#f0b428", 2.4)
    shut = action in ("sleeping", "laughing", "crying") or 0.46 < t < 0.5
    for x in (-6, 14):
        if shut:
            curve = -8 if action == "laughing" else 7
            out += path(f"M{x - 8} -16Q{x} {-16 + curve} {x + 8} -16", width=3.2)
        else:
            out += ellipse(x, -17, 8.5, 10.5, "#ffffff", 2.4) + ellipse(x + 3, -16, 4, 5, INK, 0)
        tilt = {"angry": 5, "sad": -5, "worried": -4}.get("sad" if action == "crying" else mood, 0)
        side = -1 if x < 0 else 1
        out += path(f"M{x - side * 8} {-33 + tilt}L{x + side * 8} {-33 - tilt}", width=3.2)
    out += ellipse(53, -8, 3, 3.4, INK, 0)
    if action in ("talking", "laughing") or mood == "surprised":
        depth = 26 if action == "laughing" else 20 + 4 * math.sin(50 * t)
        out += path(f"M6 6L56 4Q50 {depth:.0f} 24 {depth:.0f}Q10 {depth:.0f} 6 6Z", "#8c2a25", 2.6)
    elif mood in ("sad", "angry", "worried") or action == "crying":
        out += path("M10 14Q34 -2 54 10", width=3)
    else:
        out += path("M4 4Q26 18 56 4", width=3)
    if action == "crying":
        out += path("M-6 -8q-7 14 0 16q7 -2 0 -16zM16 -8q-7 14 0 16q7 -2 0 -16z", "#6db9ea", 2)
    return out
