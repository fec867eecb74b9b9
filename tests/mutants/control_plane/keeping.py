"""Retention: what stays, and what is pruned or forgotten."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry, unit

# fmt: off
KEEPING: Final = (
    Mutant("model/keep.py", "return self.number, self.at, self.run\n\n\n@dataclass(frozen=True, slots=True)\nclass Retained", "return self.at, self.number, self.run\n\n\n@dataclass(frozen=True, slots=True)\nclass Retained", unit("keep", "backups_of_earlier_versions_bear_no_number_and_are_older_than_any_that_do")),
    Mutant("model/keep.py", "[each for each in versions if each.committed]", "list(versions)", unit("keep", "rules_keep")),
    Mutant("model/keep.py", "[each for each in committed if not each.salvaged]", "list(committed)", unit("keep", "rules_keep")),
    Mutant("model/keep.py", "    if not any(keep.get(rule, 0) > 0 for rule in RULES):\n        return _apply_keep_rules(committed, keep, now)\n", "", unit("keep", "rules_keep")),
    Mutant("model/keep.py", "if each.salvaged and each.order > newest]", "if each.salvaged]", unit("keep", "rules_keep")),
    Mutant("model/keep.py", "    if not any(keep.get(rule, 0) > 0 for rule in RULES):\n        return Retained(dict.fromkeys(reasons, (NO_RULE,)))\n", "", unit("keep", "rules_keep")),
    Mutant("model/keep.py", "            reasons[each.run].append(BEYOND_NOW)\n", "            pass\n", unit("keep", "the_order_is_that_of_the_decisions_whatever_the_clocks_said")),
    Mutant("model/keep.py", "        if each.at <= now:\n            latest", "        if True:\n            latest", unit("keep", "the_order_is_that_of_the_decisions_whatever_the_clocks_said")),
    Mutant("model/keep.py", "max(latest, each.at)", "each.at", unit("keep", "the_order_is_that_of_the_decisions_whatever_the_clocks_said")),
    Mutant("model/keep.py", 'return self.group, self.job.removeprefix(f"{self.run}."), self.source', 'return self.group, self.job.removeprefix(f"{self.run}."), ""', unit("keep", "another_source_is_another_history_though_the_job_has_its_name")),
    Mutant("model/keep.py", "holder.setdefault(t.place, t.run) != t.run", "holder.setdefault(t.path, t.run) != t.run", unit("keep", "a_target_that_a_later_run_wrote_is_replaced_and_nothing_is_removed")),
    Mutant("model/keep.py", "        kept |= {t: (JUST_MADE,) for t in members if t.run == after and t not in kept}\n", "", unit("keep", "what_a_run_has_just_made_stays_though_a_later_one_committed_before_anybody_pruned")),
    Mutant("model/keep.py", '        if after is not None and name not in only:\n            kept |= {t: ("not asked for",) for t in members if t not in kept}\n', "", unit("keep", "only_what_the_run_has_committed_is_pruned_after_it")),
    Mutant("model/keep.py", "below = {(t.host, path) for t in kept for path in t.layers} | layers", "below = {(t.host, path) for t in kept for path in t.layers}", unit("keep", "what_a_chain_needs_stays_to_its_end")),
    Mutant("model/keep.py", "below = {(t.host, path) for t in kept for path in t.layers} | layers", "below = {*layers}", unit("keep", "what_a_chain_needs_stays_to_its_end")),
    Mutant("ask/prune.py", "        views, history = self._registry.views.runs(odd=STRICT), self._registry.history\n", "        views, history = self._registry.views.runs(), self._registry.history\n", registry("unreadable", "a_run_that_cannot_be_read_lets_nothing_be_pruned")),
    Mutant("ask/prune.py", "targets = history.targets((run for run in views if run.name == name), STRICT)", "targets = history.targets((run for run in views if run.name == name))", registry("unreadable", "a_target_that_cannot_be_read_hides_itself_and_nothing_is_pruned_meanwhile")),
    Mutant("ask/prune.py", "rules, after=after,", "rules,", registry("asking", "after_a_run_only_what_it_has_made_anew_is_pruned")),
    Mutant("ask/prune.py", "layers=layers, now=", "now=", registry("asking", "what_an_image_of_another_name_lies_on_is_not_pruned")),
    Mutant("ask/prune.py", "now=self._registry.clock.now() / 1000)", ")", registry("asking", "what_was_made_at_a_time_that_lies_beyond_now_is_not_pruned")),
    Mutant("ask/prune.py", "                        needed |= {(outcome.target.host, path) for path in outcome.target.layers}\n", "                        pass\n", registry("asking", "what_an_image_lies_on_that_was_left_is_left")),
    Mutant("ask/prune.py", "changes=not dry\n", "changes=False\n", registry("asking", "what_no_rule_keeps_is_pruned_by_permit_and_is_free_again")),
    Mutant("ask/prune.py", "if not asked.dry and not questions.take_permit(asked.host, asked.question):", "if False:", registry("asking", "a_host_that_does_not_answer_prunes_nothing_unless_it_had_begun")),
    Mutant("ask/prune.py", "if len(batch) == AT_ONCE or any(target.path in above.layers for above in batch):", "if len(batch) == AT_ONCE:", registry("asking", "an_image_is_asked_for_behind_those_that_lie_on_it")),
    Mutant("registry/lua/prune.lua", 'if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 0 then return {"repeated"} end\n', "", registry("history", "pruned_is_noted_once_with_one_event_and_the_run_says_so")),
    Mutant("registry/lua/prune.lua", 'elseif redis.call("HGET", KEYS[3], ARGV[2]) ~= ARGV[8] then', "elseif true then", registry("history", "pruned_is_noted_once_with_one_event_and_the_run_says_so")),
    Mutant("registry/retention.py", "now_ms - keep_ms", "now_ms", registry("retention", "an_old_run_leaves_nothing_behind")),
    never("registry/retention.py", "        if self._kept(run):\n            self._redis.hset", registry("history", "an_old_run_stays_in_history_as_long_as_a_rule_keeps_its_targets")),
    Mutant("registry/retention.py", 'return (going or b"0") == b"0" and not (slim and targets)', "return not (slim and targets)", registry("retention", "a_run_that_is_not_over_is_never_forgotten")),
    Mutant("registry/doors.py", "Views(client, internal=internal, odd=STRICT)", "Views(client, internal=internal, odd=self.odd)", registry("unreadable", "the_run_of_an_odd_job_is_not_forgotten_and_others_are")),
)
# fmt: on
