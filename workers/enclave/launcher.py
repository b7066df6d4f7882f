"""The launcher of containers that get secrets (`enclaves/cmd/launcher`, `workers.sandbox.handed`): an image at the
engine, as those of pre- and post-compute are, out of which this machine takes the program.
"""

from __future__ import annotations

import os
from typing import Final

from config.whole_files import write_whole
from protocol.errors import BadSetting, NoSuchImage
from workers.data.layout import Layout
from workers.enclave import images
from workers.sandbox.engine.container import Engine

#: The tag changes when an older one could not work with this worker.
IMAGE: Final = "sluice/launcher:1"
#: Name of the program in it.
PROGRAM: Final = "launcher"
#: Begin of the program's name on this machine; its image's id follows.
_FILE: Final = "launcher-"
#: Any user of an image may execute it; the folder is closed to users of this machine.
_EXECUTABLE: Final = 0o755
#: Hex digits of the image's id in the name.
_ID_DIGITS: Final = 12


def provide(engine: Engine, layout: Layout) -> str:
    """Path of the program on this machine, taken out of its image at the first call.

    Raises NoSuchImage, EngineUnavailable, OSError.
    """
    found = engine.image_id(IMAGE)
    if found is None:
        raise NoSuchImage(why=IMAGE)
    path = layout.root / f"{_FILE}{found[:_ID_DIGITS]}"
    # Tasks begin side by side.
    with layout.lock(PROGRAM, wait=True):
        if not path.exists():
            for older in layout.root.glob(f"{_FILE}*"):
                older.unlink()
            write_whole(path, engine.read_file(IMAGE, f"/{PROGRAM}"), mode=_EXECUTABLE)
        # Whatever the umask of who wrote it was.
        path.chmod(_EXECUTABLE)
    return str(path)


def require(engine: Engine, layout: Layout) -> None:
    """Raise BadSetting unless containers of this machine can be started by the launcher; EngineUnavailable."""
    images.require_present(engine, IMAGE)
    folder = next(path for path in (layout.root, *layout.root.parents) if path.exists())
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise BadSetting(
            name="SLUICE_HOME",
            why=f"{folder} is mounted with noexec, and the program there that hands secrets to apps could not run",
            fix="Choose a folder on another file system, or unset SLUICE_ENCLAVE.",
        )
