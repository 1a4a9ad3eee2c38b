import secrets
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedscgen.secure.masked._shamir import SHARE_LENGTH, _checksum, combine, interpolate, split


@st.composite
def schemes(draw):
    n_shares = draw(st.integers(1, 8))
    return draw(st.binary(min_size=32, max_size=32)), draw(st.integers(1, n_shares)), n_shares


@settings(max_examples=40, deadline=None)
@given(scheme=schemes())
def test_any_threshold_of_shares_recovers_the_secret(scheme):
    secret, threshold, n_shares = scheme
    shares = dict(enumerate(split(secret, threshold, n_shares), start=1))
    assert all(len(share) == SHARE_LENGTH for share in shares.values())
    for chosen in combinations(shares, threshold):
        assert combine({point: shares[point] for point in chosen}) == secret
    assert combine(shares) == secret


@pytest.mark.parametrize(("threshold", "n_shares"), [(2, 2), (3, 5), (6, 10)])
def test_fewer_shares_than_the_threshold_recover_nothing(threshold, n_shares):
    shares = dict(enumerate(split(secrets.token_bytes(32), threshold, n_shares), start=1))
    for chosen in combinations(shares, threshold - 1):
        with pytest.raises(ValueError, match="too few"):
            combine({point: shares[point] for point in chosen})


@settings(deadline=None)
@given(candidate=st.binary(min_size=32, max_size=32))
def test_fewer_shares_than_the_threshold_fit_every_secret(candidate):
    shares = dict(enumerate(split(bytes(32), 3, 5), start=1))
    known = {point: shares[point] for point in (2, 5)}
    points = {0: int.from_bytes(candidate + _checksum(candidate))} | {
        point: int.from_bytes(share) for point, share in known.items()
    }
    third = interpolate(points, 1).to_bytes(SHARE_LENGTH)
    assert combine({1: third, **known}) == candidate


def test_two_splits_of_one_secret_differ():
    assert not set(split(bytes(32), 2, 5)) & set(split(bytes(32), 2, 5))


@pytest.mark.parametrize("place", [0, 1, 30, 65])
@pytest.mark.parametrize("n_shares", [2, 3, 5])
def test_altered_share_is_noticed(n_shares, place):
    shares = dict(enumerate(split(secrets.token_bytes(32), 2, n_shares), start=1))
    altered = bytearray(shares[2])
    altered[place] ^= 1
    with pytest.raises(ValueError, match="altered"):
        combine({**shares, 2: bytes(altered)})


def test_shares_of_different_secrets_are_noticed():
    one, other = (split(secrets.token_bytes(32), 2, 2) for _ in range(2))
    with pytest.raises(ValueError, match="different secrets"):
        combine({1: one[0], 2: other[1]})


def test_extreme_secrets_survive():
    for secret in (bytes(32), b"\xff" * 32):
        assert combine(dict(enumerate(split(secret, 2, 3), start=1))) == secret


def test_what_can_not_be_shared_is_refused():
    with pytest.raises(ValueError, match="31 bytes"):
        split(bytes(31), 2, 3)
    with pytest.raises(ValueError, match="threshold=4 of 3 shares"):
        split(bytes(32), 4, 3)
