"""The words for how a message is protected: one list, one explanation each, nothing else on record."""

import re
from pathlib import Path

from fedscgen import Message
from fedscgen.secure import Protection

PAGE = Path(__file__).parents[2] / "docs/design/threat-model.md"
WORDS = ["none", "public", "encrypted", "masked", "opened by site", "shares", "secret shares"]


def test_the_threat_model_explains_each_word_as_the_program_does():
    table = PAGE.read_text().split("| word | meaning |\n| --- | --- |\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `([^`]+)` \| (.+) \|$", table, re.MULTILINE) == [
        (word.value, word.explanation) for word in Protection
    ]


def test_the_words_on_the_wire_are_these():
    assert [word.value for word in Protection] == WORDS
    messages = [Message("task", {"protection": word}) for word in Protection]
    assert [Message.from_bytes(message.to_bytes()).meta["protection"] for message in messages] == WORDS


def test_a_site_shows_its_numbers_under_two_words_only():
    assert [word.value for word in Protection if word.readable] == ["none", "opened by site"]


def test_a_message_without_a_word_is_not_protected():
    assert Protection.of(Message("settings")) is Protection.NONE
    assert Protection.of(Message("task", {"protection": "masked"})) is Protection.MASKED
