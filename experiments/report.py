"""The paper's tables and figures from the results of runs, beside the paper's numbers.

python -m experiments.report RUN_OR_DIR... --out=DIR

Only results.json, metrics.jsonl and variant.json are read, so that a report can be made
again from what `--export` copied.
"""

from pathlib import Path

from absl import flags

from experiments.system import command_line


def main(folders):
    """Writes the report of the folders given on the command line."""
    from experiments.paper import report, results

    args = flags.FLAGS
    runs = results.collect(folders)
    if args.export:
        results.export(runs, args.export)
    report.write(runs, args.out)
    print(f"{len(runs)} runs; see {Path(args.out) / 'report.md'}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "report", "Folder to write.")
    flags.DEFINE_string("export", None, "Folder for copies without checkpoints.")
    command_line.run(main)
