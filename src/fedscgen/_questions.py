"""Searches that ask questions: generators which yield what they ask and are sent the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


def answer_all(
    search: Generator[Question, Answer, Result],
    answer: Callable[[Question], Answer],
    passed_on: tuple[type[Exception], ...] = (),
) -> Result:
    """What comes of a search, all of whose questions one function answers.

    Errors of the kinds that are ``passed_on`` are thrown into the search, which may have an answer to them.
    """
    try:
        question = next(search)
        while True:
            try:
                answered = answer(question)
            except passed_on as error:
                question = search.throw(error)
            else:
                question = search.send(answered)
    except StopIteration as end:
        result: Result = end.value
        return result
