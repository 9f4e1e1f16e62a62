"""``kafka``: what a Kafka that other machines reach needs: certificates and users."""

import typer

from fediwarden.cli import kafka_certs, kafka_users

app = typer.Typer(
    help="A Kafka that other machines reach: certificates for TLS, users with the rights of a role.",
    no_args_is_help=True,
)
app.command("certs")(kafka_certs.certs)
app.add_typer(kafka_users.app, name="users")
