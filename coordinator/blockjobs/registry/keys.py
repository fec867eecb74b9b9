"""Every Redis key of the project.  No other module spells one.

Keys are grouped by writer, so that access rights can follow them: a host's workers write to ``bj:h:<host>:*``, and once
their name to ``bj:arrivals``; all the rest is written by the coordinator, the finalizer and clients.  No worker script
declares a key of the second group.
"""

from __future__ import annotations

from typing import Final

from blockjobs.model.ids import Host, JobId, RunId, TxnId
from blockjobs.model.liveness import WorkerName

CELERY_PREFIX: Final = "bj:celery:"

# --- written by a host's workers (and by verbs, on behalf of users) -------------------------------------


def job(host: Host, job_id: JobId) -> str:
    """hash: status, spec, progress, token, checkpoint, result; deleted on dismiss."""
    return f"bj:h:{host}:job:{job_id}"


def holds(host: Host, job_id: JobId) -> str:
    """hash: each reason for which the job is held -> its cause."""
    return f"bj:h:{host}:holds:{job_id}"


def wake(host: Host, job_id: JobId) -> str:
    """list of at most one element: the attempt's control line blocks on it."""
    return f"bj:h:{host}:wake:{job_id}"


def share(host: Host, txn: TxnId) -> str:
    """hash: the host's share of a transaction: how many members still owe each barrier, how many failed."""
    return f"bj:h:{host}:share:{txn}"


def members(host: Host, txn: TxnId) -> str:
    """list: the host's members of a transaction, in the order of submission."""
    return f"bj:h:{host}:members:{txn}"


def ready(host: Host) -> str:
    """zset: jobs that wait for a slot, by the time they became ready; behind them (FULL) those whose store is full."""
    return f"bj:h:{host}:ready"


def rung(host: Host) -> str:
    """zset: doorbells sent and not answered by a claim, by time."""
    return f"bj:h:{host}:rung"


def bells(host: Host) -> str:
    """zset: messages of steps that were sent and not taken yet, as ``step transaction``, by time."""
    return f"bj:h:{host}:bells"


def queue(host: Host, worker: WorkerName) -> str:
    """list: the messages for one of a host's workers, pushed and popped by Celery."""
    return f"{CELERY_PREFIX}{worker}.{host}"


def attempts(host: Host) -> str:
    """hash: job with a live claim -> attempt uuid, pid, start time of the process, boot id."""
    return f"bj:h:{host}:attempts"


def fences(host: Host) -> str:
    """hash: uuid of an attempt that the host's watcher has to end -> its job; it goes with the attempt."""
    return f"bj:h:{host}:fences"


def sizes(host: Host) -> str:
    """hash, written by its host's worker at a commit: series of backups -> bytes of the last one, and when (ms)."""
    return f"bj:h:{host}:sizes"


def locks(host: Host) -> str:
    """hash: volume locks by identity (device and inode): ``w:...`` -> the job that writes it, ``r:...`` -> how many
    jobs read it, ``v:...`` and ``s:...`` -> how many jobs write, and read, volumes that lie on it."""
    return f"bj:h:{host}:locks"


def abandoned(host: Host) -> str:
    """hash: transactions that were ended without the host; it settles what it has of them if it is back."""
    return f"bj:h:{host}:abandoned"


def card(host: Host) -> str:
    """hash: the registration and the heartbeat counter of each of the host's workers (``copy-``: the copy worker's)."""
    return f"bj:h:{host}:card"


def reply(host: Host, question: str) -> str:
    """list: a host's answer to one question, read by whoever asked; expires by itself."""
    return f"bj:h:{host}:reply:{question}"


def asked(host: Host, question: str) -> str:
    """string: what a question asks of a host, packed; expires by itself."""
    return f"bj:h:{host}:asked:{question}"


def permit(host: Host, question: str) -> str:
    """string: an asker lets the host do, once, what the question asks for; expires by itself."""
    return f"bj:h:{host}:permit:{question}"


def host_events(host: Host | str) -> str:
    """stream: what the host's workers told and nobody has moved to ``events`` yet."""
    return f"bj:h:{host}:events"


def host_due(host: Host | str) -> str:
    """zset: transactions that a host asks the finalizer to look at, by microseconds, until they are in ``due``."""
    return f"bj:h:{host}:due"


def host_due_wake(host: Host) -> str:
    """list of at most one element: the finalizer blocks on it."""
    return f"bj:h:{host}:due:wake"


def arrivals() -> str:
    """set, to which every host's user may add and nothing else: hosts that registered, until they were judged."""
    return "bj:arrivals"


# --- written by clients, the coordinator and the finalizer ----------------------------------------------


def events() -> str:
    """stream: every state change, one entry each."""
    return "bj:events"


def due() -> str:
    """zset: transactions the finalizer should look at, by microseconds of the last reason."""
    return "bj:due"


def due_wake() -> str:
    """list of at most one element: the finalizer blocks on it."""
    return "bj:due:wake"


def txn(txn_id: TxnId | str) -> str:
    """hash: members' hosts, rev, barrier, decision."""
    return f"bj:txn:{txn_id}"


def order(txn_id: TxnId) -> str:
    """list: all members of a transaction as ``host job``, in the order of submission."""
    return f"bj:txn:{txn_id}:order"


def run(run_id: RunId) -> str:
    """hash: name, state, counts of one start of a run file."""
    return f"bj:run:{run_id}"


def run_jobs(run_id: RunId) -> str:
    """list: all jobs of a run as ``host job transaction``."""
    return f"bj:run:{run_id}:jobs"


def targets(run_id: RunId) -> str:
    """hash: job that committed -> where its target is, packed; a pruned one is taken out."""
    return f"bj:run:{run_id}:targets"


def left(run_id: RunId) -> str:
    """hash: job -> why its target could not be pruned when it was tried last."""
    return f"bj:run:{run_id}:left"


def prunes() -> str:
    """zset: runs that committed and after which the coordinator has yet to prune, by time."""
    return "bj:prunes"


def run_notices(run_id: RunId) -> str:
    """hash: whom a run's end is told, numbered: ``url:N``, ``state:N``, ``tries:N``...; and the message;
    of what needs a person ``message:N`` and ``about:N``, and ``told:`` and its name -> the mark of its last episode."""
    return f"bj:run:{run_id}:notices"


def runs() -> str:
    """zset: published runs by time of publishing."""
    return "bj:runs"


def staged() -> str:
    """zset: runs staged and not published, by time; the reaper clears what a dead client left."""
    return "bj:staged"


def launches() -> str:
    """zset: published runs of which not every job was launched yet."""
    return "bj:launches"


def unfinished() -> str:
    """zset: launched transactions that have members to conclude, by time."""
    return "bj:unfinished"


def untold() -> str:
    """zset: runs that ended, whose file names somebody to tell, and which nobody has announced yet; by time."""
    return "bj:untold"


def watched() -> str:
    """set: runs whose file names somebody to tell where they need a person, until all of their ends was told."""
    return "bj:watched"


def names() -> str:
    """hash: of names of run files ``told:refused NAME`` and ``told:overdue NAME`` -> the mark of what was told last; of
    those that have to succeed in time ``overdue:NAME`` -> seconds, ``about:NAME`` -> file and whom to tell, packed,
    ``since:NAME`` -> when that was first said, ``good:NAME`` -> end and id of the last run that succeeded; times in ms
    by the steady clock."""
    return "bj:names"


def notices() -> str:
    """zset: ``N run`` of every notice that is not told yet, by the time of its next try."""
    return "bj:notices"


def ids() -> str:
    """hash: job id -> ``host transaction``; an id is taken until its job is dismissed."""
    return "bj:ids"


def texts() -> str:
    """hash: volume locks by text (``host:path``), refused at submit: ``w:...`` -> job, ``r:...`` -> readers."""
    return "bj:texts"


def reserved() -> str:
    """zset: volumes reserved for what is no job, as ``why question text``, by the time of their end."""
    return "bj:reserved"


def lines() -> str:
    """hash: name of run files -> its run that goes on, and the one that waits for it to end."""
    return "bj:lines"


def deadlines() -> str:
    """zset: runs with a deadline, by milliseconds of Redis' clock when it passes."""
    return "bj:deadlines"


def retries() -> str:
    """zset: transactions of jobs that failed and are to be tried again, by the time when that begins."""
    return "bj:retries"


def stopped() -> str:
    """zset: jobs that an I/O error stopped and that may not wait for ever, by the time when that is over."""
    return "bj:stopped"


def stores() -> str:
    """set: the names of all stores."""
    return "bj:stores"


def store(name: str) -> str:
    """hash: a store: path, jobs, speed (0: no limit), since when and by whose word, and what flows into it."""
    return f"bj:store:{name}"


def places(name: str) -> str:
    """zset: ``host job`` of each copy to a store that runs or was rung for, by time."""
    return f"bj:store:{name}:places"


def crowd(name: str) -> str:
    """zset: ``host job`` of what waits for a place in a store, by the time it became ready."""
    return f"bj:store:{name}:crowd"


def nodes() -> str:
    """hash: name of a volume -> the volume, how it was added and how large it is."""
    return "bj:nodes"


def hosts() -> str:
    """hash: of each host how the coordinator judged it (``state:``, ``since:``) and its workers (``steps:``,
    ``copy:``), the limit given (``speed:``), since when its line stands and how many claims there were then
    (``standing:``), how many of its events were refused (``refused:``) and when the last one was (``refused-at:``, ms),
    and the name that it is being given (``renaming:``)."""
    return "bj:hosts"


def daemons() -> str:
    """hash: coordinator, finalizer -> milliseconds of their last loop, by Redis' clock; ``seq:`` and one of these
    names -> how far it has read the events; ``aside:`` and one -> what it could not handle, packed;
    ``attention`` -> after how long what lasts needs a person, packed; ``apprise:yes`` and ``apprise:no`` -> when a
    coordinator last said that it has apprise, or has not."""
    return "bj:daemons"


def holding() -> str:
    """hash: each reason that holds many jobs (``all:NAME``, ``drain:HOST``, ``drain:VOLUME``) -> since, why, whose."""
    return "bj:holding"


def terms() -> str:
    """hash: ``job reason`` of each hold with an owner or an end -> ``since until owner``; the reaper ends it."""
    return "bj:terms"


def lifting() -> str:
    """hash: those of them that are being lifted; whoever finds one goes on with it."""
    return "bj:lifting"


def trial() -> str:
    """string: written to see how long a durable write takes, and named where rights are asked about; expires."""
    return "bj:trial"


def decisions() -> str:
    """counter: each decision takes the next number."""
    return "bj:decisions"


def restart() -> str:
    """hash: the run id of Redis and the number of decisions when it was started; ``beat:HOST`` of each host that was
    not heard since: its beat then; ``lost:HOST`` of each that knows of decisions which were lost: the highest one."""
    return "bj:restart"


def clock() -> str:
    """string: milliseconds that Redis' clock has jumped since the registry began, and what the steady clock showed at
    the last look; not there: nobody has looked yet."""
    return "bj:clock"


def clock_anchors() -> str:
    """hash: of each boot of a coordinator's machine where it lies on the steady clock."""
    return "bj:clock:anchors"


def incarnation() -> str:
    """string: drawn once when this registry was first used; hosts refuse orders of another one."""
    return "bj:incarnation"


def registry_format() -> str:
    """string, written by the daemons: the number of what the registry holds (``registry.format``)."""
    return "bj:format"
