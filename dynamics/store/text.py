"""Text of probe rows as the database can hold it, and the text around each row."""

from __future__ import annotations

from itertools import groupby

import numpy as np

AROUND = 40
"""Characters kept before and after a row."""


def varchar(text: str) -> str:
    """``text`` with each unpaired surrogate, which UTF-8 cannot spell, replaced by U+FFFD.

    Everything else stays: NUL, control and direction marks too; whoever shows the text escapes it.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def surroundings(sequence: np.ndarray, position: np.ndarray, text: list[str]) -> tuple[list[str], list[str]]:
    """What precedes and what follows each row in its own sequence, up to 40 characters each.

    Rows that the probe's mask left out are skipped. Where all rows of a sequence have the same text, that is the text
    of the example and not of the row, and nothing surrounds it.
    """
    before, after = [""] * len(text), [""] * len(text)
    order = np.lexsort((position, sequence))
    for _, group in groupby(order.tolist(), key=lambda row: sequence[row]):
        rows = list(group)
        if len({text[row] for row in rows}) == 1:
            continue
        whole, end = "".join(text[row] for row in rows), 0
        for row in rows:
            start, end = end, end + len(text[row])
            before[row], after[row] = whole[max(0, start - AROUND) : start], whole[end : end + AROUND]
    return before, after
