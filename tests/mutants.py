"""Small mistakes, each of which a test must see.

    python -m tests.mutants [NAME ...]

Puts one mistake after another into a copy of the tree and runs the tests that should
fail. The exit status is 1 where one passes, or where a mistake has no place any more.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "runs", "results", "*.egg-info")


class Mutant(NamedTuple):
    """A mistake: in a file, one text in place of another; and who should see it."""

    file: str
    old: str
    new: str
    tests: str  # of pytest's command line


TRAINING = "tests/training"
ANNEALING = "tests/annealing"
EVIDENCE = "tests/evidence"
ROWS = "tests/models/test_evaluation.py"
MUTANTS = {
    # Training.
    "theta_for_its_average": Mutant(
        "ais_jax/training/step.py",
        "self.generative.params if self.average is None else self.average",
        "self.generative.params",
        f"{TRAINING}/test_step.py -k average",
    ),
    "evaluation_of_theta": Mutant(
        "experiments/run/parameters.py",
        '"average" if "average" in kept else "generative/params"',
        '"generative/params"',
        "tests/experiments/test_run.py -k average",
    ),
    "missing_pixels_drawn_as_zeros": Mutant(
        "ais_jax/training/step.py",
        "return jnp.where(jnp.isnan(mean), mean, pixels)",
        "return pixels",
        f"{TRAINING}/test_step.py -k missing",
    ),
    "missing_values_as_zeros": Mutant(
        "ais_jax/models/likelihoods.py",
        "jnp.where(is_observed, each, 0.0)",
        "each",
        "tests/models/test_likelihoods.py -k missing",
    ),
    "a_library_of_missing_genes_too": Mutant(
        "ais_jax/models/counts.py",
        "log_total = jax.nn.logsumexp(output[:, 0], where=is_seen)",
        "log_total = jax.nn.logsumexp(output[:, 0])",
        "tests/models/test_counts.py -k add_up",
    ),
    "zeros_that_are_all_dropped": Mutant(
        "ais_jax/models/counts.py",
        "jnp.logaddexp(odds, log_kept) - jax.nn.softplus(odds)",
        "odds - jax.nn.softplus(odds)",
        "tests/models/test_counts.py -k dropouts",
    ),
    "a_dispersion_without_its_push": Mutant(
        "ais_jax/models/counts.py",
        "(r * (log_ratio + beyond) - push)",
        "(r * (log_ratio + beyond))",
        "tests/models/test_counts.py -k any_size",
    ),
    "covariates_that_the_encoder_misses": Mutant(
        "ais_jax/models/layers.py",
        "jnp.append(seen, x[self.size :])",
        "jnp.append(seen, 0.0 * x[self.size :])",
        "tests/models/test_counts.py -k encoder_sees",
    ),
    "pairs_of_no_libraries": Mutant(
        "ais_jax/models/layers.py",
        "jnp.append(x, row[self.size :])",
        "jnp.append(x, 0.0 * row[self.size :])",
        "tests/models/test_counts.py -k simulated_rows",
    ),
    "more_epochs_from_the_end": Mutant(
        "experiments/run/checkpoint.py",
        "if saved > step]",
        "if saved > step and False]",
        "tests/experiments/test_run.py -k more_epochs_bit",
    ),
    "step_sizes_that_do_not_follow": Mutant(
        "ais_jax/training/step.py",
        'mode="edge"',
        'mode="constant"',
        f"{TRAINING}/test_step.py -k fewer_moves",
    ),
    "moves_that_are_never_late": Mutant(
        "experiments/run/build.py",
        "if is_late and late_moves:",
        "if is_late and late_moves < 0:",
        "tests/experiments/test_run.py -k late_moves",
    ),
    "more_epochs_from_the_late_moves": Mutant(
        "experiments/run/build.py",
        "return min(stable, phase_ends(settings, num_train)[0][1])",
        "return stable",
        "tests/experiments/test_run.py -k more_epochs_bit",
    ),
    "phis_rate_for_theta": Mutant(
        "ais_jax/training/step.py",
        "optimizers.theta, learning_rates[0]",
        "optimizers.theta, learning_rates[1]",
        f"{TRAINING}/test_step.py -k rates",
    ),
    "phi_at_the_old_theta": Mutant(
        "ais_jax/training/step.py",
        "state.inference, generative.params, keys(phi_key), x",
        "state.inference, state.generative.params, keys(phi_key), x",
        f"{TRAINING}/test_step.py -k algorithm_1",
    ),
    "phi_on_thetas_noise": Mutant(
        "ais_jax/training/step.py",
        "generative.params, keys(phi_key), x",
        "generative.params, keys(sample_key), x",
        f"{TRAINING}/test_step.py -k algorithm_1",
    ),
    "phis_draws_of_one_key": Mutant(
        "ais_jax/training/losses.py",
        "return jax.vmap(log_weight)(chain_keys(key, num_samples))",
        "return jax.vmap(log_weight)(jnp.repeat(key[None], num_samples))",
        f"{TRAINING}/test_estimators.py -k expected_values",
    ),
    "points_without_their_chains_weight": Mutant(
        "ais_jax/annealing/proposals.py",
        "(log_w[:, None] + clouds.log_w).ravel()",
        "clouds.log_w.ravel()",
        f"{ANNEALING}/test_proposals.py {TRAINING}/test_estimators.py -k points",
    ),
    # Evaluation of a run.
    "digests_that_are_not_looked_at": Mutant(
        "experiments/run/checkpoint.py",
        "        manifest.verify(sharding.fetch(leaves), saved)\n",
        "",
        "tests/experiments/test_checkpoint.py -k digest",
    ),
    "a_manifest_that_is_not_verified": Mutant(
        "experiments/run/manifest.py",
        'if manifest.get("sha256") != _sha256_of_json(leaves):',
        "if False:",
        "tests/experiments/test_checkpoint.py -k digest",
    ),
    # Plans and pilots.
    "correlations_by_chance": Mutant(
        "ais_jax/evidence/mass_matrix.py",
        "kept = 1.0 - jnp.clip(",
        "kept = 1.0 - 0.0 * jnp.clip(",
        f"{EVIDENCE}/test_mass_matrix.py",
    ),
    "tails_taken_for_normal": Mutant(
        "ais_jax/evidence/mass_matrix.py",
        "(square - jnp.square(mean)) / free",
        "jnp.square(1.0 - jnp.square(mean)) / free",
        f"{EVIDENCE}/test_mass_matrix.py",
    ),
    "bounds_without_the_plans_scale": Mutant(
        "ais_jax/evidence/both_ways.py",
        "        scale_of_moves(plan),\n",
        "        None,\n",
        f"{EVIDENCE}/test_plan.py -k bounds_use",
    ),
    "steps_one_temperature_early": Mutant(
        "ais_jax/evidence/plan.py",
        "pilot.log_steps[1:-1]",
        "pilot.log_steps[:-2]",
        f"{EVIDENCE}/test_plan.py -k own_temperatures",
    ),
    "scales_one_temperature_early": Mutant(
        "ais_jax/evidence/plan.py",
        "slice(1, -1)",
        "slice(0, -2)",
        f"{EVIDENCE}/test_plan.py -k own_temperatures",
    ),
    "a_search_one_temperature_early": Mutant(
        "ais_jax/evidence/sampler.py",
        "then = pilots.move_to(pilot, betas[1:])",
        "then = pilots.move_to(pilot, betas[:-1])",
        f"{EVIDENCE}/test_pilot.py -k own_temperatures",
    ),
    "rounds_that_are_never_extended": Mutant(
        "ais_jax/evidence/pilot.py",
        "return (i <= num_rounds) | is_far",
        "return i <= num_rounds",
        f"{EVIDENCE}/test_pilot.py -k extended",
    ),
    "a_search_that_is_never_extended": Mutant(
        "ais_jax/evidence/budget.py",
        "is_settled = i >= NUM_ROUNDS and float(error) <= pilots.LARGEST_ERROR",
        "is_settled = i >= NUM_ROUNDS",
        f"{EVIDENCE}/test_pilot.py -k extended",
    ),
    "a_resampled_plan_without_its_base": Mutant(
        "ais_jax/evidence/plan.py",
        "return Plan(betas, jnp.exp(log_steps), scale, plan.base)",
        "return Plan(betas, jnp.exp(log_steps), scale)",
        f"{EVIDENCE}/test_base.py -k plan",
    ),
    # The search for log Z.
    "moves_of_fewer_temperatures_not_counted": Mutant(
        "ais_jax/evidence/refine.py",
        "num_moves=np.int64(meter.spent)",
        "num_moves=np.int64(accept_prob.size)",
        f"{EVIDENCE}/test_refine.py -k every_move",
    ),
    "the_pilots_moves_not_counted": Mutant(
        "ais_jax/evidence/budget.py",
        'meter.pay(f"pilot{task.name}", done * (pilots.MOVES if i == 0 else 1))',
        'meter.pay(f"pilot{task.name}", 0)',
        f"{EVIDENCE}/test_refine.py -k every_move",
    ),
    "keys_that_do_not_depend_on_t": Mutant(
        "ais_jax/evidence/refine.py",
        "places = np.int32(num), np.int32(number)",
        "places = np.int32(0), np.int32(number)",
        f"{EVIDENCE}/test_refine.py -k frozen_chains",
    ),
    "the_pilots_key_for_the_estimate": Mutant(
        "ais_jax/evidence/log_z.py",
        "search(meter, task, found, key, eps, kept)",
        "search(meter, task, found, pilot_key, eps, kept)",
        f"{EVIDENCE}/test_refine.py -k frozen_chains",
    ),
    "draws_and_moves_of_one_key": Mutant(
        "ais_jax/annealing/loop.py",
        "return start(keys[:, :, 1], ",
        "return start(keys[:, :, 0], ",
        f"{EVIDENCE}/test_refine.py -k frozen_chains",
    ),
    "a_plans_draws_and_moves_of_one_key": Mutant(
        "ais_jax/evidence/both_ways.py",
        "return jax.vmap(draw)(keys[:, 0]), keys[:, 1]",
        "return jax.vmap(draw)(keys[:, 0]), keys[:, 0]",
        f"{EVIDENCE}/test_refine.py -k frozen_chains",
    ),
    "the_same_noise_in_each_segment": Mutant(
        "ais_jax/annealing/loop.py",
        "_keys(chains.keys, first + t)",
        "_keys(chains.keys, t)",
        f"{EVIDENCE}/test_refine.py -k frozen_chains",
    ),
    "chains_of_fewer_temperatures_kept": Mutant(
        "ais_jax/evidence/refine.py",
        "before, num, chunks, wanted = result, 2 * num, [], 1",
        "before, num, wanted = result, 2 * num, 1 + len(chunks)",
        f"{EVIDENCE}/test_refine.py",
    ),
    "a_shift_that_forgets_the_earlier_error": Mutant(
        "ais_jax/evidence/refine.py",
        "apart = np.hypot(error, before.standard_error)",
        "apart = error",
        f"{EVIDENCE}/test_refine.py -k shift",
    ),
    "halves_that_may_disagree": Mutant(
        "ais_jax/evidence/refine.py",
        "return 0.5 * distance if distance > DISAGREEMENT * error else 0.0",
        "return 0.0",
        f"{EVIDENCE}/test_refine.py -k halves",
    ),
    "a_prior_with_its_location_and_scale": Mutant(
        "ais_jax/evidence/priors.py",
        "if _name(real) in UNITS:",
        "if not _name(real):",
        f"{EVIDENCE}/test_priors.py -k 'location or neck'",
    ),
    "a_last_share_below_one": Mutant(
        "ais_jax/evidence/spacing.py",
        "shares >= whole",
        "shares >= 1.0",
        f"{EVIDENCE}/test_pilot.py -k rounds_below",
    ),
    "a_pilot_of_all_slots": Mutant(
        "ais_jax/evidence/row_search.py",
        "every[: self.rule.num_pilot]",
        "every[: allocation.SLOTS]",
        f"{ROWS} -k pilot_is",
    ),
    "limits_of_one_stage_alone": Mutant(
        "ais_jax/evidence/budget.py",
        "return self.spent + more <= self.limits.max_moves and is_timely",
        "return more <= self.limits.max_moves and is_timely",
        f"{EVIDENCE}/test_refine.py -k limits_end",
    ),
    "temperatures_by_the_length_not_its_square": Mutant(
        "ais_jax/evidence/budget.py",
        "PER_LENGTH * found.length**2",
        "PER_LENGTH * found.length",
        f"{EVIDENCE}/test_refine.py -k square",
    ),
    # The fitted base.
    "a_base_without_its_volume": Mutant(
        "ais_jax/evidence/base.py",
        "        - jnp.sum(jnp.log(diagonal))\n",
        "",
        f"{EVIDENCE}/test_base.py -k integrates",
    ),
    "a_prior_drawn_less_often_than_weighed": Mutant(
        "ais_jax/evidence/base.py",
        "is_prior = jax.random.uniform(which_key) < share",
        "is_prior = jax.random.uniform(which_key) < 0.5 * share",
        f"{EVIDENCE}/test_base.py -k drawn",
    ),
    "normal_tails_drawn_for_a_students": Mutant(
        "ais_jax/evidence/base.py",
        "u = normal * jnp.sqrt(DEGREES / chi2)",
        "u = normal",
        f"{EVIDENCE}/test_base.py -k drawn",
    ),
    # Weights and errors.
    "paretos_threshold_off_by_one": Mutant(
        "ais_jax/numerics.py",
        "excess = w[-num_tail:] - w[-num_tail - 1]",
        "excess = w[-num_tail:] - w[-num_tail]",
        "tests/ground/test_numerics.py -k pareto",
    ),
    "a_rounding_term_kept_at_resampling": Mutant(
        "ais_jax/annealing/smc.py",
        "jnp.where(is_due, jnp.zeros_like(lost), lost)",
        "lost",
        f"{ANNEALING}/test_smc.py -k rounding",
    ),
    "steps_of_width_zero_that_weigh": Mutant(
        "ais_jax/annealing/clouds.py",
        "jnp.where(is_finite | (delta == 0.0), terms, -jnp.inf)",
        "jnp.where(is_finite, terms, -jnp.inf)",
        f"{ANNEALING}/test_clouds.py -k width_zero",
    ),
    "reverse_starts_by_increments_too": Mutant(
        "ais_jax/annealing/loop.py",
        "jnp.where(sign > 0.0, weighed.shares, chains.clouds.log_w)",
        "weighed.shares",
        f"{ANNEALING}/test_clouds.py -k unbiased_both_ways",
    ),
    "faults_of_the_last_move_alone": Mutant(
        "ais_jax/annealing/loop.py",
        "is_unsound=chains.is_unsound | weighed.is_unsound",
        "is_unsound=weighed.is_unsound",
        f"{ANNEALING}/test_clouds.py -k met_on_the_way",
    ),
    "a_base_that_is_missed_everywhere": Mutant(
        "ais_jax/annealing/clouds.py",
        "(target > best - NEAR)",
        "(target > best - jnp.inf)",
        f"{ANNEALING}/test_clouds.py -k mass",
    ),
    # Moves.
    "the_current_point_in_the_acceptance": Mutant(
        "ais_jax/annealing/trajectory.py",
        "jnp.minimum(0.0, log_w[:-1])",
        "jnp.minimum(0.0, log_w)",
        f"{ANNEALING}/test_trajectory.py -k acceptance",
    ),
    "one_number_for_place_and_step": Mutant(
        "ais_jax/annealing/trajectory.py",
        "step_size * (1.0 - jitter * share[1])",
        "step_size * (1.0 - jitter * share[0])",
        f"{ANNEALING}/test_trajectory.py -k 'place or distributed'",
    ),
    "always_from_the_first_place": Mutant(
        "ais_jax/annealing/trajectory.py",
        "place = jnp.floor(share[0] * (num_leapfrog + 1)).astype(jnp.int32)",
        "place = jnp.zeros((), jnp.int32)",
        f"{ANNEALING}/test_trajectory.py -k distributed",
    ),
    "a_matrix_that_is_not_transposed": Mutant(
        "ais_jax/annealing/path.py",
        "return jnp.matmul(v, scale) if",
        "return jnp.matmul(scale, v) if",
        f"{ANNEALING}/test_path.py {EVIDENCE}/test_plan.py -k 'matrix or dense'",
    ),
    "a_force_without_the_volumes_gradient": Mutant(
        "ais_jax/evidence/bounded.py",
        "force = jax.tree.map(jnp.add, *pull_back(force), slope)",
        "(force,) = pull_back(force)",
        f"{EVIDENCE}/test_bounded.py -k force",
    ),
    # Derivatives.
    "a_derivative_by_even_weights": Mutant(
        "ais_jax/evidence/derivatives.py",
        "weights = jax.nn.softmax(log_w)",
        "weights = jax.nn.softmax(0.0 * log_w)",
        f"{EVIDENCE}/test_derivatives.py -k gradient_is",
    ),
    "a_derivative_through_the_base": Mutant(
        "ais_jax/evidence/derivatives.py",
        "jax.closure_convert(path.log_target, z[0])",
        "jax.closure_convert(lambda z: path.log_target(z) - path.log_base(z), z[0])",
        f"{EVIDENCE}/test_derivatives.py -k gradient_is",
    ),
    "an_end_of_no_weight_in_the_derivative": Mutant(
        "ais_jax/evidence/derivatives.py",
        "z = jnp.where(weights[:, None] > 0.0, z, z[jnp.argmax(weights)])",
        "z = z + 0.0",
        f"{EVIDENCE}/test_derivatives.py -k no_weight",
    ),
    "even_draws_from_the_base_at_the_end": Mutant(
        "ais_jax/annealing/ends.py",
        "weigh(of_points(points, len(points.log_target)), delta)",
        "weigh(of_points(points, 1), delta)",
        f"{ANNEALING}/test_clouds.py -k unbiased_both_ways",
    ),
    "one_key_for_all_images": Mutant(
        "ais_jax/evidence/rows.py",
        "jax.random.fold_in(jax.random.fold_in(work.key, row), replicate)",
        "jax.random.fold_in(work.key, replicate)",
        f"{ROWS} -k what_they_say",
    ),
    "wider_than_the_decoder_says": Mutant(
        "ais_jax/models/decoder.py",
        "gaussian(smallest=0.0)",
        "gaussian()",
        f"{ROWS} -k elsewhere",
    ),
    "no_image_is_hard": Mutant(
        "ais_jax/evidence/row_search.py",
        "is_hard = allocation.hard_rows(spread, error, limit)",
        "is_hard = allocation.hard_rows(0.0 * spread, error, limit)",
        f"{ROWS} -k scouted_again",
    ),
    "bounds_from_above_by_forward_chains": Mutant(
        "ais_jax/evidence/rows.py",
        "sign = jnp.where(work.is_reverse, -1.0, 1.0)",
        "sign = 1.0",
        f"{ROWS} -k gap_closes",
    ),
}


def main(names: list[str]) -> int:
    """Tries the mutants of these names, or all: 1 where one is not killed, else 0."""
    if unknown := set(names) - MUTANTS.keys():
        sys.exit(f"unknown mutants: {', '.join(sorted(unknown))}")
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=LEFT_OUT))
        for name in names or MUTANTS:
            fate = fate_of(MUTANTS[name], tree)
            print(f"{fate:<8} {name}", flush=True)
            status |= fate != "killed"
    return status


def fate_of(mutant: Mutant, tree: Path) -> str:
    """What a mutant comes to in a copy of the tree, which is then as before."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return "no place"
    path.write_text(text.replace(mutant.old, mutant.new))
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {mutant.tests}"
    done = subprocess.run(
        command, shell=True, cwd=tree, capture_output=True, env={**os.environ}
    )
    path.write_text(text)
    fates = {0: "ALIVE", 1: "killed", 5: "no tests"}
    return fates.get(done.returncode, "broken")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
