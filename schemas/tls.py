"""A certificate of our own: serving HTTPS with it, and trusting it from the same machine."""

import ssl
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class TlsUnusable(Exception):
    """A certificate or its key cannot be used; the message names the file and what is wrong."""


class ServerTlsSettings(BaseModel):
    """HTTPS with a certificate of one's own, TLS 1.2 or later. Without one: HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cert_file: Path | None = Field(
        None,
        description="PEM file of the certificate to serve HTTPS with, intermediate ones after it. Unset: HTTP. Read at"
        " start: restart when it is renewed.",
    )
    key_file: Path | None = Field(None, description="PEM file of that certificate's key.")
    key_password: SecretStr | None = Field(None, description="Password of key_file, if it has one.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file are needed together")
        return self

    @property
    def enabled(self) -> bool:
        """Whether it is HTTPS."""
        return self.cert_file is not None

    @property
    def scheme(self) -> str:
        """How an address of ours begins: http or https."""
        return "https" if self.enabled else "http"

    def server_context(self) -> ssl.SSLContext | None:
        """What a server takes; None for HTTP. Raises `TlsUnusable`."""
        if self.cert_file is None or self.key_file is None:
            return None
        password = self.key_password.get_secret_value() if self.key_password else ""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for file in (self.cert_file, self.key_file):
            try:
                file.read_bytes()
            except OSError as error:
                raise TlsUnusable(f"{file} cannot be read: {error.strerror}") from error
        try:
            context.load_cert_chain(self.cert_file, self.key_file, lambda: password)  # or OpenSSL would ask a terminal
        except (ssl.SSLError, ValueError) as error:
            raise TlsUnusable(f"{self.cert_file} with {self.key_file}: {error}") from error
        return context

    def own_context(self) -> ssl.SSLContext | None:
        """What a client on this machine takes to speak to this very server, whatever name it is reached by.

        Only our certificate is trusted, so that the name need not be checked. None for HTTP. Raises `TlsUnusable`.
        """
        if self.cert_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.cert_file))
        except (OSError, ssl.SSLError) as error:
            raise TlsUnusable(f"{self.cert_file}: {error}") from error
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
