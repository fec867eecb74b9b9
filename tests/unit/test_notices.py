"""Who is told of a run's end, and what of it may be seen: kinds, redaction, signature, backoff."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from receiver import Receiver

from blockjobs.cli import main
from blockjobs.model import notices
from blockjobs.model.attention import Cause, Need
from blockjobs.model.errors import BadInput
from blockjobs.model.notices import Failure, RunEnd, notice_text, notice_title, run_end_body
from blockjobs.model.policies import RunFields, Verdict
from blockjobs.notify import by_apprise, send, webhook
from blockjobs.settings import read_settings

DOCS = Path(__file__).parents[2] / "docs" / "unattended.md"
RUN = RunEnd(
    run="nightly-20261122T103000Z", name="nightly", verdict=Verdict.FAILED, jobs=40, failed=2, cancelled=0,
    began=1795343400.0, ended=1795343475.5, failures=(Failure(job="nightly.web1-root", host="web1", error="EIO\nx"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("notify", "verdict", "told"),
    [({"failure": ("f",), "success": ("s",)}, Verdict.ALL, ("success", ("s",))),
     ({"failure": ("f",), "success": ("s",)}, Verdict.FAILED, ("failure", ("f",))),
     ({"failure": ("f",), "success": ("s",)}, Verdict.PARTIAL, ("failure", ("f",))),
     ({"failure": ("f",), "partial": ("p",)}, Verdict.PARTIAL, ("partial", ("p",))),
     ({"failure": ("f",), "partial": ()}, Verdict.PARTIAL, ("partial", ())),
     ({}, Verdict.FAILED, ("failure", ()))],
    ids=["success", "failure", "partial is failure", "partial if said", "partial to nobody", "nobody"],
)  # fmt: skip
def test_the_outcome_says_who_is_told_and_partial_is_failure_unless_said(notify, verdict, told):
    assert notices.recipients_of(notify, verdict) == told
    assert RunFields.from_dict(RunFields(notify=notify).to_dict()).notify == notify


@pytest.mark.parametrize(
    ("url", "shown"),
    [("https://hc.example.com/ping/abcd-ef", "https://hc.example.com/***"),
     ("https://user:pass@hc.example.com:8443/x?token=1#y", "https://hc.example.com:8443/***"),
     ("https://hc.example.com", "https://hc.example.com"),
     ("https://hc.example.com?token=1", "https://hc.example.com"),
     ("https://user:p@ss@hc.example.com/", "https://hc.example.com/"),
     ("https://[::1]:80/x", "https://[::1]:80/***"),
     ("mailto://ops:secret@example.com?smtp=mail", "mailto://example.com"),
     ("mailtos://ops@example.com/a@example.com", "mailtos://example.com/***"),
     ("mailto://ops:a/b@example.com", "mailto://***"),
     ("mailto://ops:12?b@example.com", "mailto://***"),
     ("mailto://ops:secret", "mailto://***"),
     ("slack://T1234/B1234/xyz/#ops", "slack://***"),
     ("tgram://123456:token/chat", "tgram://***")],
)  # fmt: skip
def test_nothing_secret_of_a_url_is_shown(url, shown):
    assert notices.public_url(notices.checked_url(url)) == shown


@pytest.mark.parametrize(
    "url",
    ["", "ops@example.com", "mailto:ops@example.com", "https://", "https:///path", "https://h:99999/", "http://h:0/",
     "https://h:x/", "https://[::1/", "https://h/a b", "https://h/\n", "http://hést/", "https://h/" + "x" * 2000,
     "://x", "1a://x", "/etc/passwd"],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_being_quoted(url):
    with pytest.raises(BadInput) as wrong:
        notices.checked_url(url)
    assert "was expected" in str(wrong.value)
    assert not url.startswith("https://h/") or "xxx" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "fits"),
    [("mailto://ops:secretword@example.com", True), ("slack://TA1B2C3D4/BA1B2C3D4/a1b2c3d4e5f6a1b2c3d4e5f6", True),
     ("https://hc.example.com/ping/x", True), ("foo://secretword", False), ("slack://secretword", False)],
)  # fmt: skip
def test_apprise_is_asked_for_its_own_kinds(url, fits, caplog, capfd):
    if fits:
        assert by_apprise.check_url(url) == url
        return
    with pytest.raises(BadInput, match="was expected"):
        by_apprise.check_url(url)
    assert "secretword" not in caplog.text + "".join(capfd.readouterr())


def test_where_apprise_is_missing_its_kinds_are_taken_at_submit_and_said_to_be_missing_when_told(monkeypatch):
    monkeypatch.setattr(by_apprise, "find_spec", lambda _: None)
    assert by_apprise.check_url("anything://x") == "anything://x"
    assert by_apprise.notify_apprise("anything://x", run_end_body(RUN, "n")) == by_apprise.MISSING


@pytest.mark.parametrize("secret", ["hush", "a b", "pässword"])
def test_the_reason_of_a_failure_is_scrubbed(secret):
    url = f"https://user:{secret}@hc.example.com/services/T123/B456?key=value99"
    said = notices.scrubbed_text(f"no\nway: {url} and T123, value99, {secret}, topsecret", url, "topsecret")
    assert said == "no way: https://*** and ***, ***, ***, ***"


def test_a_failed_notice_is_tried_five_times_over_ten_minutes():
    delays = read_settings().delays
    after = [notices.again_after(tries, delays) for tries in range(1, 7)]
    assert after == [10, 30, 120, 420, None, None]
    assert 500 < sum(delays) <= 600


def test_the_message_says_what_happened_in_json_and_in_words():
    said = run_end_body(RUN, "key")
    assert said == json.loads(json.dumps(said))
    assert {name: said[name] for name in ("run", "name", "verdict", "exit-code", "jobs", "failed")} == {
        "run": RUN.run, "name": "nightly", "verdict": "failure", "exit-code": 1, "jobs": 40, "failed": 2,
    }  # fmt: skip
    assert said["failures"] == [{"job": "nightly.web1-root", "host": "web1", "error": "EIO x"}]
    assert notice_title(said) == "blockjobs: nightly failed: 38 of 40 jobs committed"
    assert notice_text(said).splitlines() == [
        "run nightly-20261122T103000Z", "committed: 38", "failed: 2", "took: 76 s",
        "nightly.web1-root on web1 failed: EIO x", "and 1 more: blockjobs status nightly-20261122T103000Z",
    ]  # fmt: skip


def snippet():
    """The receiver's function, as the documentation has it."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    names: dict[str, object] = {}
    exec(compile(code, str(DOCS), "exec"), names)  # noqa: S102 - our own documentation
    return names["genuine"]


def test_a_receiver_verifies_the_signature_as_documented():
    genuine = snippet()
    with Receiver() as receiver:
        assert webhook.post_webhook(receiver.url, run_end_body(RUN, "key"), "topsecret", 1000.0, 5) == ""
        got = receiver.got.get(timeout=5)
    assert got.path == "/hooks/hidden?token=hidden2"
    assert got.headers["idempotency-key"] == json.loads(got.body)["notice"] == "key"
    assert got.headers["authorization"] == "Basic dXNlcjpodXNo"
    assert genuine(got.headers, got.body, b"topsecret", now=1010)
    assert not genuine(got.headers, got.body, b"another", now=1010), "another secret"
    assert not genuine(got.headers, got.body + b" ", b"topsecret", now=1010), "another body"
    assert not genuine(got.headers, got.body, b"topsecret", now=10000), "an old one, sent again"
    later = {**got.headers, "blockjobs-timestamp": "10000"}
    assert not genuine(later, got.body, b"topsecret", now=10000), "an old one with a new time"


def test_without_a_secret_nothing_is_signed():
    with Receiver() as receiver:
        assert webhook.post_webhook(receiver.url, run_end_body(RUN, "key"), "", 1000.0, 5) == ""
        assert "blockjobs-signature" not in receiver.got.get(timeout=5).headers


@pytest.mark.parametrize(
    ("status", "reason"),
    [(200, ""), (204, ""), (302, "HTTP 302 (redirects are not followed)"), (404, "HTTP 404"), (503, "HTTP 503")],
)
def test_only_a_2xx_counts_as_told_and_no_redirect_is_followed(status, reason):
    with Receiver([status]) as receiver:
        assert send.send_notice(receiver.url, run_end_body(RUN, "key"), "topsecret") == reason
        assert receiver.got.qsize() == 1


def test_who_never_answers_costs_as_much_as_a_try_may_take():
    with Receiver([0]) as receiver:
        assert send.send_notice(receiver.url, run_end_body(RUN, "key"), limit=2) in (
            "no answer within 2 s",
            "timed out",
            "TimeoutError: timed out",
        )


def test_the_process_that_tells_has_neither_the_secret_nor_redis_in_its_environment(monkeypatch):
    monkeypatch.setenv("BLOCKJOBS_NOTIFY_SECRET", "topsecret")
    seen = []
    real = send.subprocess.Popen

    def popen(argv, **options):
        seen.append((argv, options["env"]))
        return real(argv, **options)

    monkeypatch.setattr(send.subprocess, "Popen", popen)
    with Receiver() as receiver:
        assert send.send_notice(receiver.url, run_end_body(RUN, "key"), "topsecret") == ""
    ((argv, env),) = seen
    assert not any("topsecret" in word or "hidden" in word for word in (*argv, *env.values()))


def test_who_is_not_there_is_said_so_without_a_secret():
    with Receiver() as receiver:
        url = receiver.url
    reason = send.send_notice(url, run_end_body(RUN, "key"), "topsecret")
    assert "refused" in reason
    assert not any(word in reason for word in ("hush", "hidden", "topsecret"))


def test_apprise_tells_with_its_own_kinds():
    """``json://`` is apprise's own webhook: what it carries is ours."""
    with Receiver() as receiver:
        url = "json://" + receiver.url.partition("@")[2].partition("?")[0]
        assert send.send_notice(url, run_end_body(RUN, "key")) == ""
        said = json.loads(receiver.got.get(timeout=5).body)
    assert said["title"] == "blockjobs: nightly failed: 38 of 40 jobs committed"
    assert "EIO" in said["message"]


def test_apprise_tells_what_needs_a_person():
    need = {"cause": "stopped", "subject": "a", "host": None, "since": None, "text": "an error stopped job a"}
    with Receiver() as receiver:
        url = "json://" + receiver.url.partition("@")[2].partition("?")[0]
        assert send.send_notice(url, notices.attention_body("key", "nightly", [need], run=RUN.run)) == ""
        said = json.loads(receiver.got.get(timeout=5).body)
    assert said["title"] == "blockjobs: nightly needs attention: an error stopped job a"
    assert (said["type"], RUN.run in said["message"]) == ("warning", True)


def test_the_messages_are_as_documented():
    """Each field of the examples, and no other one."""
    example, attention = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.S))
    assert run_end_body(RUN, "key").keys() == example.keys()
    assert run_end_body(RUN, "key")["failures"][0].keys() == example["failures"][0].keys()
    need = Need(cause=Cause.STOPPED, subject="a", text="it stopped").to_json()
    assert notices.attention_body("key", "nightly", [need]).keys() == attention.keys()
    assert need.keys() == attention["needs"][0].keys()
    table = re.findall(r"^\| `([a-z]+)` \| ", DOCS.read_text().partition("### What needs a person")[2], re.M)
    assert sorted(table) == sorted(map(str, Cause))


def test_what_apprise_cannot_tell_has_a_reason_without_secrets():
    with Receiver([500]) as receiver:
        url = "json://" + receiver.url.partition("://")[2].partition("?")[0]
        reason = send.send_notice(url, run_end_body(RUN, "key"))
    assert reason
    assert not any(word in reason for word in ("hush", "hidden"))


@pytest.mark.parametrize("how", ["value", "file"])
def test_the_secret_is_of_the_environment_or_of_a_file_and_is_not_printed(how, monkeypatch, tmp_path):
    if how == "value":
        monkeypatch.setenv("BLOCKJOBS_NOTIFY_SECRET", "topsecret")
    else:
        (tmp_path / "secret").write_text("topsecret\nof no secret\n")
        monkeypatch.setenv("BLOCKJOBS_NOTIFY_SECRET_FILE", str(tmp_path / "secret"))
    settings = read_settings()
    assert settings.secret() == "topsecret"
    assert "topsecret" not in repr(settings)
    if how == "file":
        (tmp_path / "secret").write_text("another\n")
        assert settings.secret() == "another", "it is read at every try"


@pytest.mark.parametrize("delays", ["x", "1,,2", "-1", "1,", "1;2"])
def test_bad_delays_are_refused(delays, monkeypatch):
    monkeypatch.setenv("BLOCKJOBS_NOTIFY_DELAYS", delays)
    with pytest.raises(BadInput, match="BLOCKJOBS_NOTIFY_DELAYS"):
        read_settings()


def command(*words):
    return main.run_command_guarded(lambda: main.cli.main(["notify", "test", *words], standalone_mode=False))


def test_the_command_sends_a_test_message(capfd, monkeypatch):
    monkeypatch.setenv("BLOCKJOBS_NOTIFY_SECRET", "topsecret")
    with Receiver([200, 500, 200]) as receiver:
        assert command(receiver.url, "--outcome", "success") == 0
        got = receiver.got.get(timeout=5)
        assert command(receiver.url) == 1
        assert command(receiver.url, "--outcome", "attention") == 0
    said = json.loads(got.body)
    assert (said["test"], said["verdict"]) == (True, "success")
    assert "blockjobs-signature" in got.headers
    printed = "".join(capfd.readouterr())
    assert "HTTP 500" in printed
    assert not any(word in printed for word in ("hush", "hidden", "topsecret"))


@pytest.mark.parametrize("url", ["nonsense", "foo://secretword", "https://"])
def test_the_command_refuses_what_is_no_url(url, capfd):
    assert command(url) == 2
    assert "secretword" not in "".join(capfd.readouterr())
