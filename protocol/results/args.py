r"""`iexec_args` into the container's arguments, exactly as Java workers split them, oddities included.

Only the space separates. Quotes group and vanish, also in the middle of a word. A backslash right before a quote keeps
the quote, and stays itself. Empty arguments vanish. The escape survives a space: `\ 'x y'` is unbalanced.
Source: iexec-worker 9.2 (Maven's command line parser, run on a JVM).
"""

from __future__ import annotations

_QUOTES = "'\""


def split_args(text: str) -> tuple[str, ...]:
    """The app's arguments in `text`, split as a shell would.

    Empty if a quote is not closed, as with iExec's Java worker: then the image's own command runs.
    """
    arguments: list[str] = []
    word = ""
    #: The quote we are in, or nothing.
    quote = ""
    escaped = False
    for character in text:
        if character == quote and not escaped:
            quote = ""
        elif not quote and not escaped and character in _QUOTES:
            quote = character
        elif not quote and character == " ":
            if word:
                arguments.append(word)
            word = ""
        else:
            word += character
            escaped = character == "\\"
    if quote:
        return ()
    if word:
        arguments.append(word)
    return tuple(arguments)
