"""Which glyph set each graph is drawn with: `ascii`, `block` or `braille`. ASCII mode has ASCII only, whatever was chosen."""

from __future__ import annotations

from dataclasses import replace

from engine.data.errors import InvalidInput
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs

SETS = ("ascii", "block", "braille")
GRAPHS = ("throughput", "step", "stage", "timeline", "history")  # Overview, Overview, every node, Events screen, the last minutes


def parse_graph_sets(text: str) -> dict[str, str]:
    """`SET` for all, `GRAPH=SET` for one, separated by commas, the later wins; raises InvalidInput naming what is known."""
    chosen: dict[str, str] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        graph, equals, name = (word.strip() for word in part.rpartition("="))
        if name not in SETS:
            raise InvalidInput(f"graphs: {name[:40]!r} is no glyph set; the sets are {', '.join(SETS)}")
        if equals and graph not in GRAPHS:
            raise InvalidInput(f"graphs: {graph[:40]!r} is no graph; the graphs are {', '.join(GRAPHS)}")
        chosen |= {graph: name} if equals else dict.fromkeys(GRAPHS, name)
    return chosen


def glyphs_for(graphs: str, ascii_only: bool) -> Glyphs:
    """The table for this terminal, with the sets that were chosen for graphs."""
    return ASCII if ascii_only else replace(UNICODE, graph_sets=tuple(sorted(parse_graph_sets(graphs).items())))
