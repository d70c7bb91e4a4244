"""Text that has done harm elsewhere: as tokens of a probe, names of concepts and of sites."""

from __future__ import annotations

from itertools import product

RUN = "document.title='executed'"
"""What every script in them would do; a test looks at the title."""
_SCRIPTS = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</ScRiPt  ><img src=x onerror={RUN}>",
    f'<img src=x onerror="{RUN}">',
    f"<svg onload={RUN}>",
    f"<svg/onload={RUN}//",
    f"<svg><script>{RUN}</script></svg>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<math><mtext></mtext><mglyph><style><img src=x onerror={RUN}>",
    f'<a href="javascript:{RUN}">here</a>',
    "<base href='http://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<link rel=stylesheet href='http://evil.example/a.css'>",
    "<img src='http://evil.example/a.png'>",
    "<style>@import 'http://evil.example/b.css';</style>",
    "<form action='http://evil.example/'><button>go</button></form>",
    "<object data='http://evil.example/'></object><embed src='http://evil.example/'>",
    "<marimo-ui-element object-id='x'><marimo-button></marimo-button></marimo-ui-element>",
]
_ENDS = ["", "\"'>", "'>", "-->", "]]>", "</style>", "</title>", "</textarea>", "</pre>", "`", "*/", "\\"]
_TEMPLATES = [
    "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{% raw %}", "$body", "$nonce", "${body}", "{0.__class__}", "%s%n%n",
    f"{{{{constructor.constructor('{RUN}')()}}}}", "[x](javascript:alert(1))", f"![x](x\"onerror=\"{RUN})",
    "| a | b |", "$$x$$",
]  # fmt: skip
_SPREADSHEETS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", '=HYPERLINK("http://evil.example/")', "\t=1", "\r=1"]
_CONTROLS = [
    "\x00", "a\x00b", "\x07", "\b\b\b", "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x1b\\x",
    "\x1b[2J\x1b[H", "\x9b31m", "\x7f", "\r", "over\rwritten", "a\r\nb", "\n", "\v\f", "\u0085", "\u2028", "\u2029",
]  # fmt: skip
_INVISIBLE = [
    "\u202egnissim\u202c", "\u2066\u2069", "\u200f", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u034f", "\ue000",
    "\U000e0041",
    "\ud800", "a\udc80b", "\U0010ffff", "e" + "\u0301" * 200, "\ufffd",
]  # fmt: skip
_CODE = [
    f"javascript:{RUN}", f"data:text/html,<script>{RUN}</script>", f"';{RUN};'", f"\";{RUN};//", f"\\u003cscript>{RUN}",
    "<!--", "<!-- <script>", "--!>", "<![CDATA[", "]]></style>", "&lt;script&gt;", "&#x3c;b>", "&", "<", "</", "<!",
    "__proto__", "constructor", "null", "undefined", "NaN", "'; drop table events; --", "$$", "/* ", "-- ",
    '{"$schema": "http://evil.example/vega.json"}', "datum.value", "a.b[0]", "signal",
]  # fmt: skip
HUGE = "x" * 10_000_000
"""A token of ten megabytes."""
TEXTS = list(
    dict.fromkeys(
        [*_SCRIPTS, *(end + script for end, script in product(_ENDS[1:], _SCRIPTS[:8])),
         *_TEMPLATES, *_SPREADSHEETS, *_CONTROLS, *_INVISIBLE, *_CODE]
    )
)  # fmt: skip
"""Some two hundred strings, each once."""
