"""`emolib certs`: certificates for a cluster whose traffic leaves this machine."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from emolib.errors import SettingsError
from emolib.storage import is_local, new_folder, resolve
from jobs.bounds import between
from jobs.console import EXIT_DONE, Result, say
from jobs.security import CA, CERTIFICATE, KEY
from jobs.specs import TLS_FOLDER


def certs(*, out: str = TLS_FOLDER, days: Annotated[int, between(1, 3650)] = 365) -> Result:
    """Make certificates for a cluster: whoever has them may use it, all others are refused.

    One certificate is for scheduler, workers and jobs alike. Copy the folder to every machine of the cluster, under
    the same path, readable by the account alone. Nothing else can be signed by its authority, whose key is thrown away.

    Parameters
    ----------
    out
        A new folder.
    days
        So long it is valid.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError as error:
        raise SettingsError(
            "cryptography is not installed, expected to make certificates: pip install 'emolib[tls]'"
        ) from error

    if not is_local(resolve(out)):
        raise SettingsError(f"--out {out} found, expected a folder of this machine: private keys are kept in no store")
    folder = Path(new_folder(out).path)
    began, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    authority, own = keys
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "emolib authority")])

    def signed(name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began - timedelta(hours=1))  # the machines' clocks differ
            .not_valid_after(began + timedelta(days=days))
            .add_extension(
                x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("emolib")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(authority, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / CA).write_bytes(signed("emolib authority", authority, is_authority=True))
    (folder / CERTIFICATE).write_bytes(signed("emolib", own, is_authority=False))
    with open(os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    until = f"{began + timedelta(days=days):%Y-%m-%d}"
    say(f"certificates in {folder}, valid until {until}: copy the folder to every machine of the cluster")
    return Result({"job": "certs", "out": str(folder), "valid_until": until}, EXIT_DONE)
