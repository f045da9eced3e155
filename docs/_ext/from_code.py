"""What the pages show of the code itself: no list of methods, options or files is kept by hand.

A page has the directive `from-code` with the name of one of `TABLES`, and gets a table or a
picture in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from qsm_nipype import methods, settings
from qsm_nipype.dataset.derivatives import table
from qsm_nipype.workflows.base import FLOW


def method_tables() -> list[str]:
    """A table of every step: its methods and their parameters with defaults."""
    lines: list[str] = []
    for step, kind in methods.STEPS.items():
        found = [m for m in methods.METHODS if m.step == step]
        if not found:
            continue
        flag = f" (`--{step.replace('_', '-')}`)" if kind.option else ""
        lines += ["", f"### {kind.title}{flag}", "", "| name | method | parameters (`--set`) |"]
        lines += ["|---|---|---|"]
        for method in found:
            shown = [
                f"`{method.key}.{name}` = {'from the data' if value is None else value}"
                for name, value in method.parameters().items()
            ]
            lines.append(f"| `{method.name}` | {method.label} | {'<br>'.join(shown) or '–'} |")
    return lines


def option_tables() -> list[str]:
    """Every option of the command with its default, by the groups of `--help`."""
    lines: list[str] = []
    group = ""
    for option in settings.options():
        if option.metadata["group"] != group:
            group = option.metadata["group"]
            lines += ["", f"### {group[0].upper()}{group[1:]}", ""]
            lines += ["| option | meaning | default |", "|---|---|---|"]
        flags = ", ".join(f"`{flag}`" for flag in option.metadata["flags"])
        value = settings.default(option)
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        default = f"`{shown}`" if value not in (None, "", (), False, 0, {}) else "–"
        text = option.metadata["help"]
        if option.metadata.get("choices"):
            text += f" ({', '.join(option.metadata['choices'])})"
        lines.append(f"| {flags} | {text} | {default} |".replace("|", "|"))
    return lines


#: What tables are, which have a dictionary of their columns and no description.
_WITHOUT_SIDECAR = {
    "regions": "Statistics of every map in every region",
    "qc": "Quality numbers of the acquisition",
    "swi": "Susceptibility-weighted image; `desc-` names the method",
    "minip": "Its minimum intensity projection",
}


def output_table() -> list[str]:
    """Every file that the pipeline may write."""
    lines = ["| file `sub-XX_…` | what it is | unit | written |", "|---|---|---|---|"]
    for kind, row in table().items():
        if "suffix" not in row:
            continue
        sidecar = row.get("sidecar", {})
        name = "_".join(
            [*(f"{key}-{row[key]}" for key in ("part", "desc") if row.get(key)), row["suffix"]]
        )
        when = row.get("when", "always").replace("_", " ")
        what = (
            sidecar.get("Description") or _WITHOUT_SIDECAR.get(kind) or sidecar.get("Type", kind)
        )
        lines.append(f"| `{name}` | {what} | {sidecar.get('Units', '–')} | {when} |")
    return lines


def references() -> list[str]:
    """The bibliography, from the file that the Methods text uses."""
    text = (resources.files("qsm_nipype.data") / "boilerplate.bib").read_text(encoding="utf-8")
    lines: list[str] = []
    for entry in re.split(r"\n(?=@)", text):
        key = re.match(r"@\w+\{(\w+),", entry.strip())
        if key is None:
            continue
        fields = dict(re.findall(r"(\w+) = \{+(.*?)\}+,?\n", entry))
        author = fields.get("author", "").split(" and ")[0].split(",")[0]
        others = " et al." if " and " in fields.get("author", "") else ""
        where = ", ".join(fields[k] for k in ("journal", "booktitle", "year") if k in fields)
        doi = fields.get("doi")
        link = f" [{doi}](https://doi.org/{doi})" if doi else ""
        lines.append(
            f"- **{key[1]}**: {author}{others}, {fields.get('title', '')}. {where}.{link}"
        )
    return lines


def flow_picture() -> list[str]:
    """The parts of the pipeline and what each hands to the next, as SVG."""
    parts = list(dict.fromkeys(part for pair in FLOW for part in pair))
    rank: dict[str, int] = {}

    def depth(part: str) -> int:
        if part not in rank:
            before = [a for a, b in FLOW if b == part]
            rank[part] = 1 + max(map(depth, before), default=-1)
        return rank[part]

    for part in parts:
        depth(part)
    columns: dict[int, list[str]] = {}
    for part in parts:
        columns.setdefault(rank[part], []).append(part)
    width, height, gap_x, gap_y = 118, 34, 52, 34
    tall = max(map(len, columns.values())) * (height + gap_y)
    place = {}
    for column, members in columns.items():
        top = (tall - len(members) * (height + gap_y)) / 2
        for row, part in enumerate(members):
            place[part] = (column * (width + gap_x) + 4, top + row * (height + gap_y) + gap_y / 2)
    drawn = [
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker>'
    ]
    for (a, b), ports in FLOW.items():
        (x0, y0), (x1, y1) = place[a], place[b]
        x0, y0, y1 = x0 + width, y0 + height / 2, y1 + height / 2
        bend = (x1 - x0) / 2
        drawn.append(
            f'<path d="M{x0:.0f} {y0:.0f}C{x0 + bend:.0f} {y0:.0f} {x1 - bend:.0f} {y1:.0f} '
            f'{x1:.0f} {y1:.0f}" fill="none" stroke="currentColor" stroke-opacity=".45" '
            f'marker-end="url(#tip)"><title>{a} → {b}: {ports}</title></path>'
        )
    for part, (x, y) in place.items():
        drawn.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width}" height="{height}" rx="5" '
            f'fill="var(--color-background-secondary,#f4f4f4)" stroke="currentColor"/>'
            f'<text x="{x + width / 2:.0f}" y="{y + height / 2 + 5:.0f}" text-anchor="middle" '
            f'font-size="14" fill="currentColor">{part}</text>'
        )
    wide = len(columns) * (width + gap_x) - gap_x + 8
    return [
        "```{raw} html",
        f'<svg viewBox="0 0 {wide} {tall:.0f}" role="img" style="width:100%;height:auto" '
        f'aria-label="Parts of the pipeline from phase to segmentation">{"".join(drawn)}</svg>',
        "```",
    ]


TABLES: dict[str, Callable[[], list[str]]] = {
    "methods": method_tables,
    "options": option_tables,
    "outputs": output_table,
    "references": references,
    "flow": flow_picture,
}


class FromCode(Directive):
    """`{from-code} NAME`: the lines of one of `TABLES`, parsed in place."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """The nodes of the table."""
        lines = StringList(TABLES[self.arguments[0]](), source="from the code")
        parent = nodes.section()
        parent.document = self.state.document
        self.state.nested_parse(lines, self.content_offset, parent, match_titles=1)
        return parent.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("from-code", FromCode)
    return {"version": "1", "parallel_read_safe": True}
