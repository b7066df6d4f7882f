"""IPFS takes no result: the real Prometheus fires the alert. `make test-alerts`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from config.connections.ipfs import Ipfs
from ops.stack import ports
from pipeline.domain.records import TaskRecord
from tests import prometheus
from tests.integration.api.conftest import WORKER, Api
from tests.integration.api.results.test_results import upload, zipped
from tests.prometheus import SOON
from tests.waiting import wait_until


def test_a_result_that_ipfs_does_not_take_is_an_alert(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    give()
    header = api.bearer(WORKER)
    with (
        prometheus.running(tmp_path, f"127.0.0.1:{api.settings.operations_port}", waits=SOON) as seen,
        closing(Ipfs(f"http://127.0.0.1:{ports.free_port()}")) as away,
    ):
        wait_until(lambda: seen.value('up{job="sluice"}') == 1, 30, what="the first scrape")
        assert seen.states()["SluiceResultsNotStored"] == "inactive"
        api.application.state.services = replace(api.services, ipfs=away)
        try:
            assert upload(api, header, zipped()).status_code == 503
            api.services.monitor.report().result()
            assert "results: " in sluice("status")[1]
        finally:
            api.application.state.services = api.services
        seen.alarms("SluiceResultsNotStored")
