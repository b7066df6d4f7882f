"""Environment variables by misspelt names are refused with the name that exists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import VARIABLES, read_settings
from config.values.variables import refuse_unknown
from protocol.errors import BadSetting


def misspellings(name: str) -> st.SearchStrategy[str]:
    """`name` with two neighbours swapped, a letter left out, or one doubled; behind the prefix."""
    places = st.integers(len("SLUICE_"), len(name) - 2)
    return st.one_of(
        places.map(lambda at: name[:at] + name[at + 1] + name[at] + name[at + 2 :]),
        places.map(lambda at: name[:at] + name[at + 1 :]),
        places.map(lambda at: name[:at] + name[at] + name[at:]),
    ).filter(lambda found: found not in VARIABLES)


@given(st.sampled_from(sorted(VARIABLES)).flatmap(misspellings))
def test_a_misspelt_variable_is_refused_by_its_name_with_one_that_exists(name: str) -> None:
    with pytest.raises(BadSetting, match=rf"Setting {name} is wrong: there is no such setting. Did you mean SLUICE_"):
        refuse_unknown([name, "PATH"], VARIABLES)


@given(
    st.sets(st.sampled_from(sorted(VARIABLES))), st.sets(st.text().filter(lambda n: not n.upper().startswith("SLU")))
)
def test_every_variable_of_ours_and_any_of_other_programs_passes(ours: set[str], others: set[str]) -> None:
    refuse_unknown(ours | {name.lower() for name in ours} | others, VARIABLES)


def test_the_variables_of_the_local_stack_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_STACK_RPC_PORT", "1")
    read_settings()
    monkeypatch.setenv("SLUICE_STACK_RPC_PRT", "1")
    with pytest.raises(BadSetting, match="Did you mean SLUICE_STACK_RPC_PORT"):
        read_settings()
