"""The registry: every door to Redis, opened on one client.

Control plane and clients use ``Registry`` (``internal``: one that sees internal jobs, too); a host's workers use
``HostRegistry``, whose scripts touch only what that host may write.
"""

from __future__ import annotations

from blockjobs.model.ids import Host
from blockjobs.store.answers import Answers
from blockjobs.store.attempts import Attempts
from blockjobs.store.attention import Attention
from blockjobs.store.bells import Bells
from blockjobs.store.clock import Clock
from blockjobs.store.connection import Client
from blockjobs.store.events import Events
from blockjobs.store.fate import Fate
from blockjobs.store.found import Found
from blockjobs.store.history import History
from blockjobs.store.holds import Holds
from blockjobs.store.hostnames import HostNames
from blockjobs.store.hosts import Hosts
from blockjobs.store.limits import Limits
from blockjobs.store.memory import DecisionMemory
from blockjobs.store.moves import Moves
from blockjobs.store.names import Names
from blockjobs.store.nodes import Nodes
from blockjobs.store.notices import Notices
from blockjobs.store.odd import STRICT, Odd
from blockjobs.store.questions import Questions
from blockjobs.store.retention import Retention
from blockjobs.store.retries import Retries
from blockjobs.store.scripts import Scripts
from blockjobs.store.submit import Submit
from blockjobs.store.timeouts import Timeouts
from blockjobs.store.verbs import Verbs
from blockjobs.store.views import Views


class Registry:
    """``odd``: the records that its readers left out, as they could not be read."""

    def __init__(self, client: Client, *, internal: bool = False) -> None:
        scripts = Scripts(client)
        self.client, self.odd = client, Odd()
        self.submit = Submit(client, scripts)
        self.verbs = Verbs(client, scripts, internal=internal, odd=self.odd)
        self.holds = Holds(client, scripts, self.odd)
        self.views = Views(client, internal=internal, odd=self.odd)
        self.events = Events(client, scripts, internal=internal, odd=self.odd)
        self.timeouts = Timeouts(client, scripts, self.views)
        self.retention = Retention(client, self.verbs, Views(client, internal=internal, odd=STRICT))
        self.hosts = Hosts(client, scripts, self.odd)
        self.bells = Bells(client, scripts)
        self.fate = Fate(client, scripts)
        self.clock = Clock(client, scripts)
        self.memory = DecisionMemory(client, scripts)
        self.retries = Retries(client, scripts, self.views)
        self.limits = Limits(client, scripts, self.odd)
        self.moves = Moves(client, scripts)
        self.nodes = Nodes(client, scripts, self.odd)
        self.questions = Questions(client)
        self.history = History(client, scripts, self.odd)
        self.found = Found(client, scripts)
        self.hostnames = HostNames(client, scripts, self.verbs, self.found)
        self.notices = Notices(client, scripts, self.odd)
        self.names = Names(client, scripts, self.odd)
        self.attention = Attention(
            client, scripts, views=self.views, hosts=self.hosts, notices=self.notices, odd=self.odd
        )


class HostRegistry:
    """``waiting``: a client whose commands may block while an attempt waits for news; without it ``client``."""

    def __init__(self, client: Client, host: Host, *, waiting: Client | None = None) -> None:
        scripts = Scripts(client)
        self.host = host
        self.attempts = Attempts(client, scripts, host, waiting or client)
        self.answers = Answers(client, scripts, host)
        self.questions = Questions(client)
        self.hosts = Hosts(client, scripts)
        self.bells = Bells(client, scripts)
