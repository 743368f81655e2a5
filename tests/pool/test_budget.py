"""Money: what machines cost is counted, and when it is used up the pool ends with the results so far.

The machines are those of `sky.Local`, which cost nothing, at a price that the test sets.
"""

import pytest
from joblib import Parallel, delayed

import skyward as sky
from skyward.actors import costs
from skyward.events import Quoted, Spent
from tests import kit, work
from tests.kit import HOUR, Dear


@pytest.fixture(autouse=True)
def no_first_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MIN_CHARGED_S", 0.0)


def test_the_report_has_the_cost() -> None:
    with sky.Compute(provider=Dear(), nodes=2, worker=sky.Worker(concurrency=1)) as compute:
        assert compute.submit(work.square, 3).result() == 9
        assert compute.report().cost > 0
    report = compute.report()
    assert report.machines == 2
    assert f"for {report.machines} machines" in str(report)
    events = list(compute.events())
    assert [each.hourly for each in events if isinstance(each, Quoted)] == [HOUR, HOUR]
    spent = [each for each in events if isinstance(each, Spent)]
    assert spent[0].hourly == HOUR
    assert spent[-1].hourly == 0.0
    assert spent[-1].dollars == pytest.approx(report.cost, abs=1e-5)


def test_joblib_is_ended_by_the_budget_with_the_results_so_far() -> None:
    options = sky.Options(budget=6.0)
    plugins = [sky.plugins.joblib()]
    with sky.Compute(provider=Dear(), worker=sky.Worker(concurrency=2), plugins=plugins, options=options) as compute:
        with pytest.raises(sky.BudgetExceeded, match=r"budget=6.0: .* has been spent") as told:
            Parallel(n_jobs=-1, batch_size=2)(delayed(work.square_or_wait)(number, number >= 8) for number in range(12))
        assert {number: number * number for number in range(8)}.items() <= told.value.results.items()
        with pytest.raises(sky.BudgetExceeded):
            compute.submit(work.square, 3).result()
    assert 6.0 <= compute.report().cost < 20.0


def test_map_and_groups_give_their_results_so_far_and_the_machines_end_before_the_block_does() -> None:
    with sky.Compute(provider=Dear(), worker=sky.Worker(concurrency=2), options=sky.Options(budget=6.0)) as compute:
        results = compute.map(work.square_or_wait, range(4), [False, False, True, True])
        with pytest.raises(sky.BudgetExceeded) as told:
            list(results)
        assert told.value.results == {0: 0, 1: 1}
        kit.until(lambda: not compute.nodes)


def test_no_machine_is_launched_that_there_is_no_money_for() -> None:
    compute = sky.Compute(provider=Dear(), nodes=3, options=sky.Options(max_hourly=2.5 * HOUR))
    with pytest.raises(sky.BudgetExceeded, match=r"max_hourly=9000.0: 1 x this computer more would make it"), compute:
        pass
