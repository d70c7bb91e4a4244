"""Text from anywhere, as HTML that shows it and does nothing else."""

from __future__ import annotations

import html
import re
import unicodedata

SHOWN = 400
"""Most characters of one piece of text; what is left out is counted."""
_NAMES = (
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
)
_CONTROLS = {chr(code): name for code, name in enumerate(re.findall(r"\w+", _NAMES))}
_PICTURES = {"\n": "↵", "\t": "⇥"}
_INVISIBLE = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}


def escaped(text: object) -> str:
    """Safe inside an element and inside a quoted attribute; control characters are made visible."""
    return html.escape(spelled(str(text)))


def visible(text: str, limit: int = SHOWN, *, end: bool = False) -> str:
    """HTML of ``text`` with every control, format and unassigned character spelled out.

    Args:
        text: anything at all.
        limit: most characters that are shown; the rest is counted.
        end: keep the end of a long text instead of its beginning.
    """
    kept = text if len(text) <= limit else text[-limit:] if end else text[:limit]
    shown = "".join(_marked(character) for character in kept)
    if len(kept) == len(text):
        return shown
    left_out = f'<span class="ctl">… {len(text) - len(kept):,} more characters …</span>'
    return left_out + shown if end else shown + left_out


def in_context(before: str | None, text: str | None, after: str | None, row: int, strength: float | None = None) -> str:
    """The firing token marked in its surroundings; a probe without text shows its row.

    Args:
        before: what precedes the token.
        text: the token.
        after: what follows it.
        row: its row of the probe.
        strength: how strongly it is shaded, in [0, 1]; None leaves that to the page's style.
    """
    shade = "" if strength is None else f' style="background:rgba(251,213,100,{0.15 + 0.85 * strength:.2f})"'
    if text is None:
        return f"<mark{shade}>probe row {row:,}</mark>"
    left, right = visible(before or "", 160, end=True), visible(after or "", 160)
    return f"{left}<mark{shade}>{visible(text)}</mark>{right}"


def spelled(text: str) -> str:
    """Plain text on one line, with every control, format and unassigned character spelled out; to be escaped yet."""
    return "".join(_name(c) if unicodedata.category(c) in _INVISIBLE else c for c in text)


def _marked(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE:
        return html.escape(character)
    return f'<span class="ctl" title="U+{ord(character):04X}">{_name(character)}</span>'


def _name(character: str) -> str:
    if character in _PICTURES:
        return _PICTURES[character]
    return f"⟨{_CONTROLS.get(character) or f'U+{ord(character):04X}'}⟩"
