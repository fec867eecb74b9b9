"""When a transaction is decided, and how; which status may follow which."""

from __future__ import annotations

from typing import Final

from lines import Mutant, registry, unit

# fmt: off
DECISIONS: Final = (
    Mutant("model/barriers.py", "Decision.ABORT: (Step.STOP, Step.SETTLE, Step.CONCLUDE)}", "Decision.ABORT: (Step.SETTLE, Step.CONCLUDE)}", unit("barriers", "before_the_decision_everybody_waits_for_a_silent_host")),
    Mutant("model/barriers.py", 'Step.OPEN:    ("",),\n', 'Step.OPEN:    ("", Step.OPEN),\n', unit("barriers", "each_step_says_what_may_precede_it")),
    Mutant("model/barriers.py", "Step.CUT:     (Step.OPEN,),\n", 'Step.CUT:     ("", Step.OPEN),\n', unit("barriers", "each_step_says_what_may_precede_it")),
    Mutant("model/barriers.py", "Step.PREPARE: (Step.RUN,),\n", "Step.PREPARE: (Step.CUT, Step.RUN),\n", unit("barriers", "each_step_says_what_may_precede_it")),
    Mutant("model/barriers.py", 'Step.SETTLE:  ("", Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE),\n', "Step.SETTLE:  (Step.PREPARE,),\n", unit("barriers", "each_step_says_what_may_precede_it")),
    Mutant("model/barriers.py", 'Step.SETTLE:  ("", Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE),\n', 'Step.SETTLE:  ("", Step.OPEN, Step.CUT, Step.RUN, Step.PREPARE, Step.SETTLE),\n', unit("barriers", "each_step_says_what_may_precede_it")),
    Mutant("model/barriers.py", "    if any(share.failed for share in view.shares.values()):\n        return Decision.ABORT\n", "", unit("barriers", "nothing_begins_before_its_turn_and_what_was_cancelled_needs_none")),
    Mutant("model/barriers.py", "if any(view.owing(step) for step in FORWARD) or view.waits", "if view.waits", unit("barriers", "nothing_is_decided_while_somebody_owes_a_step_and_nobody_failed")),
    Mutant("model/barriers.py", " or view.waits or (view.manual and not view.finalized):", " or (view.manual and not view.finalized):", unit("barriers", "answers_that_nobody_asked_for_commit_nothing_whose_turn_has_not_come")),
    Mutant("model/barriers.py", " or (view.manual and not view.finalized):\n        return None", ":\n        return None", unit("barriers", "a_prepare_that_nobody_asked_for_commits_nothing_that_waits_for_its_user")),
    Mutant("model/barriers.py", "for step in (Step.SETTLE, Step.CONCLUDE):  #", "for step in (Step.SETTLE,):  #", unit("barriers", "nothing_commits_whose_members_do_not_add_up")),
    Mutant("model/barriers.py", "for step in (Step.SETTLE, Step.CONCLUDE):  #", "for step in (Step.CONCLUDE,):  #", unit("barriers", "nothing_commits_whose_members_do_not_add_up")),
    Mutant("model/barriers.py", "!= view.jobs:\n            raise", "< 0:\n            raise", unit("barriers", "nothing_commits_whose_members_do_not_add_up")),
    Mutant("model/barriers.py", "return AwaitTurn() if view.waits else _next_forward_step(view)", "return _next_forward_step(view)", unit("barriers", "answers_that_nobody_asked_for_commit_nothing_whose_turn_has_not_come")),
    Mutant("model/barriers.py", "if hosts := view.owing(step) - silent:", "if hosts := view.owing(step):", unit("barriers", "after_the_decision_a_silent_host_keeps_only_its_own_members")),
    Mutant("model/barriers.py", "if hosts := view.owing(step) - view.owing(Step.SETTLE):", "if hosts := view.owing(step):", unit("barriers", "hosts_that_are_all_silent_are_waited_for")),
    Mutant("model/barriers.py", "return Retry() if view.retry and view.decision is Decision.ABORT else Do(step, hosts)", "return Retry() if view.retry else Do(step, hosts)", unit("barriers", "what_commits_is_not_tried_again")),
    Mutant("model/barriers.py", "return Retry() if view.retry and view.decision is Decision.ABORT else Do(step, hosts)", "return Do(step, hosts)", unit("barriers", "a_member_that_failed_is_tried_again_once_nothing_of_it_is_left_on_its_host")),
    Mutant("model/barriers.py", "            if hosts := view.owing(Step.SETTLE):\n                return Do(Step.SETTLE, hosts)\n", "", unit("barriers", "hosts_that_are_all_silent_are_waited_for")),
    Mutant("model/barriers.py", "if step is Step.PREPARE and view.manual and not view.finalized:", "if False:", unit("barriers", "the_user_is_waited_for_between_pending_and_prepare_and_nowhere_else")),
    Mutant("model/states.py", "D .  . . . . . . . 1 1 .\n", "D .  . . . . . . . 1 . .\n", unit("states", "a_status_may_be_followed_by_what_qemu_allows")),
    Mutant("model/states.py", "X .  . . . . . . . 1 1 .\n", "X .  1 . . . . . . 1 1 .\n", unit("states", "sources_is_the_table_read_by_columns")),
    Mutant("model/states.py", "finalize   . . . . . . . 1 . . .\n", "finalize   . . . . . . 1 1 . . .\n", unit("states", "a_verb_is_accepted_where_qemu_accepts_it")),
    Mutant("model/states.py", "dismiss    . . . . . . . . . 1 .\n", "dismiss    . . . . . . . 1 . 1 .\n", unit("states", "a_verb_is_accepted_where_qemu_accepts_it")),
    Mutant("registry/answers.py", 'job for job, each in zip(jobs, found, strict=True) if each == [b"created", b""]', 'job for job, each in zip(jobs, found, strict=True) if each[0] == b"created"', registry("held_up", "what_a_host_has_opened_is_owed_no_longer")),
    Mutant("registry/answers.py", "            if is_absence(error) or len(answers) == 1:\n                raise\n", "", registry("rights", "every_script_of_a_worker_is_refused_for_another_host")),
    Mutant("registry/transactions.py", 'waits="queued" if queued else "retry" if "begins" in record else ""', 'waits="retry" if "begins" in record else ""', registry("overlap", "a_queued_run_waits_until_the_one_before_has_ended_and_then_runs")),
    Mutant("registry/transactions.py", 'waits="queued" if queued else "retry" if "begins" in record else ""', 'waits="queued" if queued else ""', registry("retries", "the_next_try_waits_for_its_time_also_when_nobody_is_there_to_remember_it")),
    Mutant("registry/transactions.py", "first = view.cursor if whole and view.cursor >= 0 else len(rows)", "first = view.cursor if view.cursor >= 0 else len(rows)", registry("held_up", "nobody_is_concluded_who_has_not_settled")),
    Mutant("registry/transactions.py", "cursor = batch[-1][2] if whole else -1", "cursor = batch[-1][2]", registry("held_up", "nobody_is_left_out_where_a_finalizer_died_over_the_members_of_one_host")),
)
# fmt: on
