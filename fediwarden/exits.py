"""Exit codes, and which of our errors stands for which.

An error that one of our packages declares carries a sentence for the person at the terminal; the command line shows
that sentence alone. Any other exception is a fault of ours and keeps its traceback.
"""

import os
from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = os.EX_CONFIG
"""78: nothing will get better by trying again; a person has to change something. `up` does not restart such a child."""

TRY_AGAIN: Final = os.EX_TEMPFAIL
"""75: a restart after a while may mend it, and must not be ruled out."""

START_AGAIN: Final = 85
"""A scanner makes room for one with other models (`scanner.service.START_AGAIN`): start it again, at once."""

OUR_PACKAGES: Final = frozenset({"schemas", "gateway", "scanner", "federation_audit", "fediwarden"})

CODES: Final = {
    "federation_audit.pages.service.CannotServe": CONFIGURATION,
    "fediwarden.settings.SettingsError": CONFIGURATION,
    "fediwarden.environment_file.EnvironmentFileError": CONFIGURATION,
    "fediwarden.children.ChildMisconfigured": CONFIGURATION,
    "fediwarden.demo.home.DemoRefused": CONFIGURATION,
    "gateway.listening.CannotStart": CONFIGURATION,
    "federation_audit.store.errors.SchemaTooNew": CONFIGURATION,
    "federation_audit.store.errors.SchemaTooOld": CONFIGURATION,
    "federation_audit.store.errors.StoreRefused": CONFIGURATION,
    "federation_audit.lemmy.errors.LemmyDatabaseError": FAILED,
    "federation_audit.lemmy.service.NoDatabase": CONFIGURATION,
    "schemas.broker.errors.AccessRefused": CONFIGURATION,
    "schemas.broker.errors.BrokerRefused": CONFIGURATION,
    "schemas.broker.errors.InstanceTaken": TRY_AGAIN,
    "schemas.broker.errors.TopicsNotReady": CONFIGURATION,
    "schemas.keyring.KeyringError": CONFIGURATION,
    "schemas.pseudonyms.PseudonymKeysError": CONFIGURATION,
    "schemas.tls.TlsUnusable": CONFIGURATION,
    "schemas.telemetry.tracing.TracingUnavailable": CONFIGURATION,
    "fediwarden.metrics.listening.CannotListen": CONFIGURATION,
    "scanner.models.model.ModelError": CONFIGURATION,
    "scanner.models.registry.FetchFailed": FAILED,
    "scanner.policy.errors.PolicyError": CONFIGURATION,
}
"""By name, so that nothing heavy is imported to look at an error. The nearest base class named here decides."""


def is_ours(error: BaseException) -> bool:
    """Whether the text of `error` is written for the person at the terminal."""
    return type(error).__module__.partition(".")[0] in OUR_PACKAGES


def exit_code(error: BaseException) -> int:
    """The exit code that an error of ours ends the process with: its own `exit_code`, else by `CODES`, else 1."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((CODES[name] for name in names if name in CODES), FAILED)
