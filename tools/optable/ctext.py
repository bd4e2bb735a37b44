"""Pieces of C text, wrapped at the project's line length."""

from __future__ import annotations

import textwrap

WIDTH = 100
INDENT = 8  # room for the blocks that a wrapped line may stand in
BANNER = "Written by tools/opgen.py: changes belong into ops/."


def wrap_list(head, items, tail, indent="    "):
    """`head` + items joined by commas + `tail`, continued under the first item where a line gets too long."""
    line = head + ", ".join(items) + tail
    width = WIDTH - INDENT
    if len(line) <= width:
        return line
    hang = " " * len(head) if len(head) <= 56 else indent
    lines, current = [], head
    for i, item in enumerate(items):
        piece = item + (tail if i == len(items) - 1 else ",")
        if len(current) + len(piece) > width and current.strip() and current != hang:
            lines.append(current.rstrip())
            current = hang
        current += piece + " "
    lines.append(current.rstrip())
    return "\n".join(lines)


def comment(paragraphs):
    """A block comment of paragraphs; a paragraph is text to be filled, or a (term, text) pair."""
    lines = []
    for paragraph in paragraphs:
        if isinstance(paragraph, tuple):
            term, text = paragraph
            first = f"{term:<10} "
            lines += textwrap.wrap(
                " ".join(str(text).split()),
                WIDTH - 3,
                initial_indent=first,
                subsequent_indent=" " * 11,
            )
        elif paragraph:
            lines += textwrap.wrap(" ".join(str(paragraph).split()), WIDTH - 3)
        else:
            lines.append("")
    safe = [line.replace("*/", "* /").replace("/*", "/ *") for line in lines]
    if len(safe) == 1 and len(safe[0]) < WIDTH - 6:
        return f"/* {safe[0]} */"
    return "\n".join([f"/* {safe[0]}"] + [f" * {line}".rstrip() for line in safe[1:]]) + " */"


def paragraphs(text):
    """The paragraphs of a documentation text, with empty ones between them."""
    parts = [p for p in text.strip().split("\n\n") if p.strip()]
    result = []
    for part in parts:
        result += ([""] if result else []) + [part]
    return result


def c_string(text):
    """A C string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def c_text(text, indent):
    """A C string literal over several lines, one a line of the text."""
    lines = text.split("\n")
    pieces = [
        c_string(line + "\n") if i < len(lines) - 1 else c_string(line)
        for i, line in enumerate(lines)
    ]
    return ("\n" + indent).join(p for p in pieces if p != '""') or '""'
