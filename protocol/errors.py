"""Every error Sluice raises on purpose.

    SluiceError
    ├── BadInput                 input is wrong; nothing was done. The command line prints it and exits 2.
    │   ├── BadSetting           a `SLUICE_…` setting or an option
    │   ├── BadKeystore          a wallet file or its password
    │   ├── BadBackup            an archive that `sluice restore` cannot use
    │   ├── BadMessage           a message or request body that breaks its schema (HTTP 400; a queue drops it)
    │   │   ├── TooLarge         more bytes than a request may carry (HTTP 413)
    │   │   └── TooSlow          a body that stalls or comes too slowly: the connection's fault (HTTP 408)
    │   ├── OperatorRefused      what the operator's API answered to a command (`sluice task show` …)
    │   ├── NotPossible          well-formed, but money or state does not allow it now (HTTP 409)
    │   ├── NotFound             a well-formed id of nothing we know (HTTP 404)
    │   └── Refused              well-formed but not allowed: foreign task, wrong result, banned (HTTP 403)
    │       ├── NotSignedIn      no valid token or signature (HTTP 401)
    │       ├── NotOperator      no valid token of the operator's API (HTTP 401)
    │       ├── NoSession        the secret service makes no session of a task; `error`: iExec's name for why (HTTP 401)
    │       └── RefusedHere      ... on this machine or to this machine; the worker that asked declines the task
    │           └── WrongPlatform ... an image that is for another system or processor than the engine's
    ├── Unavailable              something does not answer now; whoever called may try again later
    │   ├── RpcUnavailable       no answer from an Ethereum node: it may or may not have acted
    │   ├── BrokerUnavailable    RabbitMQ
    │   │   └── BrokerRefused    ... its management API answered with no: `status`
    │   ├── EngineUnavailable    the Docker engine
    │   │   └── EngineTrouble    ... answers, but with an error that says nothing of the app
    │   ├── MarketUnavailable    iExec's market API: it may or may not have done what was asked for
    │   ├── NoChallenge          the secret service gave no challenge for a task's enclave; it is asked again
    │   ├── TooManyRequests      more than a limit allows; `seconds` until it may be asked again (HTTP 429)
    │   ├── PoolUnavailable      the scheduler's HTTP API, as a worker sees it
    │   ├── ChainMoved           the blocks are not those that were followed: the watcher must follow first
    │   ├── NotYet               the chain, as the watcher has read it, does not show yet what a request relies on
    │   ├── UnderWay             another request does the same at this time (HTTP 409)
    │   ├── WrongOffset          an upload that goes on elsewhere; `held`: bytes that are here (HTTP 409)
    │   ├── InQuarantine         a stored row that is quarantined (HTTP 503)
    │   └── StorageUnavailable   IPFS, or a download that may work later
    │       ├── RateLimited      ... a registry whose rate limit this machine has reached (HTTP 429)
    │       └── RoomTaken        ... no disk space is left beside other results that are being uploaded
    ├── EngineRefused            the Docker engine answered with no; caught by the worker that asked
    │   ├── NoSuchImage          ... it does not have the image: pull it
    │   ├── CannotStart          ... the image or its command can never run: the app failed
    │   ├── ContainerRefused     ... this machine's settings or limits do not suit it: another machine may do better
    │   └── NoSuchContainer      ... the container is gone: start over
    ├── Unfit                    a stored row that does not fit its record; its reader quarantines it and goes on
    ├── Unreadable               a record on chain that can never be used; the ingest quarantines the deal
    ├── RpcError                 an Ethereum node answered with an error: `code`, `message`, `data`
    ├── TransactionReverted      a contract refused a set-up transaction (`ops`); the lane knows reverts as verdicts
    ├── TransferDropped          a deposit or withdrawal that is not made. The command line prints it and exits 1.
    ├── SchedulerNotReady        what the scheduler needs is not there. The command line prints it and exits 1.
    ├── MarketRefused            iExec's market API answered with no: `why`, `status`; the order is asked about again
    ├── WrongChain               chain id or hub code are not what the settings say. The process stops.
    │   └── NodesOfOtherChain    ... of all nodes that are named; also an RpcUnavailable, which a running process awaits
    ├── LaneError                the serial transaction lane; caught by the lane's own run
    │   ├── LeaseLost            another run holds this wallet now
    │   ├── LaneFull             too many intents queued; the caller must wait
    │   └── ForeignNonce         the wallet's key was used outside Sluice. The lane stops until an operator decides.
    ├── StackError               the local stack; the command line prints it and exits 1
    │   ├── MissingTool          a program the machine lacks and how to get it
    │   ├── PortTaken            another program listens where a part should
    │   └── NotReady             a part was started and did not come up; says where its log is
    └── TaskFailure              a worker could not do a task; carries the PoCo status and cause: an error result tells
        │                        the requester
        └── TaskDeclined         the fault is this machine's, not the task's: it contributes nothing

The docstring is the message; `{fields}` are filled from the keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable


class SluiceError(Exception):
    """Sluice failed."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        template = " ".join((type(self).__doc__ or "").split())
        super().__init__(template.format(**fields))

    def __reduce__(self) -> tuple[Callable[..., SluiceError], tuple[object, ...]]:
        """By its fields: an exception is pickled by its arguments, and a Celery process hands each on to its parent."""
        return _with_fields, (type(self), self.fields)


def _with_fields(kind: type[SluiceError], fields: dict[str, object]) -> SluiceError:
    """The error with its fields again, as pickle makes it in another process."""
    return kind(**fields)


class BadInput(SluiceError):
    """{what}"""


class BadSetting(BadInput):
    """Setting {name} is wrong: {why}. {fix}"""


class BadKeystore(BadInput):
    """Wallet file {path} cannot be used: {why}. {fix}"""


class BadBackup(BadInput):
    """Backup {path} cannot be used: {why}. {fix}"""


class BadMessage(BadInput):
    """The message is not valid: {why}."""


class TooLarge(BadMessage):
    """The body is larger than {limit} bytes, which is the most this request may carry."""


class TooSlow(BadMessage):
    """The body came too slowly: {why}."""


class OperatorRefused(BadInput):
    """{says} {fix}"""


class NotPossible(BadInput):
    """{what}"""


class NotFound(BadInput):
    """No such {what}."""


class Refused(BadInput):
    """Refused: {why}."""


class NotSignedIn(Refused):
    """Not signed in: {why}."""


class NotOperator(Refused):
    """Not allowed: {why}."""


class NoSession(Refused):
    """No session: {why}."""


class RefusedHere(Refused):
    """Refused on this machine: {why}."""


class WrongPlatform(RefusedHere):
    """Refused on this machine: {why}."""


class Unavailable(SluiceError):
    """{what} does not answer: {why}."""


class RpcUnavailable(Unavailable):
    """The Ethereum node at {what} does not answer: {why}."""


class BrokerUnavailable(Unavailable):
    """RabbitMQ at {what} does not answer: {why}."""


class BrokerRefused(BrokerUnavailable):
    """RabbitMQ at {what} refuses {request}: it answered {status}, {why}."""


class EngineUnavailable(Unavailable):
    """The Docker engine at {what} does not answer: {why}. Start it, or name another with SLUICE_DOCKER_HOST."""


class EngineTrouble(EngineUnavailable):
    """The Docker engine at {what} answers with an error: {why}"""


class MarketUnavailable(Unavailable):
    """{what} gave no answer that can be used: {why}."""


class NoChallenge(Unavailable):
    """{what} gave no challenge: {why}."""


class TooManyRequests(Unavailable):
    """Too many requests of this kind from this {who}: the limit is {limit}."""


class PoolUnavailable(Unavailable):
    """The pool's API at {what} does not answer: {why}."""


class InQuarantine(Unavailable):
    """The {what} does not fit this release and is quarantined. `sluice quarantine ls` says why."""


class ChainMoved(Unavailable):
    """Around block {block} the chain is not the one that was followed. Try again when the watcher has followed it."""


class NotYet(Unavailable):
    """{what} is not on chain yet: {why}."""


class UnderWay(Unavailable):
    """{what} is under way already: {why}."""


class WrongOffset(Unavailable):
    """The upload goes on at byte {held}: {why}."""


class StorageUnavailable(Unavailable):
    """Could not reach {what}: {why}."""


class RateLimited(StorageUnavailable):
    """Could not reach {what}: {why}."""


class RoomTaken(StorageUnavailable):
    """Not enough of {what} is left beside other results that are being uploaded: {why}."""


class EngineRefused(SluiceError):
    """Docker refused: {why}"""


class NoSuchImage(EngineRefused):
    """Docker has no image {why}."""


class CannotStart(EngineRefused):
    """The app cannot be started: {why}"""


class ContainerRefused(EngineRefused):
    """Docker refuses to run the container on this machine: {why}"""


class NoSuchContainer(EngineRefused):
    """Docker has no container {why}."""


class Unfit(SluiceError):
    """{why}"""


class Unreadable(SluiceError):
    """The {what} can never be used: {why}."""


class RpcError(SluiceError):
    """The Ethereum node answered {method} with error {code}: {message}."""

    @property
    def code(self) -> int:
        """JSON-RPC error code."""
        return int(str(self.fields["code"]))

    @property
    def message(self) -> str:
        """The node's own words."""
        return str(self.fields["message"])

    @property
    def data(self) -> object:
        """Revert data or other detail, if any."""
        return self.fields.get("data")

    @property
    def others(self) -> tuple[RpcError, ...]:
        """What other nodes answered to the same transaction, if several were asked and none took it."""
        others = self.fields.get("others")
        return others if isinstance(others, tuple) else ()


class TransactionReverted(SluiceError):
    """Transaction {tx} was mined but the contract refused it: {why}."""


class TransferDropped(SluiceError):
    """The {direction} of {amount} RLC is dropped: {why}."""


class SchedulerNotReady(SluiceError):
    """{why}"""


class MarketRefused(SluiceError):
    """The market API refuses: {why}."""


class WrongChain(SluiceError):
    """The chain is not the one the settings describe: {why}. {fix}"""


class NodesOfOtherChain(WrongChain, RpcUnavailable):
    """The chain is not the one the settings describe: {why}. {fix}"""


class LaneError(SluiceError):
    """The lane of wallet {wallet} cannot go on: {why}."""


class LeaseLost(LaneError):
    """Another run holds the lane of wallet {wallet} now (fence {fence})."""


class LaneFull(LaneError):
    """The lane of wallet {wallet} already has {queued} intents queued; wait for it to drain."""


class ForeignNonce(LaneError):
    """Nonce {nonce} of wallet {wallet} was used by a transaction that is not ours ({why}); the lane has stopped."""


class StackError(SluiceError):
    """{what}"""


class MissingTool(StackError):
    """{tool} is missing and could not be installed: {why}. {fix}"""


class PortTaken(StackError):
    """Port {port}, wanted for {part}, is taken by another program. Stop it, or set {setting} to a free port."""


class NotReady(StackError):
    """{part} did not become ready within {seconds} s; its log is {log}. {why}"""


class TaskFailure(SluiceError):
    """Task {task} failed at {status}: {cause}. {why}"""

    @property
    def status(self) -> str:
        """PoCo replicate status, e.g. APP_DOWNLOAD_FAILED."""
        return str(self.fields["status"])

    @property
    def cause(self) -> str:
        """PoCo cause, e.g. APP_IMAGE_DOWNLOAD_FAILED."""
        return str(self.fields["cause"])


class TaskDeclined(TaskFailure):
    """This machine cannot do task {task} ({cause}): {why}"""
