"""SVG shapes with the show's bold outline, and the props made of them. Units are pixels of a 256 x 256 frame."""

from __future__ import annotations

from train.data.gravel_gulch.world import COLORS


INK = "#2b1c1a"
BONE = "#fbf3dc"


def path(d: str, fill: str = "none", width: float = 3.0, stroke: str = INK, more: str = "") -> str:
    return (
        f'<path d="{d}" fill="{fill}" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round" '
        f'stroke-linecap="round" {more}/>'
    )


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, width: float = 3.0, stroke: str = INK) -> str:
    return (
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{width}"/>'
    )


def box(x: float, y: float, w: float, h: float, fill: str, width: float = 2.5, r: float = 3, stroke: str = INK) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{r}" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{width}"/>'
    )


def plain(x: float, y: float, w: float, h: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}"/>'


def limb(points: list[tuple[float, float]], color: str, width: float) -> str:
    """A bent arm or leg: one thick line in ink, a thinner one in its colour on top."""
    (x0, y0), (x1, y1), (x2, y2) = points
    d = f"M{x0:.1f} {y0:.1f}Q{x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}"
    return path(d, width=width + 6) + path(d, width=width, stroke=color)


def group(inner: str, x: float = 0, y: float = 0, scale: float = 1, turn: float = 0) -> str:
    return f'<g transform="translate({x:.2f} {y:.2f}) rotate({turn:.1f}) scale({scale:.3f})">{inner}</g>'


def shade(color: str, factor: float) -> str:
    """`color` (`#rrggbb`) darker (below 1) or lighter (above 1)."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    if factor <= 1:
        parts = [round(part * factor) for part in parts]
    else:
        parts = [round(part + (255 - part) * (factor - 1)) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in parts)


def blend(color: str, other: str) -> str:
    """The middle of two colours (`#rrggbb`)."""
    pairs = [(int(color[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{(one + two) // 2:02x}" for one, two in pairs)


def bone(length: float = 30) -> str:
    h = length / 2
    return path(
        f"M{-h} -4C{-h - 4} -14 {-h - 14} -8 {-h - 8} 0C{-h - 14} 8 {-h - 4} 14 {-h} 4L{h} 4"
        f"C{h + 4} 14 {h + 14} 8 {h + 8} 0C{h + 14} -8 {h + 4} -14 {h} -4Z",
        BONE,
        2.5,
    )


def prop(name: str) -> str:
    """One of `PROPS`, about 36 px wide, its middle at the origin."""
    return _PROPS[name]()


def _ball() -> str:
    return ellipse(0, 0, 16, 16, COLORS["red"]) + path("M-15 -5Q0 5 15 -5M-4 -15Q4 0 -4 15", width=2.5)


def _flower() -> str:
    petals = "".join(
        ellipse(x, y - 14, 7.5, 7.5, COLORS["yellow"], 2) for x, y in ((0, -9), (9, -2), (5, 8), (-5, 8), (-9, -2))
    )
    return path("M0 -8Q3 10 0 22", stroke="#2f7d36", width=5) + petals + ellipse(0, -14, 6, 6, COLORS["orange"], 2)


def _fish() -> str:
    return (
        path("M12 0L26 -12L24 0L26 12Z", "#5fa8d8", 2.5)
        + ellipse(-2, 0, 19, 11, "#6fb8e8", 2.5)
        + ellipse(-12, -3, 2.5, 2.5, INK, 0)
        + path("M-2 -6Q4 0 -2 6", width=2)
    )


def _drumstick() -> str:
    return (
        path("M6 4L22 14", width=10)
        + path("M6 4L22 14", width=5, stroke=BONE)
        + ellipse(23, 12, 5, 5, BONE, 2)
        + ellipse(20, 18, 5, 5, BONE, 2)
        + path("M10 8C2 16 -18 8 -18 -6C-18 -20 2 -20 8 -10C12 -4 14 2 10 8Z", "#b5682f")
    )


def _cup() -> str:
    return path("M12 -6C24 -8 24 10 12 8", width=4) + path("M-13 -14L13 -14L10 15L-10 15Z", "#e9e2d2", 2.5)


def _book() -> str:
    return (
        path("M-25 -15L0 -10L25 -15L25 14L0 19L-25 14Z", COLORS["green"], 2.5)
        + path("M-20 -16L0 -11L0 13L-20 9Z", "#fbfaf4", 2.2)
        + path("M20 -16L0 -11L0 13L20 9Z", "#fbfaf4", 2.2)
        + path("M-15 -8L-5 -5M-15 -1L-5 2M15 -8L5 -5M15 -1L5 2", width=2)
    )


def _basket() -> str:
    return (
        path("M-16 -2C-16 -30 16 -30 16 -2", width=4)
        + path("M-21 -4L21 -4L15 18L-15 18Z", "#c58b45", 2.5)
        + path("M-19 4L19 4M-17 11L17 11M-7 -4L-5 18M7 -4L5 18", width=1.8)
    )


def _phone() -> str:
    return (
        box(-12, -20, 24, 40, "#3d3a45", 2.5, 4)
        + box(-8, -15, 16, 23, "#8fe0d8", 0, 2)
        + ellipse(0, 14, 3, 3, BONE, 0)
    )


def _hammer() -> str:
    return (
        path("M0 22L0 -10", width=11)
        + path("M0 22L0 -10", width=5, stroke="#9a6234")
        + path("M-18 -22L18 -20L18 -6L-18 -8Z", "#a5a8ad")
    )


def _club() -> str:
    return path("M-5 24L-11 -18C-10 -30 10 -30 11 -18L5 24Z", "#9a6234") + ellipse(0, -14, 3, 3, "#6d4222", 0)


def _rock() -> str:
    return path("M-20 12L-16 -8L-2 -17L14 -11L21 6L14 14Z", "#a7a39b") + path("M-8 -6L0 -2L8 -6", width=2)


def _parcel() -> str:
    return box(-18, -15, 36, 30, "#cf9a56", 3, 2) + path("M-18 -4L18 -4M0 -15L0 15", width=2.5, stroke="#8a5a2a")


_PROPS = {
    "bone": bone,
    "club": _club,
    "rock": _rock,
    "ball": _ball,
    "flower": _flower,
    "fish": _fish,
    "drumstick": _drumstick,
    "cup": _cup,
    "book": _book,
    "basket": _basket,
    "phone": _phone,
    "hammer": _hammer,
    "box": _parcel,
}
