"""What lets a shell complete the commands and options of a program: a script made from its parsers, which needs nothing but the shell."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
_FILES = "<files>"
_ANY = "<any>"


def completion_script(shell: str, program: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """For `source <(PROGRAM completion bash)`, and likewise in the others."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](program, parsers)


def _bash(program: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    name = "_" + program.replace("-", "_")
    values = []
    for command, option, kind in _values(parsers):
        if kind == _FILES:
            values.append(f'    "{command} {option}") COMPREPLY=($(compgen -f -- "$word")); return ;;')
        elif kind == _ANY:
            values.append(f'    "{command} {option}") return ;;')
        else:
            values.append(f'    "{command} {option}") COMPREPLY=($(compgen -W {shlex.quote(kind)} -- "$word")); return ;;')
    words = [f"    {command}) words={shlex.quote(' '.join(_words(parser)))} ;;" for command, parser in parsers.items()]
    lines = (
        f"# {program}: source <({program} completion bash)",
        f"{name}() {{",
        "  COMPREPLY=()",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" words=""',
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    COMPREPLY=($(compgen -W {shlex.quote(" ".join([*parsers, "--help", "--version"]))} -- "$word")); return',
        "  fi",
        '  case "$command $before" in',
        *values,
        "  esac",
        '  case "$command" in',
        *words,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        '  if [ ${#COMPREPLY[@]} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$word")); fi',
        "}",
        f"complete -o filenames -F {name} {program}",
    )
    return "\n".join(lines)


def _zsh(program: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """zsh reads what bash does, once it is told to."""
    head = f"#compdef {program}\n# {program}: source <({program} completion zsh)\nautoload -U +X bashcompinit && bashcompinit\n"
    return head + _bash(program, parsers)


def _fish(program: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    lines = [f"# {program}: {program} completion fish | source", f"complete -c {program} -f"]
    kinds = {(command, option): kind for command, option, kind in _values(parsers)}
    for command, parser in parsers.items():
        about = shlex.quote(_plain(parser.description or ""))
        lines.append(f"complete -c {program} -n __fish_use_subcommand -a {command} -d {about}")
        for action in _shown(parser):
            option = action.option_strings[-1]
            kind = kinds.get((command, option))
            takes = {None: "", _FILES: " -r -F", _ANY: " -x"}.get(kind, f" -x -a {shlex.quote(kind or '')}")
            help_ = shlex.quote(_plain(action.help or ""))
            lines.append(f"complete -c {program} -n '__fish_seen_subcommand_from {command}' -l {option.lstrip('-')}{takes} -d {help_}")
        for word in _choices(parser):
            lines.append(f"complete -c {program} -n '__fish_seen_subcommand_from {command}' -a {shlex.quote(word)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Without the marks of argparse; one line."""
    return " ".join(text.replace("%(default)s", "as given").replace("%%", "%").split())


def _shown(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS)


def _choices(parser: argparse.ArgumentParser) -> list[str]:
    """Words that may stand without an option."""
    return [str(word) for action in parser._actions if not action.option_strings for word in action.choices or ()]


def _words(parser: argparse.ArgumentParser) -> list[str]:
    return [*_choices(parser), *(action.option_strings[-1] for action in _shown(parser))]


def _values(parsers: Mapping[str, argparse.ArgumentParser]) -> Iterator[tuple[str, str, str]]:
    """(command, option, what may follow it) of each option that takes a value."""
    for command, parser in parsers.items():
        for action in _shown(parser):
            if action.nargs == 0:
                continue
            choices = " ".join(map(str, action.choices or ()))
            yield command, action.option_strings[-1], choices or (_FILES if action.type is Path else _ANY)
