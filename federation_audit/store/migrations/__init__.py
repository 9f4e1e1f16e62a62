"""Alembic's scripts, inside the package so that the wheel has them; `migrating` runs them."""
