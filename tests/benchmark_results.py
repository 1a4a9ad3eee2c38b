"""Folders of results as a benchmark writes them, with made-up numbers."""

import hashlib
import json

import numpy as np
import pandas as pd

SCORES = ("NMI", "kBET", "bio", "batch", "total")
EXPRESSION = ("expression_spearman", "marker_overlap")
KINDS = ("integration", "expression", "tuning", "batch_out", "classification")
METHODS = ("pca", "scgen", "fedscgen")


def write_results(
    folder, *, datasets=("Lung",), scenarios=("all",), methods=METHODS, seeds=(1, 2, 3), kinds=KINDS,
    batches=("north", "south"), types=("B", "T", "NK"), scores=SCORES,
    n_rounds=3, n_epochs=2, n_cells=60, spec=None,
):  # fmt: skip
    """Write all files of a benchmark; returns the scores."""
    folder.mkdir(exist_ok=True)
    spec = {"name": "A benchmark", "description": "Made-up numbers.", "seeds": list(seeds)} | (spec or {})
    (folder / "plan.json").write_text(json.dumps(spec))
    rng = np.random.default_rng(0)
    classified = [(classifier, name) for classifier in ("MLP", "k-means") for name in ("accuracy", "AUC")]
    rows = []
    for kind in kinds:
        names = EXPRESSION if kind == "expression" else scores
        measured = classified if kind == "classification" else [("", name) for name in names]
        data = datasets if kind == "integration" else datasets[:1]
        for dataset in data:
            for scenario in scenarios if kind == "integration" else scenarios[:1]:
                for i, method in enumerate(methods):
                    if kind == "tuning" and method != methods[-1]:
                        continue
                    for seed in seeds:
                        names = {"experiment": kind, "kind": kind, "dataset": dataset, "scenario": scenario,
                                 "condition": "", "method": method, "seed": seed, "cell_type": ""}  # fmt: skip
                        rows += _rows(names, measured, i / len(methods), rng, batches, n_rounds, n_epochs)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "results.csv", index=False)
    _distributions(table, rng, len(batches), len(types)).to_csv(folder / "distributions.csv", index=False)
    _comparisons(table, rng).to_csv(folder / "comparisons.csv", index=False)
    _failures(datasets[0], methods[-1]).to_csv(folder / "failures.csv", index=False)
    _pictures(folder, table, rng, batches, types, n_cells)
    return table


def _rows(names, measured, quality, rng, batches, n_rounds, n_epochs):
    """Scores of one task or, where batches are held out in turn and training is tuned, of several."""
    kind = names["kind"]
    held_out = batches if kind in ("batch_out", "classification") else [""]
    lengths = [(r, e) for r in range(1, n_rounds + 1) for e in range(1, n_epochs + 1)] if kind == "tuning" else [()]
    rows = []
    for batch in held_out:
        for length in lengths:
            n_round, n_epoch = length or (np.nan, np.nan)
            training = 0.02 * (n_round + n_epoch) if length else 0
            identity = [*names.values(), batch, *length[1:]]  # a tuning task yields all its rounds
            task = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
            for classifier, metric in measured:
                value = np.clip(0.4 + 0.35 * quality + training + rng.normal(scale=0.03), 0, 1)
                if (classifier, metric) == ("k-means", "AUC"):
                    value = np.nan
                rows.append(
                    names
                    | {"held_out": batch, "n_rounds": n_round, "n_epochs": n_epoch, "classifier": classifier}
                    | {"metric": metric, "value": value, "seconds": 10 + 200 * quality, "peak_memory_mb": 900.0}
                    | {"device": "cpu", "threads": 1, "versions": "fedscgen 0.2.0; torch 2.13.0", "task": task}
                )
    return rows


def _distributions(scores, rng, n_batches, n_types):
    keys = ["experiment", "kind", "dataset", "scenario", "condition", "method", "seed", "held_out"]
    runs = scores.loc[scores["kind"].isin(["integration", "batch_out"]), keys].drop_duplicates()
    rows = []
    for run in runs.to_dict("records"):
        for metric, largest in (("iLISI", n_batches), ("cLISI", n_types)):
            scale = largest - 1 if metric == "iLISI" else 0.4 * (largest - 1)
            quantiles = 1 + scale * np.sort(rng.beta(2, 2, size=5))
            named = dict(zip(("q05", "q25", "q50", "q75", "q95"), quantiles, strict=True))
            rows.append(run | {"metric": metric} | named | {"n_groups": largest})
    return pd.DataFrame(rows, columns=[*keys, "metric", "q05", "q25", "q50", "q75", "q95", "n_groups"])


def _comparisons(scores, rng):
    keys = ["experiment", "dataset", "scenario", "metric", "method"]
    integrated = scores[(scores["kind"] == "integration") & (scores["method"] != "scgen")]
    tests = integrated.groupby(keys, sort=False)["seed"].nunique().rename("n_seeds").reset_index()
    tests["baseline"] = "scgen"
    tests["median_difference"] = rng.normal(scale=0.02, size=len(tests))
    tests["p_value"] = rng.uniform(size=len(tests))
    return tests


def _failures(dataset, method):
    error = "RuntimeError: the party 'north' closed the connection"
    row = {"task": "lost", "experiment": "integration", "dataset": dataset, "method": method, "seed": 9}
    return pd.DataFrame([row | {"held_out": "", "error": error, "log": "logs/lost.log"}])


def _pictures(folder, scores, rng, batches, types, n_cells):
    (folder / "pictures").mkdir(exist_ok=True)
    left_out = scores[(scores["kind"] == "batch_out") & (scores["seed"] == scores["seed"].min())]
    for task in left_out["task"].unique():
        label, batch = rng.integers(len(types), size=n_cells), rng.integers(len(batches), size=n_cells)
        centres = rng.random((len(types), 2))
        layout = centres[label] + 0.02 * batch[:, None] + 0.05 * rng.normal(size=(n_cells, 2))
        np.savez_compressed(
            folder / "pictures" / f"{task}.npz",
            layout=layout.clip(0, 1).astype(np.float32),
            batch=batch, label=label, batch_names=np.array(batches), label_names=np.array(types),
        )  # fmt: skip
