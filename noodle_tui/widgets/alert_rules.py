"""The rules that make a warning, each with the nodes for which it holds: an operator sees what is watched, not only what is wrong."""

from __future__ import annotations

from noodle_tui.listings.causes import Rule, alert_rules
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line

RULE_CELLS = 26


def alert_panel(state: ConsoleState, canvas: Canvas) -> Lines:
    """A heading and the rules, or nothing where they do not all fit."""
    if state.shown is None:
        return ()
    rules = alert_rules(state.shown.status, state.thresholds)
    if canvas.height < len(rules) + 1:
        return ()
    return (line(Span(" ALERT RULES", "title")), *(_rule(rule, canvas) for rule in rules))


def _rule(rule: Rule, canvas: Canvas) -> Line:
    word, style = ("E", "error") if rule.is_error else ("W", "warn")
    head = fit(rule.text, RULE_CELLS, canvas.glyphs)
    if not rule.nodes:
        return line(Span(f" {word} {head} ", "dim"), Span("ok", "ok"))
    names = ", ".join(rule.nodes[:3]) + (f" +{len(rule.nodes) - 3}" if rule.nodes[3:] else "")
    return line(
        Span(f" {word} {head} ", "text"), Span(fit(f"FIRING {names}", canvas.width - RULE_CELLS - 4, canvas.glyphs).rstrip(), style)
    )
