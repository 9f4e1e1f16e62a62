"""The audit's store as commands read it, and the assessment that all of them show."""

from collections.abc import Iterator
from contextlib import contextmanager

from federation_audit.assessing.assessor import Assessed, Assessor, today_utc
from federation_audit.store.engine import Store
from federation_audit.store.migrating import check_schema
from fediwarden.settings import Settings


@contextmanager
def open_audit_store(settings: Settings) -> Iterator[Store]:
    """The store that the settings name, for as long as the context lasts. Raises `StoreError`: it is not there, or of
    another version."""
    with Store(settings.audit_database) as store:
        check_schema(store)
        yield store


def assess_store(store: Store, settings: Settings) -> Assessed:
    """The assessment of today, by the lists and the domains of our own that the settings name, as the pages make it."""
    assessor = Assessor(
        store, verified_lists=settings.audit.verified_lists, local_domains=settings.tenant_domains.values()
    )
    return assessor.refresh(today_utc())
