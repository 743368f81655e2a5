"""scikit-learn and other libraries on a pool: they give what they give alone, and it is seen to come from nodes."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.experimental.enable_halving_search_cv  # noqa: F401 - makes HalvingGridSearchCV known
from imblearn.ensemble import BalancedRandomForestClassifier
from joblib import _parallel_backends, parallel_config
from mapie.regression import CrossConformalRegressor
from nltk.stem import PorterStemmer
from nltk.util import parallelize_preprocess
from sklearn import (
    cluster,
    compose,
    datasets,
    decomposition,
    ensemble,
    feature_selection,
    inspection,
    linear_model,
    manifold,
    metrics,
    model_selection,
    multiclass,
    multioutput,
    neighbors,
    pipeline,
    preprocessing,
    svm,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.tree import DecisionTreeClassifier

import skyward as sky
from skyward.plugins.joblib_backend import SkywardBackend

X, y = datasets.load_iris(return_X_y=True)
Y = np.column_stack([y, y[::-1]])
MANY, OF_MANY = datasets.make_classification(300, 8, random_state=0)
GRID = {"C": [0.1, 1.0, 10.0]}
TREE = DecisionTreeClassifier(random_state=0)
FOREST = ensemble.RandomForestClassifier(8, random_state=0)
LOGISTIC = linear_model.LogisticRegression(max_iter=200)
TWO = [("tree", TREE), ("logistic", LOGISTIC)]

type Case = Callable[[int], Any]


def search(kind: type, estimator: Any, grid: Any, **options: Any) -> Case:
    def run(n_jobs: int) -> Any:
        found = kind(estimator, grid, n_jobs=n_jobs, cv=3, **options).fit(X, y)
        return found.best_params_, found.cv_results_["mean_test_score"]

    return run


def predicted(kind: Any, **options: Any) -> Case:
    return lambda n_jobs: kind(n_jobs=n_jobs, **options).fit(X, y).predict(X)


def fit(kind: Any, attribute: str, data: Any = X, target: Any = y, **options: Any) -> Case:
    return lambda n_jobs: getattr(kind(n_jobs=n_jobs, **options).fit(data, target), attribute)


NESTED = ensemble.RandomForestClassifier(random_state=0, n_jobs=2)
MS = model_selection
ON_NODES: dict[str, Case] = {
    "GridSearchCV": search(MS.GridSearchCV, svm.SVC(), GRID),
    "GridSearchCV of a RandomForest with n_jobs=2": search(MS.GridSearchCV, NESTED, {"n_estimators": [3, 6]}),
    "RandomizedSearchCV": search(MS.RandomizedSearchCV, svm.SVC(), GRID, n_iter=3, random_state=0),
    "HalvingGridSearchCV": search(MS.HalvingGridSearchCV, svm.SVC(), GRID, random_state=0),
    "cross_val_score": lambda n: MS.cross_val_score(LOGISTIC, X, y, cv=4, n_jobs=n),
    "cross_validate": lambda n: MS.cross_validate(TREE, X, y, cv=4, n_jobs=n)["test_score"],
    "cross_val_predict": lambda n: MS.cross_val_predict(TREE, X, y, cv=4, n_jobs=n),
    "learning_curve": lambda n: MS.learning_curve(svm.SVC(), X, y, cv=3, n_jobs=n, shuffle=True, random_state=0),
    "validation_curve": lambda n: MS.validation_curve(
        svm.SVC(), X, y, param_name="C", param_range=[0.1, 1.0], cv=3, n_jobs=n
    ),
    "permutation_test_score": lambda n: MS.permutation_test_score(
        TREE, X, y, cv=3, n_permutations=6, n_jobs=n, random_state=0
    ),
    "permutation_importance": lambda n: (
        inspection.permutation_importance(
            DecisionTreeClassifier(random_state=0).fit(X, y), X, y, n_repeats=3, n_jobs=n, random_state=0
        ).importances
    ),
    "RFECV": fit(feature_selection.RFECV, "ranking_", estimator=TREE, cv=3),
    "RandomForestClassifier.fit": fit(
        ensemble.RandomForestClassifier, "feature_importances_", n_estimators=9, random_state=0
    ),
    "ExtraTreesRegressor.fit": fit(
        ensemble.ExtraTreesRegressor, "feature_importances_", n_estimators=9, random_state=0
    ),
    "BaggingClassifier": predicted(ensemble.BaggingClassifier, estimator=TREE, n_estimators=6, random_state=0),
    "StackingClassifier": predicted(ensemble.StackingClassifier, estimators=TWO, cv=3),
    "VotingClassifier": predicted(ensemble.VotingClassifier, estimators=TWO),
    "IsolationForest.fit": fit(ensemble.IsolationForest, "offset_", n_estimators=9, random_state=0, contamination=0.1),
    "OneVsRestClassifier": predicted(multiclass.OneVsRestClassifier, estimator=svm.SVC()),
    "OneVsOneClassifier": predicted(multiclass.OneVsOneClassifier, estimator=svm.SVC()),
    "MultiOutputClassifier": lambda n: multioutput.MultiOutputClassifier(TREE, n_jobs=n).fit(X, Y).predict(X),
    "CalibratedClassifierCV": predicted(CalibratedClassifierCV, estimator=TREE, cv=3),
    "ColumnTransformer": lambda n: compose.ColumnTransformer(
        [("scale", preprocessing.StandardScaler(), [0, 1]), ("bins", preprocessing.MinMaxScaler(), [2, 3])], n_jobs=n
    ).fit_transform(X),
    "FeatureUnion": lambda n: pipeline.FeatureUnion(
        [("scale", preprocessing.StandardScaler()), ("pca", decomposition.PCA(2))], n_jobs=n
    ).fit_transform(X),
    "LassoCV": fit(linear_model.LassoCV, "mse_path_", cv=3, alphas=8),
    "MultiTaskLassoCV": fit(linear_model.MultiTaskLassoCV, "alpha_", X, Y.astype(float), cv=3, alphas=5),
    "MeanShift": lambda n: cluster.MeanShift(bandwidth=2.0, n_jobs=n).fit(X).cluster_centers_,
    "mutual_info_classif": lambda n: feature_selection.mutual_info_classif(X, y, random_state=0, n_jobs=n),
    "KNeighborsClassifier by tree": lambda n: (
        neighbors.KNeighborsClassifier(algorithm="kd_tree", n_jobs=n).fit(X, y).kneighbors(X)[0]
    ),
    "LatentDirichletAllocation": lambda n: (
        decomposition.LatentDirichletAllocation(2, max_iter=2, random_state=0, n_jobs=n).fit(X).components_.shape
    ),  # its values depend on n_jobs
}

WORDS = ["running", "nodes", "provisioned", "ended", "happily", "slots"]
OTHERS: dict[str, Case] = {
    "nltk.util.parallelize_preprocess": lambda n: list(parallelize_preprocess(PorterStemmer().stem, WORDS, n)),
    "imblearn BalancedRandomForestClassifier": fit(
        BalancedRandomForestClassifier, "feature_importances_", X, y > 1, n_estimators=8, random_state=0
    ),
    "mapie CrossConformalRegressor": lambda n: (
        CrossConformalRegressor(linear_model.LinearRegression(), confidence_level=0.9, cv=4, n_jobs=n, random_state=0)
        .fit_conformalize(X, y.astype(float))
        .predict_interval(X)[1]
    ),
}

STAYS: dict[str, tuple[str, Case]] = {
    "RandomForestClassifier.predict": ("requires shared memory", lambda n: forest(n).predict(X)),
    "IsolationForest.score_samples": ("requires shared memory", lambda n: isolation(n).score_samples(X)),
    "SGDClassifier": (
        "requires shared memory",
        lambda n: linear_model.SGDClassifier(random_state=0, n_jobs=n).fit(X, y).coef_,
    ),
    "pairwise_distances": ("names threads", lambda n: metrics.pairwise_distances(X, metric="manhattan", n_jobs=n)),
    "HistGradientBoostingClassifier": (
        "has threads of its own",
        lambda n: ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(MANY, OF_MANY).predict(MANY),
    ),
    "TSNE": (
        "has threads of its own",
        lambda n: manifold.TSNE(max_iter=250, random_state=0, perplexity=5, n_jobs=1).fit_transform(X[:20]).shape,
    ),
}
"""What does not come to the pool, and why: by its own choice."""


@pytest.fixture(scope="module", autouse=True)
def compute() -> Iterator[sky.Compute]:
    image = sky.Image(preload=["sklearn.ensemble", "sklearn.model_selection", "sklearn.svm", "sklearn.cluster"])
    worker = sky.Worker(concurrency=2)
    with sky.Compute(nodes=2, worker=worker, image=image, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """The nodes and slots that batches come home from."""
    seen: set[tuple[int, int]] = set()
    take = SkywardBackend.retrieve_result_callback

    def note(backend: SkywardBackend, out: Any) -> Any:
        seen.add((out.node, out.slot))
        return take(backend, out)

    monkeypatch.setattr(SkywardBackend, "retrieve_result_callback", note)
    return seen


def forest(n_jobs: int) -> Any:
    with parallel_config(backend="sequential"):
        return ensemble.RandomForestClassifier(8, random_state=0).fit(X, y).set_params(n_jobs=n_jobs)


def isolation(n_jobs: int) -> Any:
    with parallel_config(backend="sequential"):
        return ensemble.IsolationForest(n_estimators=8, random_state=0).fit(X, y).set_params(n_jobs=n_jobs)


def alone(case: Case) -> Any:
    with parallel_config(backend="sequential"):
        return case(1)


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, dict | list):
        assert found == expected
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in {**ON_NODES, **OTHERS}.items()])
def test_it_runs_on_nodes_and_gives_what_it_gives_alone(case: Case, places: set[tuple[int, int]]) -> None:
    expected = alone(case)
    assert not places

    assert_equal(case(2), expected)
    assert places
    assert {node for node, _ in places} <= {0, 1}


@pytest.mark.parametrize(("why", "case"), [pytest.param(*of, id=name) for name, of in STAYS.items()])
def test_it_stays_here_and_gives_what_it_gives_alone(why: str, case: Case, places: set[tuple[int, int]]) -> None:
    expected = alone(case)

    assert_equal(case(2), expected)
    assert not places


def test_filters_for_warnings_reach_the_tasks_and_stay_what_they_are_here() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        before = list(warnings.filters)
        hasty = linear_model.LogisticRegression(max_iter=1)
        with pytest.raises(ValueError, match="ConvergenceWarning"):
            MS.cross_val_score(hasty, MANY, OF_MANY, cv=3, n_jobs=2)
        assert warnings.filters == before


def test_a_filter_of_a_package_that_nodes_lack_breaks_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_installed.py").write_text("class StrangeWarning(Warning): ...")
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("never_installed").StrangeWarning
    with warnings.catch_warnings():
        warnings.simplefilter("error", kind)
        scores = MS.cross_val_score(TREE, X, y, cv=3, n_jobs=2)
        assert warnings.filters[0][2] is kind

    assert_equal(scores, alone(lambda _: MS.cross_val_score(TREE, X, y, cv=3)))


@pytest.mark.parametrize("n_jobs", [-1, 4, None])
def test_a_forest_predicts_in_no_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch, n_jobs: int | None
) -> None:
    forest = ensemble.RandomForestClassifier(n_estimators=12, random_state=0, n_jobs=n_jobs).fit(X, y)
    expected = np.asarray(forest.predict_proba(X[:5]))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    sizes: list[int] = []
    threads = _parallel_backends.ThreadPool

    def start(size: int) -> Any:
        sizes.append(size)
        return threads(size)

    monkeypatch.setattr(_parallel_backends, "ThreadPool", start)

    assert np.allclose(forest.predict_proba(X[:5]), expected)
    assert sizes == [2]
