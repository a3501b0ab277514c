"""Figure 1: how close q_IS and q_AIS come to a correlated Gaussian at equal cost.

python -m experiments.figure1 --config=configs/figure1.py
"""

from absl import flags

from experiments.system import command_line


def main():
    """Draws, measures and plots what the flags ask for."""
    from experiments.paper import figure1

    figure1.run(command_line.load_config(), flags.FLAGS.workdir)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder to write. Default: a new one.")
    command_line.run(main, "figure1.py")
