"""Claims are judged on made-up accuracies that pass, fail, or pass under one protocol only."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.claims.format import elsewhere_lines, measured_lines, published_lines, remarks
from pipeline.claims.published import CLAIMS, DIFFERENCE, Figure, Measurement
from pipeline.claims.verdicts import judge
from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Entry
from tests.pipeline.evaluation.predicted import predicted

SEEDS = (1, 2, 3, 4, 5)
PUBLISHED = {
    "v5": [[0.97, 0.54], [0.97, 0.70], [0.97, 0.75], [0.97, 0.80]],
    "mrl": [[0.90, 0.67], [0.93, 0.75], [0.95, 0.78], [0.98, 0.80]],
}
LARGE = {
    "v5": [[0.97, 0.91], [0.98, 0.93], [0.98, 0.94], [0.98, 0.95]],
    "mrl": [[0.98, 0.95], [0.98, 0.95], [0.98, 0.95], [0.98, 0.95]],
}


def runs(accuracies, protocol, seeds=SEEDS, texts=4000):
    return [
        Entry(
            method,
            seed,
            predicted(
                np.array(shares) + np.random.default_rng(seed).uniform(-0.002, 0.002),
                texts=texts,
                seed=2 * seed + (method == "v5"),  # or one method's errors would be among the other's
                protocol=protocol,
            ),
        )
        for method, shares in accuracies.items()
        for seed in seeds
    ]


def judged(published, elsewhere, **more):
    entries = {"leave-one-out": runs(published, "leave-one-out", **more), "gallery": runs(elsewhere, "gallery", **more)}
    return {claim.id: claim for claim in judge(entries)}


def with_cells(accuracies, **cells):
    """The accuracies with `method=(prefix, level, value)` changed."""
    changed = {method: np.array(shares) for method, shares in accuracies.items()}
    for method, (prefix, level, value) in cells.items():
        changed[method][prefix, level] = value
    return changed


class TestVerdicts:
    def test_where_everything_is_as_published_all_accuracy_claims_hold(self):
        found = judged(PUBLISHED, PUBLISHED)
        for name in ("coarse-64", "fine-64", "coarse-loss", "min-storage", "steerability"):
            assert found[name].verdict in ("reproduced", "order holds"), name

    def test_where_a_large_gallery_says_otherwise_they_hold_only_under_the_published_protocol(self):
        found = judged(PUBLISHED, LARGE)
        for name in ("coarse-64", "coarse-loss", "min-storage"):
            assert found[name].verdict.endswith(", only under the published protocol"), name
        assert found["fine-64"].verdict == "reproduced"

    @pytest.mark.parametrize(
        ("claim", "cells"),
        [
            ("coarse-64", {"mrl": (0, 0, 0.97)}),
            ("fine-64", {"mrl": (0, 1, 0.54)}),
            ("coarse-loss", {"v5": (0, 0, 0.94)}),
            ("coarse-loss", {"mrl": (3, 0, 0.90)}),
            ("min-storage", {"v5": (0, 0, 0.955)}),
            ("min-storage", {"mrl": (2, 0, 0.97)}),
            ("steerability", {"v5": (3, 1, 0.54)}),
        ],
    )
    def test_a_claim_whose_test_fails_does_not_hold(self, claim, cells):
        assert judged(with_cells(PUBLISHED, **cells), PUBLISHED)[claim].verdict == "does not hold"

    def test_a_difference_that_chance_could_make_is_no_proof(self):
        close = with_cells(PUBLISHED, v5=(0, 0, 0.91), mrl=(0, 0, 0.90))
        assert judged(close, close, texts=200)["coarse-64"].verdict == "does not hold"
        assert judged(close, close, texts=40_000)["coarse-64"].verdict == "order holds"

    def test_a_target_reached_on_average_alone_is_not_reached(self):
        at_the_target = with_cells(PUBLISHED, v5=(0, 0, 0.9605))
        found = judged(at_the_target, at_the_target, texts=400)["min-storage"]
        assert found.measured["v5"] == 64
        assert found.verdict == "does not hold"

    def test_without_runs_nothing_is_measured(self):
        assert {claim.verdict for claim in judge({})} == {"not measured here"}
        assert [claim.id for claim in judge({})] == [claim.id for claim in CLAIMS]

    def test_measurements_of_cost_are_taken_as_they_come(self):
        measured = Measurement({"64": Figure(128.0, None)}, passed=True)
        found = {claim.id: claim for claim in judge({}, {"search-cost": measured})}
        assert found["search-cost"].verdict == "equal by construction"
        assert found["search-cost"].measured == {"64": 128.0}


class TestFigures:
    def test_are_means_over_seeds_with_intervals_around_them(self):
        row = judged(PUBLISHED, LARGE)["coarse-64"]
        assert row.seeds == 5
        for name, expected in (("v5", 0.97), ("mrl", 0.90), (DIFFERENCE, 0.07)):
            assert row.measured[name] == pytest.approx(expected, abs=0.003)
            low, high = row.ci95[name]
            assert low < row.measured[name] < high
        assert row.elsewhere["measured"]["v5"] == pytest.approx(0.97, abs=0.003)
        assert row.reproduced == {"v5": True, "mrl": True, DIFFERENCE: True}

    def test_a_length_never_reached_is_none(self):
        low = {method: np.array(shares) * 0.9 for method, shares in PUBLISHED.items()}
        assert judged(low, low)["min-storage"].measured == {"v5": None, "mrl": None}


def test_methods_without_a_common_seed_are_refused():
    entries = runs({"v5": PUBLISHED["v5"]}, "gallery", seeds=(1,)) + runs(
        {"mrl": PUBLISHED["mrl"]}, "gallery", seeds=(2,)
    )
    with pytest.raises(PipelineError, match="share no seed"):
        judge({"gallery": entries})


class TestInWords:
    def test_shares_are_per_cents_differences_points_and_counts_have_their_own_unit(self):
        found = judged(PUBLISHED, LARGE)
        coarse = found["coarse-64"]
        assert published_lines(coarse) == ["v5 96 to 98 %", "mrl 89 to 91 %", "v5 - mrl +5 to +9 points"]
        v5, _, gap = measured_lines(coarse)
        assert v5.startswith(f"v5 {coarse.measured['v5'] * 100:.1f} % [")
        assert gap.startswith(f"v5 - mrl {coarse.measured[DIFFERENCE] * 100:+.1f} points [+")
        assert elsewhere_lines(coarse)[0].startswith("v5 97")
        assert published_lines(found["coarse-loss"])[0] == "v5 under +2 points"
        assert measured_lines(found["min-storage"]) == ["v5 64 dims", "mrl 256 dims"]
        assert measured_lines(found["steerability"])[0].startswith("v5 +")
        assert measured_lines(found["two-stage"]) == []

    def test_no_line_of_any_claim_has_a_share_as_a_fraction(self):
        figures = {"v5": Figure(0.93, (0.92, 0.94)), DIFFERENCE: Figure(-0.0001, (-0.1, 0.1))}
        besides = {"v5, intent precision@10": Figure(0.9, None), "MFLOPs at a million": Figure(128.512, None)}
        (claim,) = (
            c for c in judge({}, {"two-stage": Measurement({**figures, **besides}, True)}) if c.id == "two-stage"
        )
        assert measured_lines(claim) == [
            "v5 93.0 % [92.0, 94.0]", "v5 - mrl +0.0 points [-10.0, +10.0]", "MFLOPs at a million 128.5 MFLOP",
        ]  # fmt: skip
        assert remarks(claim) == [", besides: v5, intent precision@10 90.0 %"]
