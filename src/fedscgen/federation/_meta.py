"""What the meta of each kind of message may hold, at a site and at the coordinator, before anybody acts on it.

Kinds that aren't here are of another package's aggregator: they are held to what is common to all, and their
contributor sees to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from fedscgen._entries import (
    Check,
    Table,
    choice,
    flag,
    free_value,
    maybe,
    names,
    number,
    several,
    table,
    table_of,
    text,
    whole,
)  # fmt: skip
from fedscgen._types import Message, WireFormatError
from fedscgen.correction import read_references
from fedscgen.federation._plan import Workflow
from fedscgen.federation._protocol import (
    CHECK,
    CORRECT,
    DESCRIBE,
    LANDMARKS,
    SET_UP,
    TASKS,
    TELL,
    TRAIN,
)
from fedscgen.federation._published import GROUP_KEY, take_out
from fedscgen.federation._settings import MOST_GENES
from fedscgen.secure import OPENED_SUM, Protection, aggregator_names, find_aggregator

SKETCH = "sketch"
"""Entry of an answer, of what it was computed with."""

MOST_LABELS, MOST_SITES, MOST_ROUNDS = 10_000, 10_000, 1_000_000
_MOST_SUMS, _MOST_SIZE = 2**40, 2**31


def _readable(read: Callable[[Any], object]) -> Check:
    """What a function can read; what it says otherwise is what is expected."""

    def check(value: Any) -> str:
        try:
            read(value)
        except ValueError as error:
            return f"what can be read ({error})"
        return ""

    return check


def _pair(value: Any) -> str:
    """A name and a shape, as in the manifest of a contribution."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and not _NAME(value[0]) and not _SHAPE(value[1]):
        return ""
    return "pairs of a name and a shape"


def _number_as_text(value: Any) -> str:
    fits = isinstance(value, str) and re.fullmatch(r"[+-]\d\.\d{8}e[+-]\d{2,3}", value)
    return "" if fits else "numbers as texts of one length, such as '+1.00000000e+00'"


def _bytes_as_text(value: Any) -> str:
    """Bytes as text."""
    fits = isinstance(value, str) and re.fullmatch(r"([0-9a-f]{2}){0,500}", value)
    return "" if fits else "text of at most 1000 hexadecimal characters"


_NAME, _SHAPE = text(256), several(whole(0, _MOST_SIZE), 8)
_GENES, _LABELS, _SITES = names(MOST_GENES), names(MOST_LABELS), names(MOST_SITES)
_COMMON = {
    "opened": several(whole(1, _MOST_SUMS), 100_000),
    "protection": choice(*(word.value for word in Protection)),
    "round": whole(1, MOST_ROUNDS),
}
_INTRODUCTION = table_of(text(1000), 10)
_SUM = {"session": text(64), "sum": whole(1, _MOST_SUMS)}
_FIXED_POINT = {"precision": whole(0, 64), "max_abs": number(0)}
_TERMS = Table({**_SUM, **_FIXED_POINT, "threshold": whole(2, MOST_SITES), "whole": flag})
_IN_A_MASKED_SUM = Table(
    {**_SUM, "sites": _SITES},
    {
        "row": whole(0, MOST_SITES),
        "n_rows": whole(1, MOST_SITES),
        "selected": several(flag, MOST_LABELS),
        "next": _TERMS,
    },
)
_IN_A_SHARED_SUM = Table(
    {
        **_SUM,
        **_FIXED_POINT,
        "purpose": choice("sum", "selection"),
        "sites": _SITES,
        "parties": table_of(_INTRODUCTION, 100),
        "dealer": text(64),
    }
)
_OF_AGGREGATORS: dict[str, Check] = {"masking": _IN_A_MASKED_SUM, "parties": _IN_A_SHARED_SUM}

_PLAN = {
    "run": text(32),
    "workflow": choice(*get_args(Workflow)),
    "settings": table,
    "aggregator": text(100),
    "reveals_counts": flag,
    "sites": _SITES,
    "init_model": maybe(text(64)),
}
_TASK_ENTRIES: dict[str, Mapping[str, Check]] = {
    **{kind: {} for kind in TASKS},
    TRAIN: {"round": whole(1, MOST_ROUNDS)},
    LANDMARKS: {"step": choice("labels", "holders", "means", "calibration")},
}
_QUESTIONS: dict[str, Table] = {
    DESCRIBE: Table(_PLAN),
    CHECK: Table(_PLAN),
    TELL: Table(
        {
            "names": _LABELS,
            "map": table_of(_NAME, MOST_LABELS),
            "common": _LABELS,
            "n_genes": whole(0, MOST_GENES),
        }
    ),
    SET_UP: Table(
        {
            "genes": _GENES,
            "labels": _LABELS,
            "min_holders": whole(1, MOST_SITES),
            "n_cells_at_most": table_of(whole(1, _MOST_SIZE), MOST_SITES),
            "introductions": table_of(_INTRODUCTION, MOST_SITES),
        },
        {"plan": table, "masking": _TERMS},
    ),
    CORRECT: Table({}, {"references": _readable(read_references)}),
    "mask public keys": Table({"masking": _TERMS}),
    "encrypted key shares": Table({"masking": Table({**_SUM, "sites": _SITES})}),
    "confirmed sites": Table({"masking": Table({**_SUM, "survivors": _SITES})}),
    "unmasking shares": Table(
        {"masking": Table({**_SUM, "survivors": _SITES, "dropped": _SITES, "confirmed": _SITES})}
    ),
    **{
        kind: Table({"task": choice(kind), "number": whole(1, _MOST_SUMS), **entries}, _OF_AGGREGATORS)
        for kind, entries in _TASK_ENTRIES.items()
    },
}  # fmt: skip
_ANSWERS: dict[str, Table] = {
    DESCRIBE: Table(
        {
            "genes": _GENES,
            "labels": _LABELS,
            "hashed": flag,
            "complete": flag,
            "min_holders": whole(1, MOST_SITES),
            "n_cells_at_most": whole(1, _MOST_SIZE),
            "introduction": _INTRODUCTION,
            "n_sums": maybe(whole(0, _MOST_SUMS)),
        }
    ),
    CHECK: Table(
        {
            "genes": _GENES,
            "labels": _LABELS,
            "meanings": table_of(_NAME, MOST_LABELS),
            "hashed": flag,
            "n_rare": whole(0, MOST_LABELS),
            "labelled": choice("all", "some", "none"),
            "names_unlabeled": flag,
            "n_cells_at_most": whole(1, _MOST_SIZE),
            "expression": choice("logarithms", "counts", "negative", "not finite"),
            "sums": several(number(0), 3),
            "min_cells": whole(1, _MOST_SIZE),
            "min_holders": whole(1, MOST_SITES),
            "objections": several(text(1000), 10),
        }
    ),
    TELL: Table({"done": flag}),
    SET_UP: Table({"sealed": table_of(_bytes_as_text, MOST_SITES)}),
    CORRECT: Table({"done": flag}),
    "mask public keys": Table(),
    "encrypted key shares": Table(),
    "confirmed sites": Table(),
    "unmasking shares": Table(),
    **dict.fromkeys(
        TASKS,
        Table(
            {},
            {
                "manifest": several(_pair, 4096),
                "told": text(64),
                "lost": flag,
                "terms": table,
                SKETCH: several(_number_as_text, 2),
            },
        ),
    ),
}
_OPENED = (
    Table({"ended": text(10_000)}),
    Table({"weight": number(), "n_sites": whole(1, MOST_SITES)}),
    Table(
        {
            **_SUM,
            "manifest": several(_pair, 4096),
            "precision": whole(0, 64),
            "sites": _SITES,
            "keys": text(64),
        }
    ),
)
"""What is published of a sum: that there is none, the sum, or the words in which sites check it."""

_FROM_SITES_THEMSELVES = (DESCRIBE, CHECK, TELL, SET_UP, CORRECT)


def check_question(message: Message) -> None:
    """Refuse a coordinator's message whose meta isn't that of its kind.

    Parameters
    ----------
    message
        What the site is asked.

    Raises
    ------
    WireFormatError
        An entry is missing, unknown, of another type or out of bounds; the message names the kind and the entry. Or it
        encloses what is no opened sum.
    """
    _check(message, _QUESTIONS.get(message.kind), f"message {message.kind!r}", {GROUP_KEY: _bytes_as_text})
    for published in take_out(message)[1].values():
        _check_opened(published)


def _check_opened(message: Message) -> None:
    """Refuse what is published as an opened sum, and whose meta isn't that of one."""
    further = {entry for name in aggregator_names() for entry in find_aggregator(name).entries}
    meta = {name: value for name, value in message.meta.items() if name not in further}
    if message.kind != OPENED_SUM or all(expected.find_fault(meta) for expected in _OPENED):
        raise WireFormatError(f"{message.kind!r} is published as an opened sum, with entries that none has")


def check_answer(question: Message, answer: Message) -> None:
    """Refuse a site's answer whose kind or meta doesn't belong to what was asked.

    Parameters
    ----------
    question
        What the site was asked.
    answer
        What it sent.

    Raises
    ------
    WireFormatError
        The answer is of another kind, or an entry of its meta is missing, unknown, of another type or out of bounds;
        the message names kind and entry.
    """
    if question.kind in _FROM_SITES_THEMSELVES and answer.kind != question.kind:
        raise WireFormatError(f"{answer.kind!r}, which is no answer to {question.kind!r}")
    _check(answer, _ANSWERS.get(question.kind), f"what is no answer to {question.kind!r}")


def _check(message: Message, expected: Table | None, where: str, more: Mapping[str, Check] | None = None) -> None:
    common = {**_COMMON, **(more or {})}
    try:
        if expected is None:
            known = {name: value for name, value in message.meta.items() if name in common}
            Table({}, common).check(known, where)
        else:
            possible = {**common, **expected.possible, **_of_plugins(message, expected)}
            Table(expected.needed, possible).check(message.meta, where)
    except ValueError as error:
        raise WireFormatError(str(error)) from error


def _of_plugins(message: Message, expected: Table) -> dict[str, Check]:
    """Checks of further entries, if there are any, that a registered aggregator has said it adds."""
    if set(message.meta) <= {*_COMMON, *expected.needed, *expected.possible}:
        return {}
    return {entry: free_value for name in aggregator_names() for entry in find_aggregator(name).entries}
