"""The race as an SVG: one row per race, one dot per peer at its speed-up, a whisker from the 10th to the 90th percentile of the rounds."""
import math
from html import escape

from summary import label, speedups

_COLOURS = {
    "eager": "#888888", "freeze": "#555555", "ofi": "#b07aa1", "llga": "#9c755f", "inductor": "#edc948",
    "onnxruntime": "#4e79a7", "openvino": "#59a14f", "fusible": "#e15759",
}
_LEFT, _WIDTH, _ROW, _TOP = 260, 640, 22, 60


def _ticks(high):
    return [tick for tick in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32) if tick <= high * 1.01]


def svg(result, base):
    rows = [(label(race), ratios) for race in result["races"] if (ratios := speedups(race, base))]
    ends = [end for _, ratios in rows for r in ratios.values() for end in (r["p10"], r["p90"])] or [1]
    low, high = math.log(min(*ends, 0.9)), math.log(max(*ends, 1.2))

    def x(ratio):
        return _LEFT + _WIDTH * (math.log(ratio) - low) / (high - low)

    bottom = _TOP + _ROW * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}" height="{bottom + 40}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-size="14">Speed-up over {escape(base)} (logarithmic; whiskers: 10th to 90th percentile of the rounds)</text>',
    ]
    for index, name in enumerate(name for name in result["peers"] if any(name in ratios for _, ratios in rows)):
        at = 10 + 110 * index
        out.append(f'<circle cx="{at + 5}" cy="38" r="5" fill="{_COLOURS[name]}"/><text x="{at + 15}" y="42">{escape(name)}</text>')
    for tick in _ticks(math.exp(high)):
        if math.log(tick) >= low:
            out.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP - 6}" y2="{bottom}" stroke="#dddddd"/>')
            out.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}x</text>')
    for index, (text, ratios) in enumerate(rows):
        y = _TOP + _ROW * index + _ROW / 2
        out.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for name, r in ratios.items():
            colour = _COLOURS[name]
            out.append(f'<line x1="{x(r["p10"]):.1f}" x2="{x(r["p90"]):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>')
            out.append(f'<circle cx="{x(r["median"]):.1f}" cy="{y:.1f}" r="{6 if name == "fusible" else 4}" fill="{colour}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"
