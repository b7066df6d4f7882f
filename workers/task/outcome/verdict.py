"""Who is at fault when an engine, a registry or a server answers with an error: the app, or this machine. Pure.

    APP      every honest machine meets the same: it becomes an error result, a vote that says what is wrong
    MACHINE  another machine may do better: the task is declined
    RETRY    the answer decides nothing (busy, unreachable, odd): ask again while time is left, then decline

Only answers that are listed here as APP lead to an error result. An answer that is not listed says nothing about the
app, so an unknown error message of an engine, registry or server costs a decline and no stake.
"""

from __future__ import annotations

import re
from enum import Enum
from http import HTTPStatus

#: Characters read of what an engine or a registry says; a deal's own text may stand in it.
WORDS_READ = 4096


class Verdict(Enum):
    """What an error answer means: an error result (APP), a declined task (MACHINE), or another try (RETRY)."""

    APP = "app"
    MACHINE = "machine"
    RETRY = "retry"


# -- the Docker engine ------------------------------------------------------------------------------------------------

#: Words for a name that no image can have, wherever it is asked for.
_BAD_NAME = re.compile(
    r"(.*: )?(invalid reference format(: repository name (\(.*\) )?must be lowercase)?"
    r"|repository name must be lowercase|invalid repository name .*)"
)
#: Neither the image nor the deal names a program.
_NO_COMMAND = re.compile(r"(.*: )?no command specified", re.IGNORECASE)
#: runc looked for the app's program inside the image. The words before `exec:` matter: a program of the engine's own
#: that is missing (`exec: "runc": executable file not found in $PATH`) reads alike without them.
_PROGRAM = re.compile(
    r".*(?:starting container process caused|unable to start container process)(?:: error during container init)?"
    r': exec: (?P<program>"(?:[^"\\]|\\.)*"): (?P<reason>.*?)(?:: unknown)?',
    re.DOTALL,
)
_PROGRAM_ABSENT = re.compile(
    r"executable file not found in \$PATH|(?:stat .*: )?(?:no such file or directory|permission denied|is a directory)"
)
#: crun's words for the same.
_CRUN = re.compile(r"(?:.*: )?executable file [`'\"].*[`'\"] not found(?: in \$PATH)?: No such file or directory")
#: The image names a user that its own /etc/passwd lacks, or by a number that no user has.
_NO_USER = re.compile(
    r"(?:.*: )?(?:unable to find (?:user|group) .*: no matching entries in (?:passwd|group) file"
    r"|uids and gids must be in range \d+-\d+)",
    re.DOTALL,
)
#: The image has a user that the engine's user namespaces leave out, a volume where the files of the kernel are, or a
#: link that leads the folders of the app there, or nowhere: the engine refuses each time, with a status that otherwise
#: tells of its own trouble.
_NOT_HERE = re.compile(
    r".*unable to start container process: .*(?:cannot set [ug]id to unmapped (?:user|group) in user namespace"
    r'|error mounting ".*/volumes/[0-9a-f]{64}/_data" to rootfs at .*'
    r'|error mounting ".*" to rootfs at ".*": .+(?:too many levels of symbolic links|file name too long'
    r"|read-only file system|not a directory|is a directory|not of type proc|inside /proc)"
    r"|error reopening /dev/null inside container: .*)(?:: unknown)?",
    re.DOTALL,
)


def of_create(status: int, words: str) -> Verdict:
    """The verdict on an engine's error answer to `create`. `status`: of HTTP; `words`: the error's text."""
    if status == HTTPStatus.BAD_REQUEST and (_BAD_NAME.fullmatch(_line(words)) or _NO_COMMAND.fullmatch(_line(words))):
        return Verdict.APP
    return _refused(status)


#: Docker's words for what only this machine asks for: limits, folders, the container's name. No image has a say there.
_OWN_WISHES = re.compile(
    r"(?:.*: )?(?:minimum memory limit allowed is|range of cpus is from|nanocpus can not be set"
    r"|invalid container name|invalid mount config for type \"bind\").*",
    re.IGNORECASE,
)


def is_own_wish(words: str) -> bool:
    """Whether an engine refuses a container for what this machine asks for, whatever the image is."""
    return _OWN_WISHES.fullmatch(_line(words)) is not None


def of_start(status: int, words: str) -> Verdict:
    """The verdict on an engine's error answer to `start`. `status`: of HTTP; `words`: the error's text."""
    if not HTTPStatus.BAD_REQUEST <= status < 600:
        return Verdict.RETRY
    line = _line(words)
    program = _PROGRAM.fullmatch(line)
    if program is not None:
        return Verdict.APP if _PROGRAM_ABSENT.fullmatch(program["reason"]) else _refused(status)
    if _CRUN.fullmatch(line) or _NO_USER.fullmatch(line):
        return Verdict.APP
    return Verdict.MACHINE if _NOT_HERE.fullmatch(line) else _refused(status)


def _refused(status: int) -> Verdict:
    """The verdict on a refusal: MACHINE for a 4xx (the engine does not take the settings), RETRY if it may pass."""
    passing = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
    client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return Verdict.MACHINE if client_error and status not in passing else Verdict.RETRY


# -- registries -------------------------------------------------------------------------------------------------------

#: A registry's codes for an image that nobody can have: absent, or closed to whoever has no login there.
_ABSENT_CODES = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})
_CLOSED_CODE = "DENIED"
#: Statuses by which a registry refuses this machine, or everybody, and will refuse it later too.
_NOT_ALLOWED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS})


def of_registry(status: int, codes: frozenset[str]) -> Verdict:
    """The verdict on a registry's answer other than 200. `codes`: of its errors (OCI distribution)."""
    if status == HTTPStatus.NOT_FOUND and codes & _ABSENT_CODES:
        return Verdict.APP
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and codes == {_CLOSED_CODE}:
        return Verdict.APP
    return Verdict.MACHINE if status in _NOT_ALLOWED else Verdict.RETRY


def is_rate_limit(status: int, codes: frozenset[str]) -> bool:
    """Whether a registry's answer says that this machine has fetched too much for now."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or "TOOMANYREQUESTS" in codes


#: Images that an engine of another name for its processor runs natively.
_RUNS = frozenset({("386", "amd64"), ("arm", "arm64")})


def of_platform(image: tuple[str, str], engine: tuple[str, str]) -> Verdict | None:
    """MACHINE for an image made for another system or processor, by Go's names (`linux`, `amd64`); None for one that
    fits, or where either side does not say. Emulation counts as unfit: it is slower, and lacks instructions.
    """
    (image_os, image_arch), (engine_os, engine_arch) = image, engine
    if not (image_os and image_arch and engine_os and engine_arch):
        return None
    fits = image_os == engine_os and (image_arch == engine_arch or (image_arch, engine_arch) in _RUNS)
    return None if fits else Verdict.MACHINE


# -- how an app ended -------------------------------------------------------------------------------------------------

#: Exit code of an app that got SIGKILL, which no app sends to itself: sent from outside, or by a machine out of memory.
KILLED = 137
#: Exit codes of signals that may be due to the machine: an instruction its processor lacks (SIGILL), a disk or memory
#: that failed (SIGBUS), an operator's `docker stop` (SIGTERM).
_FROM_OUTSIDE = frozenset({132, 135, 143})
#: The only output of an app whose program the system refused to execute, and its exit code then.
_NOT_EXECUTED = re.compile(
    rb"(?:standard_init_linux\.go:\d+: exec user process caused(?:: | \")|exec [^\n]*: )(?P<reason>[^\n]*?)\"?\s*"
)
_NOT_EXECUTED_CODES = frozenset({1, 126, 127, 255})


def of_exit(code: int, stdout: bytes, stderr: bytes) -> Verdict:
    """The verdict on an app that ended by itself, in time and within its memory, without a result."""
    if code == KILLED or code in _FROM_OUTSIDE:
        return Verdict.MACHINE
    refused = None if stdout or code not in _NOT_EXECUTED_CODES else _NOT_EXECUTED.fullmatch(stderr)
    if refused is not None and refused["reason"] != b"no such file or directory":
        # E.g. "exec format error": a machine of another kind, or with an emulator, does execute it.
        return Verdict.MACHINE
    return Verdict.APP


#: The system's words for a quota, and for a disk or quota that is full, as programs of all languages print them. The
#: pool gives no app a quota; /dev/shm is full alike everywhere.
_QUOTA, _FULL = (
    re.compile(rb"disk quota exceeded", re.IGNORECASE),
    re.compile(rb"no space left on device", re.IGNORECASE),
)
#: The same for a disk that fails (EIO, EUCLEAN), or whose server is gone (ESTALE). Node.js has other words for EIO.
_BROKEN = re.compile(
    rb"input/output error|\bEIO: i/o error|structure needs cleaning|stale (?:nfs )?file handle", re.IGNORECASE
)


def says_quota(stdout: bytes, stderr: bytes) -> bool:
    """Whether an app that failed prints that a disk quota was exceeded (EDQUOT): only this machine can have one."""
    return bool(_QUOTA.search(stderr) or _QUOTA.search(stdout))


def says_full_disk(stdout: bytes, stderr: bytes) -> bool:
    """Whether an app that failed prints that a disk was full (ENOSPC)."""
    return bool(_FULL.search(stderr) or _FULL.search(stdout))


def says_broken_disk(stdout: bytes, stderr: bytes) -> bool:
    """Whether an app that failed prints that a disk could not be read or written (EIO and its like)."""
    return bool(_BROKEN.search(stderr) or _BROKEN.search(stdout))


# -- files over HTTP --------------------------------------------------------------------------------------------------

_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


def of_http(status: int) -> Verdict:
    """The verdict on a server's answer other than 200."""
    if status in _GONE:
        return Verdict.APP
    client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    # 401, 403, 451 ...: it may serve other addresses than this machine's.
    return Verdict.MACHINE if client_error and status not in _TRANSIENT else Verdict.RETRY


def _line(words: str) -> str:
    """The first WORDS_READ characters of an error's text, as one line."""
    return " ".join(words[:WORDS_READ].split())
