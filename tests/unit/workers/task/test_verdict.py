"""Which answers say something of the app: those listed, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ContainerRefused, EngineUnavailable, RefusedHere, SluiceError
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, counts_against_machine
from workers.task.outcome import verdict
from workers.task.outcome.failed_task import cause_of_refusal
from workers.task.outcome.verdict import WORDS_READ, Verdict

RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
OLD_RUNC = "OCI runtime create failed: container_linux.go:380: starting container process caused: "

#: Words of `start` for which every machine with the image fails alike.
APP_STARTS = [
    RUNC + 'exec: "/no/such": stat /no/such: no such file or directory: unknown',
    RUNC + 'exec: "nosuch": executable file not found in $PATH: unknown',
    RUNC + 'error during container init: exec: "nosuch": executable file not found in $PATH',
    RUNC + 'exec: "/etc": permission denied: unknown',
    RUNC + 'exec: "/bin": is a directory: unknown',
    OLD_RUNC + 'exec: "a \\"quoted\\" name": executable file not found in $PATH: unknown',
    "unable to find user nobody9: no matching entries in passwd file",
    "unable to find group g: no matching entries in group file",
    "uids and gids must be in range 0-2147483647",
    "crun: executable file `x` not found in $PATH: No such file or directory",
]
#: ... and for which another machine may do better.
MACHINE_STARTS = [
    'OCI runtime create failed: unable to retrieve OCI runtime error: exec: "runc": executable file not found in $PATH',
    'exec: "docker-init": executable file not found in $PATH',
    RUNC + 'exec: "/app": exec format error: unknown',
    RUNC + 'exec: "/app": stat /app: input/output error: unknown',
    RUNC + "error during container init: error setting cgroup config for procHooks process: no such file or directory",
    RUNC + 'error mounting "/in" to rootfs at "/iexec_in": permission denied: unknown',
    RUNC + 'exec: "x\\": executable file not found in $PATH": exec format error: unknown',
    "container is marked for removal and cannot be started",
    "cgroups: cgroup mountpoint does not exist: unknown",
    "no space left on device",
    "driver failed programming external connectivity on endpoint x: permission denied",
    "",
]
#: ... among them those that an image brings about by itself, each time it is started on such a machine.
OF_THE_IMAGE = [
    RUNC + "unable to setup user: cannot set uid to unmapped user in user namespace: unknown",
    RUNC + "error during container init: cannot set gid to unmapped group in user namespace",
    RUNC
    + f'error during container init: error mounting "/var/lib/docker/volumes/{"8" * 64}/_data" to rootfs at "/proc":'
    ' "/merged/proc" cannot be mounted because it is not of type proc: unknown',
    *(
        RUNC + f'error during container init: error mounting "/home/w/in" to rootfs at "/iexec_in": {why}: unknown'
        for why in (
            '"/overlay2/1/merged/proc/1" cannot be mounted because it is inside /proc',
            '"/overlay2/1/merged/proc" cannot be mounted because it is not of type proc',
            "SecureJoin /overlay2/1/merged//iexec_in/: too many levels of symbolic links",
            "mkdir /overlay2/1/merged/sys/new: read-only file system",
            "mkdir /overlay2/1/merged/aaa: file name too long",
        )
    ),
    RUNC + "error during container init: error reopening /dev/null inside container: open /dev/null: is a directory",
]

OTHER_WORDS = [
    "toomanyrequests: You have reached your pull rate limit.",
    "received unexpected HTTP status: 503 Service Unavailable",
    "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
    "Get https://registry.test/v2/: dial tcp: lookup registry.test: no such host",
    "net/http: TLS handshake timeout",
    "x509: certificate has expired or is not yet valid: current time 2020-01-01T00:00:00Z is before 2024-01-01",
    "no matching manifest for linux/arm64/v8 in the manifest list entries",
    "manifest for a/b:1 not found: manifest unknown: OCI index found, but Accept header does not support OCI indexes",
    "error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"<html>\"",
    "unauthorized: incorrect username or password",
    "denied: denied",
    "failed to register layer: Error processing tar file(exit status 1): operation not permitted",
    "context canceled",
    "unexpected EOF",
    "",
]


@pytest.mark.parametrize("words", APP_STARTS)
@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_program_or_user_that_the_image_lacks_is_the_apps_own_failure(words: str, status: int) -> None:
    assert verdict.of_start(status, words) is Verdict.APP


@pytest.mark.parametrize("words", MACHINE_STARTS)
@pytest.mark.parametrize("status", [400, 403, 404, 409, 500, 503])
def test_an_engine_that_cannot_start_a_container_says_nothing_of_the_app(words: str, status: int) -> None:
    assert verdict.of_start(status, words) is not Verdict.APP


@pytest.mark.parametrize("words", OF_THE_IMAGE)
@pytest.mark.parametrize("status", [400, 500])
def test_what_an_image_asks_for_without_effect_each_time_is_not_asked_again(words: str, status: int) -> None:
    assert verdict.of_start(status, words) is Verdict.MACHINE
    assert cause_of_refusal(ContainerRefused(why=words)) == UNCLEAR_END


def test_a_folder_of_this_machines_that_cannot_be_mounted_is_tried_again() -> None:
    own = RUNC + 'error mounting "/volumes/sluice/in" to rootfs at "/iexec_in": permission denied: unknown'
    assert verdict.of_start(500, own) is Verdict.RETRY


@pytest.mark.parametrize(
    "words",
    [
        "Invalid container name (Bob's machine), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "Minimum memory limit allowed is 6MB",
        "invalid volume specification: '/a:b:/iexec_in:ro'",
        'invalid mount config for type "bind": bind source path does not exist: /nonexistent',
        "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
    ],
)
def test_what_an_engine_does_not_have_for_a_container_is_this_machines_trouble(words: str) -> None:
    assert verdict.of_create(400, words) is Verdict.MACHINE


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ContainerRefused(why="Minimum memory limit allowed is 6MB"), MACHINE_FAILED),
        (
            ContainerRefused(why="Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
            MACHINE_FAILED,
        ),
        (ContainerRefused(why='invalid mount config for type "bind": bind source path does not exist'), MACHINE_FAILED),
        (ContainerRefused(why="Invalid container name (Bob's machine), only [a-z] are allowed"), MACHINE_FAILED),
        (ContainerRefused(why="the working directory 'C:\\' is invalid, it needs to be an absolute path"), UNCLEAR_END),
        (ContainerRefused(why="invalid volume specification: 'x:y:z'"), UNCLEAR_END),
        (ContainerRefused(why="the image is for linux/arm64, and this machine is linux/amd64"), UNCLEAR_END),
        (EngineUnavailable(what="Docker", why="no answer"), MACHINE_FAILED),
        (RefusedHere(why="a name of the allow list cannot be resolved"), MACHINE_FAILED),
    ],
)
def test_what_an_image_can_make_any_engine_refuse_is_held_against_no_machine(error: SluiceError, cause: str) -> None:
    assert cause_of_refusal(error) == cause
    assert counts_against_machine(cause) is (cause == MACHINE_FAILED)


def test_an_image_without_a_program_is_the_apps_own_failure() -> None:
    assert verdict.of_create(400, "No command specified") is Verdict.APP
    assert verdict.of_create(400, "invalid reference format: repository name must be lowercase") is Verdict.APP
    assert verdict.of_create(500, "No command specified") is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (404, {"MANIFEST_UNKNOWN"}),
        (404, {"NAME_UNKNOWN"}),
        (404, {"NAME_UNKNOWN", "X"}),
        (401, {"DENIED"}),
        (403, {"DENIED"}),
    ],
)
def test_an_image_that_is_certainly_absent_is_the_apps_own_failure(status: int, codes: set[str]) -> None:
    assert verdict.of_registry(status, frozenset(codes)) is Verdict.APP


@given(
    status=st.integers(-1, 1000),
    codes=st.frozensets(
        st.sampled_from(["UNKNOWN", "TOOMANYREQUESTS", "UNAUTHORIZED", "BLOB_UNKNOWN", "", "UNSUPPORTED"])
    ),
)
def test_any_other_answer_of_a_registry_says_nothing_of_the_app(status: int, codes: frozenset[str]) -> None:
    assert verdict.of_registry(status, codes) is not Verdict.APP
    assert verdict.of_registry(status, codes | {"DENIED"}) is not Verdict.APP or status in {401, 403}
    assert verdict.of_registry(status, codes | {"MANIFEST_UNKNOWN"}) is not Verdict.APP or status == 404


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_registry_that_says_no_is_not_asked_again(status: int) -> None:
    assert verdict.of_registry(status, frozenset()) is Verdict.MACHINE


@given(status=st.integers(-1, 1000), words=st.one_of(st.text(), st.sampled_from(MACHINE_STARTS + OTHER_WORDS)))
def test_words_that_nobody_has_listed_never_blame_the_app(status: int, words: str) -> None:
    assert verdict.of_start(status, words) is not Verdict.APP
    assert verdict.of_create(status, words) is not Verdict.APP


@given(
    before=st.sampled_from(MACHINE_STARTS),
    middle=st.sampled_from(APP_STARTS),
    after=st.sampled_from(["connection reset by peer", "EOF", "no space left on device", "context deadline exceeded"]),
)
def test_listed_words_inside_others_do_not_count(before: str, middle: str, after: str) -> None:
    words = f"{before}: {middle}: {after}"
    assert verdict.of_start(500, words) is not Verdict.APP


def test_words_without_an_end_tell_nothing_and_are_read_quickly() -> None:
    for endless in ("exec: " * 20_000, RUNC + 'exec: "' + "\\" * 90_001, "manifest for " + "x" * 200_000):
        assert verdict.of_start(400, endless) is not Verdict.APP
        long = RUNC + 'exec: "' + "x" * WORDS_READ + '": permission denied'
    assert verdict.of_start(400, long) is not Verdict.APP


@given(status=st.integers(-1, 1000))
def test_only_404_and_410_say_that_a_file_is_absent(status: int) -> None:
    assert (verdict.of_http(status) is Verdict.APP) == (status in {404, 410})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(status: int) -> None:
    assert verdict.of_http(status) is Verdict.RETRY


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        (137, b""),
        (143, b"Terminated"),
        (132, b"Illegal instruction"),
        (135, b"Bus error"),
        (1, b"exec /app: exec format error\n"),
        (255, b"exec /app: exec format error"),
        (1, b"standard_init_linux.go:228: exec user process caused: exec format error\n"),
        (1, b'standard_init_linux.go:211: exec user process caused "exec format error"\n'),
        (126, b"exec /app: operation not permitted\n"),
    ],
)
def test_an_end_that_another_machine_may_not_see_says_nothing_of_the_app(code: int, stderr: bytes) -> None:
    assert verdict.of_exit(code, b"", stderr) is Verdict.MACHINE


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        (1, b"", b"broken\n"),
        (0, b"", b""),
        (1, b"", b"exec /app: no such file or directory\n"),
        (1, b"started\n", b"exec /app: exec format error\n"),
        (1, b"", b"starting\nexec /app: exec format error\n"),
        (139, b"", b"Segmentation fault"),
        (2, b"", b"exec /app: exec format error\n"),
    ],
)
def test_an_apps_own_end_counts(code: int, stdout: bytes, stderr: bytes) -> None:
    assert verdict.of_exit(code, stdout, stderr) is Verdict.APP


@pytest.mark.parametrize(
    ("image", "engine", "fits"),
    [
        (("linux", "amd64"), ("linux", "amd64"), True),
        (("linux", "arm64"), ("linux", "amd64"), False),
        (("linux", "amd64"), ("linux", "arm64"), False),
        (("windows", "amd64"), ("linux", "amd64"), False),
        (("linux", "386"), ("linux", "amd64"), True),
        (("linux", "amd64"), ("linux", "386"), False),
        (("", ""), ("linux", "amd64"), True),
        (("linux", "amd64"), ("", ""), True),
    ],
)
def test_an_image_for_another_processor_is_for_other_machines(
    image: tuple[str, str], engine: tuple[str, str], *, fits: bool
) -> None:
    assert verdict.of_platform(image, engine) is (None if fits else Verdict.MACHINE)
