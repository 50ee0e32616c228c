"""console.toml: what it may say, and how what it may not say is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.errors import InvalidInput
from noodle_tui.config import Config, load_config, parse_config
from noodle_tui.core.keys import KEYS
from noodle_tui.options import LOW_HZ, LOW_THEME, parse
from noodle_tui.state import Thresholds
from noodle_tui.terminal import browser
from noodle_tui.terminal import streams as terminal

WHOLE = """
theme = "cvd-dark"
hz = 2
ascii = true
low_bandwidth = false
[keys]
"list.filter" = "slash, ctrl+f"
view.hold = "u"
[thresholds]
over_plan = 0.3
"""


def test_everything_it_can_say() -> None:
    config = parse_config("c", WHOLE)
    assert (config.theme, config.hz, config.ascii, config.low_bandwidth) == ("cvd-dark", 2.0, True, False)
    keys = {key.id: key.keys for key in config.keys}
    assert keys["list.filter"] == "slash,ctrl+f" and keys["view.hold"] == "u" and keys["app.quit"] == "q"
    assert config.thresholds == Thresholds(over_plan=0.3)


def test_no_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none") == Config(keys=KEYS)
    assert parse_config("c", "") == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tehme = 'x'", "unknown key 'tehme'; did you mean 'theme'?"),
        ("theme = 3", "theme must be a str, not 3"),
        ("hz = 'fast'", "hz must be a float, not 'fast'"),
        ("= 3", "this is not TOML"),
        ("[keys]\n'list.fliter' = 'x'", "keys.list.fliter: there is no such key id; did you mean 'list.filter'?"),
        ("[keys]\n'view.hold' = ''", "keys.view.hold must name one or more keys"),
        ("[keys]\n'view.hold' = 'q'", "'q' is used by view.hold and by app.quit"),
        ("[thresholds]\nover_plam = 1", "unknown key thresholds.over_plam; did you mean 'over_plan'?"),
        ("[thresholds]\nover_plan = -1", "thresholds.over_plan must be a number above 0"),
        ("[thresholds]\nover_plan = true", "thresholds.over_plan must be a number above 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=r"my/console\.toml") as caught:
        parse_config("my/console.toml", text)
    assert message in str(caught.value)


def test_the_shipped_keys_do_not_clash() -> None:
    assert parse_config("c", "[keys]\n'view.hold' = 'space'").keys == KEYS


def test_the_command_line_wins() -> None:
    config = parse_config("c", WHOLE)
    assert parse([], config).theme == "cvd-dark" and parse([], config).hz == 2.0 and parse([], config).ascii
    options = parse(["--theme", "mono", "--hz", "1"], config)
    assert (options.theme, options.hz) == ("mono", 1.0)


def test_low_bandwidth_is_a_set_of_defaults() -> None:
    assert (parse(["--low-bandwidth"]).hz, parse(["--low-bandwidth"]).theme) == (LOW_HZ, LOW_THEME)
    assert parse(["--low-bandwidth", "--theme", "mono"]).theme == "mono"


def test_serving_passes_the_other_options_on() -> None:
    assert browser.without_serve(["--serve", "9000", "--ascii"]) == ["--ascii"]
    assert browser.without_serve(["--connect", "a:1", "--serve"]) == ["--connect", "a:1"]
    assert browser.without_serve(["--serve=9", "--hz", "1"]) == ["--hz", "1"]


def test_serving_without_the_package_says_how_to_get_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "textual_serve.server", None)
    assert browser.serve(8000, []) == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"Host": "127.0.0.1:9000"}, True),
        ({"Host": "localhost:9000", "Origin": "http://127.0.0.1:9000"}, True),
        ({"Host": "127.0.0.1:9000", "Origin": "http://evil.example"}, False),
        ({"Host": "127.0.0.1:9000", "Origin": "null"}, False),
        ({"Host": "evil.example:9000"}, False),
        ({"Host": "127.0.0.1:9001"}, False),
        ({}, False),
    ],
)
def test_pages_of_other_sites_may_not_use_the_console(headers: dict[str, str], own: bool) -> None:
    assert browser.is_own(headers, 9000) is own


def test_the_served_pages_name_no_other_host(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<link\n rel="stylesheet"\n href="https://fonts.example/x"\n/><link href="/own.css" /><p>')
    (tmp_path / "own").mkdir()
    assert browser.own_templates(tmp_path, tmp_path / "own") == tmp_path / "own"
    assert (tmp_path / "own" / "page.html").read_text() == '<link href="/own.css" /><p>'


def test_the_process_behind_a_page_needs_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not terminal.is_terminal(), "or this test could not fail"
    monkeypatch.setenv("TEXTUAL_DRIVER", terminal.WEB_DRIVER)
    assert terminal.is_terminal() and not terminal.wants_ascii({"TEXTUAL_DRIVER": terminal.WEB_DRIVER, "TERM": "dumb"}, "ascii")


def test_what_is_shown_to_the_coordinator_may_stand_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for name in ("NOODLE_TOKEN", "NOODLE_TOKEN_FILE", "NOODLE_TLS", "NOODLE_TLS_CA", "NOODLE_TLS_CERT", "NOODLE_TLS_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = parse_config("c", '[access]\ntls_ca = "/etc/ca.pem"\ntoken_file = "~/t"\ntls = true\n')
    found = parse(["--connect", "h:1", "--tls-ca", "mine.pem"], config).access
    assert (found.tls, found.tls_ca, found.token_file) == (True, Path("mine.pem"), Path("/home/ann/t"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[access]\ntoken = "secret"\n', "unknown key access.token; did you mean token_file"),
        ("[access]\ntls = 1\n", "access.tls must be true or false, not 1"),
        ("[access]\ntls_ca = 1\n", "access.tls_ca must be a path, not 1"),
    ],
)
def test_a_wrong_access_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as found:
        parse_config("c", text)
    assert sentence in str(found.value).replace("'", "")
