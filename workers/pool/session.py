"""The machine's session with the pool: API token and broker password, in one file that all its processes share.

The process whose token is refused signs in again, under a lock; the others read the new token from the file. A sign-in
changes the broker password too: open connections stay, and new ones read the password here.
"""

from __future__ import annotations

from collections.abc import Callable

from config.whole_files import write_whole
from protocol.errors import NotSignedIn
from protocol.wire import Session
from workers.data.layout import Layout

_LOCK = "session"


class SessionFile:
    """`session.json` of one machine. `sign_in` asks the pool for a new session."""

    def __init__(self, layout: Layout, sign_in: Callable[[], Session]) -> None:
        self._layout = layout
        self._path = layout.session
        self._sign_in = sign_in
        self._known: tuple[tuple[int, int], Session] | None = None

    def current(self) -> Session:
        """The session as it stands in the file. Raises NotSignedIn if there is none."""
        try:
            found = self._path.stat()
            # Each session is a new file; the time alone may repeat within the kernel's tick.
            changed = (found.st_ino, found.st_mtime_ns)
            if self._known is None or self._known[0] != changed:
                self._known = (changed, Session.model_validate_json(self._path.read_bytes(), extra="ignore"))
        except FileNotFoundError as error:
            raise NotSignedIn(why="this machine has not signed in yet") from error
        return self._known[1]

    def renew(self, refused_token: str | None, sign_in: Callable[[], Session] | None = None) -> Session:
        """A session other than the one with `refused_token` (None: any new one), by a sign-in unless another process
        has renewed it already. `sign_in`: used in place of the usual sign-in. Raises what that raises.
        """
        with self._layout.lock(_LOCK, wait=True):
            if refused_token is not None and self._path.exists():
                found = self.current()
                if found.token != refused_token:
                    return found
            session = (sign_in or self._sign_in)()
            self._write(session)
            return session

    def _write(self, session: Session) -> None:
        """Store the session for the machine's other processes."""
        write_whole(self._path, session.model_dump_json(), mode=0o600)
