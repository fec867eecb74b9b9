"""``notify:`` of a run file: whom it names is checked with the file, and never quoted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from blockjobs.cli import runfile
from blockjobs.model.errors import BadInput

FILE = """\
version: 1
name: nightly
notify: NOTIFY
jobs: [{id: one, source: "web1:/srv/root.img", target: "web1:/backup/root.img"}]
"""


@pytest.fixture
def read(tmp_path):
    def read(notify):
        path = tmp_path / "run.yaml"
        path.write_text(FILE.replace("NOTIFY", notify))
        return runfile.load_run_file(path, now=datetime(2026, 11, 22, tzinfo=UTC)).fields.notify

    return read


@pytest.mark.parametrize(
    ("notify", "told"),
    [("{}", {}),
     ('{failure: ["mailto://a:b@example.com"], success: ["https://h/x"]}',
      {"failure": ("mailto://a:b@example.com",), "success": ("https://h/x",)}),
     ('{failure: ["https://h"], partial: []}', {"failure": ("https://h",), "partial": ()})],
)  # fmt: skip
def test_the_run_keeps_who_is_told_of_each_outcome(read, notify, told):
    assert read(notify) == told


@pytest.mark.parametrize(
    ("notify", "said"),
    [('{failure: ["secretword"]}', "notify.failure[0]: this is no URL that can be told"),
     ('{success: ["https://h", "foo://secretword"]}', "notify.success[1]: foo://***: apprise knows no such URL"),
     ('{partial: ["https://secretword:x/"]}', "notify.partial[0]: a https:// URL without a host"),
     ("{failure: [1]}", "notify.failure[0]: 1 is not accepted; a text was expected"),
     ('{failure: "https://secretword"}', "notify.failure: this is not accepted; a list was expected"),
     ('"https://secretword"', "notify: this is not accepted; a mapping was expected"),
     ('{failed: ["https://secretword"]}', "notify.failed: unknown field; one of attention, failure, partial, success"),
     (f"{{failure: [{', '.join(['https://secretword'] * 21)}]}}", "notify.failure: this is not accepted; at most 20")],
    ids=["no URL", "unknown kind", "bad port", "number", "text", "no mapping", "unknown outcome", "too many"],
)  # fmt: skip
def test_a_url_that_cannot_be_told_is_refused_with_its_place_and_without_its_secrets(read, notify, said):
    with pytest.raises(BadInput) as wrong:
        read(notify)
    assert f"run.yaml:3: {said}" in str(wrong.value)
    assert "secretword" not in str(wrong.value)
