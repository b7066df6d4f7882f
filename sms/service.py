"""What the secret service does, without HTTP: store secrets, tell challenges, make and hand out sessions."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from protocol.enclave.secrets import SecretId, require_value, storing_hash
from protocol.enclave.session import (
    FrameworkProperties,
    Session,
    SessionError,
    SessionPlace,
    SessionRequest,
    fetching_hash,
)
from protocol.errors import NoSession, NotFound, NotPossible, NotSignedIn
from protocol.types import TaskId, Wallet
from sms import bulk
from sms.authorize import challenge_refusal, session_refusal, signed_by, worker_asks
from sms.chain import ChainReader
from sms.challenges import Challenges
from sms.ipfs import IpfsFiles
from sms.provision import Provisioner
from sms.session import Values, Wanted, make_session
from sms.store.port import OpenSession, Row, SecretStore
from sms.vault import Vault

log = structlog.get_logger(__name__)

_ALPHABET = string.ascii_letters + string.digits
#: Random characters of a session's id, as iExec's; the id alone gives no access.
_ID_CHARACTERS = 10
#: Seconds in which a worker may fetch a simulated session; it asks for another after that.
SESSION_SECONDS = 300
_NO_SESSION = "session, or it was fetched before"


@dataclass(frozen=True, slots=True)
class SecretService:
    """The service over its parts. `clock`: Unix seconds. Every method raises Unavailable while chain or store do not
    answer.
    """

    store: SecretStore
    vault: Vault
    chain: ChainReader
    provisioner: Provisioner
    #: Images by version of the framework, the default one first.
    properties: dict[str, FrameworkProperties]
    files: IpfsFiles
    clock: Callable[[], float] = field(default=time.time)

    # -- secrets -------------------------------------------------------------------------------------------------------

    def has(self, secret: SecretId) -> bool:
        """Whether a secret is stored. Anybody may ask."""
        return self.store.has(secret.key)

    def add(self, secret: SecretId, value: bytes, signature: str) -> None:
        """Store a secret for the first time. Raises BadMessage, TooLarge; NotSignedIn; NotPossible if there is one."""
        self._require_owner(secret, value, signature)
        if not self.store.add(Row(secret.key, self.vault.seal(value, secret.key))):
            raise NotPossible(what="There is such a secret already.")
        _log("Secret stored.", "secret_stored", secret)

    def change(self, secret: SecretId, value: bytes, signature: str) -> None:
        """Store another value. Raises BadMessage, TooLarge; NotSignedIn; NotFound; NotPossible if it never changes."""
        if not secret.kind.changeable:
            raise NotPossible(what="A secret of this kind is stored once and never changed.")
        self._require_owner(secret, value, signature)
        if not self.store.replace(secret.key, self.vault.seal(value, secret.key)):
            raise NotFound(what="secret")
        _log("Secret changed.", "secret_changed", secret)

    def _require_owner(self, secret: SecretId, value: bytes, signature: str) -> None:
        """Raise NotSignedIn unless the secret's owner has signed to store this value."""
        require_value(value)
        owner = self.chain.owner_of(secret) if secret.kind.of_contract else Wallet(secret.owner)
        if not signed_by(owner, storing_hash(secret, value), signature):
            raise NotSignedIn(why=f"this is not signed by {owner}, who alone may store it")

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def challenge(self, task: TaskId, signature: str) -> Wallet:
        """The task's challenge, for the workerpool's owner. Raises NoSession."""
        execution = self.chain.execution(task)
        refusal = challenge_refusal(execution, self.framework, signature, self.clock())
        if refusal is not None:
            raise NoSession(error=refusal, why="the challenge is for the owner of an open TEE task's workerpool")
        return Challenges(self.store, self.vault).find_or_make(task, execution.place.final_deadline)

    def open_session(self, request: SessionRequest, signature: str) -> SessionPlace:
        """A session for the worker that asks, in place of one that it had for the task. Raises NoSession."""
        if not worker_asks(request, signature):
            raise NoSession(error=SessionError.INVALID_AUTHORIZATION, why="the worker it names has not signed it")
        worker, task, challenge = request.subject
        execution = self.chain.execution(task)
        now = self.clock()
        own = Challenges(self.store, self.vault).address(task)
        refusal = session_refusal(execution, self.framework, request, own, now)
        if refusal is not None:
            raise NoSession(error=refusal, why="the authorization is for no open task, or not its workerpool owner's")
        session_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS)) + "0000" + task
        opened = OpenSession(session_id, task, worker, challenge, now + SESSION_SECONDS)
        url = self.provisioner.deliver(self._session(opened), opened)
        log.info("Session made.", action="session_made", task=task, worker=worker)
        return SessionPlace(session_id=session_id, secret_provisioning_url=url)

    def take_session(self, session_id: str, signature: str) -> Session:
        """A simulated session, once, for the worker it was made for. Raises NotFound; NoSession; NotSignedIn."""
        opened = self.store.session(session_id)
        if opened is None or self.clock() >= opened.ends_at:
            raise NotFound(what=_NO_SESSION)
        if not signed_by(opened.wallet, fetching_hash(session_id), signature):
            raise NotSignedIn(why="the worker that it was made for has not signed this")
        # Taken last: neither somebody else's request nor a chain that does not answer uses it up.
        session = self._session(opened)
        if not self.store.take_session(session_id):
            raise NotFound(what=_NO_SESSION)
        return session

    def _session(self, opened: OpenSession) -> Session:
        """The session of a task with all of its secrets opened. Raises NoSession."""
        wanted = Wanted.of(self.chain.execution(opened.task_id), opened.wallet)
        if bulk.named(wanted.params):
            wanted = replace(wanted, bulk=bulk.datasets(wanted.execution, wanted.params, self.files, self.chain))
        key = Challenges(self.store, self.vault).key(opened.task_id)
        if key is None:
            raise NoSession(error=SessionError.NO_CHALLENGE, why="the task has no challenge here")
        rows = self.store.find([secret.key for secret in wanted.secrets.values()])
        found = {
            use: self.vault.open(rows[secret.key].sealed, secret.key).decode()
            for use, secret in wanted.secrets.items()
            if secret.key in rows
        }
        return make_session(opened.session_id, wanted, Values(found, key), self._usual)

    # -- images --------------------------------------------------------------------------------------------------------

    @property
    def framework(self) -> str:
        """The kind of enclave that is served."""
        return self._usual.tee_framework

    def images(self, framework: str, version: str | None = None) -> FrameworkProperties:
        """The images around an app, of the first version unless one is asked for. Raises NotFound, NotPossible."""
        found = self._usual if version is None else self.properties.get(version)
        if found is None:
            raise NotFound(what="version of the framework")
        if framework.upper() != self.framework:
            raise NotPossible(what=f"This service serves {self.framework}.")
        return found

    @property
    def _usual(self) -> FrameworkProperties:
        """The framework's first version in the file, which deals without a version get."""
        return next(iter(self.properties.values()))


def _log(sentence: str, action: str, secret: SecretId) -> None:
    """Log what was done with a secret, without its value."""
    log.info(sentence, action=action, kind=secret.kind.value, owner=secret.owner, name=secret.name)
