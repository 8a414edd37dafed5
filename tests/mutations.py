"""Which test notices which mistake: `python -m tests.mutations [NAME ...]`.

Applies one named mistake at a time to a copy of the code and runs the tests that should fail for
it. Prints a table; ends in 1 if a mistake survives, or if its place in the code has moved.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("lthbench", "tests", "tasks", "baselines", "leaderboard", "pyproject.toml", "README.md")
FAILED = re.compile(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One mistake, and who notices.

    Attributes:
        place: module:function, Class.method where it is one, nothing for the module itself.
        old: an expression or statements that stand once in it, however they are laid out.
        new: what stands there instead.
        tests: file::function, by spaces.
    """

    name: str
    place: str
    old: str
    new: str
    tests: str

    @property
    def file(self) -> str:
        return self.place.partition(":")[0].replace(".", "/") + ".py"

    def applied(self, text: str) -> str:
        """The module with the mistake; LookupError if its place is not there exactly once."""
        tree = ast.parse(text)
        where: ast.AST = tree
        for name in filter(None, self.place.partition(":")[2].split(".")):
            inside = [n for n in getattr(where, "body", ()) if getattr(n, "name", "") == name]
            if len(inside) != 1:
                raise LookupError(self.place)
            where = inside[0]
        mistake = _Mistake(ast.parse(self.old).body, ast.parse(self.new).body)
        mistake.visit(where)
        if mistake.met != 1:
            raise LookupError(self.old)
        return ast.unparse(ast.fix_missing_locations(tree))


class _Mistake(ast.NodeTransformer):
    """Puts one expression, or some statements, in the place of others."""

    def __init__(self, old: list[ast.stmt], new: list[ast.stmt]) -> None:
        self.old, self.new, self.met = [ast.dump(node) for node in old], new, 0
        match old, new:
            case [ast.Expr(before)], [ast.Expr(after)]:
                self.before, self.after = ast.dump(before), after
            case _:
                self.before, self.after = "", ast.Constant(None)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if self.before == ast.dump(node):
            self.met += 1
            return self.after
        super().generic_visit(node)
        for name in () if self.before else ("body", "orelse", "finalbody"):
            found: Any = getattr(node, name, None)
            body, count = found if isinstance(found, list) else [], len(self.old)
            for at in range(len(body) - count + 1):
                if [ast.dump(one) for one in body[at : at + count]] == self.old:
                    self.met += 1
                    body[at : at + count] = self.new or [ast.Pass()]
                    break
        return node


# fmt: off
MUTATIONS = (
    Mutation("ties go by index", "lthbench.tickets.masks:_lowest",
        "np.concatenate([below, equal])", "np.arange(count)",
        "tickets/test_masks.py::test_ties_are_spread_over_tensors_and_entries"),
    Mutation("one weight more than asked for", "lthbench.tickets.masks:target_count",
        "round(density * total)", "round(density * total) + (0 < density < 1)",
        "tickets/test_masks.py::test_target_count_rounds_half_to_even"),
    Mutation("> for >= at a threshold", "lthbench.records.metrics:first_sustained",
        "count >= least", "count > least",
        "records/test_scores.py::test_generalised_is_three_evaluations_in_a_row"),
    Mutation("masks before the step", "lthbench.training.engines.plain:_train",
        "optimiser.step()\nmasked.apply()", "masked.apply()\noptimiser.step()",
        "training/test_engine.py::"
        "test_pruned_weights_and_their_optimiser_state_are_zero_after_every_step"),
    Mutation("momentum is not masked", "lthbench.training.engines.plain:_Masked.apply",
        "isinstance(tensor, Tensor) and tensor.shape == parameter.shape", "False",
        "training/test_engine.py::"
        "test_pruned_weights_and_their_optimiser_state_are_zero_after_every_step"),
    Mutation("an evaluation moves a weight", "lthbench.training.engines.plain:_evaluate",
        "network.eval()", "network.eval()\nnext(network.parameters()).add_(1e-06)",
        "training/test_engine.py::test_an_evaluation_changes_no_bit"),
    Mutation("no example is left out", "lthbench.protocol.task:Recipe.batch_size",
        "examples - round(self.leave_out * examples)", "examples",
        "training/test_order.py::test_a_step_without_batches_takes_all_but_the_share"),
    Mutation("a control that keeps no signs", "lthbench.tickets.controls:fresh_magnitudes",
        "torch.where(like < 0, -values.abs(), values.abs())", "values.clone()",
        "evaluation/test_score_jobs.py::test_signs_stay_and_magnitudes_are_fresh"),
    Mutation("a path through what is pruned", "lthbench.networks.reach:_Reached.backward",
        "(gradient > 0).to(gradient.dtype)", "torch.ones_like(gradient)",
        "networks/test_reach.py::"
        "test_nodes_of_an_mlp_are_those_that_inputs_reach_and_that_reach_a_class"),
    Mutation("a shuffle that does nothing", "lthbench.tickets.controls:shuffled",
        "_shuffled_one(name, mask, seed, attempt)", "mask.clone()",
        "evaluation/test_score_jobs.py::test_a_shuffle_differs_and_keeps_counts"),
    Mutation("the held-out part is trained on", "lthbench.protocol.datasets:search",
        "order[held:]", "order",
        "evaluation/test_score_jobs.py::test_no_example_is_trained_and_counted"),
    Mutation("a sum and its mirror image are parted", "lthbench.protocol.datasets:modular_addition",
        "[(a, b) for a in range(p) for b in range(a, p)]",
        "[(a, b) for a in range(p) for b in range(p)]",
        "protocol/test_data.py::test_sums_are_split_by_unordered_pairs"),
    Mutation("scoring on the search's stream", "lthbench.evaluation.cells:",
        "('score/data',)", "('data', 'dense', '0')",
        "evaluation/test_score_jobs.py::test_scoring_has_an_order_of_its_own"),
    Mutation("another start is the same start", "lthbench.evaluation.starts:another",
        "families.initial(task.network, depth, seed, 'control', kind, str(attempt))",
        "families.initial(task.network, depth, seed)",
        "evaluation/test_score_jobs.py::test_another_start_by_origin"),
    Mutation("another start keeps its own norm", "lthbench.evaluation.starts:another",
        "task.score.kind == 'area' or rescale", "False",
        "evaluation/test_score_jobs.py::test_in_sums_another_start_has_the_tickets_norm"),
    Mutation("a failed control is not drawn again", "lthbench.evaluation.scoring:score_until_sound",
        "entry.attempt + 1 < DRAWS", "entry.attempt + 1 < 1",
        "evaluation/test_score_jobs.py::test_a_failed_control_is_drawn_again"),
    Mutation("the test split is always opened", "lthbench.evaluation.scoring:see",
        "plan.final", "True",
        "evaluation/test_score_jobs.py::test_only_a_final_run_opens_the_test_split"),
    Mutation("a missing rung is left out", "lthbench.records.runs:Runs.values",
        "[self.scores.get(place, self.record.task.chance) for place in places]",
        "[self.scores[place] for place in places if place in self.scores]",
        "records/test_scores.py::test_a_missing_rung_scores_chance_in_every_score"),
    Mutation("a failed control counts as chance", "lthbench.records.runs:Runs.values",
        "kind != 'ticket'", "False",
        "records/test_scores.py::test_a_failed_control_is_not_available"),
    Mutation("the last evaluation for the last five", "lthbench.records.runs:accuracy_of",
        "counts[-LAST:] if record.task.schedule == 'constant' else counts[-1:]",
        "counts[-1:]",
        "records/test_scores.py::test_the_mean_of_the_last_five_where_the_rate_is_constant"),
    Mutation("the least permissive division", "lthbench.records.aggregate:_division",
        "DIVISIONS[max(found)]", "DIVISIONS[min(found)]",
        "records/test_scores.py::test_a_division_is_the_most_permissive"),
    Mutation("an area is the mean of its evaluations", "lthbench.records.metrics:_log_step_weights",
        "edges = [logs[0], *((a + b) / 2 for a, b in pairwise(logs)), logs[-1]]",
        "edges = logs = list(range(len(steps) + 1))",
        "records/test_stats.py::test_area_by_hand"),
    Mutation("a late start is paid for what came before it", "lthbench.records.runs:_before",
        "record.task.chance", "1.0",
        "records/test_scores.py::test_the_area_of_a_late_start_has_denses_evaluations_before_it"),
    Mutation("losses are taken from the mean of dense", "lthbench.records.metrics:loss_points",
        "level - table @ shares", "level.mean() - table @ shares",
        "records/test_stats.py::test_loss_by_hand"),
    Mutation("retention is told where it divides by noise", "lthbench.records.aggregate:aggregate",
        "reference and rankable and loss is not None", "reference and loss is not None",
        "records/test_scores.py::"
        "test_where_random_pruning_loses_too_little_tickets_stand_above_erk"),
    Mutation("retention is clipped at 1", "lthbench.records.metrics:retention",
        "np.asarray(1 - losses / loss_random, dtype=np.float64)",
        "np.minimum(1.0, 1 - losses / loss_random)",
        "records/test_scores.py::test_retention_above_one_is_not_clipped"),
    Mutation("normal quantiles for t", "lthbench.records.intervals:_t_quantile",
        "special.stdtrit(freedom, p)", "special.ndtri(p) + 0 * freedom",
        "test_coverage.py::test_coverage records/test_scores.py::test_five_seeds_by_hand"),
    Mutation("matching goes on after a failure", "lthbench.records.metrics:_last_before_failure",
        "np.logical_and.accumulate(passed)", "passed",
        "records/test_stats.py::test_matching_density_stops_at_the_first_failure"),
    Mutation("only masked tensors have an origin", "lthbench.tickets.ticket:_equal",
        "a.keys() == b.keys() and all((same(a[name], b[name]) for name in a))",
        "all((same(a[n], b[n]) for n in a if n.endswith('weight')))",
        "tickets/test_ticket.py::test_one_changed_entry_makes_free"),
    Mutation("a replay is not compared", "lthbench.io.store:Log.call",
        "self.keys[self.position] != name", "False",
        "method/test_meter_store.py::test_a_replay_must_repeat_the_calls"),
    Mutation("a hit in the store is free", "lthbench.evaluation.search.answers:_train",
        "not paid", "not paid and state.stored(job.key) is None",
        "evaluation/test_answers.py::test_a_hit_in_the_store_is_charged"),
    Mutation("a record's aggregates are believed", "lthbench.records.schema:read_record",
        "check_aggregates(record, path)", "",
        "records/test_record.py::test_an_edited_aggregate_is_named"),
    Mutation("more right answers than examples", "lthbench.records.schema:Record._fits",
        "min(counts) < 0 or max(counts) > sizes[part]", "min(counts) < 0",
        "records/test_record.py::test_bad_values_are_refused_by_place"),
    Mutation("a fixed block is copied", "lthbench.tickets.elastic:block_map",
        "range(first, source)", "range(source)",
        "tickets/test_transfer.py::test_the_block_maps_of_residual_networks"),
    Mutation("masks and weights part ways", "lthbench.tickets.elastic:carried",
        "{name: where[name] for name in target.prunable}",
        "{n: n if n in ticket.masks else where[n] for n in target.prunable}",
        "tickets/test_transfer.py::test_no_pair_of_depths_is_forgotten"),
    Mutation("a carried mask keeps its own count", "lthbench.tickets.elastic:_new_counts",
        "difference == 0", "True",
        "tickets/test_transfer.py::test_counts_are_exact_and_change_one_way"),
    Mutation("a carried mask is mended anywhere", "lthbench.tickets.elastic:carried",
        "on_rung(moved, weights, target, density, copies(target, maps))",
        "on_rung(moved, weights, target, density)",
        "tickets/test_transfer.py::test_only_copies_are_brought_to_the_rung"),
    Mutation("a density may be off by three", "lthbench.tickets.elastic:",
        "FACTOR = 2", "FACTOR = 3",
        "tickets/test_transfer.py::test_a_density_off_by_more_than_a_factor_of_two_is_refused"),
    Mutation("a method's file is executed", "lthbench.method.source:declared",
        "tree = parsed(source, place)",
        "tree = parsed(source, place)\nexec(compile(tree, place, 'exec'), {})",
        "method/test_method.py::test_nothing_of_the_file_is_executed"),
    Mutation("a bill may be a number", "lthbench.method.problem:Problem.loop",
        "work_of(cost, 'loop')", "cost",
        "evaluation/test_answers.py::test_a_bill_that_is_talked_down"),
    Mutation("a list of constants is no literal", "lthbench.method.publishable:check_source",
        "source.encode()", "source",
        "method/test_method.py::test_the_size_of_a_source_is_in_bytes"),
    Mutation("a bundle's source is not asked who made it",
        "lthbench.leaderboard.validation.bundle_rules:check",
        "publishable.check_says(record.method, said)", "",
        "leaderboard/test_bundle_attacks.py::test_a_record_says_what_its_source_says"),
    Mutation("a baseline's record may name others", "lthbench.leaderboard.validation.claims:check",
        "publishable.check_shipped(record.method)", "",
        "leaderboard/test_validation.py::test_a_record_of_a_baseline_says_what_the_baseline_says"),
    Mutation("what is refused later is not told before", "lthbench.evaluation.options:asked",
        "publishable.check(loaded)", "pass",
        "evaluation/test_evaluate.py::"
        "test_what_would_be_refused_is_refused_before_anything_is_trained"),
    Mutation("a thinned layer forgets its bias",
        "lthbench.training.engines.compact:_Sparse.forward",
        "(self.weight @ x).add_(self.bias.values[:, None])", "self.weight @ x",
        "training/test_compact.py::test_a_unit_without_inputs_emits_its_bias"),
    Mutation("a full layer's pruned weights are trained",
        "lthbench.training.engines.compact:_pruned",
        "gradient *= mask", "pass",
        "training/test_compact.py::test_pruned_weights_are_zero_at_the_end"),
    Mutation("all weights decay", "lthbench.training.engines.compact:_Update.__init__",
        "[(slice(0, cut), recipe.weight_decay), (slice(cut, None), 0.0)]",
        "[(slice(None), recipe.weight_decay)]",
        "training/test_compact.py::test_fifty_steps_are_those_of_the_plain_engine"),
    Mutation("a job that has ended goes on", "lthbench.training.engines.stacked:Group.step",
        "torch.where(alive, tensor, old, out=tensor)", "pass",
        "training/test_stacked.py::test_a_job_that_has_ended_stays_as_it_is"),
    Mutation("corrections count from theta_0", "lthbench.training.engines.stacked:Group.load",
        "stacked_optimisers.figures(job.recipe, job.start.step + step, step)",
        "stacked_optimisers.figures(job.recipe, job.start.step + step, job.start.step + step)",
        "training/test_stacked.py::test_fifty_steps_are_the_plain_engines"),
    Mutation("who has ended is waited for", "lthbench.training.executors.batching:Together.leave",
        "self._live -= 1", "",
        "training/test_together.py::test_rounds_go_together_however_they_arrive"),
    Mutation("an engine is no part of a key", "lthbench.evaluation.cells:entry_of",
        "VERSIONS[by]", "VERSIONS['plain']",
        "training/test_choice.py::test_the_engine_is_in_the_key"),
    Mutation("noise moves no weight", "lthbench.tools.noise_floor:nudged",
        "np.nextafter(tensor.numpy(), towards)", "tensor.numpy().copy()",
        "tools/test_noise.py::test_a_start_is_moved_by_one_unit_in_the_last_place"),
    Mutation("a file under any name", "lthbench.leaderboard.validation.files:check_place",
        "(folder, path.name) != (record.task.name, name)", "folder != record.task.name",
        "leaderboard/test_validation.py::test_a_file_must_bear_its_own_name"),
    Mutation("a key twice in a record", "lthbench.leaderboard.validation.files:_check_canonical",
        "file_bytes(record) == data", "len(data) > 0 and file_bytes(record) != b''",
        "leaderboard/test_validation.py::test_a_file_is_canonical"),
    Mutation("a control that was never shuffled",
        "lthbench.leaderboard.validation.cell_rules:Layers.check_shuffle",
        "(cell.masks == ticket.masks) != (own == ticket.layers.keys())", "False",
        "leaderboard/test_validation.py::test_each_rule_refuses_what_breaks_it"),
    Mutation("a branch may change a record",
        "lthbench.leaderboard.validation.pull_request:_why_not",
        "kind == 'A' and RECORD.fullmatch(path)", "RECORD.fullmatch(path)",
        "leaderboard/test_validation.py::test_nothing_else_may_change"),
    Mutation("a branch is read from the working tree",
        "lthbench.leaderboard.validation.validate:_committed",
        "pull_request.write(change, Path(folder))",
        "[change.top / record.path for record in change.added]",
        "leaderboard/test_validation.py::test_what_is_committed_counts_not_what_lies_there"),
    Mutation("answers are not counted", "lthbench.leaderboard.validation.bundle_rules:_agree",
        "right != run.correct['test'][-1]", "right < 0",
        "leaderboard/test_validation.py::test_a_count_that_the_answers_do_not_give_is_refused"),
    Mutation("a ledger's chain is not followed", "lthbench.leaderboard.board.ledger:parse",
        "line['previous'] != head", "line['previous'] == ''",
        "leaderboard/test_ledger.py::test_a_line_taken_out_breaks_it"),
    Mutation("any beacon will do", "lthbench.leaderboard.board.accept:_reported",
        "ledger.digests()[standing.line - 1:]", "ledger.digests()",
        "leaderboard/test_accept.py::test_a_beacon_from_before_the_acceptance_is_refused"),
    Mutation("records are accepted on any branch", "lthbench.leaderboard.board.accept:_check_place",
        "branch != BRANCH", "not branch",
        "leaderboard/test_accept.py::test_on_main_alone"),
    Mutation("what git refuses is an empty answer", "lthbench.io.git:run",
        "done.returncode", "done.returncode < 0",
        "leaderboard/test_accept.py::test_where_git_answers_an_error_nothing_is_accepted"),
    Mutation("each user has a lock of their own", "lthbench.leaderboard.board.accept:_alone",
        "path.resolve().with_name(f'{path.name}.lock')",
        "path.with_name(f'{secrets.token_hex(4)}.lock')",
        "leaderboard/test_accept.py::test_two_users_at_once_lose_nothing"),
    Mutation("a ledger that another changed meanwhile is written over",
        "lthbench.leaderboard.board.accept:_check_place",
        "on_disk != ledgers.text(ledger)", "not on_disk and ledger.lines",
        "leaderboard/test_accept.py::test_a_ledger_that_changes_meanwhile_is_not_written_over"),
    Mutation("an address may lead into a private network",
        "lthbench.leaderboard.downloads.connections:Reach.check",
        "ip is None or (self.allowed and self.inside)",
        "ip is None or self.allowed or (not self.inside)",
        "leaderboard/test_zoo.py::test_a_public_address_leads_to_no_private_one"),
    Mutation("a private address is asked without leave",
        "lthbench.leaderboard.downloads.connections:Reach.check",
        "self.allowed and self.inside", "self.inside",
        "leaderboard/test_zoo.py::test_a_private_address_is_not_asked_unless_it_is_allowed"),
    Mutation("of a name's addresses the first alone is looked at",
        "lthbench.leaderboard.downloads.addresses:inside",
        "(place.ip for place in found if not is_public(place.ip))",
        "(place.ip for place in found[:1] if not is_public(place.ip))",
        "leaderboard/test_zoo.py::test_every_address_of_a_name_is_looked_at"),
    Mutation("a name is looked up again for the connection",
        "lthbench.leaderboard.downloads.connections:Connection._connected",
        "place.address", "(self.name, place.address[1])",
        "leaderboard/test_zoo.py::test_a_name_is_asked_for_once"),
    Mutation("a proxy looks the name up",
        "lthbench.leaderboard.downloads.connections:Connection.set_tunnel",
        "str(there.address[0])", "self.name",
        "leaderboard/test_zoo.py::test_a_proxy_is_told_the_address_that_was_checked"),
    Mutation("each wait has all of the time",
        "lthbench.leaderboard.downloads.connections:Incoming.readinto",
        "self.deadline.wait()", "self.deadline.pause",
        "leaderboard/test_zoo.py::test_what_drips_ends_with_the_time"),
    Mutation("a handshake has no end",
        "lthbench.leaderboard.downloads.connections:Connection.connect",
        "self.deadline.wait()", "self.deadline.pause",
        "leaderboard/test_zoo.py::test_a_handshake_ends_with_the_time"),
    Mutation("a redirection may leave https", "lthbench.leaderboard.downloads.fetch:_next",
        "urlsplit(there).scheme != 'https'", "urlsplit(there).scheme == 'file'",
        "leaderboard/test_zoo.py::test_what_has_not_is_refused_in_one_line"),
    Mutation("connections are never given back",
        "lthbench.leaderboard.site.serve:Server.process_request_thread",
        "self.free.release()", "pass",
        "leaderboard/test_site.py::test_so_many_connections_at_once_and_no_more"),
    Mutation("no pair is stepped down", "lthbench.leaderboard.board.ranks:step_down",
        "np.maximum.accumulate(above, axis=0, out=above)", "",
        "leaderboard/test_ranks.py::test_all_flips_agree_with_the_definition"),
    Mutation("drawn flips leave the unflipped one out", "lthbench.leaderboard.board.ranks:_p",
        "0 if _all(flips) else 1", "0",
        "leaderboard/test_ranks.py::test_drawn_flips_agree_with_the_definition"),
    Mutation("cells can be foreseen", "lthbench.leaderboard.board.sampling:lot",
        "[bundle, beacon, *place(cell)]", "[bundle, *place(cell)]",
        "leaderboard/test_verify.py::test_the_draw_depends_on_bundle_and_beacon"),
    Mutation("a draw that was left out is not missed",
        "lthbench.leaderboard.validation.cell_rules:_check_draws",
        "len(run.failed_draws) != run.attempt", "len(run.failed_draws) > run.attempt",
        "leaderboard/test_verify.py::test_a_control_whose_draw_was_chosen"),
    Mutation("a failed draw is believed", "lthbench.leaderboard.board.sampling:candidates",
        "drawn(cell)", "drawn(cell)[-1:]",
        "leaderboard/test_verify.py::test_a_control_whose_draw_was_chosen"),
    Mutation("a near copy is another ticket", "lthbench.leaderboard.board.copies:",
        "NEAR = 0.9", "NEAR = 1.1",
        "leaderboard/test_copies.py::test_a_copy_under_another_name"),
    Mutation("a copy is one of every mask", "lthbench.leaderboard.board.copies:Likeness.same",
        "2 * (self.equal + self.near) > self.cells", "self.equal + self.near == self.cells",
        "leaderboard/test_copies.py::test_a_copy_under_another_name"),
    Mutation("a copy is one of any mask", "lthbench.leaderboard.board.copies:Likeness.same",
        "2 * (self.equal + self.near) > self.cells", "self.equal + self.near > 0",
        "leaderboard/test_copies.py::test_a_common_first_rung_is_a_remark"),
    Mutation("a copy is ranked", "lthbench.leaderboard.board.standings:_why",
        "if row.same:\n    return f'same tickets as {row.same}'",
        "if False:\n    return f'same tickets as {row.same}'",
        "leaderboard/test_copies.py::test_a_copy_stands_beneath_the_original_and_is_not_ranked"),
    Mutation("a copy stands where its score is", "lthbench.leaderboard.board.standings:_ranked",
        "sorted(rest, key=beneath)", "sorted(rest, key=_rest_order)",
        "leaderboard/test_copies.py::"
        "test_a_copy_stands_right_beneath_an_original_that_is_not_ranked"),
    Mutation("a sketch is believed", "lthbench.leaderboard.verification.artefacts:_masks",
        "cell.sketch not in (None, mine_sketch)", "False",
        "leaderboard/test_verify.py::test_near_copies_of_another_entry"),
    Mutation("a copy without sketches is none",
        "lthbench.leaderboard.verification.artefacts:_others",
        "known.same and (not seen.same) and other", "False",
        "leaderboard/test_verify.py::test_near_copies_of_another_entry"),
    Mutation("many small lies are none", "lthbench.leaderboard.board.criteria:verdict",
        "bool((found[:, 0] <= allowed).all())", "True",
        "leaderboard/test_verify.py::test_counts_beyond_their_noise"),
    Mutation("an area's noise is never less than a point",
        "lthbench.leaderboard.board.criteria:_floor",
        "max(least.score, known[rung].score)", "max(1.0, known[rung].score)",
        "leaderboard/test_verify.py::test_areas_are_compared_in_points_of_noise"),
    Mutation("optimism is not minded", "lthbench.leaderboard.board.reproduction:judge",
        "optimism > allowed", "False",
        "leaderboard/test_verify.py::test_optimism"),
    Mutation("controls pay for tickets", "lthbench.leaderboard.board.criteria:statistics_of",
        "known[:, parts == part, 0]", "known[:, parts >= part, 0]",
        "leaderboard/test_verify.py::test_controls_do_not_pay_for_tickets"),
    Mutation("a report is believed for its own verdict",
        "lthbench.leaderboard.board.accept:_levelled",
        "level >= 2", "level >= 9",
        "leaderboard/test_accept.py::test_a_report_is_not_believed_for_its_own_verdict"),
    Mutation("a retracted entry comes back", "lthbench.leaderboard.board.ledger:_apply",
        "known.retracted and act != 'challenge'", "False",
        "leaderboard/test_ledger.py::test_an_act_that_does_not_follow"),
    Mutation("bytes between a bundle's members", "lthbench.io.canonical_zip:read",
        "data != _pack(members)", "False",
        "leaderboard/test_bundle_attacks.py::test_headers_that_lie"),
    Mutation("a seed is joined twice", "lthbench.leaderboard.submission.merge:_check_seeds",
        "seed in known", "seed in ()",
        "leaderboard/test_merge.py::test_a_misfit_is_one_line_and_writes_nothing"),
    Mutation("every seed is of the first one's machine",
        "lthbench.records.schema:Record.environment_of",
        "(self.environments or {}).get(str(seed), self.environment)", "self.environment",
        "leaderboard/test_merge.py::test_a_record_says_of_each_seed_where_it_was_evaluated"),
    Mutation("a machine is told twice", "lthbench.records.schema:Record._check_environments",
        "self.environment in told.values()", "not told",
        "leaderboard/test_merge.py::test_a_machine_is_told_in_one_form_alone"),
    Mutation("bits are expected by the record's machine, not the seed's",
        "lthbench.leaderboard.verification.retrain:check",
        "alike(record.environment_of(row.seed), own)", "alike(record.environment, own)",
        "leaderboard/test_verify.py::test_other_bits_on_one_class_of_machine_are_shown"),
    Mutation("the kernel closes nothing", "lthbench.method.audit_hook:install",
        "landlock.confine(home, forbidden)", "pass",
        "method/test_guard.py::test_the_kernel_refuses_what_python_does_not_tell_of"),
    Mutation("what /proc says of others is open", "lthbench.method.landlock:_of_another",
        "name.isdigit() and int(name) != os.getpid()", "False",
        "method/test_guard.py::test_the_kernel_refuses_what_python_does_not_tell_of"),
    Mutation("a path is taken for one of the own folder's", "lthbench.method.audit_hook:_changed",
        "base >= 0", "base >= 10 ** 9",
        "method/test_guard.py::test_the_hook_alone_refuses_what_python_tells_of"),
)
# fmt: on


def moved(root: Path = ROOT) -> list[str]:
    """Mutations whose place is no longer there, or twice."""
    return [m.name for m in MUTATIONS if _applied(root, m) is None]


def _applied(root: Path, mutation: Mutation) -> str | None:
    try:
        return mutation.applied((root / mutation.file).read_text(encoding="utf-8"))
    except (LookupError, FileNotFoundError):
        return None


def copy(folder: Path) -> None:
    """Everything that the tests need, without what earlier runs compiled."""
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, folder / name)


def run(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run some tests of the copy: pytest's exit status, and the first test that failed."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),  # before the folder of an editable installation
        "PYTHONDONTWRITEBYTECODE": "1",  # a mutation may keep size and second of its file
        "LTHBENCH_CACHE": str(folder / "cache"),
    }
    given = ("-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    named = [f"tests/{test}" for test in tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *given, *named],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = FAILED.search(done.stdout)
    return done.returncode, failed[1] if failed else ""


def tried(folder: Path, mutation: Mutation) -> tuple[str, str]:
    """The test that failed for a mutation of the copy, and the verdict."""
    mistaken = _applied(folder, mutation)
    if mistaken is None:
        return "", "MOVED"
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mistaken, encoding="utf-8")
    try:
        status, failed = run(folder, mutation.tests.split())
    finally:
        path.write_text(text, encoding="utf-8")
    return failed, {0: "SURVIVED", 1: "killed"}.get(status, f"BROKEN (pytest ended in {status})")


def main() -> int:
    """Try the mutations that are named, or all."""
    from tabulate import tabulate

    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="some of them; all by default")
    parser.add_argument("--list", action="store_true", help="only name them")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if m.name in options.names or not options.names]
    if unknown := set(options.names) - {m.name for m in chosen}:
        parser.error(f"no mutation {min(unknown)!r}; --list names them")
    if options.list:
        print(*(m.name for m in chosen), sep="\n")
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="lthbench-mutations-") as name:
        folder = Path(name)
        copy(folder)
        every = list(dict.fromkeys(test for m in chosen for test in m.tests.split()))
        status, failed = run(folder, every)
        if status:
            print(f"without any mutation {failed or 'pytest'} fails already", file=sys.stderr)
            return 1
        for mutation in chosen:
            failed, verdict = tried(folder, mutation)
            rows.append((mutation.name, mutation.file, failed, verdict))
            print(f"{mutation.name}: {verdict}", file=sys.stderr, flush=True)
    print(tabulate(rows, ("mutation", "file", "test that failed", "verdict")))
    return int(any(verdict != "killed" for *_, verdict in rows))


if __name__ == "__main__":
    sys.exit(main())
