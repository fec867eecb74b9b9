"""The registry: every door to Redis, opened on one client.

Control plane and clients use ``Registry`` (``internal``: internal jobs are visible).  A host's workers use
``HostRegistry``, with scripts that touch only keys writable by the host.
"""

from __future__ import annotations

from blockjobs.model.ids import Host
from blockjobs.registry.answers import Answers
from blockjobs.registry.attempts import Attempts
from blockjobs.registry.attention import Attention
from blockjobs.registry.bells import Bells
from blockjobs.registry.clock import Clock
from blockjobs.registry.connection import Client
from blockjobs.registry.events import Events
from blockjobs.registry.found import FoundBackups
from blockjobs.registry.handover import Moves
from blockjobs.registry.history import History
from blockjobs.registry.holds import Holds
from blockjobs.registry.hostnames import HostNames
from blockjobs.registry.hosts import Hosts
from blockjobs.registry.limits import Limits
from blockjobs.registry.memory import DecisionMemory
from blockjobs.registry.names import Names
from blockjobs.registry.nodes import Nodes
from blockjobs.registry.notices import Notices
from blockjobs.registry.odd import STRICT, Odd
from blockjobs.registry.questions import Questions
from blockjobs.registry.retention import Retention
from blockjobs.registry.retries import Retries
from blockjobs.registry.scripts import Scripts
from blockjobs.registry.submit import Submit
from blockjobs.registry.timeouts import Timeouts
from blockjobs.registry.transactions import Transactions
from blockjobs.registry.verbs import Verbs
from blockjobs.registry.views import Views


class Registry:
    """``odd``: the records left out by readers as unreadable."""

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
        self.transactions = Transactions(client, scripts)
        self.clock = Clock(client, scripts)
        self.memory = DecisionMemory(client, scripts)
        self.retries = Retries(client, scripts, self.views)
        self.limits = Limits(client, scripts, self.odd)
        self.moves = Moves(client, scripts)
        self.nodes = Nodes(client, scripts, self.odd)
        self.questions = Questions(client)
        self.history = History(client, scripts, self.odd)
        self.found = FoundBackups(client, scripts)
        self.hostnames = HostNames(client, scripts, self.verbs, self.found)
        self.notices = Notices(client, scripts, self.odd)
        self.names = Names(client, scripts, self.odd)
        self.attention = Attention(
            client, scripts, views=self.views, hosts=self.hosts, notices=self.notices, odd=self.odd
        )


class HostRegistry:
    """``waiting``: a client with blocking commands for waiting attempts; default ``client``."""

    def __init__(self, client: Client, host: Host, *, waiting: Client | None = None) -> None:
        scripts = Scripts(client)
        self.host = host
        self.attempts = Attempts(client, scripts, host, waiting or client)
        self.answers = Answers(client, scripts, host)
        self.questions = Questions(client)
        self.hosts = Hosts(client, scripts)
        self.bells = Bells(client, scripts)
