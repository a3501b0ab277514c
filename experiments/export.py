"""Writes the parameters of a trained run to one file, with its config.

python -m experiments.export RUN --to=FILE.npz
"""

from absl import flags

from experiments.system import command_line
from experiments.system.errors import InputError


def main(names):
    """Writes the file that the flags ask for."""
    args = flags.FLAGS
    if len(names) != 1 or not args.to:
        raise InputError("name one run's folder, and a file by --to=FILE.npz")
    from experiments.run import export
    from experiments.run.run import Run

    run = Run.load(names[0]).replicate(args.replicate)
    try:
        arrays = export.export(run, args.to)
    except OSError as error:
        raise InputError(f"to={args.to} cannot be written: {error.strerror}") from error
    print(f"{args.to}: {len(arrays)} arrays and the config")


if __name__ == "__main__":
    flags.DEFINE_string("to", None, "File to write: .npz or .safetensors.")
    flags.DEFINE_integer("replicate", 0, "Which replicate, from 0.", 0)
    command_line.run(main)
