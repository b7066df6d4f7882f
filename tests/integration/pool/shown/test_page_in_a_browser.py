"""The operator's web page in a browser, beside a pool at work: what it shows, and what a stranger cannot make it do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selenium.webdriver.common.by import By

from bench.rig.bench_pool import BenchPool
from config.connections.http_client import http_client
from protocol.types import TaskId
from tests.integration.pool.conftest import PAGE_SECONDS
from tests.waiting import ample, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def address(shared_pool: BenchPool) -> str:
    return f"http://127.0.0.1:{shared_pool.names.operations_port}"


def text(browser: Chrome) -> str:
    return str(browser.find_element(By.ID, "content").text)


def open_page(shared_pool: BenchPool, browser: Chrome, place: str, shows: str) -> str:
    # Another address first: one that differs in its fragment only is not loaded again.
    browser.get("about:blank")
    browser.get(f"{address(shared_pool)}/page/#{place}")
    wait_until(lambda: shows in text(browser), PAGE_SECONDS, what=f"{shows} at {place}")
    return text(browser)


def test_the_pool_is_shown_live_without_sign_in_on_its_own_machine(
    shared_pool: BenchPool, browser: Chrome, voted: TaskId
) -> None:
    shown = open_page(shared_pool, browser, "/", "completed in the last hour")
    assert "The pool works." in shown or "The pool needs you." in shown
    assert "idle" in shown
    wait_until(lambda: browser.find_element(By.ID, "connection").text == "live", PAGE_SECONDS, what="the live stream")


def test_a_task_is_found_by_the_beginning_of_its_id_and_shown_block_by_block(
    shared_pool: BenchPool, browser: Chrome, voted: TaskId
) -> None:
    open_page(shared_pool, browser, "/tasks", voted)
    field = browser.find_element(By.NAME, "id")
    field.send_keys(voted[:14])
    field.submit()
    wait_until(lambda: "What happened" in text(browser), PAGE_SECONDS, what="the task's page")
    assert browser.current_url.endswith(f"#/task/{voted}")
    blocks = [item.text for item in browser.find_elements(By.CSS_SELECTOR, ".block")]
    assert blocks[0].startswith("+0\nmatched")
    assert "finalized" in blocks[-1]
    assert any("revealed × 2" in block for block in blocks) or sum("revealed" in block for block in blocks) >= 2


def test_machines_deals_and_queues_have_their_pages(shared_pool: BenchPool, browser: Chrome, voted: TaskId) -> None:
    shown = open_page(shared_pool, browser, "/workers", "idle")
    wallet = next(word for word in shown.split() if word.startswith("0x"))
    assert "No task waits for a worker." in open_page(shared_pool, browser, f"/worker/{wallet}", wallet)
    deal = browser.execute_script("return fetch('/admin/deals').then(answer => answer.json())")[0]["deal_id"]
    open_page(shared_pool, browser, "/deals", deal)
    open_page(shared_pool, browser, f"/deal/{deal}", "Tasks")
    open_page(shared_pool, browser, "/queues", "pipeline")
    assert "No such task" in open_page(shared_pool, browser, "/task/0x" + "0" * 64, "cannot be shown")


def test_the_money_page_says_what_the_chain_has(shared_pool: BenchPool, browser: Chrome, voted: TaskId) -> None:
    shown = open_page(shared_pool, browser, "/money", "The last week, by day")
    stake = browser.execute_script("return fetch('/admin/stake').then(answer => answer.json())")
    ledger = browser.execute_script("return fetch('/admin/ledger?by=kind').then(answer => answer.json())")
    assert "Compared with the chain: " in shown
    assert f"{stake['locked_nrlc'] / 1e9:g} RLC by deals" in shown
    for line in ledger["lines"]:
        assert line["key"] in shown
    assert "None is offered." in shown


def test_no_page_loads_from_elsewhere_or_logs_an_error(shared_pool: BenchPool, browser: Chrome, voted: TaskId) -> None:
    # What was logged before was another test's.
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the library has no types here
    open_page(shared_pool, browser, "/money", "By kind")
    open_page(shared_pool, browser, f"/task/{voted}", voted)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert all(name.startswith(address(shared_pool)) for name in loaded)
    logged = browser.get_log("browser")  # type: ignore[no-untyped-call]  # the library has no types here
    assert [entry for entry in logged if entry["level"] == "SEVERE"] == []
    with http_client(address(shared_pool), timeout=ample(PAGE_SECONDS)) as http:
        policy = http.get("/page/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
