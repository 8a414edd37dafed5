"""Which test notices which mistake: `python -m tests.mutations [NAME ...]`.

Applies one named mistake at a time to a copy of the code and runs the tests that should fail for
it. Prints a table; ends in 1 if a mistake survives, or if its place in the code has moved.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("lthbench", "tests", "tasks", "baselines", "leaderboard", "pyproject.toml", "README.md")
FAILED = re.compile(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """One mistake: a text that occurs once in a file, what stands there instead, who notices."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "ties go by index",
        "lthbench/tickets/masks.py",
        "    return np.concatenate([below, equal])",
        "    return np.arange(count)",
        ("tickets/test_masks.py::test_ties_are_spread_over_tensors_and_entries",),
    ),
    Mutation(
        "one weight more than asked for",
        "lthbench/tickets/masks.py",
        "    return round(density * total)",
        "    return round(density * total) + (0 < density < 1)",
        ("tickets/test_masks.py::test_target_count_rounds_half_to_even",),
    ),
    Mutation(
        "> for >= at a threshold",
        "lthbench/records/metrics.py",
        "in_a_row + 1 if count >= least else 0",
        "in_a_row + 1 if count > least else 0",
        ("records/test_scores.py::test_generalised_is_three_evaluations_in_a_row",),
    ),
    Mutation(
        "masks before the step",
        "lthbench/training/engines/plain.py",
        "        optimiser.step()\n        masked.apply()",
        "        masked.apply()\n        optimiser.step()",
        (
            "training/test_engine.py::"
            "test_pruned_weights_and_their_optimiser_state_are_zero_after_every_step",
        ),
    ),
    Mutation(
        "momentum is not masked",
        "lthbench/training/engines/plain.py",
        "if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:",
        "if False:",
        (
            "training/test_engine.py::"
            "test_pruned_weights_and_their_optimiser_state_are_zero_after_every_step",
        ),
    ),
    Mutation(
        "an evaluation moves a weight",
        "lthbench/training/engines/plain.py",
        "    network.eval()\n",
        "    network.eval()\n    next(network.parameters()).add_(1e-6)\n",
        ("training/test_engine.py::test_an_evaluation_changes_no_bit",),
    ),
    Mutation(
        "no example is left out",
        "lthbench/protocol/task.py",
        "        return self.batch or examples - round(self.leave_out * examples)",
        "        return self.batch or examples",
        ("training/test_order.py::test_a_step_without_batches_takes_all_but_the_share",),
    ),
    Mutation(
        "a control that keeps no signs",
        "lthbench/tickets/controls.py",
        "        signed = torch.where(like < 0, -values.abs(), values.abs())",
        "        signed = values.clone()",
        ("evaluation/test_score_jobs.py::test_signs_stay_and_magnitudes_are_fresh",),
    ),
    Mutation(
        "a path through what is pruned",
        "lthbench/networks/reach.py",
        "        return (gradient > 0).to(gradient.dtype)",
        "        return torch.ones_like(gradient)",
        (
            "networks/test_reach.py::test_nodes_of_an_mlp_are_those_that_inputs_reach_and_that_reach_a_class",
        ),
    ),
    Mutation(
        "a shuffle that does nothing",
        "lthbench/tickets/controls.py",
        "else _shuffled_one(name, mask, seed, attempt)",
        "else mask.clone()",
        ("evaluation/test_score_jobs.py::test_a_shuffle_differs_and_keeps_counts",),
    ),
    Mutation(
        "the held-out part is trained on",
        "lthbench/protocol/datasets.py",
        "_take(examples, np.sort(order[held:]))",
        "_take(examples, np.sort(order))",
        ("evaluation/test_score_jobs.py::test_no_example_is_trained_and_counted",),
    ),
    Mutation(
        "a sum and its mirror image are parted",
        "lthbench/protocol/datasets.py",
        "for b in range(a, p)])",
        "for b in range(p)])",
        ("protocol/test_data.py::test_sums_are_split_by_unordered_pairs",),
    ),
    Mutation(
        "scoring on the search's stream",
        "lthbench/evaluation/cells.py",
        'ORDER = ("score/data",)',
        'ORDER = ("data", "dense", "0")',
        ("evaluation/test_score_jobs.py::test_scoring_has_an_order_of_its_own",),
    ),
    Mutation(
        "another start is the same start",
        "lthbench/evaluation/starts.py",
        'seed, "control", kind, str(attempt))',
        "seed)",
        ("evaluation/test_score_jobs.py::test_another_start_by_origin",),
    ),
    Mutation(
        "another start keeps its own norm",
        "lthbench/evaluation/starts.py",
        '    if task.score.kind == "area" or rescale:  # scale alone',
        "    if False:  #",
        ("evaluation/test_score_jobs.py::test_in_sums_another_start_has_the_tickets_norm",),
    ),
    Mutation(
        "a failed control is not drawn again",
        "lthbench/evaluation/scoring.py",
        "entry.attempt + 1 < DRAWS",
        "entry.attempt + 1 < 1",
        ("evaluation/test_score_jobs.py::test_a_failed_control_is_drawn_again",),
    ),
    Mutation(
        "the test split is always opened",
        "lthbench/evaluation/scoring.py",
        "        if plan.final:\n            sets[seed]",
        "        if True:\n            sets[seed]",
        ("evaluation/test_score_jobs.py::test_only_a_final_run_opens_the_test_split",),
    ),
    Mutation(
        "a missing rung is left out",
        "lthbench/records/aggregate.py",
        '    return [chance if cell is None else cell["score"] for cell in found]',
        '    return [cell["score"] for cell in found if cell is not None]',
        ("records/test_scores.py::test_a_missing_rung_scores_chance_in_every_score",),
    ),
    Mutation(
        "a failed control counts as chance",
        "lthbench/records/aggregate.py",
        '    if kind != "ticket" and any(',
        "    if False and any(",
        ("records/test_scores.py::test_a_failed_control_is_not_available",),
    ),
    Mutation(
        "the last evaluation for the last five",
        "lthbench/records/aggregate.py",
        '    last = counts[-LAST:] if record["task"]["schedule"] == "constant" else counts[-1:]',
        "    last = counts[-1:]",
        ("records/test_scores.py::test_the_mean_of_the_last_five_where_the_rate_is_constant",),
    ),
    Mutation(
        "the least permissive division",
        "lthbench/records/aggregate.py",
        "    return order[max(found)] if found else None",
        "    return order[min(found)] if found else None",
        ("records/test_scores.py::test_a_division_is_the_most_permissive",),
    ),
    Mutation(
        "an area is the mean of its evaluations",
        "lthbench/records/metrics.py",
        "    edges = [logs[0], *((a + b) / 2 for a, b in pairwise(logs)), logs[-1]]",
        "    edges = logs = list(range(len(steps) + 1))",
        ("records/test_stats.py::test_area_by_hand",),
    ),
    Mutation(
        "a late start is paid for what came before it",
        "lthbench/records/aggregate.py",
        '    return [float(record["task"]["chance"])] * count',
        "    return [1.0] * count",
        ("records/test_scores.py::test_the_area_of_a_late_start_has_denses_evaluations_before_it",),
    ),
    Mutation(
        "losses are taken from the mean of dense",
        "lthbench/records/metrics.py",
        "    return np.asarray(100 * (level - table @ shares), dtype=np.float64)",
        "    return np.asarray(100 * (level.mean() - table @ shares), dtype=np.float64)",
        ("records/test_stats.py::test_loss_by_hand",),
    ),
    Mutation(
        "retention is told where it divides by noise",
        "lthbench/records/aggregate.py",
        '        if told["rankable"] and loss is not None:',
        "        if loss is not None:",
        (
            "records/test_scores.py::test_where_random_pruning_loses_too_little_tickets_stand_above_erk",
        ),
    ),
    Mutation(
        "retention is clipped at 1",
        "lthbench/records/metrics.py",
        "    return np.asarray(1 - losses / loss_random, dtype=np.float64)",
        "    return np.minimum(1.0, 1 - losses / loss_random)",
        ("records/test_scores.py::test_retention_above_one_is_not_clipped",),
    ),
    Mutation(
        "normal quantiles for t",
        "lthbench/records/intervals.py",
        "    return np.asarray(special.stdtrit(freedom, p), dtype=np.float64)",
        "    return np.asarray(special.ndtri(p) + 0 * freedom, dtype=np.float64)",
        ("test_coverage.py::test_coverage", "records/test_scores.py::test_five_seeds_by_hand"),
    ),
    Mutation(
        "matching goes on after a failure",
        "lthbench/records/metrics.py",
        "    rungs = int(np.logical_and.accumulate(passed).sum())",
        "    rungs = int(passed.sum())",
        ("records/test_stats.py::test_matching_density_stops_at_the_first_failure",),
    ),
    Mutation(
        "only masked tensors have an origin",
        "lthbench/tickets/ticket.py",
        "    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)",
        '    return all(same(a[n], b[n]) for n in a if n.endswith("weight"))',
        ("tickets/test_ticket.py::test_one_changed_entry_makes_free",),
    ),
    Mutation(
        "a replay is not compared",
        "lthbench/io/store.py",
        "            if self.keys[self.position] != name:",
        "            if False:",
        ("method/test_meter_store.py::test_a_replay_must_repeat_the_calls",),
    ),
    Mutation(
        "a hit in the store is free",
        "lthbench/evaluation/search/session.py",
        "    if not paid:\n",
        "    if not paid and state.store.get(job.key) is None:\n",
        ("evaluation/test_answers.py::test_a_hit_in_the_store_is_charged",),
    ),
    Mutation(
        "a record's aggregates are believed",
        "lthbench/records/schema.py",
        '    check_aggregates(record, record.model_dump(mode="json"), path)\n    return record',
        "    return record",
        ("records/test_record.py::test_an_edited_aggregate_is_named",),
    ),
    Mutation(
        "more right answers than examples",
        "lthbench/records/schema.py",
        "(min(counts) < 0 or max(counts) > sizes[part])",
        "min(counts) < 0",
        ("records/test_record.py::test_bad_values_are_refused_by_place",),
    ),
    Mutation(
        "a fixed block is copied",
        "lthbench/tickets/elastic.py",
        "    added = islice(cycle(range(first, source)), max(0, target - source))",
        "    added = islice(cycle(range(source)), max(0, target - source))",
        ("tickets/test_transfer.py::test_the_block_maps_of_residual_networks",),
    ),
    Mutation(
        "masks and weights part ways",
        "lthbench/tickets/elastic.py",
        "{name: where[name] for name in target.prunable}",
        "{n: n if n in ticket.masks else where[n] for n in target.prunable}",
        ("tickets/test_transfer.py::test_no_pair_of_depths_is_forgotten",),
    ),
    Mutation(
        "a carried mask keeps its own count",
        "lthbench/tickets/elastic.py",
        "    if difference == 0:",
        "    if True:",
        ("tickets/test_transfer.py::test_counts_are_exact_and_change_one_way",),
    ),
    Mutation(
        "a carried mask is mended anywhere",
        "lthbench/tickets/elastic.py",
        "density, copies(target, maps))",
        "density)",
        ("tickets/test_transfer.py::test_only_copies_are_brought_to_the_rung",),
    ),
    Mutation(
        "a density may be off by three",
        "lthbench/tickets/elastic.py",
        "FACTOR = 2 ",
        "FACTOR = 3 ",
        ("tickets/test_transfer.py::test_a_density_off_by_more_than_a_factor_of_two_is_refused",),
    ),
    Mutation(
        "a method's file is executed",
        "lthbench/method/source.py",
        "    bound = _bound(tree)\n",
        '    exec(compile(tree, place, "exec"), {})\n    bound = _bound(tree)\n',
        ("method/test_method.py::test_nothing_of_the_file_is_executed",),
    ),
    Mutation(
        "a bill may be a number",
        "lthbench/method/problem.py",
        '        work = work_of(cost, "loop")\n',
        "        work = cost\n",
        ("evaluation/test_answers.py::test_a_bill_that_is_talked_down",),
    ),
    Mutation(
        "a list of constants is no literal",
        "lthbench/method/publishable.py",
        "    if (size := len(source.encode())) > SOURCE_LIMIT:\n",
        "    if (size := len(source)) > SOURCE_LIMIT:\n",
        ("method/test_method.py::test_the_size_of_a_source_is_in_bytes",),
    ),
    Mutation(
        "a bundle's source is not asked who made it",
        "lthbench/leaderboard/validation/bundle_rules.py",
        "            publishable.check_says(record.method, said)\n",
        "",
        ("leaderboard/test_bundle_attacks.py::test_a_record_says_what_its_source_says",),
    ),
    Mutation(
        "a baseline's record may name others",
        "lthbench/leaderboard/validation/claims.py",
        "    publishable.check_shipped(record.method)\n",
        "",
        (
            "leaderboard/test_validation.py::test_a_record_of_a_baseline_says_what_the_baseline_says",
        ),
    ),
    Mutation(
        "what is refused later is not told before",
        "lthbench/evaluation/options.py",
        "        publishable.check(loaded)\n",
        "        pass\n",
        (
            "evaluation/test_evaluate.py::test_what_would_be_refused_is_refused_before_anything_is_trained",
        ),
    ),
    Mutation(
        "a thinned layer forgets its bias",
        "lthbench/training/engines/compact.py",
        "        return (self.weight @ x).add_(self.bias.values[:, None]).t()",
        "        return (self.weight @ x).t()",
        ("training/test_compact.py::test_a_unit_without_inputs_emits_its_bias",),
    ),
    Mutation(
        "a full layer's pruned weights are trained",
        "lthbench/training/engines/compact.py",
        "        gradient *= mask\n",
        "        pass\n",
        ("training/test_compact.py::test_pruned_weights_are_zero_at_the_end",),
    ),
    Mutation(
        "all weights decay",
        "lthbench/training/engines/compact.py",
        "        spans = [(slice(0, cut), recipe.weight_decay), (slice(cut, None), 0.0)]",
        "        spans = [(slice(None), recipe.weight_decay)]",
        ("training/test_compact.py::test_fifty_steps_are_those_of_the_plain_engine",),
    ),
    Mutation(
        "a job that has ended goes on",
        "lthbench/training/engines/stacked.py",
        "                torch.where(alive, tensor, old, out=tensor)  # times 0 would keep a NaN",
        "                pass",
        ("training/test_stacked.py::test_a_job_that_has_ended_stays_as_it_is",),
    ),
    Mutation(
        "corrections count from theta_0",
        "lthbench/training/engines/stacked.py",
        "job.start.step + step, step), 1.0)",
        "job.start.step + step, job.start.step + step), 1.0)",
        ("training/test_stacked.py::test_fifty_steps_are_the_plain_engines",),
    ),
    Mutation(
        "who has ended is waited for",
        "lthbench/training/executors/batching.py",
        "        self._live -= 1\n",
        "",
        ("training/test_together.py::test_rounds_go_together_however_they_arrive",),
    ),
    Mutation(
        "an engine is no part of a key",
        "lthbench/evaluation/cells.py",
        "        engine=VERSIONS[by],",
        "        engine=VERSIONS['plain'],",
        ("training/test_choice.py::test_the_engine_is_in_the_key",),
    ),
    Mutation(
        "noise moves no weight",
        "lthbench/tools/noise_floor.py",
        "np.nextafter(tensor.numpy(), towards)",
        "tensor.numpy().copy()",
        ("tools/test_noise.py::test_a_start_is_moved_by_one_unit_in_the_last_place",),
    ),
    Mutation(
        "a file under any name",
        "lthbench/leaderboard/validation/files.py",
        "    if (folder, path.name) != (record.task.name, name):",
        "    if folder != record.task.name:",
        ("leaderboard/test_validation.py::test_a_file_must_bear_its_own_name",),
    ),
    Mutation(
        "a key twice in a record",
        "lthbench/leaderboard/validation/files.py",
        "        same = file_bytes(record) == data",
        "        same = len(data) > 0 and file_bytes(record) != b''",
        ("leaderboard/test_validation.py::test_a_file_is_canonical",),
    ),
    Mutation(
        "a control that was never shuffled",
        "lthbench/leaderboard/validation/cell_rules.py",
        "        if (cell.masks == ticket.masks) != (own == ticket.layers.keys()):",
        "        if False:",
        ("leaderboard/test_validation.py::test_each_rule_refuses_what_breaks_it",),
    ),
    Mutation(
        "a branch may change a record",
        "lthbench/leaderboard/validation/pull_request.py",
        '    if kind == "A" and RECORD.fullmatch(path):',
        "    if RECORD.fullmatch(path):",
        ("leaderboard/test_validation.py::test_nothing_else_may_change",),
    ),
    Mutation(
        "a branch is read from the working tree",
        "lthbench/leaderboard/validation/validate.py",
        "        found = parallel.findings(pull_request.write(change, Path(folder)))",
        "        found = parallel.findings([change.top / record.path for record in change.added])",
        ("leaderboard/test_validation.py::test_what_is_committed_counts_not_what_lies_there",),
    ),
    Mutation(
        "answers are not counted",
        "lthbench/leaderboard/validation/bundle_rules.py",
        '        if right != run.correct["test"][-1]:',
        "        if right < 0:",
        ("leaderboard/test_validation.py::test_a_count_that_the_answers_do_not_give_is_refused",),
    ),
    Mutation(
        "a ledger's chain is not followed",
        "lthbench/leaderboard/board/ledger.py",
        '        if line["previous"] != head:',
        '        if line["previous"] == "":',
        ("leaderboard/test_ledger.py::test_a_line_taken_out_breaks_it",),
    ),
    Mutation(
        "any beacon will do",
        "lthbench/leaderboard/board/accept.py",
        'report["beacon"] not in ledger.digests()[standing.line - 1 :]:',
        'report["beacon"] not in ledger.digests():',
        ("leaderboard/test_accept.py::test_a_beacon_from_before_the_acceptance_is_refused",),
    ),
    Mutation(
        "records are accepted on any branch",
        "lthbench/leaderboard/board/accept.py",
        "    if branch != BRANCH:",
        "    if not branch:",
        ("leaderboard/test_accept.py::test_on_main_alone",),
    ),
    Mutation(
        "what git refuses is an empty answer",
        "lthbench/io/git.py",
        "    if done.returncode:",
        "    if done.returncode < 0:",
        ("leaderboard/test_accept.py::test_where_git_answers_an_error_nothing_is_accepted",),
    ),
    Mutation(
        "each user has a lock of their own",
        "lthbench/leaderboard/board/accept.py",
        'path.resolve().with_name(f"{path.name}.lock")',
        'path.with_name(f"{secrets.token_hex(4)}.lock")',
        ("leaderboard/test_accept.py::test_two_users_at_once_lose_nothing",),
    ),
    Mutation(
        "a ledger that another changed meanwhile is written over",
        "lthbench/leaderboard/board/accept.py",
        "    if on_disk != ledgers.text(ledger):",
        "    if not on_disk and ledger.lines:",
        ("leaderboard/test_accept.py::test_a_ledger_that_changes_meanwhile_is_not_written_over",),
    ),
    Mutation(
        "an address may lead into a private network",
        "lthbench/leaderboard/downloads/connections.py",
        "        if ip is None or (self.allowed and self.inside):",
        "        if ip is None or self.allowed or not self.inside:",
        ("leaderboard/test_zoo.py::test_a_public_address_leads_to_no_private_one",),
    ),
    Mutation(
        "a private address is asked without leave",
        "lthbench/leaderboard/downloads/connections.py",
        "        if ip is None or (self.allowed and self.inside):",
        "        if ip is None or self.inside:",
        ("leaderboard/test_zoo.py::test_a_private_address_is_not_asked_unless_it_is_allowed",),
    ),
    Mutation(
        "of a name's addresses the first alone is looked at",
        "lthbench/leaderboard/downloads/addresses.py",
        "for place in found if not",
        "for place in found[:1] if not",
        ("leaderboard/test_zoo.py::test_every_address_of_a_name_is_looked_at",),
    ),
    Mutation(
        "a name is looked up again for the connection",
        "lthbench/leaderboard/downloads/connections.py",
        "                sock.connect(place.address)",
        "                sock.connect((self.name, place.address[1]))",
        ("leaderboard/test_zoo.py::test_a_name_is_asked_for_once",),
    ),
    Mutation(
        "a proxy looks the name up",
        "lthbench/leaderboard/downloads/connections.py",
        "super().set_tunnel(str(there.address[0]),",
        "super().set_tunnel(self.name,",
        ("leaderboard/test_zoo.py::test_a_proxy_is_told_the_address_that_was_checked",),
    ),
    Mutation(
        "each wait has all of the time",
        "lthbench/leaderboard/downloads/connections.py",
        "        self.sock.settimeout(self.deadline.wait())\n        return self.sock.recv_into",
        "        self.sock.settimeout(self.deadline.pause)\n        return self.sock.recv_into",
        ("leaderboard/test_zoo.py::test_what_drips_ends_with_the_time",),
    ),
    Mutation(
        "a handshake has no end",
        "lthbench/leaderboard/downloads/connections.py",
        "        plain.settimeout(self.deadline.wait())",
        "        plain.settimeout(self.deadline.pause)",
        ("leaderboard/test_zoo.py::test_a_handshake_ends_with_the_time",),
    ),
    Mutation(
        "a redirection may leave https",
        "lthbench/leaderboard/downloads/fetch.py",
        '    if urlsplit(there).scheme != "https":',
        '    if urlsplit(there).scheme == "file":',
        ("leaderboard/test_zoo.py::test_what_has_not_is_refused_in_one_line",),
    ),
    Mutation(
        "connections are never given back",
        "lthbench/leaderboard/site/serve.py",
        "        finally:\n            self.free.release()",
        "        finally:\n            pass",
        ("leaderboard/test_site.py::test_so_many_connections_at_once_and_no_more",),
    ),
    Mutation(
        "no pair is stepped down",
        "lthbench/leaderboard/board/ranks.py",
        "        np.maximum.accumulate(above, axis=0, out=above)\n",
        "",
        ("leaderboard/test_ranks.py::test_all_flips_agree_with_the_definition",),
    ),
    Mutation(
        "drawn flips leave the unflipped one out",
        "lthbench/leaderboard/board/ranks.py",
        "    more = 0 if _all(flips) else 1\n",
        "    more = 0\n",
        ("leaderboard/test_ranks.py::test_drawn_flips_agree_with_the_definition",),
    ),
    Mutation(
        "cells can be foreseen",
        "lthbench/leaderboard/board/sampling.py",
        "canonical_json([bundle, beacon, *place",
        "canonical_json([bundle, *place",
        ("leaderboard/test_verify.py::test_the_draw_depends_on_bundle_and_beacon",),
    ),
    Mutation(
        "a draw that was left out is not missed",
        "lthbench/leaderboard/validation/cell_rules.py",
        "    if len(run.failed_draws) != run.attempt:",
        "    if len(run.failed_draws) > run.attempt:",
        ("leaderboard/test_verify.py::test_a_control_whose_draw_was_chosen",),
    ),
    Mutation(
        "a failed draw is believed",
        "lthbench/leaderboard/board/sampling.py",
        "        for draw in drawn(cell)",
        "        for draw in drawn(cell)[-1:]",
        ("leaderboard/test_verify.py::test_a_control_whose_draw_was_chosen",),
    ),
    Mutation(
        "a near copy is another ticket",
        "lthbench/leaderboard/board/copies.py",
        "NEAR = 0.9 ",
        "NEAR = 1.1 ",
        ("leaderboard/test_copies.py::test_a_copy_under_another_name",),
    ),
    Mutation(
        "a copy is one of every mask",
        "lthbench/leaderboard/board/copies.py",
        "        return 2 * (self.equal + self.near) > self.cells",
        "        return self.equal + self.near == self.cells",
        ("leaderboard/test_copies.py::test_a_copy_under_another_name",),
    ),
    Mutation(
        "a copy is one of any mask",
        "lthbench/leaderboard/board/copies.py",
        "        return 2 * (self.equal + self.near) > self.cells",
        "        return self.equal + self.near > 0",
        ("leaderboard/test_copies.py::test_a_common_first_rung_is_a_remark",),
    ),
    Mutation(
        "a copy is ranked",
        "lthbench/leaderboard/board/standings.py",
        "    if row.same:\n",
        "    if False:\n",
        ("leaderboard/test_copies.py::test_a_copy_stands_beneath_the_original_and_is_not_ranked",),
    ),
    Mutation(
        "a copy stands where its score is",
        "lthbench/leaderboard/board/standings.py",
        "sorted(rest, key=beneath)",
        "sorted(rest, key=_rest_order)",
        (
            "leaderboard/test_copies.py::test_a_copy_stands_right_beneath_an_original_that_is_not_ranked",
        ),
    ),
    Mutation(
        "a sketch is believed",
        "lthbench/leaderboard/verification/artefacts.py",
        "            if cell.sketch not in (None, mine_sketch):",
        "            if False:",
        ("leaderboard/test_verify.py::test_near_copies_of_another_entry",),
    ),
    Mutation(
        "a copy without sketches is none",
        "lthbench/leaderboard/verification/artefacts.py",
        "        if known.same and not seen.same and other:",
        "        if False:",
        ("leaderboard/test_verify.py::test_near_copies_of_another_entry",),
    ),
    Mutation(
        "many small lies are none",
        "lthbench/leaderboard/board/criteria.py",
        "bool((found[:, 0] <= allowed).all())",
        "True",
        ("leaderboard/test_verify.py::test_counts_beyond_their_noise",),
    ),
    Mutation(
        "an area's noise is never less than a point",
        "lthbench/leaderboard/board/criteria.py",
        "Floors(max(least.score, known[rung].score), ",
        "Floors(max(1.0, known[rung].score), ",
        ("leaderboard/test_verify.py::test_areas_are_compared_in_points_of_noise",),
    ),
    Mutation(
        "optimism is not minded",
        "lthbench/leaderboard/board/reproduction.py",
        "    if optimism > allowed:\n",
        "    if False:\n",
        ("leaderboard/test_verify.py::test_optimism",),
    ),
    Mutation(
        "controls pay for tickets",
        "lthbench/leaderboard/board/criteria.py",
        "test = known[:, parts == part, 0]",
        "test = known[:, parts >= part, 0]",
        ("leaderboard/test_verify.py::test_controls_do_not_pay_for_tickets",),
    ),
    Mutation(
        "a report is believed for its own verdict",
        "lthbench/leaderboard/board/accept.py",
        "        if level >= 2 and (why := _unfounded(",
        "        if level >= 9 and (why := _unfounded(",
        ("leaderboard/test_accept.py::test_a_report_is_not_believed_for_its_own_verdict",),
    ),
    Mutation(
        "a retracted entry comes back",
        "lthbench/leaderboard/board/ledger.py",
        '    if known.retracted and act != "challenge":\n',
        "    if False:\n",
        ("leaderboard/test_ledger.py::test_an_act_that_does_not_follow",),
    ),
    Mutation(
        "bytes between a bundle's members",
        "lthbench/io/canonical_zip.py",
        "        if view[position : position + len(part)] != part:\n",
        "        if False:\n",
        ("leaderboard/test_bundle_attacks.py::test_headers_that_lie",),
    ),
    Mutation(
        "a seed is joined twice",
        "lthbench/leaderboard/submission/merge.py",
        "            if seed in known:",
        "            if seed in ():",
        ("leaderboard/test_merge.py::test_a_misfit_is_one_line_and_writes_nothing",),
    ),
    Mutation(
        "every seed is of the first one's machine",
        "lthbench/records/schema.py",
        "        return (self.environments or {}).get(str(seed), self.environment)",
        "        return self.environment",
        ("leaderboard/test_merge.py::test_a_record_says_of_each_seed_where_it_was_evaluated",),
    ),
    Mutation(
        "a machine is told twice",
        "lthbench/records/schema.py",
        "        if self.environment in told.values():",
        "        if not told:",
        ("leaderboard/test_merge.py::test_a_machine_is_told_in_one_form_alone",),
    ),
    Mutation(
        "bits are expected by the record's machine, not the seed's",
        "lthbench/leaderboard/verification/retrain.py",
        "if alike(record.environment_of(row.seed), own)]",
        "if alike(record.environment, own)]",
        ("leaderboard/test_verify.py::test_other_bits_on_one_class_of_machine_are_shown",),
    ),
    Mutation(
        "the kernel closes nothing",
        "lthbench/method/audit_hook.py",
        "        landlock.confine(home, forbidden)",
        "        pass",
        ("method/test_guard.py::test_the_kernel_refuses_what_python_does_not_tell_of",),
    ),
    Mutation(
        "what /proc says of others is open",
        "lthbench/method/landlock.py",
        "    return name.isdigit() and int(name) != os.getpid()",
        "    return False",
        ("method/test_guard.py::test_the_kernel_refuses_what_python_does_not_tell_of",),
    ),
    Mutation(
        "a path is taken for one of the own folder's",
        "lthbench/method/audit_hook.py",
        "        elif base >= 0:",
        "        elif base >= 10**9:",
        ("method/test_guard.py::test_the_hook_alone_refuses_what_python_tells_of",),
    ),
)


def moved(root: Path = ROOT) -> list[str]:
    """Mutations whose text does not occur exactly once."""
    texts = {m.file: (root / m.file).read_text(encoding="utf-8") for m in MUTATIONS}
    return [m.name for m in MUTATIONS if texts[m.file].count(m.old) != 1]


def copy(folder: Path) -> None:
    """Everything that the tests need, without what earlier runs compiled."""
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, folder / name)


def run(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
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
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        return "", "MOVED"
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        status, failed = run(folder, mutation.tests)
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
        every = tuple(dict.fromkeys(test for m in chosen for test in m.tests))
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
