"""Who a site is, and what its signature is good for."""

import stat

import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen.secure._identity import Identity, fingerprint, is_signed


def test_a_signature_is_of_this_content_and_this_identity():
    one, other = Identity(), Identity()
    signature = one.sign(b"plan")
    assert is_signed(b"plan", signature, one.public)
    assert not is_signed(b"another plan", signature, one.public)
    assert not is_signed(b"plan", signature, other.public)
    assert not is_signed(b"plan", signature[:-1], one.public)
    assert not is_signed(b"plan", signature, b"no key")


def test_a_fingerprint_is_of_the_public_key():
    identity = Identity()
    assert identity.fingerprint == fingerprint(identity.public)
    assert len(identity.fingerprint.split("-")) == 16
    assert Identity(identity.secret).fingerprint == identity.fingerprint != Identity().fingerprint


def test_a_file_keeps_an_identity_for_its_owner_alone(tmp_path):
    path = tmp_path / "site" / "identity.key"
    made = Identity.at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.at(path).public == made.public
    path.write_text("something else")
    with pytest.raises(ValueError, match=r"holds no identity .*: restore it, or delete it to make a new one"):
        Identity.at(path)
