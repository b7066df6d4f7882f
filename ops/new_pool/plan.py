"""Plans a new pool: asks for every answer, checks it, and makes settings of it; nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chain.keystore import open_keystore
from config.settings import read_settings
from config.values.endpoints import loopback_warnings, public_endpoints
from ops import wallet_files
from ops.new_pool import checks
from ops.new_pool.checks import ChainFound, PoolFound
from ops.new_pool.files import Places, env_text
from ops.new_pool.questions import Questions
from ops.preflight import require_own_passwords
from protocol.amounts import ether
from protocol.errors import BadInput, BadSetting
from protocol.types import Wallet


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `sluice init`; None where a person is asked, or the default taken."""

    rpc: str | None = None
    ws: str | None = None
    public_rpc: str | None = None
    chain_id: int | None = None
    hub: str | None = None
    workerpool: str | None = None
    host: str | None = None
    start_block: int | None = None
    keystore: Path | None = None
    password_file: Path | None = None
    new_wallet: bool = False
    mongodb: str | None = None
    amqp: str | None = None
    rabbitmq_api: str | None = None
    ipfs_api: str | None = None


@dataclass(frozen=True, slots=True)
class WalletPlan:
    """The pool's wallet. `keystore`, `password_file`: where they are, or will be; with docker compose these are copied
    to where it mounts them from.
    """

    #: None: a new one is made.
    wallet: Wallet | None
    keystore: Path
    password_file: Path
    #: None: what is in `password_file`, or will be.
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What will be written, and what is left for the operator to do."""

    places: Places
    chain: ChainFound
    pool: PoolFound
    own: WalletPlan
    host: str
    env: Mapping[str, str] = field(repr=False)
    todo: tuple[str, ...]


def plan(given: Given, places: Places, questions: Questions) -> PoolPlan:
    """Ask for everything. Raises BadInput, BadSetting, BadKeystore, WrongChain, RpcUnavailable for an option that is
    wrong or missing.
    """
    ask = questions.ask
    chain = ask("--rpc", given.rpc, "Ethereum node, JSON-RPC over HTTP", checks.look_at_chain)
    if given.chain_id is not None and given.chain_id != chain.chain_id:
        raise BadSetting(name="--chain-id", why=f"the node is on chain {chain.chain_id}", fix="Correct one of the two.")
    hub = ask("--hub", given.hub, "PoCo hub", str, default=checks.HUBS.get(chain.chain_id))
    pool = ask(
        "--workerpool",
        given.workerpool,
        "Workerpool contract, address or ENS name",
        lambda workerpool: checks.look_at_pool(chain, hub, workerpool),
    )
    own = _wallet(given, places, pool, questions)
    host = ask("--host", given.host, "Name by which machines reach this pool", _host)
    values = {
        "SLUICE_CHAIN_ID": str(chain.chain_id),
        "SLUICE_RPC_URL": chain.rpc_url,
        **({"SLUICE_WS_URL": given.ws} if given.ws else {}),
        "SLUICE_HUB": pool.hub,
        "SLUICE_WORKERPOOL": pool.address,
        "SLUICE_BLOCK_TIME": f"{chain.block_time:g}",
        "SLUICE_START_BLOCK": str(chain.head if given.start_block is None else given.start_block),
        **_addresses(host, compose=places.compose),
        **({} if places.compose else _servers(given, own, questions)),
    }
    values |= _public_rpc(given, values, questions)
    # Before anything is written.
    env_text(values)
    read = read_settings(**_fields(values))
    require_own_passwords(read)
    todo = [*_todo(chain, pool, own.wallet), *loopback_warnings(read)]
    return PoolPlan(places, chain, pool, own, host, values, tuple(todo))


def _wallet(given: Given, places: Places, pool: PoolFound, questions: Questions) -> WalletPlan:
    """The owner's wallet with its keystore and password, or a new one's."""
    if given.new_wallet:
        if given.keystore is not None:
            raise BadInput(what="--new-wallet makes a wallet, and --keystore names one: give one of them.")
        if given.password_file is None:
            return WalletPlan(None, places.keystore, places.password_file, None)
        if not places.compose:
            return WalletPlan(None, places.keystore, given.password_file.expanduser(), None)
        password = wallet_files.password_in(_file(str(given.password_file)))
        return WalletPlan(None, places.keystore, places.password_file, password)
    text = f"Keystore file of the wallet {pool.owner}, which owns the workerpool"
    path = questions.ask(
        "--keystore", None if given.keystore is None else str(given.keystore), f"{text}; or --new-wallet", _file
    )
    password_file = places.password_file
    if given.password_file is not None:
        password_file = _file(str(given.password_file))
        password = wallet_files.password_in(password_file)
    else:
        password = questions.ask_password("--password-file", f"Password of {path}")
    wallet = open_keystore(path, password).wallet
    if wallet != pool.owner:
        why = f"it holds the wallet {wallet}, and {pool.owner} owns the workerpool"
        raise BadSetting(
            name="--keystore", why=why, fix="Name the owner's keystore; only the owner can finalize tasks."
        )
    return WalletPlan(wallet, path, password_file, password)


def _addresses(host: str, *, compose: bool) -> dict[str, str]:
    """The public addresses for machines and requesters: those of docker-compose.yml's proxy, or the operator's."""
    return {
        "SLUICE_API_URL": f"https://{host}",
        "SLUICE_AMQP_PUBLIC_HOST": host,
        "SLUICE_AMQP_PUBLIC_PORT": "5671",
        "SLUICE_AMQP_PUBLIC_TLS": "true",
        "SLUICE_IPFS_GATEWAY": f"https://{host}" if compose else f"https://ipfs.{host}",
    }


def _servers(given: Given, own: WalletPlan, questions: Questions) -> dict[str, str]:
    """Settings for servers that docker compose does not start, and for the wallet's files."""
    now = read_settings()
    ask = questions.ask
    uri, amqp = now.mongodb_uri.get_secret_value(), now.amqp_url.get_secret_value()
    return {
        "SLUICE_KEYSTORE": str(own.keystore.absolute()),
        "SLUICE_KEYSTORE_PASSWORD_FILE": str(own.password_file.absolute()),
        "SLUICE_MONGODB_URI": ask("--mongodb", given.mongodb, "MongoDB replica set", str, default=uri),
        "SLUICE_AMQP_URL": ask("--amqp", given.amqp, "RabbitMQ, its administrator's URL", str, default=amqp),
        "SLUICE_RABBITMQ_API": ask(
            "--rabbitmq-api", given.rabbitmq_api, "RabbitMQ's management API", str, default=now.rabbitmq_api
        ),
        "SLUICE_IPFS_API": ask("--ipfs-api", given.ipfs_api, "Kubo's RPC API", str, default=now.ipfs_api),
    }


def _public_rpc(given: Given, values: Mapping[str, str], questions: Questions) -> dict[str, str]:
    """A node for machines, where the pool's own address may hold a key."""
    if given.public_rpc is None:
        try:
            public_endpoints(read_settings(**_fields(values)))
        except BadSetting as error:
            if error.fields["name"] != "SLUICE_PUBLIC_RPC_URL":
                raise
        else:
            return {}

    def check(url: str) -> str:
        """The address. Raises BadSetting if it cannot be given to machines."""
        public_endpoints(read_settings(**_fields({**values, "SLUICE_PUBLIC_RPC_URL": url})))
        return url

    text = "Node for machines, since yours may hold a key of yours"
    return {"SLUICE_PUBLIC_RPC_URL": questions.ask("--public-rpc", given.public_rpc, text, check)}


def _todo(chain: ChainFound, pool: PoolFound, wallet: Wallet | None) -> list[str]:
    """What the operator still has to do on chain, one sentence each."""
    if wallet is None:
        return [
            f"The new wallet does not own the workerpool: have {pool.owner} transfer it (an ERC-721 token) to it.",
            "Send the new wallet gas, and RLC for its stake.",
        ]
    found = checks.look_at_wallet(chain, pool.hub, wallet)
    if found.balance >= found.wanted:
        return []
    has, wants = ether(found.balance), ether(found.wanted)
    return [f"Send {wallet} gas: it has {has} of the native token, {checks.TASKS_OF_GAS} tasks need {wants}."]


def _host(text: str) -> str:
    """The host name of `--host`. Raises BadSetting."""
    if not text or not all(character.isalnum() or character in ".-" for character in text):
        raise BadSetting(name="--host", why=f"{text!r} is no host name", fix="Give one like pool.example.")
    return text


def _file(text: str) -> Path:
    """The file that an option names. Raises BadInput if there is none."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise BadInput(what=f"{path} is no file.")
    return path


def _fields(values: Mapping[str, str]) -> dict[str, object]:
    """`SLUICE_…` variables as arguments of `read_settings`."""
    return {name.removeprefix("SLUICE_").lower(): value for name, value in values.items() if name.startswith("SLUICE_")}
