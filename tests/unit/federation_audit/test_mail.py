"""Mail by a real SMTP server on loopback: TLS, login, what it refuses, and headers that nobody breaks."""

import asyncio
import email
import email.policy
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation_audit.sending.confirming import Confirmation, Outcome, Plan, Sent
from federation_audit.sending.errors import NotConfirmed, NotSent, SideRefused, SideUnreachable
from federation_audit.sending.mail import Mail, NotAnAddress, mail_address, message_of
from federation_audit.sending.settings import MailSettings
from tests.certificates import Authority
from tests.kafka import find_free_ports
from tests.unit.federation_audit.samples import NOW, case, incident

PASSWORD = "a secret password"


@dataclass
class Letterbox:
    """What the server got; `refusing` is the reply to every recipient, `failing` that to the content."""

    letters: list[Envelope] = field(default_factory=list)
    refusing: str = ""
    failing: str = ""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refusing:
            return self.refusing
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.failing:
            return self.failing
        self.letters.append(envelope)
        return "250 taken"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    fine = isinstance(data, LoginPassword) and data.login == b"warden" and data.password == PASSWORD.encode()
    return AuthResult(success=fine, handled=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    certificate, key, _ = authority.issue("mail")
    return certificate, key


@pytest.fixture
def letterbox() -> Letterbox:
    return Letterbox()


@pytest.fixture(params=["starttls", "tls"])
def server(
    request: pytest.FixtureRequest, letterbox: Letterbox, certificate: tuple[Path, Path]
) -> Iterator[MailSettings]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    port = find_free_ports(1)
    how: dict[str, Any] = (
        {"tls_context": context, "require_starttls": True} if request.param == "starttls" else {"ssl_context": context}
    )
    controller = Controller(
        letterbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=authenticate,
        auth_required=True,
        auth_require_tls=request.param == "starttls",
        ready_timeout=60,
        **how,
    )
    controller.start()
    yield mail_settings(port=port, security=request.param)
    controller.stop()


def mail_settings(**more: Any) -> MailSettings:
    return MailSettings.model_validate(
        {
            "host": "127.0.0.1",
            "user": "warden",
            "password": PASSWORD,
            "sender": "abuse@my.example",
            "reply_to": "admins@my.example",
            **more,
        }
    )


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


def send(mail: Mail, plan: Plan) -> Sent:
    return asyncio.run(mail.send(plan, Confirmation("alice", NOW, plan.digest), at=NOW))


def parsed(letter: Envelope) -> EmailMessage:
    assert isinstance(letter.content, bytes)
    message = email.message_from_bytes(letter.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_report_is_mailed_with_the_json_attached_and_no_image(
    server: MailSettings, letterbox: Letterbox, authority: Authority
) -> None:
    mail = Mail(server, tls=trusting(authority))
    plan = mail.plan(case(), "abuse@bad.example")
    assert "abuse@bad.example gets this mail" in plan.as_text()
    record = send(mail, plan)
    assert (record.outcome, record.status, record.to) == (Outcome.ACCEPTED, 250, "abuse@bad.example")
    (letter,) = letterbox.letters
    assert letter.rcpt_tos == ["abuse@bad.example"]
    message = parsed(letter)
    assert message["subject"] == "Abusive images from bad.example: 3 confirmed incidents"
    assert (message["from"], message["reply-to"]) == ("abuse@my.example", "admins@my.example")
    assert message["auto-submitted"] == "auto-generated"
    body = message.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == plan.payload["text"]
    (attachment,) = message.iter_attachments()
    assert attachment.get_content_type() == "application/json"
    assert json.loads(attachment.get_content())["domain"] == "bad.example"
    assert not any(part.get_content_maintype() in ("image", "video") for part in message.walk())
    assert PASSWORD not in repr(plan) + repr(record)


def test_a_wrong_password_and_a_certificate_of_nobody_send_nothing(
    server: MailSettings, letterbox: Letterbox, authority: Authority
) -> None:
    wrong = server.model_copy(update={"user": "somebody"})
    mail = Mail(wrong, tls=trusting(authority))
    with pytest.raises(SideRefused, match=r"mail\.password"):
        send(mail, mail.plan(case(), "abuse@bad.example"))
    mail = Mail(server)
    with pytest.raises(SideUnreachable):
        send(mail, mail.plan(case(), "abuse@bad.example"))
    assert letterbox.letters == []


def test_what_the_mail_server_refuses_is_in_the_record(
    server: MailSettings, letterbox: Letterbox, authority: Authority
) -> None:
    mail = Mail(server, tls=trusting(authority))
    plan = mail.plan(case(), "abuse@bad.example")
    letterbox.refusing = "550 no such user"
    record = send(mail, plan)
    assert (record.outcome, record.status, record.answer) == (Outcome.REFUSED, 550, "no such user")
    letterbox.refusing, letterbox.failing = "", "451 try later"
    record = send(mail, plan)
    assert (record.outcome, record.status) == (Outcome.REFUSED, 451)


def test_a_server_without_starttls_gets_no_password(letterbox: Letterbox) -> None:
    port = find_free_ports(1)
    controller = Controller(letterbox, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    try:
        mail = Mail(mail_settings(port=port))
        with pytest.raises(SideUnreachable, match="starttls"):
            send(mail, mail.plan(case(), "abuse@bad.example"))
        plain = Mail(MailSettings(host="127.0.0.1", port=port, security="none", sender="abuse@my.example"))
        assert send(plain, plain.plan(case(), "abuse@bad.example")).outcome is Outcome.ACCEPTED
    finally:
        controller.stop()
    with pytest.raises(ValidationError, match="unprotected"):
        mail_settings(security="none")


def test_nothing_is_mailed_that_was_not_shown_or_without_a_server() -> None:
    mail = Mail(mail_settings())
    plan = mail.plan(case(), "abuse@bad.example")
    other = replace(plan, to="press@paper.example")
    with pytest.raises(NotConfirmed):
        asyncio.run(mail.send(other, Confirmation("alice", NOW, plan.digest), at=NOW))
    with pytest.raises(NotSent, match=r"mail\.host"):
        Mail(MailSettings()).plan(case(), "abuse@bad.example")
    port = find_free_ports(1)
    nobody = Mail(mail_settings(port=port))
    with pytest.raises(SideUnreachable, match="no connection"):
        send(nobody, nobody.plan(case(), "abuse@bad.example"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abuse",
        "@bad.example",
        "abuse@",
        "a b@bad.example",
        "abuse@bad.example\r\nBcc: all@bad.example",
        "abuse@bad.example, other@bad.example",
        "Abuse <abuse@bad.example>",
        ".abuse@bad.example",
        "abuse@bad..example",
        "abuse@localhost",
        "abuse@b\u00fccher.example",
        "x" * 70 + "@bad.example",
        "\u202eabuse@bad.example",
    ],
)
def test_what_is_no_plain_mail_address_is_refused(text: str) -> None:
    with pytest.raises(NotAnAddress):
        mail_address(text)


def test_a_mail_address_is_taken_with_or_without_mailto() -> None:
    assert mail_address(" mailto:abuse+x@bad.example") == "abuse+x@bad.example"


@settings(max_examples=60, deadline=None)
@given(
    st.text(min_size=1, max_size=200)
    | st.sampled_from(["x\r\nBcc: all@bad.example", "\u2028Bcc: x", "x" * 10_000, "=?utf-8?b?DQpCY2M6IHg=?="])
)
def test_no_name_of_a_stranger_adds_a_header(name: str) -> None:
    mail = Mail(mail_settings())
    hostile = case(tenant=name, reasons=(name,), incidents=(incident(1, actor=name, confirmed_by=name or "x"),))
    plan = mail.plan(hostile, "abuse@bad.example")
    message = message_of(replace(plan, payload={**plan.payload, "subject": name}), NOW)
    head, _, _ = message.as_bytes().partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert sorted(names) == sorted(
        [
            b"from",
            b"to",
            b"reply-to",
            b"subject",
            b"date",
            b"message-id",
            b"auto-submitted",
            b"mime-version",
            b"content-type",
        ]
    )
    assert all(len(line) <= 998 for line in message.as_bytes().split(b"\r\n"))
