"""Trains and evaluates variants of one run, and says what each change gains.

python -m experiments.compare --config=configs/compare.py --workdir=runs/compare

The workdir gets one folder for each variant and the table, compare.md. Finished
variants are skipped, unfinished ones resumed.
"""

from absl import flags

from experiments.system import command_line


def main():
    """Runs the variants that the flags ask for."""
    from experiments.paper import compare
    from experiments.run import launch

    args = flags.FLAGS
    config = command_line.load_config()
    variants = compare.select(config, args.only)
    launch.use_cores([variant.config for variant in variants])
    print(compare.run(variants, args.workdir))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "runs/compare", "Folder of the comparison.")
    flags.DEFINE_list("only", [], "Names of the variants to run, with commas.")
    command_line.run(main, "compare.py")
