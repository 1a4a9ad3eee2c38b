"""How a message is protected: the words that stand in messages and ledgers, each with its one explanation."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Self

if TYPE_CHECKING:
    from fedscgen._types import Message


class Protection(StrEnum):
    """How a message is protected, in a word.

    A message carries the word in its ``meta``, under ``"protection"``.

    Parameters
    ----------
    value
        The word.

    Attributes
    ----------
    explanation
        What the word means, for people who read a ledger.
    readable
        Whether the receiver can read the sender's own numbers.

    Raises
    ------
    ValueError
        There is no such word; the message lists those there are.
    """

    NONE = "none", "not protected: the receiver can read it", True
    PUBLIC = "public", "public keys, which are meant to be known"
    ENCRYPTED = "encrypted", "sealed by one site for another: the coordinator passes it on and can't read it"
    MASKED = "masked", "numbers behind masks: only the sum over the sites can be read"
    OPENED_BY_SITE = "opened by site", "behind masks, but the coordinator opens this site's own numbers", True
    SHARES = "shares", "shares of the masks that are left in a sum, not of a site's numbers"
    SECRET_SHARES = "secret shares", "one share for each compute party, sealed for it: only the result is opened"

    explanation: str
    readable: bool

    # the defaults are there because a word is looked up by itself: Protection("masked")
    def __new__(cls, word: str, explanation: str = "", readable: bool = False) -> Self:
        member = str.__new__(cls, word)
        member._value_ = word
        member.explanation = explanation
        member.readable = readable
        return member

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"unknown protection {value!r}: choose one of {', '.join(repr(word.value) for word in cls)}")

    @classmethod
    def of(cls, message: Message) -> Protection:
        """How a message says that it is protected; one that doesn't say counts as not protected.

        Parameters
        ----------
        message
            Any message.

        Raises
        ------
        ValueError
            It says an unknown word.
        """
        return cls(message.meta.get("protection", cls.NONE))
