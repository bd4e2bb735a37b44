"""Where the nodes of a directed graph go: layers, order within a layer, and places, for :mod:`spool.autograd.drawing`.

After Sugiyama, Tagawa and Toda (1981): every edge leads to a later layer; one that passes layers by has a bend in each; nodes
are ordered so that few edges cross, by the mean place of their neighbours, and then moved, without changing the order, to where
these are. The last step is exact for one layer: the places that are nearest to the wanted ones, with room between them, are a
weighted isotonic regression, which pooling neighbours that are too close solves in one pass (Ayer et al., 1955).

All of it takes time about linear in nodes, edges and bends.
"""

__all__ = ["Layout"]

ORDER_SWEEPS, PLACE_SWEEPS = 8, 12
BENDS = 40_000  # at most; edges that would need more are not drawn but named where they arrive,
FAR = 3  # as are those of a source that pass more layers by
GAP, BEND_ROOM = 26.0, 12.0
# How much the ends of an edge want to stand below each other: from a source, from another node, on the longest way to a
# result, from bend to bend.
LOOSE, FIRM, SPINE, STRAIGHT = 0.05, 0.5, 16.0, 32.0


class Layout:
    """Layers and order for nodes ``0 .. count - 1`` whose edges ``(from, to)`` lead from lower to higher numbers.

    Attributes
    ----------
    layer : list of int
        That of each node; those of bends come after.
    layers : list of list of int
        Nodes and bends from left to right.
    paths : dict
        For every edge that is drawn, the nodes and bends that it goes through.
    """

    def __init__(self, count, edges):
        self.count = count
        edges = sorted(set(edges))
        self.source = [True] * self.count
        for _, b in edges:
            self.source[b] = False
        self.layer = self._assigned(edges)
        self.paths = {}
        self._bend(edges)
        self._neighbours()
        self.layers = self._ordered()

    # Layers: right after the last that a node takes; later if that makes edges shorter. A source goes right before the
    # first that takes it, and so does what hangs on sources alone.

    def _assigned(self, edges):
        layer = [0] * self.count
        takers = [[] for _ in range(self.count)]
        deepest = [None] * self.count
        for a, b in sorted(edges, key=lambda e: e[1]):
            takers[a].append(b)
            if layer[a] + 1 > layer[b]:
                layer[b], deepest[b] = layer[a] + 1, a
        self.spine = set()  # edges of the longest ways to what nothing takes
        for n in (n for n in range(self.count) if not takers[n]):
            while deepest[n] is not None and (deepest[n], n) not in self.spine:
                self.spine.add((deepest[n], n))
                n = deepest[n]
        bound = self._bound(edges, takers)
        for n in reversed(range(self.count)):
            if takers[n] and len(takers[n]) > bound[n]:
                layer[n] = min(layer[b] for b in takers[n]) - 1
        return layer

    def _bound(self, edges, takers):
        """How many inputs of each node cannot follow it downwards."""
        bound = [0] * self.count
        for a, b in sorted(edges, key=lambda e: e[1]):
            bound[b] += not self.source[a] and (bound[a] > 0 or len(takers[a]) > 1)
        return bound

    # Bends.

    def _longest(self, edges):
        """The longest span of an edge that gets bends, so that there are not too many."""
        spans = sorted(self.layer[b] - self.layer[a] for a, b in edges if not self.source[a])
        total = 0
        for span in spans:
            total += span - 1
            if total > BENDS:
                return max(1, span - 1)
        return spans[-1] if spans else 1

    def _bend(self, edges):
        longest = self._longest(edges)
        for a, b in edges:
            span = self.layer[b] - self.layer[a]
            if span > (FAR if self.source[a] else longest):
                continue
            path = [a]
            for k in range(1, span):
                path.append(len(self.layer))
                self.layer.append(self.layer[a] + k)
            self.paths[a, b] = [*path, b]

    def is_bend(self, n):
        return n >= self.count

    def _neighbours(self):
        total = len(self.layer)
        self.above, self.below = [[] for _ in range(total)], [[] for _ in range(total)]
        for path in self.paths.values():
            for a, b in zip(path, path[1:]):
                self.below[a].append(b)
                self.above[b].append(a)

    # Order.

    def _ordered(self):
        layers = [[] for _ in range(max(self.layer, default=-1) + 1)]
        seen = [False] * len(self.layer)
        for start in range(
            self.count
        ):  # depth first, so that what belongs together starts together
            stack = [start]
            while stack:
                n = stack.pop()
                if seen[n]:
                    continue
                seen[n] = True
                layers[self.layer[n]].append(n)
                stack += reversed(self.below[n])
        best, fewest = layers, None
        for sweep in range(ORDER_SWEEPS):
            layers = self._sweep(layers, down=sweep % 2 == 0)
            crossings = self._crossings(layers)
            if fewest is None or crossings < fewest:
                best, fewest = layers, crossings
            if not fewest:
                break
        return best

    def _sweep(self, layers, down):
        layers = [list(row) for row in layers]
        near = self.above if down else self.below
        place = [0.0] * len(self.layer)
        for row in layers if down else reversed(layers):
            known = {n: sum(place[m] for m in near[n]) / len(near[n]) for n in row if near[n]}
            if known:
                last = 0.0
                for i, n in enumerate(row):  # what has no neighbour stays with the node before it
                    last = known.setdefault(n, last if i else 0.0)
                row.sort(key=known.__getitem__)
            for i, n in enumerate(row):
                place[n] = i / max(1, len(row) - 1)
        return layers

    def _crossings(self, layers):
        """How many pairs of edges cross, counted with a binary indexed tree (Barth et al., 2002)."""
        total = 0
        for upper, lower in zip(layers, layers[1:]):
            at = {n: i for i, n in enumerate(lower)}
            tree, seen = [0] * (len(lower) + 1), 0
            for n in upper:
                ends = sorted(at[m] for m in self.below[n])
                for end in ends:
                    total += seen - _sum_up_to(tree, end)
                for end in ends:
                    _add_at(tree, end)
                seen += len(ends)
        return total

    # Places.

    def _room(self, a, b):
        """How far apart the centres of neighbours in a layer are at least."""
        gap = BEND_ROOM if self.is_bend(a) or self.is_bend(b) else GAP
        return (self.widths[a] + self.widths[b]) / 2 + gap

    def place(self, widths):
        """The centre of each node and bend, from left to right; nodes have these widths."""
        self.widths = [*widths, *[0.0] * (len(self.layer) - self.count)]
        x = [0.0] * len(self.layer)
        for row in self.layers:
            at = 0.0
            for i, n in enumerate(row):
                at += self._room(row[i - 1], n) if i else 0.0
                x[n] = at
            middle = at / 2
            for n in row:
                x[n] -= middle
        for sweep in range(PLACE_SWEEPS):
            down = sweep % 2 == 0
            sides = (self.above,) if down else (self.below,)
            if sweep >= PLACE_SWEEPS - 2:
                sides = (self.above, self.below)
            for row in self.layers if down else reversed(self.layers):
                self._settle(row, sides, x)
        left = min((x[n] - self.widths[n] / 2 for n in range(len(x))), default=0.0)
        return [v - left for v in x]

    def _pull(self, n, m):
        if self.is_bend(n) and self.is_bend(m):
            return STRAIGHT
        upper, lower = (m, n) if self.layer[m] < self.layer[n] else (n, m)
        if not self.is_bend(upper) and self.source[upper]:
            return LOOSE
        return SPINE if (upper, lower) in self.spine else FIRM

    def _settle(self, row, sides, x):
        """Moves a layer's nodes as near as they can get to the mean of their neighbours."""
        wanted, weights, offsets = [], [], []
        offset = 0.0
        for i, n in enumerate(row):
            offset += self._room(row[i - 1], n) if i else 0.0
            total = weight = 0.0
            for m in (m for side in sides for m in side[n]):
                w = self._pull(n, m)
                total += w * x[m]
                weight += w
            wanted.append((total / weight if weight else x[n]) - offset)
            weights.append(weight or 0.1)
            offsets.append(offset)
        for n, place, offset in zip(row, _isotonic(wanted, weights), offsets):
            x[n] = place + offset


def _sum_up_to(tree, i):
    i, total = i + 1, 0
    while i:
        total += tree[i]
        i &= i - 1
    return total


def _add_at(tree, i):
    i += 1
    while i < len(tree):
        tree[i] += 1
        i += i & -i


def _isotonic(values, weights):
    """The nondecreasing sequence nearest to the values, by weighted least squares."""
    pools = []  # (mean, weight, length)
    for mean, weight in zip(values, weights):
        length = 1
        while pools and pools[-1][0] > mean:
            m, w, n = pools.pop()
            mean = (m * w + mean * weight) / (w + weight)
            weight, length = weight + w, length + n
        pools.append((mean, weight, length))
    return [mean for mean, _, length in pools for _ in range(length)]
