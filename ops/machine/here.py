"""Whether a machine has ever run with this SLUICE_HOME. In a shell without that of the machine, a command beside it
would say of an empty folder that nothing runs and nothing is left to be revealed.
"""

from __future__ import annotations

from config.settings import Settings
from protocol.errors import BadSetting
from protocol.types import Wallet
from workers import control
from workers.data.layout import Layout, layout_of


def machine_here(settings: Settings, wallet: Wallet) -> Layout:
    """The folders of this wallet's machine. Raises BadSetting where none has run, RefusedHere as
    `control.running_process`.
    """
    place = layout_of(settings.home, wallet)
    # A machine that starts has its process noted before it has a journal.
    if not place.journal.exists() and not place.lane.exists() and control.running_process(place) is None:
        why = f"no machine of the wallet {wallet} has run with {settings.home.absolute()}"
        fix = "Give the command with the SLUICE_HOME (and the wallet) that the machine has."
        raise BadSetting(name="SLUICE_HOME", why=why, fix=fix)
    return place
