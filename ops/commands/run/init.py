"""`sluice init`: the files of a new pool."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ops.admin import screen
from ops.admin.screen import DryRun, Json
from protocol.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add `sluice init`."""
    app.command(
        "init",
        epilog="Examples: `sluice init`, `sluice init --yes --rpc https://rpc.example --workerpool 0x… --host"
        " pool.example --keystore owner.json --password-file owner.password`, `sluice init --dry-run --json …`,"
        " `sluice init --dev`",
    )(_init)


def _init(
    *,
    rpc: Annotated[str | None, typer.Option("--rpc", help="Ethereum node, JSON-RPC over HTTP.")] = None,
    workerpool: Annotated[str | None, typer.Option("--workerpool", help="Address or ENS name of the contract.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Name by which machines reach this pool.")] = None,
    keystore: Annotated[
        Path | None, typer.Option("--keystore", help="The workerpool owner's keystore, which is copied or used.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with its password. Default: asked for.")
    ] = None,
    new_wallet: Annotated[
        bool, typer.Option("--new-wallet", help="Make a wallet, which must be given the workerpool then.")
    ] = False,
    hub: Annotated[
        str | None, typer.Option("--hub", help="PoCo hub, address or ENS name. Default: the chain's, if known.")
    ] = None,
    chain_id: Annotated[
        int | None, typer.Option("--chain-id", help="The chain that the node must be on. Default: the node's.")
    ] = None,
    start_block: Annotated[
        int | None, typer.Option("--start-block", min=0, help="A block before the first deal. Default: the head.")
    ] = None,
    ws: Annotated[str | None, typer.Option("--ws", help="The node's WebSocket. Default: the head is polled.")] = None,
    public_rpc: Annotated[
        str | None, typer.Option("--public-rpc", help="Node for machines, if yours may hold a key of yours.")
    ] = None,
    mongodb: Annotated[str | None, typer.Option("--mongodb", help="MongoDB's URI, without docker compose.")] = None,
    amqp: Annotated[str | None, typer.Option("--amqp", help="RabbitMQ's URL, without docker compose.")] = None,
    rabbitmq_api: Annotated[
        str | None, typer.Option("--rabbitmq-api", help="RabbitMQ's management API, without docker compose.")
    ] = None,
    ipfs_api: Annotated[str | None, typer.Option("--ipfs-api", help="Kubo's API, without docker compose.")] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the files go; that of docker-compose.yml.")] = Path(),
    dev: Annotated[
        bool,
        typer.Option("--dev", help="With docker compose: make a chain with PoCo and a workerpool on it, to try it."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take defaults without asking.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Set a new pool up: ask, check each answer with the node, and write its settings and secrets. Nothing is started.

    In the folder of docker-compose.yml it writes all that `docker compose up` needs: `.env`, new passwords, the
    wallet, a certificate for the proxy and RabbitMQ. Elsewhere it writes `.env` for `sluice scheduler run` on servers
    that are there. All files are their owner's only, and none is overwritten. With `--dev` it needs no node: `docker
    compose up` then has a chain of its own, on which the pool's wallet has a workerpool, gas and stake. Exit code 2 if
    an answer is wrong or missing, 1 if the node does not answer.
    """
    from ops.new_pool import files  # noqa: PLC0415
    from ops.new_pool.files import Places  # noqa: PLC0415
    from ops.new_pool.plan import Given, plan  # noqa: PLC0415
    from ops.new_pool.questions import Questions  # noqa: PLC0415
    from ops.new_pool.write import Written, next_commands, write  # noqa: PLC0415

    given = Given(
        rpc=rpc,
        ws=ws,
        public_rpc=public_rpc,
        chain_id=chain_id,
        hub=hub,
        workerpool=workerpool,
        host=host,
        start_block=start_block,
        keystore=keystore,
        password_file=password_file,
        new_wallet=new_wallet,
        mongodb=mongodb,
        amqp=amqp,
        rabbitmq_api=rabbitmq_api,
        ipfs_api=ipfs_api,
    )
    if dev and dry_run:
        raise BadInput(what="--dev makes a chain to look at, so it has no --dry-run.")
    people = sys.stdin.isatty() and not as_json
    places, questions = Places.of(folder), Questions(people=people, defaults=yes or dev)
    if dev:
        from ops.new_pool.development import development_chain, in_containers  # noqa: PLC0415

        with development_chain(places) as chain:
            made = in_containers(plan(chain.given(given), places, questions))
            saved = chain.save()
        written = write(made)
        done: Written | None = replace(written, files=(*saved, *written.files))
    else:
        made = plan(given, places, questions)
        done = None if dry_run else write(made)
    wallet = made.own.wallet if done is None else done.wallet
    commands = next_commands(made.places, () if done is None else done.commands)
    if as_json:
        answer = {
            "dry_run": dry_run,
            "chain_id": made.chain.chain_id,
            "hub": made.pool.hub,
            "workerpool": made.pool.address,
            "wallet": wallet,
            "settings": sorted(made.env),
            "files": [] if done is None else [str(path) for path in done.files],
            "todo": made.todo,
            "next": commands,
        }
        print(json.dumps(answer, indent=1))
        return
    about = f'workerpool {made.pool.address} "{screen.printable(made.pool.description)}"'
    print(f"chain {made.chain.chain_id}, block {made.chain.head}, {made.chain.block_time:g} s a block; {about}")
    print(f"wallet {wallet or 'to be made'}")
    if done is None:
        print(f"Would write {files.ENV} with {', '.join(sorted(made.env))}. Nothing was written.")
        return
    for path in done.files:
        print(f"wrote {path}")
    for line in made.todo:
        print(f"still to do: {line}")
    print("Next:")
    for line in commands:
        print(f"  {line}")
