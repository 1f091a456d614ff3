"""The estimator inside scikit-learn's own machinery."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from data import DataError
from tests.pipeline.small_dataset import rows

TEXTS = [row[0] for row in rows()]
INTENTS = np.array([row[2] for row in rows()])
CODES = np.unique(INTENTS, return_inverse=True)[1] * 10  # labels need not be strings


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts") / "features"


@pytest.fixture
def zoom(store):
    from semantic_zoom import ZoomTransformer

    return ZoomTransformer(epochs=3, store=store)


def test_scikit_learns_own_checks():
    """Those of inputs need arrays of numbers; for text, scikit-learn leaves these."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils import estimator_checks

    from semantic_zoom import ZoomTransformer

    estimator_checks.check_estimator(ZoomTransformer(), on_skip=None)
    for check in (
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_mixin_order,
    ):
        check("ZoomTransformer", ZoomTransformer())
    with pytest.raises(NotFittedError):
        ZoomTransformer().transform(TEXTS)


def test_labels_come_back_as_they_were_given(zoom):
    fitted = zoom.fit(TEXTS, CODES)
    found = fitted.predict(TEXTS)
    assert found.dtype == CODES.dtype
    assert np.array_equal(fitted.classes_, np.unique(CODES))
    assert fitted.score(TEXTS, CODES) == np.mean(found == CODES) > 0.6


@pytest.mark.parametrize(
    "form",
    [list, tuple, iter, np.array, pd.Series, pl.Series, lambda y: pd.Series(y, dtype="category"),
     lambda y: [(label,) for label in y], lambda y: np.array(y)[:, None], lambda y: pd.DataFrame({"label": y})],
)  # fmt: skip
def test_every_form_of_labels_predicts_them(zoom, form):
    labels = INTENTS[::4].tolist()
    found = zoom.set_params(method="lda").fit(TEXTS[::4], form(labels)).predict(TEXTS[::4])
    assert found.shape == (len(labels),)
    assert np.mean(found == labels) > 0.9


def test_several_levels_give_paths(zoom):
    paths = np.array([row[1:3] for row in rows()], object)
    fitted = zoom.fit(np.array(TEXTS, object)[:, None], paths)
    found = fitted.predict(TEXTS)
    assert {tuple(path) for path in found} <= {tuple(path) for path in paths}
    assert fitted.score(TEXTS, paths) == np.mean(found[:, 1] == paths[:, 1])


def test_nothing_asked_is_nothing_predicted_in_the_form_of_the_labels(zoom):
    fitted = zoom.set_params(method="lda")
    for labels, shape in ((INTENTS, (0,)), (CODES, (0,)), (np.array([row[1:3] for row in rows()], object), (0, 2))):
        found = fitted.fit(TEXTS, labels).predict([])
        assert (found.shape, found.dtype) == (shape, fitted.predict(TEXTS).dtype)


@pytest.mark.parametrize(("labels", "words"), [(None, "no labels"), ([1, "1"] * 54, "written alike")])
def test_labels_that_cannot_be_told_apart_are_refused(zoom, labels, words):
    with pytest.raises(DataError, match=words):
        zoom.set_params(method="lda").fit(TEXTS, labels)


def test_in_a_pipeline_and_a_grid_over_methods(zoom):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(zoom.set_params(dim=64), LogisticRegression())
    assert cross_val_score(model, TEXTS, INTENTS, cv=2).mean() > 0.6
    assert model[0].set_params(dim=64).fit(TEXTS, INTENTS).get_feature_names_out().shape == (64,)
    axes = {"method": ["mrl", "lda"], "dim": [64, 256]}
    grid = GridSearchCV(zoom.set_params(epochs=1), axes, cv=2).fit(TEXTS, INTENTS)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert grid.best_score_ > 0.6


@pytest.mark.slow
def test_the_grid_of_the_guide_runs(zoom, monkeypatch):
    guide = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "use-it-elsewhere.md").read_text()
    example = guide.split("## In scikit-learn\n")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.setenv("PIPELINE_ARTIFACTS", str(zoom.store.parent))
    names = {"texts": TEXTS[::4], "labels": INTENTS[::4], "new_texts": TEXTS[1::4]}
    exec(example, names)
    grid = names["grid"]
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    assert set(grid.predict(TEXTS[1::4])) <= set(INTENTS)


def test_a_text_without_a_finest_label_does_not_count(zoom):
    paths = [(row[1], row[2] if number % 4 else None) for number, row in enumerate(rows())]
    model = zoom.set_params(method="lda").fit(TEXTS, paths)
    assert model.score(TEXTS, paths) == model.zoom_.score(TEXTS, paths) > 0.9
    assert model.score(TEXTS, paths, sample_weight=range(len(TEXTS))) > 0.9
    with pytest.raises(DataError, match="1 weights for 108 texts"):
        model.score(TEXTS, paths, sample_weight=[1])
    with pytest.raises(DataError, match="no text has a label of the finest level"):
        model.score(TEXTS[:1], [("money", None)])
