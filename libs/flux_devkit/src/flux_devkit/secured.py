"""An embedded Kafka with logins: SCRAM-SHA-512, everything forbidden that no ACL allows, and TLS if it is wanted.

`admin` may do anything and exists from the start; other logins are made as they are asked for. The TLS variant has one
listener, SASL_SSL, with a certificate of an authority of its own, both made at set-up: nothing secret is in the repository,
and nothing expires there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flux_common.kafka.logins import logins_with_password, set_passwords
from flux_common.settings import KafkaSettings
from flux_devkit.errors import DevkitError
from flux_devkit.home import Home, write_private
from flux_devkit.kafka import EmbeddedKafka, KafkaOptions

ADMIN = "admin"
MECHANISM = "SCRAM-SHA-512"
HEAP_MIB = 192
DAYS = 2
KNOWN_SECONDS = 20
Protocol = Literal["SASL_PLAINTEXT", "SASL_SSL"]


class SecuredKafka:
    """One broker with logins in one folder; a context manager."""

    def __init__(
        self, home: Home, folder: Path, protocol: Protocol = "SASL_PLAINTEXT", hold: tuple[int, ...] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.protocol: Protocol = protocol
        self.folder = folder
        self.certificate = make_certificate(folder) if protocol == "SASL_SSL" else None
        options = secured_options(protocol, self._password(ADMIN), self.certificate)
        self.broker = EmbeddedKafka(home, folder / "broker", options, hold=hold)

    def __enter__(self) -> SecuredKafka:
        self.broker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop()

    def settings(self, login: str = ADMIN, topic_prefix: str = "") -> KafkaSettings:
        """Return the settings of a client that logs in as `login`."""
        return KafkaSettings(
            bootstrap=self.broker.bootstrap,
            protocol=self.protocol,
            sasl_username=login,
            sasl_password_file=self.password_file(login),
            ca_file=self.certificate.authority if self.certificate else None,
            topic_prefix=topic_prefix,
        )

    def environment(self, login: str = ADMIN) -> dict[str, str]:
        """Return the same as the `FLUX_KAFKA_*` variables of a process; the login need not be there yet."""
        said = {
            "FLUX_KAFKA_BOOTSTRAP": self.broker.bootstrap,
            "FLUX_KAFKA_PROTOCOL": self.protocol,
            "FLUX_KAFKA_SASL_USERNAME": login,
            "FLUX_KAFKA_SASL_PASSWORD_FILE": str(self.password_file(login)),
        }
        return said | ({"FLUX_KAFKA_CA_FILE": str(self.certificate.authority)} if self.certificate else {})

    async def make_logins(self, logins: Sequence[str]) -> None:
        """Give logins that have no password one, on the broker and in a file; returns once the broker knows them."""
        new = [login for login in logins if not self.password_file(login).exists()]
        await set_passwords(self.settings(), {login: self._password(login) for login in new})
        deadline = time.monotonic() + KNOWN_SECONDS
        while not set(new) <= await logins_with_password(self.settings()):
            if time.monotonic() > deadline:
                raise DevkitError(f"the broker does not know {', '.join(new)} after {KNOWN_SECONDS} s")
            await asyncio.sleep(0.05)

    def make_logins_now(self, logins: Sequence[str]) -> None:
        """Do the same for callers without an event loop."""
        asyncio.run(self.make_logins(logins))

    def password_file(self, login: str) -> Path:
        """Return the file that holds, or will hold, a login's password."""
        return self.folder / "passwords" / login

    def _password(self, login: str) -> str:
        file = self.password_file(login)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_private(file, secrets.token_urlsafe(18))
        return file.read_text()


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: the authority's certificate, and the broker's key with its chain."""

    authority: Path
    keystore: Path


def secured_options(protocol: Protocol, password: str, certificate: Certificate | None) -> KafkaOptions:
    """Return how such a broker differs from the small default; `password` is the administrator's."""
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    listener = f"listener.name.{protocol.lower()}"
    properties = {
        "listeners": f"{protocol}://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller_port}}",
        "advertised.listeners": f"{protocol}://127.0.0.1:{{port}}",
        "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{protocol}:{protocol}",
        "inter.broker.listener.name": protocol,
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        f"{listener}.scram-sha-512.sasl.jaas.config": f'{scram} username="{ADMIN}" password="{password}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:ANONYMOUS",  # anonymous is the controller's listener alone
        "allow.everyone.if.no.acl.found": "false",
    }
    client = {
        "security.protocol": protocol,
        "sasl.mechanism": MECHANISM,
        "sasl.username": ADMIN,
        "sasl.password": password,
    }
    if certificate is not None:
        properties |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificate.authority),
        }
        client["ssl.ca.location"] = str(certificate.authority)
    user = f"{MECHANISM}=[name={ADMIN},password={password}]"
    return KafkaOptions(HEAP_MIB, properties, client, ("--add-scram", user))


def make_certificate(folder: Path, name: str = "flux development") -> Certificate:
    """Make an authority and a certificate for 127.0.0.1 and localhost that it signed; the authority's key is not kept."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(f"{name} authority", authority_key.public_key(), authority=True).sign(
        authority_key, hashes.SHA256()
    )
    broker = _certificate(name, key.public_key(), issuer=authority.subject).sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    chain = broker.public_bytes(pem) + authority.public_bytes(pem)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made = Certificate(folder / "authority.pem", folder / "broker.pem")
    made.authority.write_bytes(authority.public_bytes(pem))
    write_private(made.keystore, (private + chain).decode())
    return made


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, *, issuer: x509.Name | None = None, authority: bool = False
) -> x509.CertificateBuilder:
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return built if authority else built.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
