"""A run's page: whatever a name or an error holds is text in it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from blockjobs.cli.history import HistoryEntry
from blockjobs.cli.report_html import report_page
from blockjobs.cli.report_of import Report
from blockjobs.cli.report_text import report_lines
from blockjobs.model import volumespec
from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.jobs import JobSpec
from blockjobs.model.states import Status
from blockjobs.registry.views import JobView, RunView

RUN = RunId("nightly-20261122T103000Z")
EVIL = "<script>alert(1)</script> & \"quotes\" 'too'"


def view(name="root", **more):
    spec = JobSpec(
        id=JobId(f"{RUN}.{name}"), transaction=TxnId(RUN), run=RUN, source=volumespec.parse_volume("h:/srv/a"),
        target=volumespec.parse_volume("h:/backup/a"),
    )  # fmt: skip
    plain = JobView(
        id=spec.id, host=Host("h"), transaction=spec.transaction, run=RUN, status=Status.CONCLUDED, type="backup",
        spec=spec, offset=0, len=1 << 30, speed=0, busy=False, holds={}, io_status="ok", ret=0, error="",
        cancelled=False, claimed=False, attempts=1, lost=0, passed="", unsettled="", created=1, started=1000,
        ended=61_000, now=100_000, bytes={"read": 1 << 29, "written": 1 << 28},
    )  # fmt: skip
    return replace(plain, **more)


def report(*jobs, why="", left=None):
    run = RunView(RUN, "nightly", grouped=True, published=500, ended=61_000, jobs=len(jobs), open=0,
                  failed=sum(bool(job.ret) for job in jobs), cancelled=0, why=why, began=1000,
                  sums={"read": 1 << 29})  # fmt: skip
    return Report(HistoryEntry(run, 0, (), left or {}), jobs, (), (), ())


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in ("meta", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_nothing_that_a_name_or_an_error_holds_is_markup():
    found = report(view(ret=-5, error=EVIL), why=EVIL, left={f"{RUN}.root": EVIL})
    tags = Tags()
    tags.feed(report_page(found, 100.0))
    assert tags.open == [], "every tag is closed"
    assert "script" not in tags.seen
    assert tags.text.count(EVIL) == 3


def test_a_job_that_failed_is_first_and_its_text_is_whole():
    text = list(report_lines(report(view(ret=-5, error="x" * 500), view("other")), 100.0))
    assert text[text.index("failed") + 1] == f"  root on h: {'x' * 500}"


def test_rates_are_bytes_read_by_the_time_it_took():
    text = "\n".join(report_lines(report(view()), 100.0))
    assert "rate     8.5 MiB/s" in text


def test_a_cut_is_told_as_far_as_the_jobs_record_has_it():
    jobs = [view(result={"cut": {"how": "reflink"}}), view("b", result={"source-change": "changed"})]
    text = "\n".join(report_lines(report(*jobs), 100.0))
    assert "reflink" in text
    assert "source changed" in text
