"""Alembic's entry: runs the scripts on the connection that `store.migrating` hands over, in its transaction."""

from alembic import context

from federation_audit.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
