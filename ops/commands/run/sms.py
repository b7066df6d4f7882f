"""`sluice sms run | rotate | images`: the secret service for enclaves, and what runs around their apps."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from config.logging import configure
from config.settings import settings
from config.values.sms_settings import sms_key_file, sms_settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json
from ops.admin.service_lines import JsonLines, write_json_lines


def register(app: typer.Typer) -> None:
    """Add `sluice sms …`."""
    group = typer.Typer(no_args_is_help=True, help="The secret service for enclaves: an iExec SMS.")
    group.command("run", epilog="Examples: `sluice sms run`, `sluice sms run --json`")(_run)
    group.command(
        "rotate",
        epilog="Examples: `sluice sms rotate --dry-run`, `sluice sms rotate`, `sluice sms rotate --finish --json`",
    )(_rotate)
    group.command("images", epilog="Examples: `sluice sms images > properties.json`, `sluice sms images --dry-run`")(
        _images
    )
    app.add_typer(group, name="sms")


def _run(as_json: JsonLines = False) -> None:
    """Keep secrets of dataset owners, app developers and requesters, and give them to enclaves, until SIGTERM.

    Needs the chain (`SLUICE_RPC_URL`, `SLUICE_HUB`) and MongoDB (`SLUICE_MONGODB_URI`) or a file
    (`SLUICE_SMS_SQLITE_FILE`), and nothing of the scheduler.
    Its own settings are `SLUICE_SMS_…`: docs/secret-service.md.
    """
    from sms import serve  # noqa: PLC0415 # help is printed at once

    write_json_lines(as_json)
    now = settings()
    configure(now, process="sms")
    serve.run(now, sms_settings())


def _rotate(
    finish: Annotated[
        bool, typer.Option("--finish", help="No new key: finish what was begun, and drop keys that nothing needs.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Encrypt all that is stored with a new key. Running services take it at once; nothing is restarted.

    Needs SLUICE_SMS_KEY_FILE, which it changes: copy it elsewhere afterwards. The former key is dropped by a run that
    comes a minute later or more (`--finish`). Exit code 1 if there are rows that no key opens, 2 without the file.
    """
    from ops.admin.keys import require_there  # noqa: PLC0415
    from sms.rotate import plan, rotate  # noqa: PLC0415
    from sms.store import choice  # noqa: PLC0415
    from sms.vault import Vault  # noqa: PLC0415

    now, sms = settings(), sms_settings()
    require_there(sms_key_file(now.home, sms), "SLUICE_SMS_KEY_FILE")
    store, vault = choice.chosen(now, sms), Vault.of(now, sms)
    if dry_run:
        planned = plan(store, vault, screen.clock(), new_key=not finish)
        screen.show({**asdict(planned), "done": False}, planned.says, as_json=as_json)
        return
    done = rotate(store, vault, screen.clock(), new_key=not finish)
    says = [f"Key {done.key} is in use; {done.rows} rows were encrypted with it."]
    if done.dropped:
        says.append(f"Dropped: {', '.join(done.dropped)}.")
    if done.kept:
        until = "while values that no key opens may be theirs" if done.unreadable else "for a minute more"
        says.append(f"Kept {until}: {', '.join(done.kept)}. Then: `sluice sms rotate --finish`.")
    if done.unreadable:
        says.append(
            f"No key opens {', '.join(done.unreadable)}: their values are lost unless a copy of the file has it."
        )
    screen.show(asdict(done), "\n".join(says), as_json=as_json)
    if done.unreadable:
        raise typer.Exit(1)


def _images(
    dry_run: DryRun = False,
    # For errors; `cli.run` looks for the word.
    _as_json: Annotated[
        bool, typer.Option("--json", help="Errors as JSON too; standard output has it anyway.")
    ] = False,
) -> None:
    """Build our images of pre- and post-compute, and of the launcher that gives programs their secrets, and load them
    into this machine's Docker engine (`SLUICE_DOCKER_HOST`).

    Machines with SLUICE_ENCLAVE=simulated need them, those with tdx the launcher. Prints what
    SLUICE_SMS_PROPERTIES_FILE of a secret service may say of the first two.
    """
    from contextlib import closing  # noqa: PLC0415 # help is printed at once

    from ops.stack import enclave_images  # noqa: PLC0415
    from workers.sandbox.engine.container import Engine  # noqa: PLC0415

    with closing(Engine(settings().docker_host)) as engine:
        if dry_run:
            has = {name: engine.image_id(name) for name in enclave_images.IMAGES.values()}
            typer.echo(json.dumps({"would_build_and_load": list(has), "loaded_now": has, "done": False}, indent=2))
            return
        typer.echo(json.dumps(enclave_images.properties(enclave_images.load(engine)), indent=2))
