"""Log p(x) of a decoder that was trained elsewhere, with errors and gap.

python -m experiments.evaluate_decoder --decoder=mymodule:decode --weights=FILE.npz \
    --config.dataset=PATH --config.model.latent_sizes='(10,)'

An encoder is fitted to it; with --config.evaluation.start=prior nothing is.
"""

from absl import flags

from experiments.system import command_line


def main():
    """Evaluates the decoder that the flags name."""
    args = flags.FLAGS
    config = command_line.load_config()
    from experiments.evaluate import decoder
    from experiments.run import launch

    launch.use_cores([config])
    decoder.evaluate_named(config, args.decoder, args.weights, args.workdir)


if __name__ == "__main__":
    flags.DEFINE_string("decoder", "", "package.module:function of (weights, z).")
    flags.DEFINE_string("weights", "", "An .npz of its weights.")
    flags.DEFINE_string("workdir", "runs/decoder", "Folder of the run.")
    command_line.run(main, "default.py:vae")
