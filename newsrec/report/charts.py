"""Small SVG charts as text: they need no library, no script and no network, and follow the page's colours.

Each takes plain numbers and gives safe markup; every name in it is escaped. Colours are CSS classes of the template
(`s0`, `s1` ... fill or stroke a series). A screen reader gets a title and a sentence with the figures that matter.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

from markupsafe import Markup

WIDTH: Final = 720
COLOURS: Final = 4
_LABEL, _ROW, _TOP = 232, 22, 8


def line_chart(title: str, series: Mapping[str, Sequence[float]], x_name: str, marked: int | None = None) -> Markup:
    """Lines over 1, 2, 3 ...; `marked` is the x of a vertical line (the number of trees that was kept)."""
    known = {name: [y for y in values if math.isfinite(y)] for name, values in series.items()}
    longest = max((len(values) for values in series.values()), default=0)
    if not any(known.values()):
        return Markup("")
    low = min(min(values) for values in known.values() if values)
    high = max(max(values) for values in known.values() if values)
    left, right, top, bottom = 64, WIDTH - 110, 12, 230
    span = (high - low) or max(abs(high), 1e-9)

    def place(i: float, y: float) -> tuple[float, float]:
        return left + (right - left) * (i - 1) / max(longest - 1, 1), bottom - (bottom - top) * (y - low) / span

    parts = []
    for tick in range(5):
        value = low + span * tick / 4
        y = place(1, value)[1]
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(left, right, y, y))
        parts.append(_text(left - 8, y + 4, f"{value:.4g}", "end"))
    for x in sorted({1, (longest + 1) // 2, longest}):
        parts.append(_text(place(x, low)[0], bottom + 18, f"{x:,}", "middle"))
    parts.append(_text((left + right) / 2, bottom + 36, x_name, "middle"))
    if marked is not None and 1 <= marked <= longest:
        at = place(marked, low)[0]
        parts.append(Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(at, top, bottom))
    ends = _apart([place(len(values), values[-1])[1] if values else top for values in series.values()], 16)
    for i, (name, values) in enumerate(series.items()):
        points = [place(x, y) for x, y in enumerate(values, start=1) if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(i % COLOURS, path))
        parts.append(
            Markup('<circle class="dot s{}" cx="{}" cy="{:.1f}" r="4"/>').format(i % COLOURS, right + 12, ends[i])
        )
        parts.append(_text(right + 20, ends[i] + 4, name))
    told = "; ".join(f"{name} ends at {values[-1]:.4g}" for name, values in known.items() if values)
    at_mark = f", best at {marked:,}" if marked is not None else ""
    return _svg(title, f"{x_name} 1 to {longest:,}{at_mark}: {told}", bottom + 44, parts)


def reliability(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Predicted against true rates on logarithmic axes, one line per name; on the dashed diagonal they are equal."""
    known = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()}
    values = [value for points in known.values() for point in points for value in point]
    if not values:
        return Markup("")
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    left, right, top, bottom = 64, 420, 12, 368

    def place(value: float, start: float, end: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    parts = [Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, right, bottom, top)]
    for power in range(low, high + 1):
        x, y = place(10.0**power, left, right), place(10.0**power, bottom, top)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(left, right, y, y))
        parts.append(_text(left - 8, y + 4, f"{10.0**power:g}", "end"))
        parts.append(_text(x, bottom + 18, f"{10.0**power:g}", "middle"))
    parts.append(_text((left + right) / 2, bottom + 36, "predicted", "middle"))
    for i, (name, points) in enumerate(known.items()):
        at = [(place(x, left, right), place(y, bottom, top)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(i % COLOURS, path))
        dot = Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="4"/>')
        parts += [dot.format(i % COLOURS, x, y) for x, y in [*at, (right + 24, top + 10 + 20 * i)]]
        parts.append(_text(right + 34, top + 14 + 20 * i, name))
    told = "; ".join(f"{name}: {len(points)} classes" for name, points in known.items())
    return _svg(title, f"clicked share by predicted share; {told}", bottom + 44, parts)


def bars(title: str, rows: Sequence[tuple[str, float]], unit: str = "") -> Markup:
    """Horizontal bars from zero, in the given order, each with its figure."""
    return grouped_bars(title, [(name, {"": value}) for name, value in rows], unit)


def grouped_bars(title: str, groups: Sequence[tuple[str, Mapping[str, float]]], unit: str = "") -> Markup:
    """Horizontal bars, one group per name and one colour per series, with a legend where there are several series."""
    groups = [(name, {key: y for key, y in values.items() if math.isfinite(y)}) for name, values in groups]
    names = list(dict.fromkeys(key for _, values in groups for key in values))
    top = max((y for _, values in groups for y in values.values()), default=0.0)
    if not names:
        return Markup("")
    parts, y = _legend(names)
    thick = 14 if len(names) == 1 else 11
    for name, values in groups:
        parts.append(_text(_LABEL - 8, y + (thick + 2) * len(names) / 2 + 3, _short(name), "end", name))
        for key in names:
            if key in values:
                wide = max((WIDTH - _LABEL - 90) * max(values[key], 0.0) / (top if top > 0 else 1), 1)
                shape = '<rect class="bar s{}" x="{}" y="{}" width="{:.1f}" height="{}" rx="2"><title>{}</title></rect>'
                told = f"{name} {key} {values[key]:.4g}{unit}".replace("  ", " ")
                parts.append(Markup(shape).format(names.index(key) % COLOURS, _LABEL, y, wide, thick, told))
                parts.append(_text(_LABEL + wide + 6, y + thick - 2, f"{values[key]:,.4g}{unit}"))
            y += thick + 2
        y += 6
    best = max(
        ((value, name, key) for name, values in groups for key, value in values.items()), key=lambda each: each[0]
    )
    return _svg(title, f"{len(groups)} bars; the longest is {best[1]} {best[2]} with {best[0]:.4g}{unit}", y, parts)


def heat_table(title: str, shares: Mapping[str, Mapping[str, float]]) -> Markup:
    """A table of shares in 0..1, darker for more; the figure stands in every cell."""
    columns = list(dict.fromkeys([*shares, *(key for row in shares.values() for key in row)]))
    cell = '<td class="num heat" style="--share:{:.0f}%">{:.2f}</td>'
    rows = [
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            name,
            Markup("").join(
                Markup(cell).format(100 * min(max(row[key], 0), 1), row[key]) if key in row else Markup("<td></td>")
                for key in columns
            ),
        )
        for name, row in shares.items()
    ]
    head = Markup("").join(Markup('<th scope="col" class="num">{}</th>').format(key) for key in columns)
    table = "<table><caption>{}</caption><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>"
    return Markup(f'<div class="wide">{table}</div>').format(title, head, Markup("").join(rows))


def _legend(names: Sequence[str]) -> tuple[list[Markup], int]:
    """Dots and names in one line, and where the first bar starts below."""
    if len(names) == 1:
        return [], _TOP
    parts = []
    for i, name in enumerate(names):
        x = _LABEL + 110 * i
        parts.append(Markup('<circle class="dot s{}" cx="{}" cy="12" r="5"/>').format(i % COLOURS, x + 5))
        parts.append(_text(x + 15, 16, name))
    return parts, _TOP + _ROW


def _svg(title: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    shape = (
        '<figure><figcaption aria-hidden="true">{title}</figcaption>'
        '<svg role="img" viewBox="0 0 {w} {h:.0f}" aria-labelledby="t{i} d{i}">'
        '<title id="t{i}">{title}</title><desc id="d{i}">{description}</desc>{body}</svg></figure>'
    )
    body = Markup("").join(parts)
    key = f"{crc32(title.encode()):08x}"  # the same page for the same figures, whatever was drawn before
    return Markup(shape).format(w=WIDTH, h=height, i=key, title=title, description=description, body=body)


def _text(x: float, y: float, text: str, anchor: str = "start", whole: str = "") -> Markup:
    """Text at a point; where it was shortened, the whole of it on hover."""
    hover = Markup("<title>{}</title>").format(whole) if whole and whole != text else ""
    shape = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>'
    return Markup(shape).format(x, y, anchor, text, hover)


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels down until none covers another."""
    moved = list(heights)
    order = sorted(range(len(moved)), key=moved.__getitem__)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + gap)
    return moved
