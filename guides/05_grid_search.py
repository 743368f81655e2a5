"""A library that uses joblib uses the pool: scikit-learn's grid search, unchanged."""

from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import skyward as sky

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3, n_jobs=-1)
    image = sky.Image(packages=["scikit-learn"], preload=["sklearn.svm"])  # imported once per node, not once per slot
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), image=image, plugins=[sky.plugins.joblib()]):
        search.fit(X, y)
    print("best:", search.best_params_, f"{search.best_score_:.3f}")

# best: {'C': 10, 'gamma': 0.1} 0.973
