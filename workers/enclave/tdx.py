"""What this machine and this release lack to run TDX enclaves: for `doctor`, and for the refusal at start."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: What a guest of a TDX host has: the device that asks the processor for reports, and where the kernel makes quotes.
_DEVICE, _QUOTES = "dev/tdx_guest", "sys/kernel/config/tsm/report"
#: iExec's program that proves to the secret service's store what it runs in, and gets the session (iexec-worker 9.2).
_AGENT = "usr/local/bin/secret_provider_agent"
#: In words, by path.
_PARTS: Final = {
    _DEVICE: "no TDX guest (/dev/tdx_guest is absent)",
    _QUOTES: "no quotes by the kernel (/sys/kernel/config/tsm/report is absent: Linux 6.7 or later, with configfs)",
    _AGENT: f"no agent for sessions (/{_AGENT} is absent)",
}
#: Whatever the machine has.
_RELEASE: Final = (
    "this release does not run the agent and the images of pre- and post-compute that an attested session names"
)


def missing(root: Path = Path("/")) -> list[str]:
    """What is not there to run TDX enclaves, in words; never empty in this release. `root`: of the file system."""
    return [words for path, words in _PARTS.items() if not (root / path).exists()] + [_RELEASE]
