"""Public libraries that take an executor or call joblib give on the pool what they give alone.

The larger ones are in the extra `clients`, which `.ci/run` installs.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import pytest

import skyward as sky
from tests import objectives

HEAVY = (
    "scipy.stats",
    "emcee",
    "lmfit",
    "dynesty",
    "nautilus",
    "pymoo.core.problem",
    "statsmodels.api",
    "mne",
    "skrub",
)

pytestmark = [
    pytest.mark.timeout(240),  # the first test imports all of them
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def needs(name: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(absent, reason=f"{name} is not installed: pip install -e '.[clients]'")


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    there = [name for name in HEAVY if importlib.util.find_spec(name.partition(".")[0])]
    worker, image = sky.Worker(concurrency=2), sky.Image(preload=there)
    with sky.Compute(nodes=2, worker=worker, image=image, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


@pytest.fixture(autouse=True)
def calls(compute: sky.Compute) -> Iterator[None]:
    """See to it that the pool was asked: a library that stays on this machine gives the right result as well."""
    before = compute.report().tasks
    yield
    assert compute.report().tasks > before


# ---------------------------------------------------------------- libraries that take an executor


@needs("adaptive")
def test_adaptive_evaluates_its_points(compute: sky.Compute) -> None:
    adaptive = pytest.importorskip("adaptive")
    learner = adaptive.Learner1D(objectives.peak, bounds=(-1, 1))
    adaptive.BlockingRunner(learner, npoints_goal=30, executor=compute)

    assert learner.npoints >= 30
    assert learner.data == {x: objectives.peak(x) for x in learner.data}

    sequence = adaptive.SequenceLearner(objectives.peak, [x / 7 for x in range(20)])
    adaptive.BlockingRunner(sequence, executor=compute)
    assert sequence.result() == [objectives.peak(x / 7) for x in range(20)]


@needs("dynesty")
def test_dynesty_samples_as_with_threads_of_that_number(compute: sky.Compute) -> None:
    dynesty = pytest.importorskip("dynesty")

    def samples(pool: Any, **options: int) -> Any:
        sampler = dynesty.NestedSampler(
            objectives.log_likelihood,
            objectives.to_the_square,
            2,
            nlive=30,
            rstate=np.random.default_rng(3),
            pool=pool,
            bound="single",
            sample="unif",
            **options,
        )
        sampler.run_nested(dlogz=1.0, print_progress=False)
        return sampler.results.samples

    with futures.ThreadPoolExecutor(4) as threads:
        expected = samples(threads, queue_size=4)
    assert np.array_equal(samples(compute), expected)


@needs("emcee")
def test_emcee_walks_as_alone(compute: sky.Compute) -> None:
    emcee = pytest.importorskip("emcee")
    start = np.random.default_rng(0).normal(size=(8, 2))

    def chain(pool: Any) -> Any:
        sampler = emcee.EnsembleSampler(8, 2, objectives.log_likelihood, pool=pool)
        state = emcee.State(start, random_state=np.random.RandomState(1).get_state())
        sampler.run_mcmc(state, 15)
        return sampler.get_chain()

    assert np.array_equal(chain(compute), chain(None))


@needs("nautilus")
def test_nautilus_finds_the_size_of_the_pool_and_the_evidence(compute: sky.Compute) -> None:
    nautilus = pytest.importorskip("nautilus")

    def evidence(pool: Any) -> float:
        sampler = nautilus.Sampler(
            objectives.to_the_square,
            objectives.log_likelihood,
            2,
            n_live=100,
            n_batch=20,
            n_networks=0,
            pool=pool,
            seed=1,
        )
        sampler.run(n_eff=50, n_like_max=300)
        return float(sampler.log_z)

    assert nautilus.sampler.NautilusPool(compute).size == compute.slots
    assert evidence((compute, None)) == evidence(None)  # its own steps in a pool depend on its size


@needs("nevergrad")
def test_nevergrad_recommends_what_it_recommends_alone(compute: sky.Compute) -> None:
    nevergrad = pytest.importorskip("nevergrad")

    def best(executor: Any, workers: int) -> Any:
        # the points of this optimizer do not depend on the order of the results
        optimizer = nevergrad.optimizers.ScrHammersleySearch(parametrization=2, budget=24, num_workers=workers)
        optimizer.parametrization.random_state.seed(12)
        return optimizer.minimize(objectives.sphere, executor=executor).value

    assert np.array_equal(best(compute, compute.size), best(None, 1))


@needs("lmfit")
def test_lmfit_samples_and_searches_as_alone(compute: sky.Compute) -> None:
    lmfit = pytest.importorskip("lmfit")
    x = np.linspace(0, 1, 20)
    y = 2 * x + 1
    parameters = lmfit.create_params(
        slope={"value": 1.5, "min": 0, "max": 4}, offset={"value": 0.5, "min": 0, "max": 2, "brute_step": 0.5}
    )

    def fit(**options: Any) -> dict[str, float]:
        minimizer = lmfit.Minimizer(objectives.line_residual, parameters, fcn_args=(x, y))
        return dict(minimizer.minimize(**options).params.valuesdict())

    found = fit(method="brute", Ns=5, workers=compute.map)
    assert found == fit(method="brute", Ns=5)
    assert found["offset"] == pytest.approx(1.0, abs=0.3)


@needs("scipy")
def test_scipy_evolves_as_alone(compute: sky.Compute) -> None:
    optimize = pytest.importorskip("scipy.optimize")

    def best(workers: Callable[..., Any]) -> Any:
        bounds = [(-1, 1), (-1, 1)]
        return optimize.differential_evolution(
            objectives.sphere, bounds, workers=workers, updating="deferred", maxiter=3, popsize=6, rng=1, polish=False
        ).x

    assert np.array_equal(best(compute.map), best(map))


# ---------------------------------------------------------------- libraries that call joblib


@needs("pymoo")
@pytest.mark.parametrize("way", ["joblib", "executor"])
def test_pymoo_evolves_as_alone(compute: sky.Compute, way: str) -> None:
    pytest.importorskip("pymoo")
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize
    from pymoo.parallelization import JoblibParallelization, StarmapParallelization

    class Sphere(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(n_var=2, n_obj=1, xl=-1, xu=1, **options)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **options: Any) -> None:
            out["F"] = objectives.sphere(x)

    def best(**options: Any) -> Any:
        return minimize(Sphere(**options), GA(pop_size=12), ("n_gen", 3), seed=1).X

    def starmap(fn: Callable[..., Any], items: Any) -> Any:
        return compute.map(fn, *zip(*items, strict=True))

    runner = JoblibParallelization() if way == "joblib" else StarmapParallelization(starmap)
    assert np.array_equal(best(elementwise_runner=runner), best())


@needs("statsmodels")
def test_statsmodels_chooses_the_bandwidth_that_it_chooses_alone() -> None:
    kernels = pytest.importorskip("statsmodels.nonparametric.api")
    data = np.random.default_rng(0).normal(size=60)

    def bandwidth(n_jobs: int) -> Any:
        settings = kernels.EstimatorSettings(efficient=True, n_sub=20, n_jobs=n_jobs)
        return kernels.KDEMultivariate(data=[data], var_type="c", bw="cv_ml", defaults=settings).bw

    assert np.array_equal(bandwidth(-1), bandwidth(1))


@needs("mne")
@pytest.mark.parametrize("n_jobs", [None, 4])
def test_mne_finds_the_clusters_that_it_finds_alone(n_jobs: int | None) -> None:
    mne = pytest.importorskip("mne")
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(10, 15)), rng.normal(size=(10, 15)) + 0.8]

    def values(n_jobs: int | None) -> Any:
        found = mne.stats.permutation_cluster_test(
            groups, n_permutations=64, n_jobs=n_jobs, seed=1, threshold=4.0, verbose=False
        )
        return found[2]

    assert np.array_equal(values(n_jobs), values(1))


@needs("skrub")
def test_skrub_encodes_as_alone() -> None:
    skrub = pytest.importorskip("skrub")
    pandas = pytest.importorskip("pandas")
    words = pandas.Series([f"{a} {b}" for a in ("red", "green", "blue") for b in ("car", "bike", "boat", "train")])

    def encoded(n_jobs: int) -> Any:
        return skrub.MinHashEncoder(n_components=5, n_jobs=n_jobs).fit_transform(words).to_numpy()

    assert np.array_equal(encoded(4), encoded(1))


@needs("tqdm_joblib")
def test_tqdm_joblib_counts_the_tasks() -> None:
    tqdm_joblib = pytest.importorskip("tqdm_joblib")
    from joblib import delayed

    with open(os.devnull, "w") as nowhere:
        parallel = tqdm_joblib.ParallelPbar(file=nowhere)
        found = parallel(n_jobs=-1)(delayed(objectives.square_and_place)(x) for x in range(20))
        with tqdm_joblib.tqdm_joblib(total=20, file=nowhere) as bar:
            parallel.__base__(n_jobs=2)(delayed(objectives.square_and_place)(x) for x in range(20))

    assert [value for value, _ in found] == [x * x for x in range(20)]
    assert os.getpid() not in {place for _, place in found}
    assert bar.n == 20
