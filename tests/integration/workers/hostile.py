"""Apps that try to harm the machine that runs them: shell scripts of one image, by name."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.results.error_result import UNCLEAR_END, Failure

IMAGE = "sluice-test/hostile:1"
#: A volume is disk that no layer counts.
DOCKERFILE = "FROM sluice-test/shell:1\nCOPY a /a\nVOLUME /volume\n"
#: What an honest result holds.
GOOD = b"x\n"

_COMPUTED = """echo '{"deterministic-output-path": "/iexec_out/r"}' > /iexec_out/computed.json"""
_RESULT = f"echo x > /iexec_out/r; {_COMPUTED}"
_FOREVER = "while :; do sleep 1000; done"
#: Writes 40 MiB to a file, several times every quota of the test, and stays.
_FILL = "dd if=/dev/zero bs=1048576 count=40 of={}; " + _FOREVER
#: A thousand folders, one in the other.
_DEEP = "$(seq 1000 | sed s/.*/d/ | tr '\\n' / | sed s,/$,,)"

#: Makes the forbidden calls, then asks for the limits it got, a line each.
PROBE = (
    f"/a/probe; ulimit -n; ulimit -c; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d ' ' -f 2;"
    " cat /sys/fs/cgroup/pids/pids.max 2>&- || cat /sys/fs/cgroup/pids.max;"
    # Files of the kernel that Docker covers are empty.
    " cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug 2>&- | wc -c;"
    # Its own score may not fall below what the engine gave it, and no process of the machine is seen.
    " ls -d /proc/[0-9]* | wc -l;"
    f" {_COMPUTED}"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """A hostile app and how its task has to end: with the honest result (None), an error result, or declined."""

    script: str
    ends: Failure | str | None
    #: The category's.
    seconds: int = 3600
    #: Whether memory may run out before it ends like that: how many of its processes live at a time is chance.
    or_memory: bool = False


def _computed(content: str) -> str:
    return f"echo x > /iexec_out/r; {content} > /iexec_out/computed.json"


ATTACKS = {
    # -- processes, memory, time
    "fork bomb": Attack("while :; do (while :; do sleep 1; done) & done", Failure.APP, or_memory=True),
    "fork bomb that hides from its parent": Attack(
        "b() { b | b & }; b; wait; sleep 1; false", Failure.APP, or_memory=True
    ),
    "memory": Attack(f"{_RESULT}; head -c 200000000 /dev/zero | tail -c 200000000", Failure.OUT_OF_MEMORY),
    "memory as shared memory": Attack(f"{_RESULT}; dd if=/dev/zero of=/dev/shm/x bs=1M", Failure.OUT_OF_MEMORY),
    "memory as devices": Attack(f"{_RESULT}; dd if=/dev/zero of=/dev/x bs=1M", Failure.OUT_OF_MEMORY),
    "never ends": Attack(_FOREVER, Failure.APP_TIMEOUT, seconds=1),
    "ignores signals": Attack(f"trap '' TERM INT HUP QUIT; {_FOREVER}", Failure.APP_TIMEOUT, seconds=1),
    "background process": Attack(f"{_RESULT}; (setsid sleep 100000 $1) >&- 2>&- & true", None),
    "background process that goes on writing": Attack(
        f"{_RESULT}; (setsid sh -c 'while :; do date >> /iexec_out/r2; done') & true", None
    ),
    "kills its first process": Attack(f"kill -9 1; kill -9 -1; {_RESULT}", None),
    # -- disk
    "one large file": Attack(_FILL.format("/iexec_out/r"), Failure.OUTPUT_ZIP),
    "many files": Attack(f"cd /iexec_out; seq 3000 | xargs touch; {_FOREVER}", Failure.OUTPUT_ZIP),
    "100,000 files": Attack(f"cd /iexec_out; seq 100000 | xargs touch; {_RESULT}", Failure.OUTPUT_ZIP),
    "sparse": Attack(f"truncate -s 1T /iexec_out/t; truncate -s 15G /iexec_out/s; {_RESULT}", Failure.OUTPUT_ZIP),
    "many names of one file": Attack(
        f"{_RESULT}; cd /iexec_out; i=0; while [ $i -lt 60 ]; do ln r l$i; i=$((i+1)); done", None
    ),
    "10,000 folders deep": Attack(
        f"cd /iexec_out; d={_DEEP}; mkdir -p $d; i=0; while [ $i -lt 9 ]; do i=$((i+1)); mkdir -p n/$d; mv d n/$d/;"
        f" mv n d; done; {_RESULT}",
        Failure.OUTPUT_ZIP,
    ),
    "file without a name": Attack(
        f"exec 3> /iexec_out/f; rm /iexec_out/f; dd if=/dev/zero bs=1048576 count=40 >&3; {_FOREVER}", Failure.APP
    ),
    "its own layer": Attack(_FILL.format("/junk"), Failure.APP),
    "many files in its own layer": Attack(f"mkdir /j; cd /j; seq 3000 | xargs touch; {_FOREVER}", Failure.APP),
    "a volume": Attack(_FILL.format("/volume/junk"), Failure.APP),
    "the engine's hosts file": Attack(_FILL.format("/etc/hosts"), Failure.APP),
    # -- output tree
    "symlink to a file of the machine": Attack(f"ln -s /etc/shadow /iexec_out/r; {_COMPUTED}", Failure.RESULT_DIGEST),
    "symlink out of the folder": Attack(f"ln -s ../../../secret /iexec_out/r; {_COMPUTED}", Failure.RESULT_DIGEST),
    "linked folder": Attack(
        "ln -s ../../.. /iexec_out/f; " + _computed("""echo '{"deterministic-output-path": "/iexec_out/f/secret"}'"""),
        Failure.RESULT_DIGEST,
    ),
    "linked computed.json": Attack(f"{_RESULT}; cd /iexec_out; mv computed.json c; ln -s c computed.json", "missing"),
    "fifo as a result": Attack(f"mkfifo /iexec_out/r; {_COMPUTED}", Failure.RESULT_DIGEST),
    "fifo as computed.json": Attack("mkfifo /iexec_out/computed.json", "missing"),
    "folder as computed.json": Attack("mkdir /iexec_out/computed.json", "missing"),
    "unreadable": Attack(
        f"{_RESULT}; cd /iexec_out; mkdir -p d/e; touch d/e/f; chmod 0 d/e/f d/e d r computed.json .", None
    ),
    "of another user": Attack(f"{_RESULT}; chown -R 4321:4321 /iexec_out; chmod -R 700 /iexec_out", None),
    "setuid": Attack(f"{_RESULT}; cp /bin/busybox /iexec_out/su; chmod 6777 /iexec_out/su /iexec_out/r", None),
    "name of 255 bytes": Attack(
        f"{_RESULT}; touch /iexec_out/$(seq 300 | tr -d '\\n' | head -c 255)", Failure.FILE_NAME
    ),
    "name that is no text": Attack(f"{_RESULT}; touch /iexec_out/$(printf '\\377\\376')", Failure.OUTPUT_ZIP),
    "names with newlines and escapes": Attack(
        f"{_RESULT}; cd /iexec_out; touch -- \"$(printf 'a\\nb')\" \"$(printf '\\033[2J')\" '..x' '-rf' '~'", None
    ),
    "name of another system's drive": Attack(f"{_RESULT}; touch /iexec_out/C:", Failure.OUTPUT_ZIP),
    "name of another system's folder": Attack(f"{_RESULT}; touch '/iexec_out/a\\b'", Failure.OUTPUT_ZIP),
    "removes the output folder": Attack("rm -rf /iexec_out; true", "missing"),
    "replaces the output folder": Attack("rm -rf /iexec_out; mv /iexec_out /o; ln -s /etc /iexec_out; true", "missing"),
    "takes our files' names": Attack(f"{_RESULT}; cd /iexec_out; mkdir stdout.txt; ln -s r stderr.txt; echo y", None),
    # -- computed.json
    "computed.json to an absolute path": Attack(
        _computed("""echo '{"deterministic-output-path": "/etc/passwd"}'"""), "missing"
    ),
    "computed.json upwards": Attack(
        _computed("""echo '{"deterministic-output-path": "/iexec_out/../../secret"}'"""), "missing"
    ),
    "huge computed.json": Attack(_computed("seq 100000"), "missing"),
    "deep computed.json": Attack(_computed("seq 100000 | sed s/.*/[/ | tr -d '\\n'"), "missing"),
    "computed.json that is no text": Attack(_computed("head -c 1000 /dev/urandom"), "missing"),
    # -- what it prints and how it ends
    "log flood": Attack(f"{_RESULT}; seq 400000", None),
    "one endless line": Attack(f"{_RESULT}; head -c 20000000 /dev/zero | tr '\\0' y", None),
    "prints no text": Attack(
        f"{_RESULT}; head -c 100000 /dev/urandom; head -c 1000 /dev/zero; printf '\\033]0;title\\007\\033[2J'", None
    ),
    **{f"ends with {code}": Attack(f"exit {code}", Failure.APP) for code in (1, 125, 126, 127, 128, 139, 255)},
    **{f"ends with {code}": Attack(f"printf '\\033[2J[/x]' >&2; exit {code}", UNCLEAR_END) for code in (137, 143)},
    "looks killed after its result": Attack(f"{_RESULT}; exit 137", UNCLEAR_END),
}

#: Those that a strict machine stops at another place, or could stop too late: it has no capability, and what an image
#: declares as a volume can be written to there as well.
IN_STRICT = (
    "fork bomb",
    "memory",
    "ignores signals",
    "kills its first process",
    "one large file",
    "a volume",
    "linked folder",
    "unreadable",
    "removes the output folder",
)
