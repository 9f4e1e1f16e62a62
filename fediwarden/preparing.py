"""`fediwarden prepare`: what has to be there before the services of a fediwarden that brings no Kafka are started.

`fediwarden up` does the same before it starts its own. Everything here may be done again at any time.
"""

import asyncio
from collections.abc import Iterator, Sequence

from fediwarden.downloads import Downloads, Report
from fediwarden.settings import Settings, SettingsError
from fediwarden.up import ask_patiently, fetch_models
from schemas.broker import apply_topics
from schemas.keyring import Keyring


async def run_prepare(settings: Settings) -> Sequence[str]:
    """Make the key file, fetch the models' weights, wait for Kafka and make its topics. Returns what is there then.

    Raises `SettingsError` (the embedded Kafka, which only `up` runs), `schemas.keyring.KeyringError`,
    `scanner.models.model.ModelError` or `schemas.broker.BrokerError`.
    """
    if settings.kafka.embedded:
        raise SettingsError(
            "kafka.bootstrap_servers is not set: `prepare` is for a Kafka of your own; `fediwarden up` prepares and"
            " runs the embedded one"
        )
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    keyring = Keyring.load_or_create(settings.keys_file)
    with Downloads() as downloads:
        await asyncio.to_thread(_fetch, settings, downloads.track("models"))
    broker = settings.kafka.broker_settings()
    await ask_patiently(lambda: apply_topics(broker))
    return list(_describe(settings, len(keyring.key_ids)))


def _fetch(settings: Settings, report: Report) -> None:
    fetch_models(settings, settings.scanner.models, report)


def _describe(settings: Settings, keys: int) -> Iterator[str]:
    yield f"key file  {settings.keys_file} ({keys} {'key' if keys == 1 else 'keys'})"
    yield f"models    {', '.join(settings.scanner.models)} in {settings.models_dir}"
    yield f"topics    as declared, at {settings.kafka.bootstrap_servers}"
