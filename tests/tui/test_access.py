"""What the console shows a coordinator is looked at before there is a screen: one sentence and exit code 2, nothing is tried again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority
from engine.service.trust.options import AccessOptions
from noodle_tui.app import ConsoleApp, main
from noodle_tui.options import checked, parse
from tests.tui.harness import live, run, shown
from tests.tui.pty_console import PtyConsole

NOWHERE = "127.0.0.1:9"
BROKEN = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder, "ours")
    for name in ("ann", "bob"):
        issue(folder, name, Role.OPERATOR, [])
    (folder / "text").write_text("hello")
    (folder / "two").write_text("operator short\n")
    (folder / "latin1").write_bytes(b"caf\xe9")
    (folder / "broken.pem").write_text(BROKEN)
    (folder / "folder").mkdir()
    return folder


MISTAKES = {
    "--tls-ca nowhere.pem": "--tls-ca: {}/nowhere.pem does not exist",
    "--tls-ca folder": "--tls-ca: {}/folder cannot be used (Is a directory)",
    "--tls-ca latin1": "--tls-ca: {}/latin1, a certificate or key in PEM format, is not UTF-8 text",
    "--tls-ca text": "--tls-ca: {}/text holds no certificate or key in PEM format",
    "--tls-ca broken.pem": "--tls-ca: {}/broken.pem holds no certificate that can be read",
    "--tls-ca ann.key": "--tls-ca: {}/ann.key holds no certificate that can be read",
    "--tls-cert nowhere.pem --tls-key ann.key": "--tls-cert: {}/nowhere.pem does not exist",
    "--tls-cert ann.pem --tls-key nowhere.key": "--tls-key: {}/nowhere.key does not exist",
    "--tls-cert ann.pem": "--tls-cert and --tls-key go together: give both",
    "--tls-cert ann.pem --tls-key bob.key": "--tls-key: {}/bob.key is not the key of the certificate {}/ann.pem",
    "--tls-cert broken.pem --tls-key ann.key": "--tls-cert {}/broken.pem with --tls-key {}/ann.key cannot be used",
    "--token-file nowhere": "--token-file: {}/nowhere does not exist",
    "--token-file folder": "--token-file: {}/folder cannot be used (Is a directory)",
    "--token-file two": "{}/two:1: expected 'viewer|operator|worker TOKEN'",
}


def filled(line: str, pki: Path) -> list[str]:
    return [word if word.startswith("--") else str(pki / word) for word in line.split()]


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.parametrize("way", ["screen", "headless"])
def test_a_mistake_is_one_sentence_and_exit_code_2(
    pki: Path, way: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headless = ["--headless", "--record", str(tmp_path / "r.jsonl")] if way == "headless" else []
    assert main([*headless, "--connect", NOWHERE, *filled(line, pki)]) == 2
    told, wanted = capsys.readouterr(), MISTAKES[line].replace("{}", str(pki))
    assert told.out == "" and told.err.startswith(f"noodle-console: {wanted}") and told.err.count("\n") == 1, told
    assert not (tmp_path / "r.jsonl").exists()


def test_variables_are_looked_at_like_options(pki: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NOODLE_TLS_CA", str(pki / "nowhere.pem"))
    assert main(["--connect", NOWHERE]) == 2 and "nowhere.pem does not exist" in capsys.readouterr().err


def test_a_token_in_clear_text_to_another_machine_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--connect", "10.255.255.1:1", "--token", "t" * 20]) == 2
    assert "the token would travel in clear text" in capsys.readouterr().err


def test_what_is_in_order_is_taken_and_nothing_is_read_where_it_is_not_shown(pki: Path) -> None:
    line = filled("--tls-ca ca.pem --tls-cert ann.pem --tls-key ann.key", pki)
    assert checked(parse(["--connect", "h:1", *line])).connect == "h:1"
    assert checked(parse(["--tls-ca", "nowhere.pem"])).connect is None  # an embedded cluster is reached in its own way
    assert checked(parse(["--connect", "10.255.255.1:1", "--token", ""])).connect  # an empty variable is none


def test_a_real_console_ends_before_it_paints(pki: Path) -> None:
    with PtyConsole(["--connect", NOWHERE, "--tls-ca", str(pki / "nowhere.pem")], width=200) as console:
        assert console.exit_code() == 2
        console.wait_for("nowhere.pem does not exist")
        assert b"\x1b[?1049h" not in console.raw


def test_another_cluster_is_not_dialled_with_files_that_are_gone(pki: Path) -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        app.options = replace(app.options, access=AccessOptions(tls_ca=pki / "nowhere.pem"))
        before = app.link
        app.effects.run("ctx h:1")
        app.paint()
        await pilot.pause()
        assert app.link is before and "nowhere.pem does not exist" in shown(app)

    run(test, (200, 40))
