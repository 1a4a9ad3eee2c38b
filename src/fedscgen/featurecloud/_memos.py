"""Names of messages on FeatureCloud: letters, digits and underscores alone, as others are lost when they are quoted."""

from __future__ import annotations

import re

END = "end"
_QUESTION = re.compile(r"q_(\d{1,9})")


def question_memo(number: int) -> str:
    """The memo of a question, from 1."""
    return f"q_{number}"


def answer_memo(number: int) -> str:
    """The memo of the answer to a question."""
    return f"a_{number}"


def question_number(memo: str) -> int | None:
    """The number of a question; nothing of another message."""
    found = _QUESTION.fullmatch(memo)
    return int(found[1]) if found else None
