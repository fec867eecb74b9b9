"""Every Redis key of the project.  No other module spells a key.

Keys are grouped by writer, so that access rights can follow the groups: a host's workers write to ``bj:h:<host>:*``,
and once their name to ``bj:arrivals``; the other keys are written by the coordinator, the finalizer and clients.  No
worker script declares a key of the second group.
"""

from __future__ import annotations

from typing import Final

from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.liveness import WorkerName

CELERY_PREFIX: Final = "bj:celery:"

# --- written by a host's workers (and by verbs, on behalf of users) -------------------------------------


def job(host: Host, job_id: JobId) -> str:
    """hash: see ``registry.records``, record ``job``; deleted on dismiss."""
    return f"bj:h:{host}:job:{job_id}"


def holds(host: Host, job_id: JobId) -> str:
    """hash: reason of a hold of the job -> its cause; see ``registry.records``, record ``holds``."""
    return f"bj:h:{host}:holds:{job_id}"


def wake(host: Host, job_id: JobId) -> str:
    """list of at most one element: the attempt's control line blocks on the list."""
    return f"bj:h:{host}:wake:{job_id}"


def tally(host: Host, txn: TxnId) -> str:
    """hash: the host's share of a transaction: number of members owing each step, of failed members, and more.

    See ``registry.records``, record ``tally``.
    """
    return f"bj:h:{host}:share:{txn}"


def members(host: Host, txn: TxnId) -> str:
    """list: the host's members of a transaction, in the order of submission."""
    return f"bj:h:{host}:members:{txn}"


def ready(host: Host) -> str:
    """zset: jobs waiting for a slot, by the time of becoming ready; behind them (FULL) jobs with a full store."""
    return f"bj:h:{host}:ready"


def rung(host: Host) -> str:
    """zset: doorbells sent and not answered by a claim, by time."""
    return f"bj:h:{host}:rung"


def bells(host: Host) -> str:
    """zset: messages of steps, sent and not taken yet, as ``step transaction``, by time."""
    return f"bj:h:{host}:bells"


def queue(host: Host, worker: WorkerName) -> str:
    """list: the messages for a worker of the host, pushed and popped by Celery."""
    return f"{CELERY_PREFIX}{worker}.{host}"


def attempts(host: Host) -> str:
    """hash: job with a live claim -> attempt uuid, pid, start time of the process, boot id."""
    return f"bj:h:{host}:attempts"


def fences(host: Host) -> str:
    """hash: uuid of an attempt to end by the host's watcher -> its job; removed with the attempt."""
    return f"bj:h:{host}:fences"


def sizes(host: Host) -> str:
    """hash, written by the host's worker at a commit: series of backups -> bytes and time (ms) of the last backup."""
    return f"bj:h:{host}:sizes"


def locks(host: Host) -> str:
    """hash: volume locks by identity (device and inode).

    ``w:...`` -> the job writing the volume, ``r:...`` -> number of jobs reading the volume, ``v:...`` and ``s:...`` ->
    number of jobs writing, and reading, volumes on top of the volume.
    """
    return f"bj:h:{host}:locks"


def abandoned(host: Host) -> str:
    """hash: transactions ended without the host; the returning host settles the files of these transactions."""
    return f"bj:h:{host}:abandoned"


def card(host: Host) -> str:
    """hash: the registration and the heartbeat counters of the host's workers.

    See ``registry.records``, record ``card``.
    """
    return f"bj:h:{host}:card"


def reply(host: Host, question: str) -> str:
    """list: a host's answer to one question, read by the asker; expires by itself."""
    return f"bj:h:{host}:reply:{question}"


def asked(host: Host, question: str) -> str:
    """string: the content of a question to a host, packed; expires by itself."""
    return f"bj:h:{host}:asked:{question}"


def permit(host: Host, question: str) -> str:
    """string: permission for the host to carry out a question once; expires by itself."""
    return f"bj:h:{host}:permit:{question}"


def host_events(host: Host | str) -> str:
    """stream: events of the host's workers, not moved to ``events`` yet."""
    return f"bj:h:{host}:events"


def host_due(host: Host | str) -> str:
    """zset: transactions that the host wants the finalizer to check, by microseconds, until moved to ``due``."""
    return f"bj:h:{host}:due"


def host_due_wake(host: Host) -> str:
    """list of at most one element: the finalizer blocks on the list."""
    return f"bj:h:{host}:due:wake"


def arrivals() -> str:
    """set: registered hosts, until judged; every host's user may add to the set, and nothing else."""
    return "bj:arrivals"


# --- written by clients, the coordinator and the finalizer ----------------------------------------------


def events() -> str:
    """stream: every state change, one entry per change."""
    return "bj:events"


def due() -> str:
    """zset: transactions the finalizer should look at, by microseconds of the last reason."""
    return "bj:due"


def due_wake() -> str:
    """list of at most one element: the finalizer blocks on the list."""
    return "bj:due:wake"


def txn(txn_id: TxnId | str) -> str:
    """hash: see ``registry.records``, record ``txn``."""
    return f"bj:txn:{txn_id}"


def order(txn_id: TxnId) -> str:
    """list: the members of a transaction as ``host job``, in the order of submission."""
    return f"bj:txn:{txn_id}:order"


def run(run_id: RunId) -> str:
    """hash: state, terms, counts and sums of a run; see ``registry.records``, record ``run``."""
    return f"bj:run:{run_id}"


def run_jobs(run_id: RunId) -> str:
    """list: the jobs of a run as ``host job transaction``."""
    return f"bj:run:{run_id}:jobs"


def targets(run_id: RunId) -> str:
    """hash: committed job -> the place of its target, packed; removed when the target is pruned."""
    return f"bj:run:{run_id}:targets"


def left(run_id: RunId) -> str:
    """hash: job -> why the last try to prune its target failed."""
    return f"bj:run:{run_id}:left"


def prunes() -> str:
    """zset: committed runs with a pending prune by the coordinator, by time."""
    return "bj:prunes"


def run_notices(run_id: RunId) -> str:
    """hash: the notices of a run, numbered; see ``registry.records``, record ``run_notices``."""
    return f"bj:run:{run_id}:notices"


def runs() -> str:
    """zset: published runs by time of publishing."""
    return "bj:runs"


def staged() -> str:
    """zset: runs staged and not published, by time; the reaper clears the jobs left by a dead client."""
    return "bj:staged"


def launches() -> str:
    """zset: published runs with jobs not launched yet."""
    return "bj:launches"


def unfinished() -> str:
    """zset: launched transactions with members to conclude, by time."""
    return "bj:unfinished"


def untold() -> str:
    """zset: ended runs with recipients in the run file, and without notices yet; by time."""
    return "bj:untold"


def watched() -> str:
    """set: runs with recipients for needs in the run file, until the last notice of the end is done."""
    return "bj:watched"


def names() -> str:
    """hash: data of names of run files, above all the time limits between successes.

    See ``registry.records``, record ``names``.
    """
    return "bj:names"


def notices() -> str:
    """zset: ``N run`` of every unsent notice, by the time of the next try."""
    return "bj:notices"


def ids() -> str:
    """hash: job id -> ``host transaction``; an id is in use until the job is dismissed."""
    return "bj:ids"


def texts() -> str:
    """hash: volume locks by text (``host:path``), refused at submit: ``w:...`` -> job, ``r:...`` -> readers."""
    return "bj:texts"


def reserved() -> str:
    """zset: volumes reserved for other purposes than jobs, as ``why question text``, by the time of expiry."""
    return "bj:reserved"


def lines() -> str:
    """hash: name of run files -> the active run, and the run waiting for the active run to end."""
    return "bj:lines"


def deadlines() -> str:
    """zset: runs with a deadline, by milliseconds of Redis' clock at the deadline."""
    return "bj:deadlines"


def retries() -> str:
    """zset: transactions of failed jobs with a retry, by the time of the retry."""
    return "bj:retries"


def stopped() -> str:
    """zset: jobs stopped by an I/O error for a limited time, by the end of that time."""
    return "bj:stopped"


def stores() -> str:
    """set: the names of the stores."""
    return "bj:stores"


def store(name: str) -> str:
    """hash: the path, the limits and the flow of a store; see ``registry.records``, record ``store``."""
    return f"bj:store:{name}"


def places(name: str) -> str:
    """zset: ``host job`` of each copy to a store, running or rung for, by time."""
    return f"bj:store:{name}:places"


def crowd(name: str) -> str:
    """zset: ``host job`` of each job waiting for a place in a store, by the time of becoming ready."""
    return f"bj:store:{name}:crowd"


def nodes() -> str:
    """hash: name of a volume -> the volume, the options of the definition, and the size."""
    return "bj:nodes"


def hosts() -> str:
    """hash: the coordinator's data of each host: judgement, limit, standstill, refused events, and a rename.

    See ``registry.records``, record ``hosts``.
    """
    return "bj:hosts"


def daemons() -> str:
    """hash: signs of life and data of the daemons; see ``registry.records``, record ``daemons``."""
    return "bj:daemons"


def holding() -> str:
    """hash: reason for holding many jobs (``all:NAME``, ``drain:HOST``, ``drain:VOLUME``) -> start, cause and owner."""
    return "bj:holding"


def terms() -> str:
    """hash: ``job reason`` of each hold with an owner or an end -> ``since until owner``; the reaper ends the hold."""
    return "bj:terms"


def lifting() -> str:
    """hash: the reasons being lifted, moved from ``holding``; any process finding a reason continues the lifting."""
    return "bj:lifting"


def trial() -> str:
    """string: written to see how long a durable write takes, and named where rights are asked about; expires."""
    return "bj:trial"


def decisions() -> str:
    """counter: the number of the last decision."""
    return "bj:decisions"


def restart() -> str:
    """hash: the last start of Redis, and the hosts not heard since; see ``registry.records``, record ``restart``."""
    return "bj:restart"


def clock() -> str:
    """string: the sum of the jumps of Redis' clock since the registry began, and the steady clock at the last check.

    Both in milliseconds; without this key, the clock was never checked.
    """
    return "bj:clock"


def clock_anchors() -> str:
    """hash: boot of a coordinator's machine -> the boot on the steady clock."""
    return "bj:clock:anchors"


def incarnation() -> str:
    """string: drawn at the first use of this registry; hosts refuse orders of any other incarnation."""
    return "bj:incarnation"


def registry_format() -> str:
    """string, written by the daemons: the format of the registry's content (``registry.format``)."""
    return "bj:format"
