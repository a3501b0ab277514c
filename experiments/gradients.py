"""How noisy, and how biased, each estimator's gradients are at a trained model.

python -m experiments.gradients --workdir=RUN
"""

from absl import flags

from experiments.system import command_line


def main():
    """Measures the run that the flags name."""
    from experiments.paper import gradients

    args = flags.FLAGS
    overrides = command_line.overrides()
    gradients.run(args.workdir, args.estimators, args.num_batches, overrides)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_list("estimators", None, "What to measure. Default: the usual ten.")
    flags.DEFINE_integer("num_batches", 100, "Batches to average over.", 3)
    command_line.run(main, "digits.py")
