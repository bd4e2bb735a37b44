"""The drawing of a tape: boxes in layers, edges as curves."""

from .layers import Layout

__all__ = ["draw"]

MARGIN, HEAD = 28.0, 34.0
LINE, PAD_X, PAD_Y = 15.0, 13.0, 8.0
SPACE, MOST_SPACE = 38.0, 130.0  # between layers; more where edges go far to the side
WIDE = {"title": 7.5, "small": 6.1}  # of a letter, a little more than fonts' mean
STYLE = """
  text { font-family: -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2733; }
  .title { font-size: 13px; font-weight: 600; text-anchor: middle; }
  .small { font-size: 10.5px; fill: #566173; text-anchor: middle; }
  .head { font-size: 13px; fill: #566173; }
  .tag { font-size: 10px; fill: #3f7a45; text-anchor: middle; }
  .op { fill: #f2f5fa; stroke: #8a9ab5; }
  .leaf { fill: #e3f3e4; stroke: #6aa870; }
  .result { fill: #fdeecf; stroke: #d29a2d; stroke-width: 1.8; }
  .edge { fill: none; stroke: #9aa6b8; stroke-width: 1.2; }
  .port { font-size: 9.5px; fill: #7a8699; }
"""


def _escaped(text):
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    )


def _number(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _shortened(text, most=44):
    return text if len(text) <= most else text[: most // 2 - 1] + "…" + text[-(most // 2) :]


class _Box:
    """An entry with its text, size and place."""

    def __init__(self, entry, labels):
        self.entry = entry
        self.lines = [_shortened(text) for text in labels]
        self.whole = labels
        sizes = [len(t) * WIDE["title" if i == 0 else "small"] for i, t in enumerate(self.lines)]
        self.width = max(46.0, max(sizes) + 2 * PAD_X)
        self.tags = ""  # names of inputs whose edges are not drawn
        self.x = self.y = 0.0  # of the upper side's middle

    def tag(self, names):
        self.tags = _shortened("← " + ", ".join(names), 60)
        self.width = max(self.width, len(self.tags) * WIDE["small"] + 2 * PAD_X)

    @property
    def height(self):
        return LINE * (len(self.lines) + bool(self.tags)) + 2 * PAD_Y - 3


class _Drawing:
    def __init__(self, leaves, ops, labels):
        self.boxes = [_Box(e, labels(e)) for e in (*leaves, *ops)]
        number = {id(box.entry): i for i, box in enumerate(self.boxes)}
        self.links = {}  # (from, to): numbers of the outputs that are taken
        for to, box in enumerate(self.boxes):
            for link in box.entry.inputs:
                if link is not None:
                    self.links.setdefault((number[id(link[0])], to), []).append(link[1])
        self.layout = Layout(len(self.boxes), self.links)
        far = {}
        for a, b in self.links:
            if (a, b) not in self.layout.paths:
                far.setdefault(b, []).append(self.boxes[a].entry.name)
        for b, names in far.items():
            self.boxes[b].tag(names)
        self.x = self.layout.place([b.width for b in self.boxes])
        self.width = self._place()

    def _slant(self, row):
        """How far to the side the edges into a layer go, at most."""
        x = self.x
        return max((abs(x[n] - x[m]) for n in row for m in self.layout.above[n]), default=0.0)

    def _place(self):
        layout = self.layout
        self.tops, self.bottoms, y = [], [], MARGIN + HEAD
        for row in layout.layers:
            boxes = [self.boxes[n] for n in row if not layout.is_bend(n)]
            if self.tops:
                y += min(MOST_SPACE, SPACE + 0.09 * self._slant(row))
            height = max((b.height for b in boxes), default=0.0)
            for box in boxes:
                box.y = y + (height - box.height) / 2
            self.tops.append(y)
            self.bottoms.append(y + height)
            y += height
        for n, box in enumerate(self.boxes):
            box.x = self.x[n] + MARGIN
        self.height = y + MARGIN
        right = max(b.x + b.width / 2 for b in self.boxes)
        return max(right, max(self.x) + MARGIN) + MARGIN

    # Edges: from box to box through the bends, vertical at each of these.

    def _points(self, path):
        """Pairs of points between which the edge curves; between the pairs it runs straight through a layer."""
        layout = self.layout
        points = []
        for n in path:
            x, at = self.x[n] + MARGIN, layout.layer[n]
            if layout.is_bend(n):
                points.append((x, self.tops[at], self.bottoms[at]))
            else:
                points.append((x, self.boxes[n].y, self.boxes[n].y + self.boxes[n].height))
        return points

    def edge(self, link, path):
        points = self._points(path)
        x, y = points[0][0], points[0][2]
        text = f"M{_number(x)} {_number(y)}"
        for i, (to, top, bottom) in enumerate(points[1:], 2):
            last = i == len(points)
            top -= 5.0 if last else 0.0  # the arrow's point
            middle = (y + top) / 2
            if abs(to - x) < 1.5:
                text += f"V{_number(top)}"
            else:
                text += f"C{_number(x)} {_number(middle)} {_number(to)} {_number(middle)} {_number(to)} {_number(top)}"
            if not last and bottom > top:
                text += f"V{_number(bottom)}"
            x, y = to, bottom
        lines = [f'<path class="edge" d="{text}" marker-end="url(#tip)"/>']
        if len(self.boxes[link[0]].entry.outputs) > 1:
            ports = ", ".join(map(str, sorted(set(self.links[link]))))
            at = points[0]
            lines.append(
                f'<text class="port" x="{_number(at[0] + 5)}" y="{_number(at[2] + 11)}">{ports}</text>'
            )
        return lines

    def box(self, box):
        kind = "result" if box.entry.result else "leaf" if box.entry.is_leaf else "op"
        left = box.x - box.width / 2
        corner = box.height / 2 if box.entry.is_leaf and len(box.lines) < 3 else 7.0
        name = box.entry.name
        whole = "\n".join([*([] if box.whole[0] == name else [name]), *box.whole])
        lines = [
            f"<g><title>{_escaped(whole)}</title>",
            f'<rect class="{kind}" x="{_number(left)}" y="{_number(box.y)}" width="{_number(box.width)}" '
            f'height="{_number(box.height)}" rx="{_number(min(corner, 16.0))}"/>',
        ]
        for i, line in enumerate(box.lines):
            y = box.y + PAD_Y + LINE * (i + 1) - 4.5
            style = "title" if i == 0 else "small"
            lines.append(
                f'<text class="{style}" x="{_number(box.x)}" y="{_number(y)}">{_escaped(line)}</text>'
            )
        if box.tags:
            y = box.y + box.height - PAD_Y - 1.5
            lines.append(
                f'<text class="tag" x="{_number(box.x)}" y="{_number(y)}">{_escaped(box.tags)}</text>'
            )
        return [*lines, "</g>"]


def draw(leaves, ops, headline, labels):
    """The SVG of leaves and ops, which have a name, inputs and outputs; ``labels(entry)`` are lines of text."""
    drawing = _Drawing(leaves, ops, labels)
    width = max(drawing.width, len(headline) * WIDE["title"] + 2 * MARGIN)
    size = f'width="{_number(width)}" height="{_number(drawing.height)}"'
    view = f'viewBox="0 0 {_number(width)} {_number(drawing.height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="6.5" markerHeight="6.5" orient="auto">',
        '<path d="M0 0.6L7 4L0 7.4z" fill="#9aa6b8"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text class="head" x="{_number(MARGIN)}" y="{_number(MARGIN + 4)}">{_escaped(headline)}</text>',
    ]
    for link, path in drawing.layout.paths.items():
        lines += drawing.edge(link, path)
    for box in drawing.boxes:
        lines += drawing.box(box)
    return "\n".join([*lines, "</svg>"])
