"""TLS of a cluster: what scheduler, workers and run say is encrypted, and each side shows a certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from distributed.security import Security

from epvs_cohort.errors import UsageError

#: Files of a folder that ``tls`` names: who signs, and this side's certificate and key.
CA_FILE, CERT_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"


def security_of(folder: Path) -> Security:
    """Dask's security settings out of a folder of certificates; all of them are loaded once to see that they can be.

    Raises
    ------
    UsageError
        A file is missing or unusable, or the key does not belong to the certificate.
    """
    for name in (CA_FILE, CERT_FILE, KEY_FILE):
        if not (folder / name).is_file():
            raise UsageError(
                f"tls {folder}: no file {name}; needed are {CA_FILE}, {CERT_FILE} and {KEY_FILE}",
                hint="docs/clusters.md tells how to make them with openssl",
            )
    ca, certificate, key = (str(folder / name) for name in (CA_FILE, CERT_FILE, KEY_FILE))
    try:
        ssl.create_default_context(cafile=ca).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"tls {folder}: certificates that cannot be used: {error}") from error
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_scheduler_cert=certificate,
        tls_scheduler_key=key,
        tls_worker_cert=certificate,
        tls_worker_key=key,
        tls_client_cert=certificate,
        tls_client_key=key,
    )
