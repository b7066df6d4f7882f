"""Flower and RabbitMQ's page in a browser, as an operator sees them: what became of a task, why one failed, what the
scheduler runs, which queues a task went through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from selenium.webdriver.common.by import By

from bench.rig.bench_pool import BenchPool
from config import topology
from ops.market.match import Matched
from pipeline.broker import monitor
from pipeline.broker.users import monitor_user
from protocol.results.error_result import Failure
from protocol.types import TaskId
from tests.integration.pool.conftest import PAGE_SECONDS, view
from tests.waiting import until, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: What a task of trust 3 goes through, by the names of the card.
STEPS = {"assign", "compute", "contribute", "reveal", "upload", "finalize"}
#: Steps of the scheduler itself.
OWN = {"assign", "finalize"}
#: Searches in the table of steps and waits for the answer; 50 rows are more than one task has.
_SEARCH = """
const [query, done] = arguments, table = $('#tasks-table').DataTable();
table.one('draw', () => done());
table.page.len(50).search(query).draw();
"""
#: Texts of the table of steps: a list of {column: text}, without the line breaks by which long names are shown.
_READ_TABLE = """
const columns = [...document.querySelectorAll('th[data-column]')].map(head => head.dataset.column);
return [...document.querySelectorAll('#tasks-table tbody tr')].map(row =>
    Object.fromEntries([...row.cells].map((cell, index) => [columns[index], cell.textContent.trim()])));
"""
#: Clicks the first link to an address that begins so, in one go: tables are drawn anew by themselves.
_FOLLOW = """
const link = document.querySelector(`a[href^='${arguments[0]}']`);
link?.click();
return link !== null;
"""
#: Texts of a page of details: {term: text}.
_READ_DETAILS = """
return Object.fromEntries([...document.querySelectorAll('.detail-row')].map(row =>
    [row.querySelector('dt').innerText, row.querySelector('dd').innerText]));
"""

#: All that a page of RabbitMQ's says now; its parts are drawn one after the other.
_TEXT = "return document.body.innerText"


def test_the_steps_of_a_task_are_there_with_who_did_them_and_how_long_it_took(
    shared_pool: BenchPool, browser: Chrome, voted: TaskId
) -> None:
    def found() -> Sequence[Mapping[str, str]]:
        rows = _steps(shared_pool, browser, voted)
        ended = all(row["state"] == "SUCCESS" for row in rows)
        return rows if ended and {row["name"] for row in rows} >= STEPS else []

    rows = wait_until(found, PAGE_SECONDS, what=f"{STEPS} of {voted}, each ended well, in Flower")
    assert {row["name"] for row in rows} == STEPS
    assert all(_seconds(row["runtime"]) > 0 for row in rows), [(row["name"], row["runtime"]) for row in rows]
    assert all(row["worker"].startswith("pipeline@") == (row["name"] in OWN) for row in rows)
    # Proved by an event on chain or reported: a machine's step shows the name of its machine.
    named = {row["name"]: bool(re.fullmatch(r"\{'machine': 'worker-\d+'\}", row["kwargs"])) for row in rows}
    assert named == {step: step not in OWN for step in STEPS}
    revealed = {topology.compute_queue_name(vote.worker) for vote in view(shared_pool, voted).revealed}

    def done_by_all() -> bool:
        steps = _steps(shared_pool, browser, voted)
        return all(
            {row["worker"] for row in steps if row["name"] == step} >= revealed
            for step in ("compute", "contribute", "reveal")
        )

    wait_until(done_by_all, PAGE_SECONDS, what=f"the steps of {revealed} in Flower")


def test_the_page_of_a_computation_that_failed_tells_its_cause(
    shared_pool: BenchPool, browser: Chrome, unservable_deals: dict[str, Matched]
) -> None:
    deal = unservable_deals["exit 1"]
    shared_pool.wait([deal])
    (task,) = deal.tasks
    wait_until(lambda: _steps(shared_pool, browser, task, "FAILURE"), PAGE_SECONDS, what="the failure in Flower")
    assert browser.execute_script(_FOLLOW, "/task/")
    page = wait_until(lambda: browser.execute_script(_READ_DETAILS), PAGE_SECONDS, what="the step's page")

    assert (page["Name"], page["Status"]) == ("compute", "FAILURE")
    assert page["Exception"] == f"{Failure.APP} (exit code 1)"
    assert task in page["Arguments"]
    assert re.fullmatch(r"w\.0x[0-9a-f]{40}", page["Worker"])
    assert _seconds(page["Runtime"]) > 0


@pytest.mark.parametrize(
    ("process", "queue", "task"), [("pipeline", "pipeline", "pipeline.advance"), ("lane", "lane.0x", "lane.run")]
)
def test_the_page_of_a_scheduler_process_tells_its_processes_queues_and_tasks(
    shared_pool: BenchPool, browser: Chrome, process: str, queue: str, task: str
) -> None:
    browser.get(_address(shared_pool, "workers"))
    wait_until(
        lambda: browser.execute_script(_FOLLOW, f"/worker/{process}%40"), PAGE_SECONDS, what="the process in Flower"
    )
    wait_until(lambda: browser.find_elements(By.ID, "workername"), PAGE_SECONDS, what="the process's page")
    assert re.search(r"Max concurrency\s+\d", _tab(browser, "pool"))
    assert queue in _tab(browser, "queues")
    assert task in _tab(browser, "tasks")


def test_the_page_of_a_worker_machine_tells_its_queues(shared_pool: BenchPool, browser: Chrome, voted: TaskId) -> None:
    machine = topology.compute_queue_name(view(shared_pool, voted).revealed[0].worker)
    browser.get(_address(shared_pool, f"worker/{machine}"))

    assert browser.find_element(By.ID, "workername").text == machine
    assert "no remote control" in _tab(browser, "pool")
    assert f"{machine}.tx" in _tab(browser, "queues")


def test_the_queues_that_a_task_went_through_are_there_with_who_reads_them(
    shared_pool: BenchPool, browser: Chrome, voted: TaskId
) -> None:
    api = shared_pool.servers.rabbitmq_api
    # As somebody who can only look.
    user = monitor_user(shared_pool.names.core)
    password = (shared_pool.pool.home / "scheduler" / monitor.FILE).read_text().strip()
    until("the form to sign in", lambda: _shows_form(browser, api))
    browser.find_element(By.NAME, "username").send_keys(user)
    browser.find_element(By.NAME, "password").send_keys(password)
    browser.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
    wait_until(lambda: "Overview" in browser.execute_script(_TEXT), PAGE_SECONDS, what="the overview")

    names = shared_pool.names
    machines = {vote.worker for vote in view(shared_pool, voted).revealed}
    passed = {
        names.core: {topology.PIPELINE_QUEUE, topology.lane_queue_name(shared_pool.pool.on_chain.scheduler.key.wallet)}
    }
    passed[names.pool] = {
        name(each) for each in machines for name in (topology.compute_queue_name, topology.tx_queue_name)
    }
    for vhost, queues in passed.items():
        for queue in sorted(queues):
            browser.get(f"{api}/#/queues/{quote(vhost)}/{quote(queue)}")
            read = re.compile(rf"Queue {re.escape(queue)}.*Consumers \([1-9]", re.DOTALL)
            wait_until(
                lambda read=read: bool(read.search(str(browser.execute_script(_TEXT)))),  # type: ignore[misc]
                PAGE_SECONDS,
                what=f"the page of {queue} with a consumer",
            )


def _shows_form(browser: Chrome, api: str) -> bool:
    """Load RabbitMQ's page anew, which stays empty if one of its scripts did not come."""
    browser.get(api)
    try:
        wait_until(lambda: browser.find_elements(By.NAME, "username"), 1, what="the form")
    except AssertionError:
        return False
    return True


def _steps(pool: BenchPool, browser: Chrome, task: TaskId, state: str = "") -> list[dict[str, str]]:
    """What Flower's page of tasks lists of a task's steps; other tasks of the scheduler may name several at once."""
    if not browser.current_url.startswith(_address(pool, "tasks")):
        browser.get(_address(pool, "tasks"))
    browser.execute_async_script(_SEARCH, f"args:{task}" + (f" state:{state}" if state else ""))
    rows: list[dict[str, str]] = browser.execute_script(_READ_TABLE)
    # A table without rows has one cell that says so.
    return [row for row in rows if row.get("args") == f"('{task}',)"]


def _tab(browser: Chrome, name: str) -> str:
    """The text of a tab of a process's page, once it is shown."""
    browser.find_element(By.ID, f"worker-tab-{name}").click()
    return wait_until(lambda: browser.find_element(By.ID, f"tab-{name}").text, PAGE_SECONDS, what=f"the tab {name}")


def _seconds(text: str) -> float:
    """What Flower writes as `12.34 ms`, `1.23 s` or `2m 05s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) ?(ms|s|m|h)\b", text))


def _address(pool: BenchPool, path: str) -> str:
    return f"http://127.0.0.1:{pool.names.flower_port}/{path}"
