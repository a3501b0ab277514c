"""Trains and evaluates variants, each as `experiments.main` would.

python -m experiments.sweep --config=configs/table1.py:digits --workdir=runs/digits

The variants are the rows of a table or, with configs/compare.py, changes of one run,
whose gains are printed. The workdir gets one folder for each. Finished variants are
skipped, unfinished ones resumed. Any run's config can be swept over any settings:

python -m experiments.sweep --config=configs/digits.py --workdir=runs/rates \
    --over=optimizer.learning_rate=1e-2,2e-2 --over=estimator.num_samples=1,5
"""

from absl import flags

from experiments.system import command_line


def main():
    """Runs, or lists, the variants that the flags ask for."""
    from experiments.paper import sweep
    from experiments.run import launch

    args = flags.FLAGS
    config = command_line.load_config()
    variants = sweep.select(config, args.shard, args.only, args.over, args.random)
    launch.use_cores([variant.config for variant in variants])
    if args.dry_run:
        print(sweep.listing(variants, args.workdir))
    else:
        sweep.run(variants, args.workdir)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "runs/sweep", "Folder of the sweep.")
    flags.DEFINE_string("shard", "1/1", "i/n: share i, from 1, of n machines.")
    flags.DEFINE_list("only", [], "Names of the variants to run, with commas.")
    flags.DEFINE_bool("dry_run", False, "List the variants and their cost.")
    flags.DEFINE_multi_string(
        "over", [], "NAME=VALUE,VALUE: a setting of a run's config; once for each."
    )
    flags.DEFINE_integer("random", 0, "So many of --over's variants, at random.", 0)
    command_line.run(main, "table1.py:digits")
