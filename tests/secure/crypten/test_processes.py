"""The compute parties as processes: what crosses between them, and how they end."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("platformdirs", reason="needs the extra fedscgen[crypten]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, CryptenAggregator
from fedscgen.secure.crypten._channel import Channel
from fedscgen.secure.crypten._dealer import Needs, correct, corrections, expand
from fedscgen.secure.crypten._shares import add_share, split

FIT = Message("task", {"task": "fit"}, {"global": np.ones(3, np.float32)})
SITES = ("a", "b", "c")


def site_terms(seed):
    rng = np.random.default_rng(seed)
    return {
        site: {
            "fit": Contribution({"w": rng.normal(size=500).astype(np.float32)}, weight=float(rng.integers(1e4, 1e5))),
            "statistics": Contribution(
                {"keys": rng.integers(100_000, 999_999, 6).astype(float), "values": rng.normal(size=(6, 5))}
            ),
        }
        for site in SITES
    }


def answer_all(aggregator, terms, log, messages):
    answers = {}
    for site, message in messages.items():
        answer = aggregator.contributor(site).contribute(terms[site][message.meta["task"]], message)
        log += [message.to_bytes(), answer.to_bytes()]
        answers[site] = answer
    return answers.items()


def open_everything(aggregator, terms, log):
    ask = partial(answer_all, aggregator, terms, log)
    aggregator.sum(ask, SITES, FIT)
    aggregator.select(ask, SITES, Message("task", {"task": "statistics"}))


def numbers_of(terms):
    """What would give a site away: its values as they are, and weighted."""
    for contributions in terms.values():
        fit, statistics = contributions["fit"], contributions["statistics"].arrays
        yield from (fit.arrays["w"], fit.arrays["w"].astype(np.float64) * fit.weight, fit.weight)
        yield from (statistics["keys"], statistics["values"], statistics["keys"][:, None] * statistics["values"])


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A directory where every process of the test writes down what it hands to torch.distributed."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import os, struct, torch.distributed as dist
            path = os.path.join(os.path.dirname(__file__), f"{os.getpid()}.traffic")
            def watched(function):
                def call(tensor, *args, **kwargs):
                    tensors = tensor if isinstance(tensor, list) else [tensor]
                    with open(path, "ab") as file:
                        for data in (t.contiguous().numpy().tobytes() for t in tensors):
                            file.write(struct.pack("<Q", len(data)) + data)
                    return function(tensor, *args, **kwargs)
                return call
            for name in ("all_reduce", "reduce", "broadcast", "send", "isend", "gather", "all_gather", "scatter"):
                setattr(dist, name, watched(getattr(dist, name)))
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def traffic(spy):
    """What the processes handed to torch.distributed, message by message, process by process."""
    processes = []
    for path in sorted(spy.glob("*.traffic"), key=lambda path: int(path.stem)):
        data, messages = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            messages.append(data[8 : 8 + length])
            data = data[8 + length :]
        processes.append(messages)
        path.unlink()
    return processes


@pytest.fixture
def frames(monkeypatch):
    """Messages that the coordinator exchanges with the processes, in order."""
    seen, send, receive = [], Channel.send, Channel.receive

    def watched_receive(channel, timeout=None):
        seen.append(receive(channel, timeout))
        return seen[-1]

    monkeypatch.setattr(Channel, "send", lambda self, m, timeout=None: (seen.append(m), send(self, m, timeout)))
    monkeypatch.setattr(Channel, "receive", watched_receive)
    return seen


def captured(crypten, terms, spy, frames):
    """What crosses in a sum and an arg-max: through ``ask``, to and from the processes, and by party between them."""
    through_ask = []
    traffic(spy)
    frames.clear()
    open_everything(crypten, terms, through_ask)
    return through_ask, [message.to_bytes() for message in frames if message.kind != "opened"], traffic(spy)


def test_nothing_of_a_site_crosses_any_wire_and_lengths_do_not_depend_on_data(spy, frames, in_the_clear, uniform):
    lengths = []
    with CryptenAggregator(3, n_parties=3, timeout=30) as crypten:
        for seed in (1, 2):
            terms = site_terms(seed)
            through_ask, to_and_fro, between_parties = captured(crypten, terms, spy, frames)
            opened = [message.arrays["words"].size for message in frames if message.kind == "opened" and message.arrays]
            assert sorted(opened) == [6 * 5, 501]  # the two results, once
            assert len(between_parties) == 3
            everything = b"".join([*through_ask, *to_and_fro, *(m for messages in between_parties for m in messages)])
            assert in_the_clear(everything, numbers_of(terms), crypten.precision_for(3)) == set()
            sums = [message for messages in between_parties for message in messages if len(message) == 8 * 501]
            assert len(sums) == 3  # each party's share of the sum
            assert all(map(uniform, sums))
            lengths.append([list(map(len, part)) for part in (through_ask, to_and_fro, *between_parties)])
    assert lengths[0] == lengths[1]


def test_without_shares_and_seals_the_numbers_would_show(in_the_clear, monkeypatch):
    monkeypatch.setattr("fedscgen.secure.crypten._shares.add_masks", lambda *args, **kwargs: None)
    monkeypatch.setattr(
        "fedscgen.secure.crypten._contributor.seal_for_parties",
        lambda shares, keys, *_: dict(zip(keys, shares, strict=True)),
    )
    terms, through_ask = site_terms(1), []
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten, pytest.raises(AggregationError, match="refused"):
        open_everything(crypten, terms, through_ask)
    assert in_the_clear(b"".join(through_ask), numbers_of(terms), crypten.precision_for(3)) == {"fixed point"}


def test_all_that_the_arg_max_opens_before_its_result_is_noise(spy, uniform):
    """Neither what a party sends nor what all parties' messages add up to depends on what they compute."""
    keys, values = np.full(200, 5.0), np.zeros((200, 2))
    terms = {site: {"statistics": Contribution({"keys": keys, "values": values})} for site in SITES}
    with CryptenAggregator(3, n_parties=3, timeout=30) as crypten:
        crypten.select(partial(answer_all, crypten, terms, []), SITES, Message("task", {"task": "statistics"}))
    by_party = [[m for m in messages if len(m) >= 8 * 200] for messages in traffic(spy)]
    *steps, result = (np.array([np.frombuffer(m, "<u8") for m in parts]) for parts in zip(*by_party, strict=True))
    assert not result.sum(axis=0).any()  # the values, which are zero: what is opened in the clear would be seen so
    bits = [step for step in steps if step.max() <= 1]
    (flipped,) = (np.bitwise_xor.reduce(step) for step in bits)  # who wins, exclusive or a random bit
    assert abs(flipped.mean() - 0.5) < 6 * 0.5 / np.sqrt(flipped.size)
    words = [step for step in steps if step.max() > 1]
    assert sum(step.shape[1] for step in words) > 10_000
    for combine in (np.add, np.bitwise_xor):
        assert uniform(np.concatenate([combine.reduce(step) for step in words]).tobytes())
    assert all(uniform(step[party].tobytes()) for step in words for party in range(3) if step.shape[1] >= 400)


def test_shares_are_uniform_and_add_up(uniform):
    words = np.arange(100_000, dtype=np.uint64)
    shares = split(words.copy(), 3)
    assert [len(share) for share in shares] == [32, 32, 800_000]
    assert uniform(shares[-1])
    total = np.zeros_like(words)
    for rank, share in enumerate(shares):
        add_share(total, share, is_seed=rank < 2)
        if rank < 2:
            assert uniform(total.tobytes())
    np.testing.assert_array_equal(total, words)


def test_dealt_numbers_fit_together():
    needs = Needs(products=50, ands=60, bits=70)
    drawn = [expand(bytes([i]) * 32, needs) for i in range(3)]
    correct(drawn[0], corrections([expand(bytes([i]) * 32, needs) for i in range(3)]))
    a, b, c, by_sum = (sum(part[name] for part in drawn) for name in ("a", "b", "c", "sum"))
    x, y, z, bit = (np.bitwise_xor.reduce([part[name] for part in drawn]) for name in ("x", "y", "z", "bit"))
    np.testing.assert_array_equal(a * b, c)
    np.testing.assert_array_equal(x & y, z)
    np.testing.assert_array_equal(bit, by_sum)
    assert set(bit) == {0, 1}


def pids_of(aggregator):
    return {name: worker.process.pid for name, worker in aggregator._processes._workers.items()}


def is_alive(pid):
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    return bool(state) and not state.startswith("Z")


def assert_all_gone(pids, seconds=0.0):
    deadline = time.monotonic() + seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


@pytest.mark.parametrize(
    ("victim", "stage"),
    [("party 0", "open"), *(("party 1", stage) for stage in ("begin", "share", "deal", "open"))]
    + [("dealer", stage) for stage in ("begin", "deal", "open")],
)
def test_a_killed_process_is_an_error_at_once_and_leaves_nothing_behind(victim, stage, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    send = Channel.send

    def kill_first(self, message, timeout=None):
        if message.kind == stage and not killed:
            os.kill(pids[victim], signal.SIGKILL)
            killed.append(time.monotonic())
            time.sleep(0.05)
        send(self, message, timeout)

    killed = []
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten:
        pids = pids_of(crypten)
        assert not list(tmp_path.iterdir())
        monkeypatch.setattr(Channel, "send", kill_first)
        with pytest.raises(AggregationError, match=rf"{victim} ended with exit status -9.*nothing was opened"):
            open_everything(crypten, site_terms(0), [])
        assert time.monotonic() - killed[0] < 5
        assert_all_gone(pids.values())
        with pytest.raises(AggregationError, match="not running"):
            open_everything(crypten, site_terms(0), [])


@pytest.mark.parametrize("victim", ["party 0", "party 1"])
def test_a_party_killed_while_sites_work_is_an_error(victim):
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten:
        pids = pids_of(crypten)

        def ask(messages):
            os.kill(pids[victim], signal.SIGKILL)
            return answer_all(crypten, site_terms(0), [], messages)

        with pytest.raises(AggregationError, match=f"{victim} ended"):
            crypten.sum(ask, SITES, FIT)
        assert_all_gone(pids.values())


def test_a_party_that_hangs_is_an_error_in_time():
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten:
        crypten._processes._timeout = 1.0
        pids = pids_of(crypten)
        os.kill(pids["party 1"], signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(AggregationError, match="party 1 did not answer within 1 seconds"):
            open_everything(crypten, site_terms(0), [])
        assert time.monotonic() - begun < 5
        assert_all_gone(pids.values())


def test_parties_that_are_not_ready_in_time_are_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(AggregationError, match=r"did not answer within 0\.01 seconds, at stage 'ready'"):
        CryptenAggregator(3, timeout=0.01).__enter__()
    assert not list(tmp_path.iterdir())


def test_an_error_inside_the_with_statement_stops_the_parties():
    crypten, pids = CryptenAggregator(2, timeout=30), {}

    def interrupt():
        with crypten:
            pids.update(pids_of(crypten))
            raise KeyboardInterrupt

    for _ in range(2):  # it can be entered again
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert_all_gone(pids.values())


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_parties_end_with_the_coordinator_even_if_a_fork_of_it_lives_on(signal_number):
    script = """
        import os, time
        from fedscgen.secure import CryptenAggregator
        with CryptenAggregator(2, timeout=30) as crypten:
            pids = [worker.process.pid for worker in crypten._processes._workers.values()]
            fork = os.fork()
            if fork:
                print(fork, *pids, flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as coordinator:  # noqa: S603
        fork, *pids = map(int, re.findall(r"\d+", coordinator.stdout.readline()))
        try:
            assert all(map(is_alive, pids))
            coordinator.send_signal(signal_number)
            coordinator.wait(5)
            assert is_alive(fork)
            assert_all_gone(pids, seconds=5)
        finally:
            os.kill(fork, signal.SIGKILL)
            coordinator.kill()
