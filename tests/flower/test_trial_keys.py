"""Keys and certificates are read by Flower's own loaders and by TLS itself."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from fedscgen.flower._trial_keys import write_trial_keys

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

HOSTS = ["coordinator.example.org", "10.1.2.3"]
SITES = ["berlin", "new.york-2"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial") / "keys"
    write_trial_keys(folder, HOSTS, SITES, days=7)
    return folder


def handshake(keys, name, authority=None):
    """Shake hands over loopback with the server, whom the client calls by this name; the protocol's version."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys / "superlink" / "server.pem", keys / "superlink" / "server.key")
    client = ssl.create_default_context(cafile=authority or keys / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        answering = threading.Thread(target=serve_once, args=(server, listener))
        answering.start()
        try:
            plain = socket.create_connection(listener.getsockname(), timeout=10)
            with plain, client.wrap_socket(plain, server_hostname=name) as channel:
                return channel.version()
        finally:
            answering.join()


def serve_once(context, listener):
    plain, _ = listener.accept()
    with plain, suppress(ssl.SSLError, ConnectionError):  # a client that refuses says why itself
        context.wrap_socket(plain, server_side=True).close()


def test_the_folder_holds_what_everybody_needs_and_nothing_else(keys):
    files = {str(path.relative_to(keys)) for path in keys.rglob("*") if path.is_file()}
    own = {f"sites/{site}/{name}" for site in SITES for name in ("auth.key", "auth.pub")}
    assert files == {"ca.crt", "superlink/server.pem", "superlink/server.key"} | own
    assert list(keys.parent.iterdir()) == [keys], "no temporary folder is left"


def test_only_the_user_can_read_private_keys_and_open_folders(keys):
    for path in [keys, *keys.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix == ".key":
            assert mode == 0o600, path


def test_the_key_that_signs_is_not_kept(keys):
    authority = x509.load_pem_x509_certificate((keys / "ca.crt").read_bytes())
    kept = [load_pem(path) for path in keys.rglob("*.key")]
    assert len(kept) == 1 + len(SITES)
    assert authority.public_key() not in [key.public_key() for key in kept]


def load_pem(path):
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key

    content = path.read_bytes()
    return load_ssh_private_key(content, None) if b"OPENSSH" in content else bytes_to_private_key(content)


@pytest.mark.parametrize("name", [*HOSTS, "localhost", "127.0.0.1", "::1"])
def test_tls_accepts_the_coordinator_by_every_one_of_its_names(keys, name):
    assert handshake(keys, name) == "TLSv1.3"


@pytest.mark.parametrize("name", ["example.org", "other.example.org", "10.1.2.4"])
def test_tls_refuses_another_name(keys, name):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(keys, name)


def test_tls_refuses_the_certificate_of_another_trial(keys, tmp_path):
    write_trial_keys(tmp_path / "other", HOSTS, SITES)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(keys, HOSTS[0], authority=tmp_path / "other" / "ca.crt")


def test_certificates_hold_for_the_days_asked_for(keys):
    now = datetime.now(UTC)
    for name in ("ca.crt", "superlink/server.pem"):
        certificate = x509.load_pem_x509_certificate((keys / name).read_bytes())
        assert certificate.not_valid_before_utc < now
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=7)) < timedelta(minutes=10)


def test_the_server_s_certificate_can_t_sign_others(keys):
    certificate = x509.load_pem_x509_certificate((keys / "superlink" / "server.pem").read_bytes())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_flower_s_register_command_reads_the_key_of_the_same_site(keys):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, sign_message, verify_signature

    for site in SITES:
        private = load_ssh_private_key((keys / "sites" / site / "auth.key").read_bytes(), None)
        public = bytes_to_public_key(try_load_public_key(keys / "sites" / site / "auth.pub"))
        assert isinstance(public.curve, SECP384R1)
        assert verify_signature(public, b"hello", sign_message(private, b"hello"))


def test_flower_s_supernode_reads_the_private_key(keys):
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode, _try_setup_client_authentication

    path = keys / "sites" / "berlin" / "auth.key"
    arguments = _parse_args_run_supernode().parse_args(["--auth-supernode-private-key", str(path)])
    private, public = _try_setup_client_authentication(arguments)
    assert private.public_key() == public


def test_flower_s_superlink_and_supernode_read_the_certificates(keys):
    from flwr.common.args import try_obtain_root_certificates, try_obtain_server_certificates
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    authority, certificate, key = keys / "ca.crt", keys / "superlink" / "server.pem", keys / "superlink" / "server.key"
    options = ["--ssl-ca-certfile", authority, "--ssl-certfile", certificate, "--ssl-keyfile", key]
    superlink = _parse_args_run_superlink().parse_args([str(option) for option in options])
    assert try_obtain_server_certificates(superlink) == tuple(
        path.read_bytes() for path in (authority, certificate, key)
    )
    supernode = _parse_args_run_supernode().parse_args(["--root-certificates", str(authority)])
    assert try_obtain_root_certificates(supernode, "") == authority.read_bytes()


def test_every_site_has_a_key_of_its_own(keys):
    assert len({(keys / "sites" / site / "auth.pub").read_bytes() for site in SITES}) == len(SITES)


@pytest.mark.parametrize("host", ["", "a:8000", "https://a", "[::1]", "*.example.org", "a b", "-a", "x" * 254])
def test_a_host_that_is_no_name_is_refused_by_name(tmp_path, host):
    with pytest.raises(ValueError, match="neither a name nor an IP address") as error:
        write_trial_keys(tmp_path / "keys", [host], SITES)
    assert repr(host) in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("site", ["", "..", ".hidden", "a/b", "a\\b", "a b"])
def test_a_site_that_can_t_name_a_folder_is_refused(tmp_path, site):
    with pytest.raises(ValueError, match="can't name a folder"):
        write_trial_keys(tmp_path / "keys", HOSTS, [site])
    assert not list(tmp_path.iterdir())


def test_a_site_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'Berlin' comes twice"):
        write_trial_keys(tmp_path / "keys", HOSTS, ["berlin", "Berlin"])


def test_hosts_and_sites_are_needed(tmp_path):
    with pytest.raises(ValueError, match="no host"):
        write_trial_keys(tmp_path / "keys", [], SITES)
    with pytest.raises(ValueError, match="no site"):
        write_trial_keys(tmp_path / "keys", HOSTS, [])


def test_keys_that_exist_are_left_alone(keys):
    before = (keys / "ca.crt").read_bytes()
    with pytest.raises(FileExistsError, match="choose another place"):
        write_trial_keys(keys, HOSTS, SITES)
    assert (keys / "ca.crt").read_bytes() == before
