"""records.metrics against scipy.stats, closed forms and properties that must hold for any score."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as oracle

from lthbench.records import intervals, metrics

SIX = [0.8**n for n in (3, 7, 11, 15, 19, 23)]
numbers = st.integers(-1000, 1000).map(lambda count: count / 1000)
accuracies = st.integers(0, 1000).map(lambda count: count / 1000)
seed_values = st.lists(numbers, min_size=3, max_size=10)
ladders = st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True).map(
    lambda counts: [count / 1000 for count in sorted(counts, reverse=True)]
)


def bounds(interval: intervals.Interval) -> list[float | None]:
    return [interval.mean, interval.low, interval.high]


# Intervals


@given(seed_values, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_t_interval_is_scipys(values: list[float], level: float) -> None:
    assume(len(set(values)) > 1)
    expected = oracle.ttest_1samp(values, 0).confidence_interval(level)
    interval = intervals.t_interval(values, level)
    assert interval.n == len(values)
    assert bounds(interval) == pytest.approx(
        [np.mean(values), expected.low, expected.high], abs=1e-12
    )


@pytest.mark.parametrize("values", [[0.97], [0.97, 0.98]])
def test_one_or_two_seeds_have_no_interval(values: list[float]) -> None:
    assert intervals.t_interval(values) == intervals.Interval(
        np.mean(values), None, None, len(values)
    )
    assert intervals.one_sided(values) == (None, None)
    assert intervals.suite_interval([values, [0, 1, 2]]).low is None
    assert metrics.identity_gap(values, np.zeros(len(values))).p is None


@given(numbers, st.integers(3, 10))
def test_equal_values_have_width_zero_to_the_last_bit(value: float, n: int) -> None:
    assert intervals.t_interval([value] * n) == intervals.Interval(value, value, value, n)
    assert intervals.one_sided([value] * n) == (value, value)


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=10))
def test_paired_interval_is_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    assume(np.ptp(first - second) > 1e-6)
    expected = oracle.ttest_rel(first, second).confidence_interval()
    interval = intervals.paired_interval(first, second)
    assert bounds(interval)[1:] == pytest.approx([expected.low, expected.high], abs=1e-12)


@given(seed_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_each_one_sided_bound_is_scipys_at_alpha(values: list[float], alpha: float) -> None:
    assume(len(set(values)) > 1)
    lower = oracle.ttest_1samp(values, 0, alternative="greater").confidence_interval(1 - alpha).low
    upper = oracle.ttest_1samp(values, 0, alternative="less").confidence_interval(1 - alpha).high
    assert intervals.one_sided(values, alpha) == pytest.approx((lower, upper), abs=1e-12)


def test_binomial_se_by_hand() -> None:
    assert intervals.binomial_se(0.9, 10_000) == pytest.approx(0.003)
    assert intervals.binomial_se(1, 7) == 0


@given(st.lists(seed_values, min_size=2, max_size=2))
def test_suite_of_two_is_half_of_welchs_sum(tasks: list[list[float]]) -> None:
    """The mean of a and b is half of a - (-b), whose interval is scipy's Welch test."""
    a, b = (np.array(task) for task in tasks)
    assume(np.ptp(a) > 0 and np.ptp(b) > 0)
    welch = oracle.ttest_ind(a, -b, equal_var=False).confidence_interval()
    interval = intervals.suite_interval([a, b])
    expected = [(a.mean() + b.mean()) / 2, welch.low / 2, welch.high / 2]
    assert bounds(interval) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert interval.n == a.size + b.size


@given(seed_values)
def test_suite_of_one_task_is_the_task(values: list[float]) -> None:
    expected = bounds(intervals.t_interval(values))
    assert bounds(intervals.suite_interval([values])) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )


@given(seed_values, numbers)
def test_task_without_variance_only_moves_and_halves(values: list[float], value: float) -> None:
    expected = [(bound + value) / 2 for bound in bounds(intervals.t_interval(values))]
    interval = intervals.suite_interval([values, [value] * 4])
    assert bounds(interval) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_suite_without_any_variance_has_width_zero() -> None:
    assert intervals.suite_interval([[0.5] * 3, [1.0] * 5]) == intervals.Interval(
        0.75, 0.75, 0.75, 8
    )


def test_suite_of_tiny_variances_does_not_underflow() -> None:
    tasks = [np.array([0, 1, 2]), np.array([1, 0, 5])]
    expected = [1e-120 * bound for bound in bounds(intervals.suite_interval(tasks))]
    actual = bounds(intervals.suite_interval([1e-120 * task for task in tasks]))
    assert actual == pytest.approx(expected, rel=1e-9, abs=0)


@given(st.lists(seed_values, min_size=1, max_size=5), st.floats(0.01, 100), numbers, st.randoms())
def test_suite_follows_shift_and_scale_and_ignores_order(tasks, scale, shift, random) -> None:
    expected = [scale * bound + shift for bound in bounds(intervals.suite_interval(tasks))]
    moved = [[scale * value + shift for value in task] for task in tasks]
    shuffled = random.sample([random.sample(task, len(task)) for task in moved], len(tasks))
    assert bounds(intervals.suite_interval(shuffled)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(hnp.arrays(float, (4, 2, 5), elements=numbers))
def test_many_boards_at_once_are_one_board_each(values: np.ndarray) -> None:
    means = np.array(intervals.mean_bounds(values[:, 0], 0.95))
    suites = np.array(intervals.suite_bounds([values[:, 0], values[:, 1]], 0.95))
    for k, board in enumerate(values):
        assert means[:, k] == pytest.approx(bounds(intervals.t_interval(board[0])), abs=1e-12)
        assert suites[:, k] == pytest.approx(bounds(intervals.suite_interval(board)), abs=1e-12)


# Area

grids = st.lists(st.integers(1, 10_000), min_size=2, max_size=40, unique=True).map(sorted)


@st.composite
def curves(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Accuracies, and the steps at which they were read."""
    steps = draw(grids)
    return draw(st.lists(accuracies, min_size=len(steps), max_size=len(steps))), steps


def test_area_by_hand() -> None:
    """Of 1, 4, 16 and 64 the midpoints are 2, 8 and 32: shares of 1, 2, 2 and 1 sixth."""
    assert metrics.area([0, 0, 1, 1], [1, 4, 16, 64]) == pytest.approx(0.5)
    assert metrics.area([0.6, 0, 0, 0], [1, 4, 16, 64]) == pytest.approx(0.1)
    assert metrics.area([0.3], [7]) == 0.3


@given(grids, accuracies)
def test_area_of_a_constant_curve_is_its_constant(steps: list[int], accuracy: float) -> None:
    assert metrics.area([accuracy] * len(steps), steps) == pytest.approx(accuracy, abs=1e-12)


@given(curves(), st.data())
def test_area_rises_with_each_evaluation(curve: tuple[list[float], list[int]], data) -> None:
    read, steps = curve
    at = data.draw(st.integers(0, len(steps) - 1))
    better = [*read[:at], min(1.0, read[at] + 0.1), *read[at + 1 :]]
    assert 0 <= metrics.area(read, steps) <= 1
    assert (metrics.area(better, steps) > metrics.area(read, steps)) == (better != read)


@given(st.integers(1, 50), st.sampled_from([10, 100, 1000]))
def test_a_curve_that_rises_ten_times_sooner_gains_a_decade(rises: int, decades: int) -> None:
    """On every step from 1 on; what it gains is 1 / log10(T / t_1), but for the grid."""
    last = 100 * decades
    steps = range(1, last + 1)

    def rising(at: int) -> float:
        return metrics.area([float(step >= at) for step in steps], steps)

    gain = 1 / np.log10(last)
    # Half a step before the rise is all that a grid of whole steps can be off by.
    assert rising(rises) - rising(10 * rises) == pytest.approx(gain, abs=gain / rises)


# Retention


@given(ladders)
def test_weights_sum_to_one_and_none_is_negative(ladder: list[float]) -> None:
    weights = metrics.log_density_weights(ladder)
    assert weights.shape == (len(ladder),)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()


@given(ladders, st.data())
def test_weights_integrate_by_trapezoids(ladder: list[float], data) -> None:
    assume(len(ladder) > 1)
    scores = data.draw(st.lists(numbers, min_size=len(ladder), max_size=len(ladder)))
    x = np.log(ladder)
    expected = np.trapezoid(scores, x) / (x[-1] - x[0])
    assert metrics.log_density_weights(ladder) @ scores == pytest.approx(expected, abs=1e-9)


def test_weights_of_an_even_ladder_and_of_one_rung() -> None:
    assert metrics.log_density_weights(SIX) == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.2, 0.1])
    assert metrics.log_density_weights([0.3]).tolist() == [1]


def test_loss_by_hand() -> None:
    """Each seed against its own dense run: 96.25 against 98, 98.25 against 99."""
    losses = metrics.loss_points([0.98, 0.99], [[0.97, 0.96], [0.99, 0.98]], [0.25, 0.75])
    assert losses == pytest.approx([1.75, 0.75])


@given(ladders, accuracies, accuracies)
def test_loss_of_a_constant_accuracy_is_its_distance(ladder, dense: float, accuracy: float) -> None:
    table = np.full((3, len(ladder)), accuracy)
    losses = metrics.loss_points([dense] * 3, table, metrics.log_density_weights(ladder))
    assert losses == pytest.approx([100 * (dense - accuracy)] * 3, abs=1e-9)


@given(st.lists(numbers, min_size=2, max_size=5), st.floats(0.1, 50), st.floats(0, 1))
def test_retention_is_affine(losses: list[float], random: float, share: float) -> None:
    first, second = losses[:2]
    mixed = metrics.retention(share * first + (1 - share) * second, random)
    ends = metrics.retention([first, second], random)
    assert mixed == pytest.approx(share * ends[0] + (1 - share) * ends[1], abs=1e-9)
    assert metrics.retention([0, random], random).tolist() == [1, 0]


def test_retention_is_not_clipped() -> None:
    assert metrics.retention([-5, 20], 10).tolist() == [1.5, -1]


@pytest.mark.parametrize("loss_random", [0, -1, np.nan, np.inf])
def test_retention_needs_random_pruning_to_lose(loss_random: float) -> None:
    with pytest.raises(ValueError, match="loss_random"):
        metrics.retention([1], loss_random)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2, 2, 2], True),  # exactly two points, no error
        ([1.99, 1.99, 1.99], False),
        ([9, 10, 11], True),  # ten against 10 / sqrt 3
        ([8, 10, 12], False),  # ten against 20 / sqrt 3
        ([9, 10, 11, 9, 10, 11, 9, 10, 11], True),
        ([50], False),  # no standard error to speak of
    ],
)
def test_rankable(losses: list[float], expected: bool) -> None:
    assert metrics.rankable(losses) is expected


def test_rankable_at_exactly_ten_standard_errors() -> None:
    half_width = 3**0.5  # three values at -w, 0, w have s.e. w / sqrt 3 = 1
    assert metrics.rankable([10 - half_width, 10, 10 + half_width])
    assert not metrics.rankable([9.999 - half_width, 9.999, 9.999 + half_width])


# Matching


def test_margin_is_a_dense_deviation_within_its_bounds() -> None:
    dense = [0.897, 0.9, 0.903]  # s.d. .003
    assert metrics.margin(dense, 100_000) == pytest.approx(0.003)
    assert metrics.margin(dense, 5_000) == pytest.approx((0.09 / 5_000) ** 0.5)  # binomial, .0042
    assert metrics.margin(dense, 360) == pytest.approx((0.09 / 360) ** 0.5)  # .016, above the cap
    assert metrics.margin([0.8, 0.9, 1.0], 10_000) == 0.005
    assert metrics.margin([1, 1, 1], 10_000) == 0


DENSITIES = [0.5, 0.2, 0.1, 0.05]


def test_matching_density_stops_at_the_first_failure() -> None:
    spread = np.array([[-0.001], [0.0], [0.001]])
    half = oracle.t.ppf(0.95, 2) * 0.001 / 3**0.5
    yes, unclear, no = -0.003 + half + 1e-6, -0.003, -0.003 - half - 1e-6

    def pair(*means: float) -> metrics.Matching:
        return metrics.matching_density(DENSITIES, spread + np.array(means), 0.003)

    assert pair(yes, unclear, yes, no) == metrics.Matching(0.5, 0.1)
    assert pair(unclear, yes, no, yes) == metrics.Matching(None, 0.2)
    assert pair(no, yes, yes, yes) == metrics.Matching(None, None)
    assert pair(yes, yes, yes, yes) == metrics.Matching(0.05, 0.05)


@pytest.mark.parametrize("sign", [1, -1])
def test_matching_bounds_are_one_sided_at_five_per_cent(sign: int) -> None:
    """Just inside and just outside of t_2(.95): the two-sided or the halved alpha would differ."""
    spread = np.array([-1, 0, 1]) * 0.001
    half = oracle.t.ppf(0.95, 2) * 0.001 / 3**0.5
    for nudge in (-1e-6, 1e-6):
        values = (spread + sign * half + nudge)[:, None]
        pair = metrics.matching_density([0.1], values, 0)
        if sign > 0:
            assert pair.proved == (0.1 if nudge > 0 else None)
        else:
            assert pair.not_refuted == (0.1 if nudge > 0 else None)


@pytest.mark.parametrize("value", [0.975 - 0.98, 0.005 - 0.01, -0.005])
def test_without_variance_the_margin_itself_is_neither_proved_nor_refuted(value: float) -> None:
    """All three are half a point below dense, whatever the last bit says."""
    pair = metrics.matching_density([0.1], np.full((5, 1), value), 0.005)
    assert pair == metrics.Matching(None, 0.1)


@pytest.mark.parametrize(
    ("value", "expected"), [(-0.0049, (0.1, 0.1)), (-0.0051, (None, None)), (0.01, (0.1, 0.1))]
)
def test_matching_without_variance(value: float, expected: tuple[float | None, ...]) -> None:
    pair = metrics.matching_density([0.1], np.full((5, 1), value), 0.005)
    assert (pair.proved, pair.not_refuted) == expected


def test_matching_needs_three_seeds() -> None:
    assert metrics.matching_density([0.1], [[1.0], [1.0]], 0.005) == metrics.Matching(None, None)


@given(hnp.arrays(float, (5, 4), elements=numbers), st.floats(0, 0.5), st.randoms())
def test_proved_is_never_sparser_than_not_refuted(differences, margin, random) -> None:
    pair = metrics.matching_density(DENSITIES, differences, margin)
    if pair.proved is not None:
        assert pair.not_refuted is not None and pair.not_refuted <= pair.proved
    order = random.sample(range(5), 5)
    assert metrics.matching_density(DENSITIES, differences[order], margin) == pair


@given(hnp.arrays(float, (5, 4), elements=numbers), st.floats(0, 0.25), st.floats(0, 0.25))
def test_wider_margin_never_matches_less(differences, margin, more) -> None:
    def depth(density: float | None) -> int:
        return 0 if density is None else DENSITIES.index(density) + 1

    narrow = metrics.matching_density(DENSITIES, differences, margin)
    wide = metrics.matching_density(DENSITIES, differences, margin + more)
    assert depth(wide.proved) >= depth(narrow.proved)
    assert depth(wide.not_refuted) >= depth(narrow.not_refuted)


# Speed


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ([0, 90, 90, 90], 1),
        ([90, 90, 89, 90, 90, 90], 3),
        ([90, 90, 90], 0),
        ([0, 0, 90, 90], None),  # one evaluation left after the crossing: censored
        ([0, 0, 0, 90], None),
        ([0, 90, 90, 90, 0, 0], 1),
        ([89] * 9, None),
        ([90, 90], None),
        ([], None),
    ],
)
def test_first_sustained(correct: list[int], expected: int | None) -> None:
    assert metrics.first_sustained(correct, 100, 0.9) == expected


def test_first_sustained_at_a_level_with_a_rounding_error() -> None:
    level = 0.1 + 0.2
    assert level > 0.3  # by the last bit
    assert metrics.first_sustained([3, 3, 3], 10, level) == 0


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(0, 20), st.integers(1, 4))
def test_first_sustained_by_its_definition(correct: list[int], level: int, run: int) -> None:
    starts = [
        k
        for k in range(len(correct) - run + 1)
        if all(count >= level for count in correct[k : k + run])
    ]
    expected = starts[0] if starts else None
    assert metrics.first_sustained(correct, 20, level / 20, run) == expected


def test_iterations_to_match_by_hand() -> None:
    result = metrics.iterations_to_match([100, 200, None], [300, 400, 900], 1000)
    assert result.mean == pytest.approx(1300 / 3)
    assert (result.reached, result.n) == (2, 3)
    assert result.difference == intervals.t_interval([-200, -200, 100])


def test_steps_after_the_schedule_are_censored() -> None:
    result = metrics.iterations_to_match([1000, 1001, 5], [None] * 3, 1000)
    assert (result.reached, result.mean) == (2, 2005 / 3)
    assert result.difference.mean == pytest.approx(-995 / 3)


def test_nobody_arrives() -> None:
    result = metrics.iterations_to_match([None] * 3, [None] * 3, 1000)
    expected = intervals.Interval(0, 0, 0, 3)
    assert result == metrics.IterationsToMatch(1000, expected, 0, 3)


def test_compressed_match_takes_the_shortest_schedule() -> None:
    dense = [0.98, 0.98, 0.98]
    close, far = [0.975, 0.974, 0.976], [0.974, 0.974, 0.976]
    assert metrics.compressed_match({1: close, 2: close, 4: far, 8: far}, dense, 0.005) == 2
    assert metrics.compressed_match({8: close, 1: far}, dense, 0.005) == 8
    assert metrics.compressed_match({1: far}, dense, 0.005) is None
    assert metrics.compressed_match({}, dense, 0.005) is None


@given(st.lists(st.integers(1, 500), min_size=2, max_size=8), st.integers(1, 3))
def test_twice_as_soon_is_one_less(dense: list[int], times: int) -> None:
    sooner = [step for step in dense]
    later = [step * 2**times for step in dense]
    found = metrics.log2_difference(sooner, later, 10_000)
    assert found.mean == pytest.approx(-times)


def test_who_never_arrives_stands_at_the_end() -> None:
    found = metrics.log2_difference([None, 25, 200], [50, 50, None], 100)
    assert found.mean == pytest.approx((1 - 1 + 0) / 3, abs=1e-12)


# Identity


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=10))
def test_identity_gap_is_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    ticket, control = np.array(pairs).T
    assume(np.ptp(ticket - control) > 1e-6)
    gap = metrics.identity_gap(ticket, control)
    expected = oracle.ttest_rel(ticket, control, alternative="greater").pvalue
    assert gap.p == pytest.approx(expected, rel=1e-6, abs=1e-12)
    interval = intervals.paired_interval(ticket, control)
    assert (gap.mean, gap.low, gap.high, gap.n) == astuple(interval)
    assert (gap.p < 0.05) == (intervals.one_sided(ticket - control)[0] > 0)


@pytest.mark.parametrize(("control", "p"), [(0.4, 0), (0.5, 1), (0.6, 1)])
def test_identity_gap_without_variance(control: float, p: float) -> None:
    gap = metrics.identity_gap([0.5] * 5, [control] * 5)
    assert gap.p == p
    assert gap.low == gap.mean == gap.high


def gap_with(p: float | None) -> metrics.Gap:
    return metrics.Gap(0.1, None, None, 5, p)


@pytest.mark.parametrize(
    ("shuffled", "reinit", "matters"),
    [
        (gap_with(0.049), gap_with(0.001), True),
        (gap_with(0.05), gap_with(0.001), False),
        (gap_with(0.001), gap_with(0.05), False),
        (gap_with(0.9), gap_with(0.9), False),
        (None, gap_with(0.001), None),
        (gap_with(0.001), None, None),
        (gap_with(None), gap_with(None), None),
    ],
)
def test_identity_matters_only_above_both(shuffled, reinit, matters: bool | None) -> None:
    assert metrics.identity_matters(shuffled, reinit) is matters


def test_missing_control_is_not_available() -> None:
    assert metrics.identity_gap([0.5] * 5, None) is None


# Mistakes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        (r"values\[1\]", lambda x: intervals.t_interval([0, x, 0])),
        (r"values\[1\]", lambda x: intervals.one_sided([0, x, 0])),
        (r"second\[1\]", lambda x: intervals.paired_interval([0, 1], [0, x])),
        (r"tasks\[1\]\[0\]", lambda x: intervals.suite_interval([[0], [x]])),
        (r"densities\[0\]", lambda x: metrics.log_density_weights([x, 0.1])),
        (r"scores\[1, 0\]", lambda x: metrics.loss_points([0.9] * 2, [[0.9], [x]], [1])),
        (r"dense\[0\]", lambda x: metrics.loss_points([x], [[0.9]], [1])),
        (r"weights\[0\]", lambda x: metrics.loss_points([0.9], [[0.9]], [x])),
        (r"accuracies\[1\]", lambda x: metrics.area([0, x], [1, 2])),
        (r"loss\[0\]", lambda x: metrics.retention([x], 1)),
        (r"loss_random\[2\]", lambda x: metrics.rankable([0, 1, x])),
        (r"dense_scores\[0\]", lambda x: metrics.margin([x, 0.9], 100)),
        (r"differences\[0, 0\]", lambda x: metrics.matching_density([0.1], [[x], [0], [0]], 0)),
        ("margin", lambda x: metrics.matching_density([0.1], [[0], [0], [0]], x)),
        (r"correct\[2\]", lambda x: metrics.first_sustained([0, 1, x], 10, 0.5)),
        ("level", lambda x: metrics.first_sustained([0, 1, 2], 10, x)),
        (r"ticket_steps\[0\]", lambda x: metrics.iterations_to_match([x, 1], [1, 1], 10)),
        (r"tickets\[2\]\[0\]", lambda x: metrics.compressed_match({2: [x]}, [0.9], 0)),
        (r"dense\[0\]", lambda x: metrics.compressed_match({2: [0.9]}, [x], 0)),
        (r"control\[0\]", lambda x: metrics.identity_gap([1, 1], [x, 1])),
    ],
)
def test_non_finite_values_are_refused_by_name(name: str, call, bad: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call(bad)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("values: shape", lambda: intervals.t_interval([])),
        ("values: shape", lambda: intervals.t_interval([[1, 2, 3]])),
        ("tasks: is empty", lambda: intervals.suite_interval([])),
        ("level: ", lambda: intervals.t_interval([1, 2, 3], 95)),
        ("alpha: ", lambda: intervals.one_sided([1, 2, 3], 0)),
        ("3 and 2 seeds", lambda: intervals.paired_interval([1, 2, 3], [1, 2])),
        ("2, needs one for each of 3", lambda: metrics.area([0, 1], [1, 2, 3])),
        ("strictly increase", lambda: metrics.area([0, 1], [2, 2])),
        ("strictly increase", lambda: metrics.area([0, 1], [0, 2])),
        ("fractions, not points", lambda: metrics.area([0, 97], [1, 2])),
        ("n: is 0", lambda: intervals.binomial_se(0.5, 0)),
        ("fractions, not points", lambda: intervals.binomial_se(98, 100)),
        ("densities: .* fall", lambda: metrics.log_density_weights([0.1, 0.2])),
        ("densities: .* fall", lambda: metrics.log_density_weights([0.1, 0.1])),
        ("densities: .* fall", lambda: metrics.log_density_weights([0.1, 0])),
        ("densities: .* fall", lambda: metrics.log_density_weights([51.2, 26.2])),
        ("densities: shape", lambda: metrics.log_density_weights([])),
        ("fractions, not points", lambda: metrics.loss_points([0.98], [[97.0]], [1])),
        ("fractions, not points", lambda: metrics.loss_points([98], [[0.97]], [1])),
        ("sum to 1", lambda: metrics.loss_points([0.98], [[0.9, 0.9]], [1, 1])),
        ("not be negative", lambda: metrics.loss_points([0.98], [[0.9, 0.9]], [2, -1])),
        ("dense: 2 seeds", lambda: metrics.loss_points([0.98] * 2, [[0.9]], [1])),
        ("weights: shape", lambda: metrics.loss_points([0.98], [[0.9, 0.9]], [1])),
        ("dense_scores: one seed", lambda: metrics.margin([0.9], 100)),
        ("fractions, not points", lambda: metrics.matching_density([0.1], [[-2.0]], 0)),
        ("differences: shape", lambda: metrics.matching_density([0.1], [[0, 0]], 0)),
        ("margin: ", lambda: metrics.matching_density([0.1], [[0]], -0.1)),
        ("margin: ", lambda: metrics.compressed_match({1: [1]}, [1], 5)),
        ("leaves 0..10", lambda: metrics.first_sustained([11], 10, 0.5)),
        ("whole counts", lambda: metrics.first_sustained([0.97], 10, 0.5)),
        ("total, run", lambda: metrics.first_sustained([0], 10, 0.5, run=0)),
        ("fractions, not points", lambda: metrics.first_sustained([0], 10, 95)),
        ("steps: is 0", lambda: metrics.iterations_to_match([1], [1], 0)),
        ("step -1 is negative", lambda: metrics.iterations_to_match([-1], [1], 9)),
        ("step below 1", lambda: metrics.log2_difference([0], [1], 9)),
        ("divisor", lambda: metrics.compressed_match({0: [0.9]}, [0.9], 0)),
    ],
)
def test_mistakes_are_named(message: str, call) -> None:
    with pytest.raises(ValueError, match=message):
        call()
