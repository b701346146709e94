"""The settings: what stands behind the actors, and what stands in front of them. 256 x 256, origin top left."""

from __future__ import annotations

import random

from train.data.gravel_gulch.shapes import bone, box, ellipse, group, path, plain, prop, shade


FLOOR = 196  # y at which indoor floors begin


def backdrop(setting: str, rng: random.Random) -> str:
    """What is behind the actors. `rng` moves what no caption mentions a little."""
    return _BACKDROPS[setting](rng)


def foreground(setting: str) -> str:
    """What is in front of the actors."""
    return _CAR_BODY if setting == "car" else ""


def _room(wall: str, floor: str) -> str:
    stones = path(
        f"M0 {FLOOR + 22}L256 {FLOOR + 22}M40 {FLOOR}L22 {FLOOR + 22}M120 {FLOOR}L116 {FLOOR + 22}"
        f"M206 {FLOOR}L222 {FLOOR + 22}M70 {FLOOR + 22}L48 256M170 {FLOOR + 22}L186 256",
        width=1.8,
        stroke=shade(floor, 0.72),
    )
    return (
        plain(0, 0, 256, FLOOR, wall)
        + plain(0, FLOOR, 256, 60, floor)
        + stones
        + path(f"M0 {FLOOR}L256 {FLOOR}", width=3)
    )


def _window(x: float, y: float, w: float, h: float, sky: str, inner: str = "") -> str:
    return (
        box(x - 5, y - 5, w + 10, h + 10, "#a8957d", 3, 6)
        + box(x, y, w, h, sky, 2.5, 4)
        + inner
        + path(f"M{x + w / 2} {y}L{x + w / 2} {y + h}", width=2.5)
    )


def _sky(color: str = "#9fd8f2", clouds: bool = True, rng: random.Random | None = None) -> str:
    out = plain(0, 0, 256, 256, color)
    if clouds and rng:
        for _ in range(2):
            x, y = rng.uniform(20, 230), rng.uniform(14, 44)
            out += path(
                f"M{x - 24:.0f} {y + 8:.0f}c-12 0 -10 -14 2 -13c2 -14 22 -14 25 -3c14 -6 22 14 8 16z",
                "#ffffff",
                1.8,
                "#c4dbe6",
            )
    return out


def _living_room(rng: random.Random) -> str:
    x = rng.uniform(-8, 8)
    sofa = (
        path(
            f"M{26 + x:.0f} 200L{24 + x:.0f} 128q0 -14 16 -14L{206 + x:.0f} 114q16 0 16 14L{220 + x:.0f} 200Z",
            "#b3402f",
        )
        + path(f"M{122 + x:.0f} 116L{122 + x:.0f} 196", width=2.5)
        + box(12 + x, 146, 30, 58, "#c9503c", 3, 10)
        + box(206 + x, 146, 30, 58, "#c9503c", 3, 10)
    )
    picture = box(28, 28, 52, 40, "#f3e4bd", 3, 4) + path("M34 62L48 42L58 54L66 46L74 62Z", "#7fae5a", 2)
    lamp = path("M206 116L206 76", width=4) + path("M186 78L194 44L218 44L226 78Z", "#f7d96a")
    return _room("#e3bd86", "#a9794f") + picture + lamp + sofa


def _kitchen(rng: random.Random) -> str:
    x = rng.uniform(-6, 6)
    pots = "".join(
        path(f"M{px} 22L{px} 36", width=2.5) + path(f"M{px - 12} 36L{px + 12} 36L{px + 9} 54L{px - 9} 54Z", "#8c8f96")
        for px in (42, 76, 110)
    )
    shelf = box(20, 16, 112, 8, "#8a5a32", 2.5)
    fridge = box(184 + x, 46, 62, 160, "#e8e4da", 3, 8) + path(
        f"M{184 + x:.0f} 100L{246 + x:.0f} 100M{194 + x:.0f} 74L{194 + x:.0f} 90M{194 + x:.0f} 112L{194 + x:.0f} 132",
        width=3,
    )
    stove = (
        box(-6, 134, 186, 72, "#b9b2a6", 3, 4)
        + box(-10, 126, 194, 12, "#dcd6c8", 3, 4)
        + box(24 + x, 150, 52, 40, "#4a4540", 3, 6)
        + path(f"M{38 + x:.0f} 186q-4 -14 12 -26q16 12 12 26z", "#f08a24", 2)
        + path("M104 140L104 204M144 140L144 204", width=2.5)
    )
    return _room("#f6e27a", "#c9a877") + shelf + pots + stove + fridge


def _bedroom(rng: random.Random) -> str:
    x = rng.uniform(-6, 6)
    moon = path("M202 28q-16 14 0 32q-26 0 -24 -18q2 -14 24 -14z", "#f9efb5", 2)
    bed = (
        path(f"M{10 + x:.0f} 206L{10 + x:.0f} 92q38 -26 76 0L{86 + x:.0f} 206Z", "#8a5a32")
        + box(14 + x, 136, 236, 66, "#e9eef7", 3, 10)
        + path(f"M{94 + x:.0f} 138L{250 + x:.0f} 138L{250 + x:.0f} 206L{86 + x:.0f} 206Z", "#4f6fc0")
        + path(f"M{96 + x:.0f} 156L{250 + x:.0f} 156", width=6, stroke="#8fa6e0")
        + ellipse(54 + x, 140, 32, 15, "#ffffff")
    )
    return _room("#a79bd0", "#6f6396") + _window(158, 22, 66, 50, "#28356e", moon) + bed


def _dining_room(rng: random.Random) -> str:
    x = rng.uniform(-6, 6)
    lamp = path("M128 0L128 26", width=3) + path("M94 50q34 -48 68 0z", "#f3c94a")
    plates = "".join(ellipse(px + x, 134, 20, 6, "#f8f5ec", 2) for px in (64, 128, 192))
    food = group(prop("drumstick"), 128 + x, 124, 0.9) + group(prop("cup"), 190 + x, 120, 0.8)
    table = (
        box(14 + x, 136, 228, 16, "#b98350", 3, 6)
        + box(40 + x, 152, 24, 54, "#93622f")
        + box(192 + x, 152, 24, 54, "#93622f")
    )
    plate = ellipse(48, 66, 24, 24, "#d9e8ef") + ellipse(48, 66, 13, 13, "#8fb8cc", 2)
    shelf = ellipse(208, 66, 24, 24, "#efd9d9") + ellipse(208, 66, 13, 13, "#cc8f8f", 2)
    return _room("#7dbb8a", "#8a6a4a") + lamp + plate + shelf + table + plates + food


def _house(x: float, y: float, s: float, color: str) -> str:
    dome = path("M-62 0C-64 -86 64 -86 62 0Z", color) + path("M-40 -52q40 -34 80 0", width=2)
    door = path("M-16 0L-16 -30q16 -18 32 0L16 0Z", "#4b3226")
    return group(dome + door + ellipse(-40, -28, 10, 11, "#bfe6f5") + ellipse(40, -28, 10, 11, "#bfe6f5"), x, y, s)


def _yard(rng: random.Random) -> str:
    fence = "".join(
        path(f"M{px} 170L{px} 132L{px + 8} 122L{px + 16} 132L{px + 16} 170Z", "#f3ead2", 2.5)
        for px in range(118, 256, 22)
    )
    return (
        _sky(rng=rng)
        + path("M0 150L256 150L256 256L0 256Z", "#7cc152")
        + fence
        + _house(62 + rng.uniform(-8, 8), 158, 1.05, "#d8a46a")
        + path("M40 256Q60 200 66 158L88 158Q100 210 120 256Z", "#d9c59a", 2)
        + path("M150 190l5 -10l5 10M214 214l5 -10l5 10M20 206l5 -10l5 10", width=2.5, stroke="#4c8a2c")
    )


def _quarry(rng: random.Random) -> str:
    x = rng.uniform(-8, 8)
    cliff = (
        path("M-10 210L-10 50L54 44L62 84L112 92L118 132L176 138L180 210Z", "#c98f5a")
        + path("M266 210L266 34L214 40L206 96L170 104L166 210Z", "#b77a47")
        + path("M-10 92L58 88M-10 140L116 134M212 76L266 72M172 150L266 146", width=2.5)
    )
    crane = path(f"M{120 + x:.0f} 134L{132 + x:.0f} 26L{186 + x:.0f} 18", width=9) + path(
        f"M{120 + x:.0f} 134L{132 + x:.0f} 26L{186 + x:.0f} 18", width=4, stroke="#8fb04a"
    )
    load = path(f"M{186 + x:.0f} 20L{186 + x:.0f} 50", width=2.5) + group(prop("rock"), 186 + x, 64, 1.0)
    pile = group(prop("rock"), 32, 206, 1.2) + group(prop("rock"), 68, 214, 0.9) + group(prop("rock"), 226, 208, 1.3)
    return (
        plain(0, 0, 256, 256, "#f6d9a2")
        + crane
        + load
        + cliff
        + plain(0, 200, 256, 56, "#e0bd84")
        + path("M0 200L256 200", width=3)
        + pile
    )


def _car(rng: random.Random) -> str:
    x = rng.uniform(0, 60)
    hills = path(f"M-20 150Q{40 + x:.0f} 70 {120 + x:.0f} 150Q{180 + x / 2:.0f} 88 276 150Z", "#8fc06a", 2.5)
    road = plain(0, 168, 256, 90, "#8b8b92") + path("M0 168L256 168", width=3)
    roof = (
        path("M8 60Q8 26 30 24L226 24Q248 26 248 60L236 60Q236 44 222 44L34 44Q20 44 20 60Z", "#d9a866")
        + box(14, 46, 9, 130, "#9a6a3a", 2.5)
        + box(233, 46, 9, 130, "#9a6a3a", 2.5)
    )
    return _sky("#a9def5", rng=rng) + hills + road + roof


_CAR_BODY = (
    plain(0, 216, 256, 40, "#8b8b92")
    + path("M-4 166Q128 150 260 166L252 224Q128 234 4 224Z", "#c07a3c", 4)
    + path("M14 184Q128 170 242 184", width=2.5, stroke="#8d5424")
    + ellipse(46, 226, 36, 30, "#8e8c88", 4)
    + ellipse(46, 226, 12, 10, "#6d6b67")
    + ellipse(210, 226, 36, 30, "#8e8c88", 4)
    + ellipse(210, 226, 12, 10, "#6d6b67")
)


def _street(rng: random.Random) -> str:
    x = rng.uniform(-14, 14)
    tower = box(102 + x, 34, 54, 140, "#9db3c4", 3, 8) + "".join(
        box(112 + x + 20 * i, 48 + 30 * j, 14, 16, "#f7e9a0", 2) for i in range(2) for j in range(3)
    )
    return (
        _sky("#bfe3ee", rng=rng)
        + tower
        + _house(44 + x, 172, 0.85, "#d98c6a")
        + _house(216 + x, 172, 0.85, "#8fb6a0")
        + plain(0, 170, 256, 20, "#d6cfc0")
        + plain(0, 190, 256, 70, "#77777e")
        + path("M0 170L256 170M0 190L256 190", width=3)
        + path("M6 226L60 226M98 226L152 226M190 226L244 226", width=6, stroke="#f6e6a0")
    )


def _office(rng: random.Random) -> str:
    x = rng.uniform(-6, 6)
    chart = box(24, 24, 74, 58, "#fbfaf4", 3, 3) + path("M34 70L50 56L62 62L88 36", width=4, stroke="#c8402f")
    blinds = "".join(path(f"M160 {y}L232 {y}", width=3, stroke="#dfe6ea") for y in range(32, 84, 9))
    desk = (
        box(16 + x, 140, 224, 18, "#8d8f96", 3, 4)
        + box(30 + x, 158, 62, 50, "#74767d", 3, 2)
        + box(164 + x, 158, 62, 50, "#74767d", 3, 2)
        + path(f"M{40 + x:.0f} 140L{44 + x:.0f} 116L{76 + x:.0f} 116L{80 + x:.0f} 140Z", "#f6f3ea", 2.5)
        + group(prop("phone"), 196 + x, 134, 0.9)
    )
    return _room("#8fa9b5", "#5d6a73") + chart + _window(160, 26, 72, 60, "#c3e4f0", blinds) + desk


def _bowling_alley(rng: random.Random) -> str:
    x = rng.uniform(-4, 4)
    pins = "".join(
        path(f"M{px + x:.0f} 104q-9 -20 -3 -30q-5 -12 4 -13q9 1 4 13q6 10 -3 30z", "#fffaf0", 2.2)
        + path(f"M{px - 4 + x:.0f} 75L{px + 5 + x:.0f} 75", width=3, stroke="#d8352a")
        for px in (96, 116, 136, 156)
    )
    lane = path("M84 106L172 106L236 256L20 256Z", "#e6b566") + path(
        "M106 106L74 256M128 106L128 256M150 106L182 256", width=2, stroke="#b98440"
    )
    gutters = path("M84 106L20 256L-30 256L66 106Z", "#6b4a2d", 2.5) + path(
        "M172 106L236 256L286 256L190 106Z", "#6b4a2d", 2.5
    )
    sign = (
        box(68, 10, 120, 32, "#f5c838", 3, 8) + group(bone(34), 104, 26, 0.8) + ellipse(158, 26, 10, 10, "#26222b", 2)
    )
    return (
        plain(0, 0, 256, 256, "#5a3f86")
        + plain(0, 52, 256, 54, "#2f2350")
        + sign
        + pins
        + plain(0, 106, 256, 150, "#4a3372")
        + gutters
        + lane
    )


def _beach(rng: random.Random) -> str:
    x = rng.uniform(-10, 10)
    sun = ellipse(196 + x, 40, 22, 22, "#fde06a", 2.5, "#e8a830")
    palm = path(f"M{40 + x:.0f} 200Q{46 + x:.0f} 120 {30 + x:.0f} 70", width=15) + path(
        f"M{40 + x:.0f} 200Q{46 + x:.0f} 120 {30 + x:.0f} 70", width=9, stroke="#a8743c"
    )
    leaves = "".join(
        group(path("M0 0Q26 -20 52 6Q26 -4 0 0Z", "#3fa04a", 2.2), 30 + x, 70, 1, turn)
        for turn in (-10, 35, 170, 215, 270)
    )
    waves = path("M0 132q16 -8 32 0t32 0t32 0t32 0t32 0t32 0t32 0t32 0", width=2.5, stroke="#ffffff") + path(
        "M0 146q16 -8 32 0t32 0t32 0t32 0t32 0t32 0t32 0t32 0", width=2.5, stroke="#bfe8f5"
    )
    sand = path("M-4 168Q120 150 260 172L260 260L-4 260Z", "#f4dc9a", 2.5)
    return (
        plain(0, 0, 256, 116, "#9be0f7")
        + sun
        + plain(0, 112, 256, 80, "#2f97cc")
        + path("M0 112L256 112", width=2.5)
        + waves
        + sand
        + palm
        + leaves
    )


def _cave(rng: random.Random) -> str:
    x = rng.uniform(-8, 8)
    mouth = path(
        f"M{78 + x:.0f} 178Q{70 + x:.0f} 56 {130 + x:.0f} 52Q{192 + x:.0f} 56 {184 + x:.0f} 178Z", "#ffd98a", 4
    )
    teeth = "".join(
        path(f"M{px} -4L{px + 12} {length}L{px + 24} -4Z", "#57473f", 2.5)
        for px, length in ((4, 54), (34, 34), (66, 26), (160, 24), (196, 40), (228, 58))
    )
    return (
        plain(0, 0, 256, 256, "#6b574b")
        + path("M-4 60Q40 90 20 170L-4 190Z", "#57473f", 2.5)
        + path("M260 50Q214 96 236 176L260 190Z", "#57473f", 2.5)
        + mouth
        + teeth
        + path("M-4 182Q128 164 260 184L260 260L-4 260Z", "#4c3d35", 3)
        + path("M16 232L30 208L44 232ZM212 236L226 206L240 236Z", "#57473f", 2.5)
    )


def _diner(rng: random.Random) -> str:
    x = rng.uniform(-5, 5)
    tiles = "".join(plain(32 * i + 16 * (j % 2), 206 + 16 * j, 16, 16, "#d8352a") for i in range(8) for j in range(4))
    sign = box(60 + x, 16, 136, 44, "#d8352a", 3, 18) + group(prop("drumstick"), 128 + x, 38, 1.1)
    counter = (
        box(-6, 134, 268, 14, "#f6f3ea", 3, 4)
        + box(-4, 148, 264, 58, "#3fb5ae", 3, 2)
        + path("M0 166L256 166", width=7, stroke="#f6f3ea")
    )
    stools = "".join(
        path(f"M{px} 206L{px} 172", width=5) + ellipse(px, 170, 17, 7, "#d8352a", 2.5) for px in (30, 128, 226)
    )
    return (
        plain(0, 0, 256, 206, "#fbe8cf")
        + sign
        + counter
        + stools
        + plain(0, 206, 256, 60, "#f6f3ea")
        + tiles
        + path("M0 206L256 206", width=3)
    )


def _tree(x: float, y: float, s: float) -> str:
    trunk = path("M-8 0L-6 -46L6 -46L8 0Z", "#8a5a32")
    return group(
        trunk + path("M-40 -44C-60 -70 -36 -96 -18 -88C-10 -112 22 -112 24 -88C46 -94 58 -62 38 -44Z", "#3f9a45"),
        x,
        y,
        s,
    )


def _park(rng: random.Random) -> str:
    x = rng.uniform(-10, 10)
    bench = (
        box(150 + x, 140, 90, 10, "#b9783c", 2.5)
        + box(150 + x, 122, 90, 10, "#b9783c", 2.5)
        + path(f"M{160 + x:.0f} 122L{160 + x:.0f} 172M{230 + x:.0f} 122L{230 + x:.0f} 172", width=5)
    )
    pond = ellipse(120, 184, 46, 12, "#5fb6e2", 2.5)
    return (
        _sky("#b8ecd8", rng=rng)
        + path("M0 142Q128 118 256 142L256 256L0 256Z", "#5fae3f")
        + _tree(38 + x, 166, 1.15)
        + _tree(206 + x, 150, 0.95)
        + bench
        + pond
    )


_BACKDROPS = {
    "living room": _living_room,
    "kitchen": _kitchen,
    "bedroom": _bedroom,
    "dining room": _dining_room,
    "yard": _yard,
    "quarry": _quarry,
    "car": _car,
    "street": _street,
    "office": _office,
    "bowling alley": _bowling_alley,
    "beach": _beach,
    "cave": _cave,
    "diner": _diner,
    "park": _park,
}
