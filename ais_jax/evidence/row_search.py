"""Log normalising constants of many rows to a wanted error of their mean.

First every row gets chains of few temperatures, from each start. Rows whose weights
spread too far get chains of four times as many. These scouts decide how much work a row
gets, and are thrown away. Fresh chains, of a plan that is then fixed, give the numbers.
So the mean weight of each row is unbiased, whatever the scouts saw.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree

from ais_jax.evidence import allocation
from ais_jax.evidence.allocation import Moments, Share, by_row, moments
from ais_jax.evidence.budget import Progress
from ais_jax.evidence.rows import KNOTS, Ladder, Work, learned, linear_ladder
from ais_jax.types import PRNGKey

FIRST_TEMPERATURES = 32  # of the pilot, and of the first scouts
GROWTH = 4  # times as many temperatures of the next scouts
FEWEST_ROUNDS, MOST_ROUNDS = 3, 12  # of the pilot
LARGEST_ERROR = 0.1  # of the pilot's acceptance where its rounds end
TARGET = 0.8  # acceptance
USUAL_COST = 4.0  # temperatures of a usual row, times the wanted error
USUAL_SHARE = 0.25  # of rows, of which more are not hard for want of another start
APART = 3.0  # standard errors that another start must be above the first
MUCH_LESS = 0.2  # times the spread: of two equal ones, of 8 chains each, one in forty

Load = Callable[[Int[np.ndarray, "S"]], tuple[PyTree, PyTree]]
"""Numbers of rows -> (their x, their exact draws z or zeros), with a leading axis."""
Run = Callable[[str, Work, Int[np.ndarray, "2 S"], Load], dict[str, np.ndarray]]
"""(stage, work, (row, replicate) of each slot, load) -> arrays of `RowChains` [S, ...].

It computes `rows.row_chains` for every slot, by whatever chunks and devices it likes.
"""


class Rule(NamedTuple):
    """How the work is shared out.

    Attributes:
        error: wanted of the mean, bias and Monte Carlo together, nats; or 0 for a tenth
            of the error over rows or `LEAST_ERROR`, whichever is larger.
        num_temperatures: of every row, where that is fixed and nothing is decided.
        num_chains: K, of a slot.
        most_temperatures: of any row.
        max_moves: of the chains that count; where they are too few for the error, each
            row gets its share of them.
        is_placed: whether the pilot places the temperatures.
        num_pilot: rows of the pilot.
    """

    error: float = 0.0
    num_temperatures: int | None = None
    num_chains: int = 8
    most_temperatures: int = 2**14
    max_moves: float = float("inf")
    is_placed: bool = True
    num_pilot: int = allocation.SLOTS


LEAST_ERROR = 0.05  # nats, that is asked for by default


class Estimate(NamedTuple):
    """What the chains that count say of each row.

    Attributes:
        moments: of the forward chains.
        reverse: of the reverse chains, or None.
        accept_prob: mean acceptance.
        share: T and replicates.
        start: index of the start.
        error: that was wanted.
        chains: the stages' arrays, with the rows of their slots.
    """

    moments: Moments
    reverse: Moments | None
    accept_prob: Float[np.ndarray, "N"]
    share: Share
    start: Int[np.ndarray, "N"]
    error: float
    chains: list[tuple[Int[np.ndarray, "S"], dict[str, np.ndarray]]]


class Search:
    """Runs the stages for the rows of one model, and counts their moves.

    Args:
        key: of all random draws.
        run: computes chains.
        rule: shares the work out.
        num_starts: of each row, the usual one first.
        first_step_size: where the pilot's search begins.
        progress: called after every stage.
    """

    def __init__(
        self,
        key: PRNGKey,
        run: Run,
        rule: Rule,
        *,
        num_starts: int,
        first_step_size: float,
        progress: Callable[[Progress], object] | None = None,
    ):
        self.key, self.run, self.rule, self.progress = key, run, rule, progress
        self.ladders: list[Ladder | None] = [None] * num_starts
        self.first = linear_ladder(first_step_size)
        self.num_moves, self.num_draws, self.expected = 0, 0, 0
        self.started = time.monotonic()

    def estimate(
        self,
        name: str,
        num: int,
        load: Load,
        *,
        is_paired: bool = False,
        error: float = 0.0,
    ) -> Estimate:
        """Log normalising constants of N rows, by the rule.

        Args:
            name: of the rows, for stages; their chains go by it.
            num: N.
            load: gives their arrays.
            is_paired: whether they have exact draws, from which chains run back.
            error: wanted of their mean in place of the rule's, nats.
        """
        every, fixed = np.arange(num), self.rule.num_temperatures
        start, error = np.zeros(num, int), error or self.rule.error
        self._expect(name, expected_moves(self.rule, num, error, is_paired))
        self._pilot(name, every[: self.rule.num_pilot], load)
        if fixed is not None:
            share = Share(np.full(num, fixed), np.ones(num, int))
        else:
            cost, start, log_p = self._scout(name, every, load, error)
            error = error or wanted_error(log_p)
            share = self._share(cost, error)
        return self._count(name, share, start, load, is_paired, error)

    def _expect(self, stage, moves):
        """So many moves are to come."""
        self.expected = self.num_moves + moves
        if self.progress is not None:
            seconds = time.monotonic() - self.started
            self.progress(Progress(stage, self.num_moves, self.expected, seconds))

    def _share(self, cost, error):
        rule, num = self.rule, len(cost)
        wanted = allocation.wanted_variance(error, num)
        most = rule.most_temperatures
        levels, repeats = allocation.allocate(cost, rule.num_chains, wanted, most)
        least = allocation.FEWEST
        while np.sum(levels * repeats) * rule.num_chains > rule.max_moves:
            if levels.max() <= least:
                break
            levels = np.maximum(levels // 2, np.minimum(levels, least))
        return Share(levels, repeats)

    def _pilot(self, name, rows, load, start=0):
        """Tunes the schedule of a start on some rows, unless that is done."""
        if self.ladders[start] is not None:
            return
        share = Share(*np.ones((2, rows.max() + 1), int))
        ladder, slots = self.first, allocation.slots_of(share, rows)
        for i in range(MOST_ROUNDS):
            stage = f"pilot {name} {i}" + f" start {start}" * bool(start)
            work = self._work(stage, ladder, KNOTS, start)
            chains = self._chains(stage, work, slots, load)
            ladder, error = learned(ladder, chains, TARGET, self.rule.is_placed)
            if i + 1 >= FEWEST_ROUNDS and error < LARGEST_ERROR:
                break
        self.ladders[start] = ladder

    def _scout(self, name, every, load, error):
        """(cost, start, log p) of each row, by chains that are thrown away."""
        rule, num = self.rule, FIRST_TEMPERATURES
        start = np.zeros(len(every), int)
        found = self._scouts(name, every, num, 0, load)
        cost = num * allocation.shrunk(found.spread, found.num_chains)
        log_p, spread = found.log_p, found.spread
        error = error or wanted_error(log_p)
        limit = allocation.EXTRAPOLATED
        while GROWTH * num <= rule.most_temperatures:
            is_hard = allocation.hard_rows(spread, error, limit)
            limit = allocation.FURTHER
            num *= GROWTH
            if not is_hard.any():
                break
            hard, spread = every[is_hard], np.where(is_hard, spread, 0.0)
            is_usual = len(hard) > USUAL_SHARE * len(every)
            num_starts = 1 if is_usual else len(self.ladders)
            moves = len(hard) * num * num_starts * rule.num_chains
            self._expect(name, moves + expected_moves(rule, len(every), error))
            each = []
            for s in range(num_starts):
                self._pilot(name, hard[: rule.num_pilot], load, s)
                each.append(self._scouts(name, hard, num, s, load))
            which = _best_start(each)
            best = _chosen(which, each)
            start[hard], log_p[hard], spread[hard] = which, best.log_p, best.spread
            cost[hard] = num * allocation.shrunk(best.spread, best.num_chains)
        return cost, start, log_p

    def _scouts(self, name, rows, num, start, load):
        share = Share(*np.ones((2, rows.max() + 1), int))
        slots, ladder = allocation.slots_of(share, rows), self.ladders[start]
        stage = f"scouts {name} T={num}" + f" start {start}" * bool(start)
        work = self._work(stage, ladder, num, start)
        chains = self._chains(stage, work, slots, load)
        ladder, _ = learned(ladder, chains, TARGET, self.rule.is_placed)
        self.ladders[start] = ladder
        return moments(by_row(chains["log_w"], slots[0], rows))

    def _count(self, name, share, start, load, is_paired, error):
        """The chains that count."""
        every, parts = np.arange(len(start)), []
        groups, moves = [], 0
        for s, num in sorted(set(zip(start.tolist(), share.num_temperatures.tolist()))):
            rows = every[(start == s) & (share.num_temperatures == num)]
            slots = allocation.slots_of(share, rows)
            ways = ("", num), (" reverse", self._reverse(num))
            groups.append((s, num, slots, ways[: 1 + is_paired]))
            moves += slots.shape[1] * sum(length - 1 for _, length in groups[-1][-1])
        self._expect(name, moves * self.rule.num_chains)
        for s, num, slots, ways in groups:
            both = []
            for way, length in ways:
                stage = f"{name}{way} T={num}" + f" start {s}" * bool(s)
                work = self._work(stage, self.ladders[s], length, s, bool(way))
                both.append(self._chains(stage, work, slots, load))
            parts.append((slots[0], both))
        forward = [(rows, both[0]) for rows, both in parts]
        accept = np.zeros(len(every))
        for rows, chains in forward:
            mean = chains["accept_prob"].sum(1) / np.maximum(
                chains["num_moves"].sum(1), 1
            )
            accept[rows] = np.where(chains["num_moves"].sum(1) > 0, mean, 1.0)
        reverse = None
        if is_paired:
            reverse = moments(_join([(rows, both[1]) for rows, both in parts], every))
        found = moments(_join(forward, every))
        return Estimate(found, reverse, accept, share, start, error, forward)

    def _reverse(self, num):
        """T of reverse chains, for T of forward ones.

        The K chains of a pair start from one draw, so their mean is about as biased as
        one chain. It takes K times as many temperatures to make up for that.
        """
        if self.rule.num_temperatures is not None:
            return num
        longer = num * self.rule.num_chains
        return max(num, min(longer, self.rule.most_temperatures))

    def _work(self, stage, ladder, num, start, is_reverse=False):
        key = jax.random.fold_in(self.key, _number_of(stage))
        counts = np.asarray(num, np.int32), np.asarray(start, np.int32)
        return Work(key, ladder, *counts, np.asarray(is_reverse))

    def _chains(self, stage, work, slots, load):
        chains = self.run(stage, work, slots, load)
        num = slots.shape[1] * self.rule.num_chains
        self.num_moves += num * max(int(work.num_temperatures) - 1, 0)
        self.num_draws += num
        self._expect(stage, max(self.expected - self.num_moves, 0))
        return chains


def expected_moves(
    rule: Rule, num: int, error: float = 0.0, is_paired: bool = False
) -> int:
    """Moves of all chains of N rows, about, before anything is known of them."""
    fixed, ways = rule.num_temperatures, 1 + is_paired
    if fixed is not None:
        return num * fixed * ways * rule.num_chains
    if is_paired:
        ways += rule.num_chains - 1
    counting = USUAL_COST / (error or rule.error or LEAST_ERROR)
    each = min(FIRST_TEMPERATURES + counting * ways, rule.most_temperatures)
    return int(num * each * rule.num_chains)


def wanted_error(log_p: Float[np.ndarray, "N"]) -> float:
    """The error of the mean that is asked for by default, nats."""
    if len(log_p) < 2:
        return LEAST_ERROR
    return max(LEAST_ERROR, 0.1 * float(np.std(log_p, ddof=1)) / len(log_p) ** 0.5)


def _join(parts, rows):
    log_w = np.concatenate([chains["log_w"] for _, chains in parts])
    return by_row(log_w, np.concatenate([of_slot for of_slot, _ in parts]), rows)


def _best_start(each: list[Moments]) -> Int[np.ndarray, "N"]:
    """The start of each row: the surest, or one that finds more mass than it."""
    best = np.zeros(len(each[0].log_p), int)
    for i, other in enumerate(each[1:], 1):
        now = _chosen(best, each)
        apart = (other.log_p - now.log_p) / np.sqrt(other.variance + now.variance)
        is_same = np.abs(apart) <= APART
        is_surer = is_same & (other.spread < MUCH_LESS * now.spread)
        best = np.where((apart > APART) | is_surer, i, best)
    return best


def _chosen(which, each):
    return jax.tree.map(lambda *a: np.choose(which, a), *each)


def _number_of(stage: str) -> int:
    """A number for a name, the same in every process."""
    number = 0
    for letter in stage.encode():
        number = (number * 131 + letter) % (2**31 - 1)
    return number
