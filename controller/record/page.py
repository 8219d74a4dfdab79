"""The report's page: one HTML file that loads nothing, whose policy forbids it to, and that prints well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from plotly.offline import get_plotlyjs

from controller.record.look import BLUE, FONT, GRID, INK, PALE, SOFT_INK

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #fff; color: {INK}; font: 15px/1.55 {FONT}; -webkit-text-size-adjust: 100%; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 36px 28px 64px; }}
header {{ border-bottom: 2px solid {INK}; padding-bottom: 18px; margin-bottom: 26px; }}
.kicker {{ color: {SOFT_INK}; font-size: 13px; letter-spacing: .08em; text-transform: uppercase; margin: 0; }}
h1 {{ font-size: 34px; line-height: 1.15; margin: 4px 0 10px; letter-spacing: -.01em; }}
h2 {{ font-size: 21px; line-height: 1.25; margin: 0 0 4px; }}
h3 {{ font-size: 15px; margin: 18px 0 0; color: {SOFT_INK}; font-weight: 600; }}
p {{ margin: 6px 0; max-width: 96ch; }}
.facts {{ display: flex; flex-wrap: wrap; gap: 4px 26px; margin: 0; padding: 0; list-style: none; font-size: 14px; }}
.facts b {{ font-weight: 600; }}
.facts span {{ color: {SOFT_INK}; }}
nav {{ font-size: 14px; margin: 14px 0 0; display: flex; flex-wrap: wrap; gap: 2px 18px; }}
a {{ color: {BLUE}; text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
.tiles {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 0 0 12px; }}
.tile {{ border: 1px solid {GRID}; border-top: 3px solid {BLUE}; border-radius: 4px; padding: 12px 14px; }}
.tile b {{ display: block; font-size: 25px; line-height: 1.2; white-space: nowrap; }}
.tile span {{ display: block; font-size: 13px; font-weight: 600; }}
.tile small {{ display: block; color: {SOFT_INK}; font-size: 12.5px; line-height: 1.4; margin-top: 2px; }}
section {{ margin: 40px 0 0; }}
section > p {{ color: {SOFT_INK}; }}
.plot {{ width: 100%; margin: 8px 0 0; }}
.modebar {{ opacity: 0; }}
.plot:hover .modebar {{ opacity: 1; }}
.none {{ border-left: 3px solid {PALE}; padding: 8px 14px; background: #f7f8fa; color: {SOFT_INK}; }}
table {{ border-collapse: collapse; font-size: 14px; width: 100%; margin: 10px 0; }}
th, td {{ text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-bottom: 1px solid {GRID}; }}
th {{ font-weight: 600; white-space: nowrap; }}
td {{ overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }}
code, pre {{ font: 12.5px/1.5 ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace; }}
pre {{ white-space: pre-wrap; background: #f7f8fa; border: 1px solid {GRID}; padding: 12px 14px; margin: 6px 0; }}
summary {{ cursor: pointer; font-weight: 600; padding: 4px 0; }}
footer {{ margin-top: 48px; padding-top: 12px; border-top: 1px solid {GRID}; color: {SOFT_INK}; font-size: 13px; }}
@media (max-width: 820px) {{ .tiles {{ grid-template-columns: repeat(2, 1fr); }} main {{ padding: 20px 14px; }} }}
@page {{ size: A4; margin: 14mm 12mm; }}
@media print {{
  main {{ max-width: none; padding: 0; }}
  nav, .modebar-container {{ display: none !important; }}
  .tile, .plot, tr, h2, h3 {{ break-inside: avoid; }}
  h2, h3, section > p {{ break-after: avoid; }}
  .tiles {{ grid-template-columns: repeat(4, 1fr); }}
  .tile b {{ font-size: 18px; }}
  section {{ margin-top: 24px; }}
  body {{ font-size: 12px; }}
  * {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
}}
"""

# A plot is as wide as its column: when the column changes (a window, a sheet of paper), it is drawn anew.
SCRIPT = """
const plots = JSON.parse(document.getElementById('plots').textContent);
const config = {
  displaylogo: false, responsive: true, showSendToCloud: false, showAxisRangeEntryBoxes: false,
  modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']],
};
for (const [id, spec] of Object.entries(plots)) Plotly.newPlot(id, { ...spec, config });
const fit = () => { for (const id of Object.keys(plots)) Plotly.Plots.resize(id); };
window.addEventListener('beforeprint', fit);
window.addEventListener('afterprint', fit);
"""


@dataclass(frozen=True)
class Tile:
    """One headline figure: the number, what it is, and what stands behind it."""

    figure: str
    label: str
    note: str


@dataclass(frozen=True)
class Section:
    """One part of the report. `body` is HTML; each of its plots has a `plot_slot` there."""

    anchor: str
    title: str
    lead: str
    body: str
    plots: Mapping[str, str] = field(default_factory=dict)  # name of the slot → the figure as JSON


@dataclass(frozen=True)
class Head:
    """What stands at the top: the name, and facts as (label, words); and at the foot."""

    title: str
    kind: str  # what the page is: "run report"
    kicker: str
    facts: Sequence[tuple[str, str]]
    made_from: str


def plot_slot(name: str) -> str:
    """Where a plot goes."""
    return f'<div class="plot" id="plot-{escape(name)}"></div>'


def remark(sentence: str) -> str:
    """A remark that stands apart, above all in place of a plot that would be empty."""
    return f'<p class="none">{escape(sentence)}</p>'


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """A table; the first cell of a row is its heading."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>"


def folded(title: str, body: str) -> str:
    """A part that is closed until somebody opens it."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def page(head: Head, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """The whole file."""
    facts = "".join(f"<li><span>{escape(label)}</span> <b>{escape(words)}</b></li>" for label, words in head.facts)
    links = "".join(f'<a href="#{escape(s.anchor)}">{escape(s.title)}</a>' for s in sections)
    shown_tiles = "".join(
        f'<div class="tile"><b>{escape(t.figure)}</b><span>{escape(t.label)}</span>'
        f"<small>{escape(t.note)}</small></div>"
        for t in tiles
    )
    shown_sections = "".join(
        f'<section id="{escape(s.anchor)}"><h2>{escape(s.title)}</h2><p>{escape(s.lead)}</p>{s.body}</section>'
        for s in sections
    )
    specs = ",\n".join(f'"plot-{name}":{spec}' for s in sections for name, spec in s.plots.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(head.title)} – skyrack {escape(head.kind)}</title>
<style>{STYLE}</style>
<script id="plotly">{get_plotlyjs()}</script>
</head>
<body>
<main>
<header>
<p class="kicker">{escape(head.kicker)}</p>
<h1>{escape(head.title)}</h1>
<ul class="facts">{facts}</ul>
<nav>{links}</nav>
</header>
<div class="tiles">{shown_tiles}</div>
{shown_sections}
<footer>Made by skyrack from {escape(head.made_from)}. Coastlines: Natural Earth 1:110m, public domain. Plots:
plotly.js (MIT). This file needs no network.</footer>
</main>
<script type="application/json" id="plots">{{
{specs}
}}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
