#!/bin/sh
# Makes .venv as uv.lock has it, on a machine that may have neither Python nor uv; called by the Makefile.
# Everything it says goes to standard error: standard output belongs to the command that comes after.
#
#   PYTHON     interpreter to use (python3), 3.11 or later; Debian's is installed if it is absent
#   UV_WANTED  version of uv to fetch where none is on PATH
set -eu
exec >&2
cache=.sluice/cache
python=${PYTHON:-python3}

fail() {
    echo "$*"
    exit 1
}

# With venv and pip inside: Debian splits them off.
suits() {
    "$python" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

install_python() {
    advice='Install it as root (apt-get install python3 python3-venv), or name another with PYTHON=.'
    missing='Python 3.11 or later with venv is missing'
    [ "$python" = python3 ] && command -v apt-get >/dev/null || fail "$missing. $advice"
    [ "$(id -u)" = 0 ] || fail "$missing, and installing it needs root. $advice"
    echo 'Installing Python with apt-get …'
    apt='apt-get -q -y -o DPkg::Lock::Timeout=300'
    {
        $apt update
        DEBIAN_FRONTEND=noninteractive $apt install --no-install-recommends python3 python3-venv
    } >"$cache/apt.log" 2>&1 || {
        grep -m 3 '^[EW]:' "$cache/apt.log" || tail -n 1 "$cache/apt.log"
        fail "$missing and could not be installed. $advice"
    }
    suits || fail "$missing; this system's is older. $advice"
}

mkdir -p "$cache"
suits || install_python
uv=$(command -v uv || echo "$cache/uv/bin/uv")
if [ ! -x "$uv" ]; then
    echo "Installing uv from PyPI …"
    "$python" -m venv "$cache/uv"
    "$cache/uv/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_WANTED" 2>"$cache/pip.log" || {
        tail -n 1 "$cache/pip.log"
        fail 'uv is missing and could not be installed. Put uv on PATH, or let pip reach a package index.'
    }
fi
[ -d .venv ] || echo 'Installing Python packages …'
"$uv" sync --frozen --quiet --python "$(command -v "$python")" ||
    fail 'The packages of uv.lock could not be installed. Let uv reach a package index.'
# Compiled once, by importing it, or every process that starts would compile its libraries for itself, which takes
# longer than anything else it does at start. All files of all packages would take twice as long (13 s).
.venv/bin/python -c '
from chain.rpc.library import preload_web3
preload_web3()
import beat.watch, ops.preflight, pipeline.api.serve, pipeline.tasks, workers.machine
' || fail 'The packages of uv.lock cannot be imported.'
# Sluice's own modules too, for shells with PYTHONDONTWRITEBYTECODE.
.venv/bin/python -m compileall -q config protocol chain pipeline workers sms beat ops ||
    fail 'The sources could not be compiled.'
