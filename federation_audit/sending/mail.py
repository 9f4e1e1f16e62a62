"""The report by mail: text, with the JSON attached; by SMTP with TLS and a login.

The mail says that a program wrote it (`Auto-Submitted`), so that out-of-office replies stay away; answers go to
`reply_to`. Which recipient is a person's choice among the contacts, or given by them.
"""

import asyncio
import re
import secrets
import smtplib
import ssl
from collections.abc import Callable
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from federation_audit.cases import Case
from federation_audit.neutralising import one_line
from federation_audit.reports.json import as_json
from federation_audit.reports.report import make_report
from federation_audit.reports.text import as_text
from federation_audit.sending.confirming import Channel, Confirmation, Outcome, Plan, Sent, check, sent
from federation_audit.sending.errors import Changed, NotSent, SideRefused, SideUnreachable
from federation_audit.sending.settings import MailSecurity, MailSettings

_ADDRESS_MOST = 254
# What a mail server takes without SMTPUTF8: no quotes, no spaces, no comments; the domain in ASCII.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}")


class NotAnAddress(NotSent):
    """A text that is no mail address which we write to."""


def mail_address(text: str) -> str:
    """`text` as a mail address, without a name. Raises `NotAnAddress`."""
    candidate = text.strip().removeprefix("mailto:")
    local = candidate.partition("@")[0]
    dotted = local.startswith(".") or local.endswith(".") or ".." in local
    if len(candidate) > _ADDRESS_MOST or dotted or _ADDRESS.fullmatch(candidate) is None:
        raise NotAnAddress(f"{candidate[:60]!a} is no mail address such as abuse@example.org")
    return candidate


class Mail:
    """A mail server that takes our reports."""

    def __init__(self, settings: MailSettings, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls` says whose certificates count; by default those that the system trusts."""
        self._settings = settings
        self._tls = tls

    def plan(self, case: Case, to: str) -> Plan:
        """The mail about `case` to `to`. Raises `NotAnAddress`, `NothingToReport`, and `NotSent` without settings."""
        settings = self._settings
        if not settings.host or not settings.sender:
            raise NotSent("no mail is set up: set audit.mail.host and audit.mail.sender")
        recipient = mail_address(to)
        reply_to = settings.answer_to
        report = make_report(case, answer_to=reply_to)
        return Plan(
            channel=Channel.MAIL,
            to=recipient,
            request=f"mail by {settings.host}:{settings.port}",
            payload={
                "from": mail_address(settings.sender),
                "reply_to": mail_address(reply_to),
                "to": recipient,
                "subject": one_line(report.subject, 200),
                "text": as_text(report),
                "attachment": as_json(case).decode(),
            },
            changes=(f"{recipient} gets this mail", "no image is in it, and no address of one"),
            nonce=secrets.token_hex(8),
        )

    async def send(self, plan: Plan, confirmation: Confirmation, *, at: datetime) -> Sent:
        """Send the mail, in a thread. Raises `NotSent` while the server has not been given the recipient."""
        check(plan, confirmation)
        if plan.channel is not Channel.MAIL or plan.request != f"mail by {self._settings.host}:{self._settings.port}":
            raise Changed("the mail server has changed since the mail was shown; look at it again")
        message = message_of(plan, at)

        def record(outcome: Outcome, status: int | None, answer: str) -> Sent:
            return sent(plan, confirmation, at=at, outcome=outcome, status=status, answer=answer)

        return await asyncio.to_thread(self._deliver, message, record)

    def _deliver(self, message: EmailMessage, record: Callable[[Outcome, int | None, str], Sent]) -> Sent:
        server = self._connect()
        try:
            try:
                server.send_message(message)
            except smtplib.SMTPRecipientsRefused as error:
                status, said = next(iter(error.recipients.values()))
                return record(Outcome.REFUSED, status, _words(said))
            except smtplib.SMTPResponseException as error:
                refused = 400 <= error.smtp_code < 600
                return record(
                    Outcome.REFUSED if refused else Outcome.UNKNOWN, error.smtp_code, _words(error.smtp_error)
                )
            except (smtplib.SMTPException, OSError) as error:
                return record(Outcome.UNKNOWN, None, f"no whole answer ({type(error).__name__})")
            return record(Outcome.ACCEPTED, 250, f"taken by {self._settings.host}")
        finally:
            try:
                server.quit()
            except (smtplib.SMTPException, OSError):
                server.close()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        context = self._tls or ssl.create_default_context()
        where = f"{settings.host}:{settings.port}"
        try:
            server: smtplib.SMTP
            if settings.security is MailSecurity.TLS:
                server = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=context)
            else:
                server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        except (smtplib.SMTPException, OSError) as error:
            raise SideUnreachable(
                f"no connection to the mail server {where} ({type(error).__name__}: {error})"
            ) from error
        try:
            server.ehlo()
            if settings.security is MailSecurity.STARTTLS:
                server.starttls(context=context)
                server.ehlo()
            if settings.user:
                server.login(settings.user, settings.password.get_secret_value() if settings.password else "")
        except smtplib.SMTPAuthenticationError as error:
            server.close()
            raise SideRefused(
                f"{where} does not take audit.mail.user and audit.mail.password ({error.smtp_code})"
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            server.close()
            raise SideUnreachable(
                f"{where} does not do what audit.mail.security = {settings.security.value} needs"
                f" ({type(error).__name__})"
            ) from error
        return server


def message_of(plan: Plan, at: datetime) -> EmailMessage:
    """The mail of a plan; its headers cannot be broken by what is in it."""
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(addr_spec=plan.payload["from"])
    message["To"] = Address(addr_spec=plan.payload["to"])
    message["Reply-To"] = Address(addr_spec=plan.payload["reply_to"])
    # "=?" would begin an encoded word, which is decoded again, and might hold a line break.
    message["Subject"] = one_line(plan.payload["subject"], 200).replace("=?", "= ?")
    message["Date"] = format_datetime(at)
    domain = plan.payload["from"].rpartition("@")[2]
    message["Message-ID"] = f"<fediwarden.{plan.digest[:32]}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(plan.payload["text"], cte="quoted-printable")
    message.add_attachment(
        plan.payload["attachment"].encode(), maintype="application", subtype="json", filename="report.json"
    )
    return message


def _words(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
