"""The launcher's one device for each CPU core against one device of all the cores.

python -m benchmarks.cores
"""

import statistics

from benchmarks import common, flops, launched, runner

ROWS = (  # method, K, T, replicates
    *(("ais", 1, 5, 1), ("ais", 1, 11, 1), ("ais", 5, 5, 1), ("ais", 50, 5, 1)),
    *(("ais", 1, 5, 2), ("dreg", 5, None, 1), ("dreg", 50, None, 1)),
)


def tables(args):
    """The table's rows, the first alone with --quick."""
    rows = ROWS[: 1 if args.quick else None]
    yield "A device for each core", (measure(args, *row) for row in rows)


def measure(args, method, num_samples, num_moves, num_replicates):
    """One row: both ways in processes of their own, by turns with the peak's."""
    work = common.workload(args.quick)
    build = launched.step, work, method, num_samples, num_moves, num_replicates
    with runner.Remote(*build, True) as one, runner.Remote(*build) as each:
        functions = {"one device": one, "one each core": each}
        times = runner.interleave(
            {**functions, **flops.matrix_products()}, args.seconds
        )
    row = {
        "method": method,
        "K": num_samples,
        "T": num_moves or "-",
        "replicates": num_replicates,
        "rounds": len(times["one device"]),
        **{f"ms, {name}": 1e3 * statistics.median(times[name]) for name in functions},
        "one device / one each core": runner.ratio(times, *functions),
    }
    least = flops.step_minimum(work, num_samples, num_moves or 0)
    for name in functions:
        shares = flops.peak_shares(times, name, num_replicates * least)
        row |= shares if num_moves else dict.fromkeys(shares, "-")
    return row


if __name__ == "__main__":
    runner.run("cores", __doc__, tables)
