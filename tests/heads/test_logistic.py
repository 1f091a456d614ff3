"""Logistic regression: scikit-learn's answers, C from the data, and answers that are paths."""

from __future__ import annotations

import numpy as np

from heads import fit_logistic
from tests.heads.conftest import clusters


def units(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_it_predicts_what_scikit_learn_predicts():
    from sklearn.linear_model import LogisticRegression

    (features, labels), (held, _) = clusters(400), clusters(200, seed=1)
    for c in (1.0, 30.0):
        ours = fit_logistic(features, labels, penalties=[c]).probabilities(held)
        theirs = LogisticRegression(C=c, max_iter=2000, tol=1e-8).fit(units(features), labels[:, -1])
        theirs = theirs.predict_proba(units(held))
        assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.98
        assert np.abs(ours - theirs).mean() < 0.01


def test_c_is_the_best_on_validation_rows_or_by_cross_validation():
    (features, labels), validation = clusters(400), clusters(300, seed=1)
    found = fit_logistic(features, labels, validation=validation)
    assert found.penalty == max(found.accuracies, key=found.accuracies.get)
    assert "300 validation rows" in found.reason
    few = fit_logistic(features, labels, validation=(validation[0][:50], validation[1][:50]))
    assert "cross-validation on 400 training rows" in few.reason


def test_answers_are_paths_of_the_training_rows_also_where_finer_labels_are_missing():
    features, labels = clusters(400)
    labels[labels[:, 1] == 2, 2] = -1
    found = fit_logistic(features, labels, penalties=[10.0])
    known = {tuple(path) for path in labels.tolist()}
    answers = found.predict(clusters(100, seed=1)[0])
    assert {tuple(path) for path in answers.tolist()} <= known
    assert (found.predict(features) == labels).all(axis=1).mean() > 0.8
