"""The file that says what the pool offers: what it means, and one clear sentence for everything that is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.values.order_policy import MOST_OFFERS, NO_OFFERS, read_policy
from protocol.errors import BadSetting
from protocol.poco.tags import Framework, framework, needs_gpu
from tests.documents import PAGES, blocks

GOOD = """
market = "https://market.example/"
renew_hours = 12
steady_seconds = 30
close_on_chain = false

[[offer]]
category = 0
price = "0.1 RLC"
trust = 1
tag = ["gpu", "scone"]
share = 2
most = 7

[[offer]]
category = 0
price = "free"
"""


def written(folder: Path, text: str, name: str = "orders.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_policy_says_market_prices_trust_tags_shares_and_how_long_orders_last(tmp_path: Path) -> None:
    found = read_policy(written(tmp_path, GOOD))
    assert (found.market, found.renew_hours, found.steady_seconds, found.close_on_chain) == (
        "https://market.example",
        12,
        30,
        False,
    )
    paid, free = found.offer
    assert (paid.category, paid.price, paid.trust, paid.share, paid.most) == (0, 10**8, 1, 2, 7)
    assert needs_gpu(paid.tag)
    assert framework(paid.tag) is Framework.SCONE
    assert (free.price, free.trust, free.tag, free.share) == (0, 1, "0x" + "0" * 64, 1)


def test_the_policy_that_the_operators_page_shows_is_one(tmp_path: Path) -> None:
    (block,) = [block for page in PAGES for block in blocks(page) if block.file == "orders.toml"]
    found = read_policy(written(tmp_path, block.text))
    assert [(offer.category, offer.trust, needs_gpu(offer.tag)) for offer in found.offer] == [
        (0, 1, False),
        (2, 5, True),
    ]


def test_json_says_the_same_and_without_a_file_nothing_is_offered(tmp_path: Path) -> None:
    data = {"offer": [{"category": 1, "price": "3 nRLC"}]}
    found = read_policy(written(tmp_path, json.dumps(data), "orders.json"))
    assert (found.market, found.offer[0].category, found.offer[0].price) == (None, 1, 3)
    assert read_policy(None) == NO_OFFERS
    assert (NO_OFFERS.market, NO_OFFERS.offer) == (None, ())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("market = 'http://market.example'", "market: give an https:// address"),
        ("market = 'https://user:word@market.example'", "market: give an https:// address"),
        ("renew_hours = 0", "renew_hours: Input should be greater than 0"),
        ("renew_hours = inf", "renew_hours: Input should be"),
        ("steady_seconds = 0.5", "steady_seconds: Input should be greater than or equal to 1"),
        ("close_on_chain = 'perhaps'", "close_on_chain: Input should be a valid boolean"),
        ("markets = 'x'", "markets: Extra inputs are not permitted"),
        ("[[offer]]\nprice = 'free'", "offer 1, category: Field required"),
        ("[[offer]]\ncategory = 0", "offer 1, price: Field required"),
        ("[[offer]]\ncategory = -1\nprice = 'free'", "offer 1, category: Input should be greater"),
        ("[[offer]]\ncategory = 0\nprice = 5", "offer 1, price: '5 without a unit' is no amount"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\ntrust = -1", "offer 1, trust: Input should be greater"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\ntag = ['fpga']", "offer 1, tag: 'fpga' is none of gpu, scone"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\ntag = ['tdx', 'scone']", "offer 1, tag: a machine has one kind"),
        (
            "[[offer]]\ncategory = 0\nprice = 'free'\ntag = ['tdx']\ntrust = 3",
            "offer 1: what an enclave signs is served at",
        ),
        ("[[offer]]\ncategory = 0\nprice = 'free'\nshare = 0", "offer 1, share: Input should be greater than 0"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\nmost = 0", "offer 1, most: Input should be greater"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\nsize = 2", "offer 1, size: Extra inputs"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\n" * 2, "offer 2 has the category, trust and tag of offer 1"),
        ("[[offer]]\ncategory = 0\nprice = 'free'\n" * (MOST_OFFERS + 1), f"at most {MOST_OFFERS} items"),
        ("market =", "it is no TOML"),
    ],
)
def test_each_wrong_line_is_named_with_what_is_wrong_in_it(tmp_path: Path, line: str, says: str) -> None:
    path = written(tmp_path, line)
    with pytest.raises(BadSetting) as raised:
        read_policy(path)
    assert f"{path}: " in str(raised.value)
    assert says in str(raised.value)


def test_all_wrong_lines_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSetting) as raised:
        read_policy(written(tmp_path, "renew_hours = 0\n[[offer]]\ncategory = 0\n[[offer]]\nprice = 'free'\n"))
    for says in ("renew_hours: ", "offer 1, price: ", "offer 2, category: "):
        assert says in str(raised.value)


def test_a_file_that_is_not_there_and_one_that_is_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot be read"):
        read_policy(tmp_path / "absent.toml")
    with pytest.raises(BadSetting, match="it is no JSON"):
        read_policy(written(tmp_path, "market = 1", "orders.json"))


def test_a_pool_without_a_secret_service_offers_nothing_for_enclaves(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert read_policy(path, enclaves=[Framework.SCONE]).offer[0].for_enclaves
    for others in ([], [Framework.TDX]):
        with pytest.raises(BadSetting, match="offer 1, tag: it needs enclaves that SLUICE_ENCLAVE_SMS_URL does not"):
            read_policy(path, enclaves=others)
