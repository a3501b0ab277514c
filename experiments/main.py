"""Trains and evaluates a deep latent-variable model, as one config says.

python -m experiments.main --config=configs/digits.py
python -m experiments.main --config=configs/mnist.py:dreg --workdir=runs/dreg
python -m experiments.main --mode=evaluate --workdir=runs/dreg

After the colon stands the method: best, ais, mh_hmc, dreg, iwae, stl or vae. Every
setting and its help is in configs/default.py; --config.NAME=VALUE changes one, such as
--config.num_epochs=3. The same command with its --workdir goes on where it stopped.
"""

import sys

from absl import flags

from experiments.system import command_line, devices

MODES = ("train_and_evaluate", "train", "evaluate")


def main():
    """Runs the mode that the flags ask for."""
    args = flags.FLAGS
    devices.start_processes(
        args.coordinator, args.num_processes, args.process_id, args.start_seconds
    )
    from experiments.run import folder, launch

    if args.mode == "evaluate":
        config = folder.saved_config(args.workdir, command_line.overrides())
        if command_line.is_config_given():
            folder.check_config(args.workdir, command_line.load_config())
    else:
        config = command_line.load_config()
    if args.coordinator is None:
        launch.use_cores([config])
    launch.train_and_evaluate(config, args.workdir, args.mode)


if __name__ == "__main__":
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; one that is there is resumed. Or new."
    )
    flags.DEFINE_enum("mode", "train_and_evaluate", MODES, "What to do.")
    flags.DEFINE_string(
        "coordinator", None, "Many processes: 'auto', or host:port of the first one."
    )
    flags.DEFINE_integer("num_processes", None, "With host:port.")
    flags.DEFINE_integer("process_id", None, "With host:port; from 0.")
    flags.DEFINE_integer(
        "start_seconds", 300, "How long to wait for the other processes.", 1
    )
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    command_line.run(main, "digits.py")
