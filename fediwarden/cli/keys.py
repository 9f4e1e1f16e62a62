"""``keys``: the keys that frames are encrypted with, by id; never a key itself."""

import typer

from fediwarden.cli.options import ConfigOption, DataDirOption, JsonOption, nested_flags, read_settings

app = typer.Typer(help="Keys that frames are encrypted with: add (rotate), list.", no_args_is_help=True)

RESTART = (
    "Copy the file to every other machine that has one. Then restart what reads it, scanners first, so that every "
    "scanner can open what gateways seal; `fediwarden up` restarted does both. Do it now: a gateway that restarts "
    "by itself uses the new key at once."
)


@app.command("add")
def add(data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Add a new key and make it the one that seals. The old ones stay and open what they sealed."""
    from fediwarden.rotation import add_key

    path = read_settings(config, nested_flags(data_dir=data_dir)).keys_file
    keyring = add_key(path)
    typer.echo(f"{path}: added {keyring.primary}, which is the primary key now; {len(keyring.key_ids)} keys in all")
    typer.echo(RESTART)


@app.command("list")
def list_(data_dir: DataDirOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the ids of the keys, oldest first."""
    from schemas.keyring import Keyring

    keyring = Keyring.load(read_settings(config, nested_flags(data_dir=data_dir)).keys_file)
    if as_json:
        import json

        rows = [{"id": key_id, "primary": key_id == keyring.primary} for key_id in keyring.key_ids]
        typer.echo(json.dumps(rows, indent=2))
        return
    for key_id in keyring.key_ids:
        typer.echo(f"{key_id}  primary" if key_id == keyring.primary else key_id)
