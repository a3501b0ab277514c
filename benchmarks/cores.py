"""The launcher's one device for each CPU core against one device of all the cores.

python -m benchmarks.cores
"""

import statistics

from benchmarks import common, flops, launched

ROWS = (  # method, K, T, replicates
    *(("ais", 1, 5, 1), ("ais", 1, 11, 1), ("ais", 5, 5, 1), ("ais", 50, 5, 1)),
    *(("ais", 1, 5, 2), ("dreg", 5, None, 1), ("dreg", 50, None, 1)),
)
QUICK_ROWS = ROWS[:1]


def main():
    """Measures and reports."""
    args = common.parse(__doc__)
    rows = QUICK_ROWS if args.quick else ROWS
    table = common.collect(measure(row, args) for row in rows)
    common.report("cores", args, {"A device for each core": table})


def measure(row, args):
    """One row: both ways in processes of their own, by turns with the peak's."""
    method, num_samples, num_moves, num_replicates = row
    build = launched.step, common.workload(args), *row
    with common.Remote(*build, True) as one, common.Remote(*build) as each:
        functions = {"one device": one, "one each core": each}
        times = common.interleave(
            {**functions, **common.matrix_products()}, args.seconds
        )
    found = {
        "method": method,
        "K": num_samples,
        "T": num_moves or "-",
        "replicates": num_replicates,
        "rounds": len(times["one device"]),
        **{f"ms, {name}": 1e3 * statistics.median(times[name]) for name in functions},
        "one device / one each core": common.ratio(times, *functions),
    }
    least = flops.step_minimum(common.workload(args), num_samples, num_moves or 0)
    for name in functions:
        shares = common.peak_shares(times, name, num_replicates * least)
        found |= shares if num_moves else dict.fromkeys(shares, "-")
    return found


if __name__ == "__main__":
    main()
