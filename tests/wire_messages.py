"""Messages of every kind, as real federations send them, and what becomes of them when bits and values change."""

import json
import random
import struct
from copy import deepcopy
from dataclasses import replace
from functools import cache

from cells import make_adata
from fedscgen._types import Message, WireFormatError
from fedscgen.check import SiteCheck, check_together
from fedscgen.federation import (
    FederationSettings,
    InProcessTransport,
    PrivacyLedger,
    Server,
    SiteOptions,
    check_answer,
    check_question,
)
from fedscgen.secure import MaskedAggregator, PlainAggregator
from quick import make_client

SMALLEST = {"n_hidden": 4, "n_layers": 1, "n_latent": 3}
_HOW_OFTEN_HUGE = 0.0005
_START = struct.Struct("<4sI")


class Recorder(InProcessTransport):
    def __init__(self, clients):
        super().__init__(clients)
        self.recorded = []

    def ask(self, messages):
        for site, answer in super().ask(messages):
            self.recorded.append((messages[site], answer))
            yield site, answer


@cache
def record_messages():
    """Pairs of question and answer: the first of every kind, with each aggregator."""
    settings = FederationSettings(
        n_rounds=1, n_epochs=1, early_stopping_patience=1, reference="mean", model=SMALLEST, seed=0, n_top_genes=20
    )
    first = {}
    for aggregator, reference in (
        (MaskedAggregator(), "landmarks"),
        (PlainAggregator(), "mean"),
        (MaskedAggregator(reveal_keys=True), "dominant"),
    ):
        fewest = 2 if reference == "landmarks" else None  # then sites confirm who is in a sum
        for question, answer in _run(aggregator, replace(settings, reference=reference, min_sites=fewest)):
            layout = tuple(question.meta.get(name) for name in ("step", "reference"))
            first.setdefault((question.kind, aggregator.name, layout), (question, answer))
    for question, answer in _check(settings):
        first.setdefault((question.kind, "", ()), (question, answer))
    return list(first.values())


def _check(settings):
    transport = Recorder([SiteCheck(f"site{i}", make_adata(seed=i), SiteOptions(), PrivacyLedger()) for i in range(2)])
    check_together(transport, settings)
    return transport.recorded


def _run(aggregator, settings):
    adata = make_adata()
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in adata.obs["batch"].unique()}
    clients = [
        make_client(site, cells, aggregator.contributor(site), accelerator="cpu") for site, cells in parts.items()
    ]
    transport = Recorder(clients)
    Server(transport, aggregator, settings).run()
    for client in clients:
        client.close()
    return transport.recorded


def read_question(data):
    """What a site does with bytes before it acts on them."""
    check_question(Message.from_bytes(data))


def read_answer(data, question):
    """What the coordinator does with bytes before it acts on them."""
    check_answer(question, Message.from_bytes(data))


def mutate(data, others, draw: random.Random):
    """The bytes, damaged in one of several ways."""
    if draw.random() < _HOW_OFTEN_HUGE:
        return _inflate(data, others, draw)
    return draw.choice((_flip_bits, _cut, _splice, _change_json, _change_json, _change_length))(data, others, draw)


def _flip_bits(data, others, draw):
    changed = bytearray(data)
    # most of a message is numbers, of which all are good: the header is what matters
    end = min(len(changed), 8 + _START.unpack_from(data)[1]) if draw.random() < 0.8 else len(changed)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data, others, draw):
    begin, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return draw.choice((data[:end], data[begin:], data[:begin] + data[end:], data + data[begin:end]))


def _splice(data, others, draw):
    other = draw.choice(others)
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def _change_length(data, others, draw):
    length = draw.choice((0, 1, draw.randrange(2**32), len(data), len(data) - 8, 2**32 - 1))
    return data[:4] + struct.pack("<I", length) + data[8:]


def _inflate(data, others, draw):
    """Put megabytes of something into the header."""
    _, length = _START.unpack_from(data)
    piece = draw.choice((b"[", b"[],", b"{},", b'"a",', b"1", b"1,", b'{"a":', b'"\\u0041', b" ", b'"\\n\\"'))
    huge = piece * draw.choice((10**5, 10**6, 3 * 10**6))
    place = 8 + draw.randrange(length)
    header = data[8:place] + huge + data[place : 8 + length]
    return b"FSG1" + struct.pack("<I", len(header)) + header + data[8 + length :]


ODD = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "\ud800", "=1+1", "x" * 300, "x" * 11_000, [], {}, [[]], [[[[]]]], {"a": {"b": []}}, ["a"] * 50, [0] * 50,
    "none", "masked", "model weights", "settings", [2] * 9, [True], [0, 2**40], [2**40, 2**40], "<f4", "|O", "|b1",
]  # fmt: skip


def _change_json(data, others, draw):
    """Replace, remove, repeat or nest a value of the header, anywhere."""
    _, length = _START.unpack_from(data)
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(draw.randint(1, 3)):
        _change_one(header, draw)
    try:
        encoded = json.dumps(header).encode()
    except RecursionError:
        return data
    if draw.random() < 0.05:
        encoded = encoded.replace(b"{", b'{"kind": "again", ', 1)
    return b"FSG1" + struct.pack("<I", len(encoded)) + encoded + rest


def _change_one(header, draw):
    holder, key = header, draw.choice(list(header))
    while isinstance(holder[key], (dict, list)) and holder[key] and draw.random() < 0.75:
        holder = holder[key]
        key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    how = draw.random()
    if how < 0.6:
        holder[key] = deepcopy(draw.choice(ODD))
    elif how < 0.7:
        del holder[key]
        if holder is header and not header:
            header["kind"] = "k"
    elif how < 0.8 and isinstance(holder, list):
        holder.extend(holder[:20])
    elif how < 0.9 and isinstance(holder, dict):
        holder[draw.choice(("spy", "round", "protection", "masking", "\udfff"))] = deepcopy(draw.choice(ODD))
    else:
        for _ in range(draw.choice((1, 5, 40, 200))):
            holder[key] = [holder[key]]


def read_mutated(n_cases, seed=0):
    """Damage messages so many times, and count what came of it: what was read, and refusals by their first words."""
    draw = random.Random(seed)  # noqa: S311  (nothing secret)
    pairs = [(q.to_bytes(), a.to_bytes(), q) for q, a in record_messages()]
    all_bytes = [data for pair in pairs for data in pair[:2]]
    outcomes = {}
    for _ in range(n_cases):
        asked, answered, question = draw.choice(pairs)
        to_site = draw.random() < 0.5
        data = mutate(asked if to_site else answered, all_bytes, draw)
        try:
            if to_site:
                read_question(data)
            else:
                read_answer(data, question)
            outcome = "read"
        except WireFormatError:
            outcome = "WireFormatError"
        except Exception as error:  # noqa: BLE001  (that is what is looked for)
            outcome = f"ESCAPED {type(error).__name__}: {error}"[:120]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes
