"""Certificates for the tests, by the openssl command: a private authority and one certificate for all roles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from distributed.security import Security

CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates(NamedTuple):
    """Files of one authority: its own certificate, and a certificate and key that it vouches for."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def args(self) -> tuple[str, ...]:
        """Options of Dask's command line tools."""
        return (
            "--tls-ca-file", str(self.authority), "--tls-cert", str(self.certificate), "--tls-key", str(self.key),
        )  # fmt: skip

    @property
    def security(self) -> Security:
        """The same for every role."""
        files = {"tls_ca_file": str(self.authority)}
        for role in ("client", "scheduler", "worker"):
            files.update({f"tls_{role}_cert": str(self.certificate), f"tls_{role}_key": str(self.key)})
        return Security(require_encryption=True, **files)

    @property
    def client(self) -> Security:
        """What a client alone needs."""
        return Security(
            require_encryption=True, tls_ca_file=str(self.authority), tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
        )  # fmt: skip


def certificates(folder: Path) -> Certificates:
    """New ones, in a new folder. Dask compares no host names: any subject will do."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)

    openssl("req", "-x509", "-newkey", *CURVE, "-days", "2", "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", *CURVE, "-subj", "/CN=any", "-keyout", "any.key", "-out", "any.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "any.pem")
    openssl("x509", "-req", "-in", "any.csr", *signed)
    return Certificates(folder / "ca.pem", folder / "any.pem", folder / "any.key")
