"""Result files of a run that never was, in the formats of the verbs that write them."""

import csv
import itertools
import json
import math

import numpy as np

from medssml.counterfactual.measures import MEASURES
from medssml.transfer.gain import Answers, gains, gate

MODALITIES = ("ct", "xray", "eeg", "report")
#: Task -> (what each modality is worth on the scale of AUROC, kind of truth).
TASKS = {
    "nodule": {"ct": 0.27, "xray": 0.12, "eeg": 0.0, "report": 0.22},
    "epileptiform": {"ct": 0.01, "xray": 0.0, "eeg": 0.33, "report": 0.14},
}
SECRET = "MUELLER_HANS_19560304"


def subsets(modalities=MODALITIES):
    sizes = range(1, len(modalities) + 1)
    return ["+".join(part) for size in sizes for part in itertools.combinations(modalities, size)]


def interval(value, width=0.03, n=120, top=1.0):
    return {"estimate": value, "ci_low": value - width, "ci_high": min(top, value + width), "n": n}


def best_auroc(task, subset):
    return 0.5 + 0.49 * (1 - math.prod(1 - 1.9 * TASKS[task][m] for m in subset.split("+") if m))


def scores(task, name, n, rng):
    auroc = best_auroc(task, name) - abs(rng.normal(0.02, 0.01))
    best = best_auroc(task, name) + rng.normal(0, 0.004)
    return {
        "n": n,
        "subjects": n,
        "positives": n // 3,
        "auroc": interval(auroc, 0.5 / math.sqrt(n), n),
        "auprc": interval(auroc - 0.1, 0.06, n),
        "balanced_accuracy": interval(auroc - 0.06, 0.05, n),
        "brier": interval(0.25 - 0.2 * (auroc - 0.5), 0.02, n),
        "ece": interval(0.05, 0.02, n),
        "calibration_slope": interval(0.93, 0.2, n, 9),
        "calibration_intercept": interval(-0.05, 0.2, n, 9),
        "bayes": {"auroc": interval(best, 0.02, n), "gap": interval(best - auroc, 0.015, n)},
    }


def metrics(rng):
    found = {}
    for task in TASKS:
        rows = {name: scores(task, name, int(rng.integers(60, 240)), rng) for name in ["", *subsets()]}
        rows[""]["auroc"] = interval(0.5, 0.0)
        if task == "nodule":
            rows["eeg"]["auroc"] = {"estimate": None, "ci_low": None, "ci_high": None, "n": 9, "reason": "one class"}
        bins = [
            (p, float(np.clip(p + rng.normal(0, 0.04), 0, 1)), int(rng.integers(5, 30)))
            for p in np.linspace(0.05, 0.95, 8)
        ]
        probe = {name: {"n": 80, "auroc": interval(best_auroc(task, name) - 0.05)} for name in subsets()}
        found[task] = {
            "kind": "binary",
            "method": "head",
            "threshold": {"value": 0.41, "from": "validation"},
            "subsets": rows,
            "complete_cases": {name: scores(task, name, 64, rng) for name in subsets()},
            "as_observed": scores(task, "ct+xray", 240, rng)
            | {"calibration": [{"expected": x, "observed": y, "n": k} for x, y, k in bins]},
            "probes": {m: {"fused": probe, "encoder": {k: probe[k] for k in MODALITIES}} for m in ("linear", "knn")},
        }
    pairs = zip(itertools.permutations(("ct", "xray", "report"), 2), (0.42, 0.61, 0.4, 0.33, 0.6, 0.31), strict=True)
    retrieval = {
        f"{a}->{b}": {
            "n": 90,
            "r@1": interval(value, 0.06, 90) | {"chance": 1 / 90},
            "r@5": interval(min(0.97, 2.4 * value), 0.07, 90) | {"chance": 5 / 90},
            "median_rank": interval(3.5, 1.0, 90, 90) | {"chance": 45.5},
        }
        for (a, b), value in pairs
    }
    protocol = {
        "seed": 0,
        "split": "test",
        "manifest_sha256": "9f2c" * 16,
        "bootstrap": {"resamples": 1000, "unit": "subjects"},
    }
    return {
        "tasks": found,
        "retrieval": retrieval,
        "zero_shot": zero_shot(),
        "transductive": transductive(),
        "protocol": protocol,
    }


def transductive():
    """One task at two sites, one of them new, as it is and aligned."""
    measured = {"inductive": 0.734, "transductive": 0.801, "difference": 0.067}
    figures = {"n": 96, "subjects": 80, "positives": 31}
    figures |= {way: {"auroc": interval(value, 0.04, 96)} for way, value in measured.items()}
    moved = {"n": 52, "moved": True, "shift": 0.71, "shift_by_chance": 0.16, "shrinkage": 0.34}
    few = {"n": 6, "moved": False, "reason": "6 studies have it, 10 are needed"}
    return {
        "protocol": "transductive: used the unlabelled reported studies of each group of group_site",
        "align": "covariance",
        "by": "group_site",
        "least": 10,
        "ungrouped": 0,
        "groups": {"north": {"studies": 58, "in_training": 0, "modalities": {"ct": moved, "eeg": few}}},
        "tasks": {
            "nodule": {
                "method": "head",
                "subsets": {"ct": figures, "ct+report": figures},
                "as_observed": figures,
                "groups": {"north": figures},
            }
        },
    }


def zero_shot():
    """What sentences alone tell of one task, from two modalities and both."""
    subsets = {
        name: {"n": n, "auroc": interval(value, 0.04, n)}
        for name, value, n in (("ct", 0.814, 96), ("ct+report", 0.796, 61), ("report", 0.678, 90))
    }
    prompts = {"0": ["Lungs without nodule."], "1": ["Suspicious nodule.", "Malignant appearing mass."]}
    return {"tasks": {"nodule": {"kind": "binary", "classes": ["0", "1"], "prompts": prompts, "subsets": subsets}}}


def impact(task, rng, n=180):
    worth = TASKS[task]
    rows, labels = [], rng.integers(0, 2, n)
    for i in range(n):
        for m in MODALITIES:
            if rng.random() < 0.7:
                value = (2 * labels[i] - 1) * worth[m] * rng.uniform(0.3, 1.2) + rng.normal(0, 0.015)
                rows.append([f"{SECRET}-{i}", m, value, value * 1.1, value * 1.2, 0.5, labels[i]])
    found = {
        m: {
            "shapley": interval(0.1 * worth[m], 0.02),
            "shapley_abs": interval(worth[m] + 0.005, 0.02),
            "necessity": interval(0.08 * worth[m], 0.02),
            "sufficiency": interval(0.12 * worth[m], 0.03),
            "swap": interval(0.02 * worth[m], 0.02),
            "performance_drop": interval(0.6 * worth[m], 0.03),
        }
        for m in MODALITIES
    }
    shares = {m: interval(0.72 * worth[m] + rng.normal(0, 0.006), 0.025) for m in MODALITIES}
    pairs = {",".join(p): interval(float(rng.normal(-0.03, 0.03)), 0.02) for p in itertools.combinations(MODALITIES, 2)}
    result = {
        "task": task,
        "kind": "binary",
        "value": "probability of the positive class",
        "baseline": "absent",
        "baseline_words": "the model is told that the modality is absent",
        "empty_words": "the mean prediction over the reference studies",
        "note": "Effects of the modalities on this model's predictions, not on patients.",
        "n_studies": n,
        "n_models": 3,
        "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95, "unit": "subjects and models"},
        "coalitions": {name: 0.4 + 0.01 * len(name) / 10 for name in ["", *subsets()]},
        "measures": {m.name: {"headings": m.headings, "words": m.words} for m in MEASURES},
        "modalities": found,
        "waterfall": {
            "base": 0.38,
            "contributions": {m: 0.1 * worth[m] - 0.01 for m in MODALITIES},
            "prediction": 0.42,
        },
        "interactions": pairs,
        "interaction_share": {"mean_of_abs": interval(0.34, 0.03), "abs_of_mean": interval(0.12, 0.04)},
        "performance": {"metric": "auroc", "n_complete": 64, "shapley": shares},
        "truth": {
            "pairs": [
                {"quantity": q, "modality": m, "estimate": 0.0, "truth": scale * worth[m], "inside": True}
                for q, scale in (("shapley_abs", 1.0), ("performance_shapley", 0.74))
                for m in MODALITIES
            ],
            "inside": {"shapley_abs": 1.0, "performance_shapley": 1.0},
            "n": n,
        },
        "protocol": {"split": "test"},
        "subgroups": {
            "sex": {
                g: {
                    "n": 90,
                    "modalities": {"ct": {"shapley": interval(0.02), "difference": interval(0.01), "p_holm": 0.4}},
                }
                for g in "FM"
            }
        },
        "baselines": {
            "shapley": {"absent": {m: interval(0.01) for m in found}, "marginal": {m: interval(0.02) for m in found}}
        },
    }
    columns = ["study_id", "modality", "shapley", "necessity", "sufficiency", "prediction", "label"]
    return result, [dict(zip(columns, row, strict=True)) for row in rows]


def history(rng, steps=400):
    rows = []
    for step in range(10, steps + 1, 10):
        fall = math.exp(-step / 120)
        rate = 1e-3 * min(step / 40, 1) * (1 + math.cos(math.pi * step / steps)) / 2
        row = {"step": step, "epoch": step / 50, "seconds": step * 0.8, "lr": rate}
        for part, extra in (("train", 0.0), ("val", 0.15)):
            if part == "val" and step % 50:
                continue
            noise = lambda: float(rng.normal(0, 0.04))  # noqa: E731
            contrast, mae, mlm = (
                0.8 + 2.4 * fall + extra + noise(),
                0.55 + 0.4 * fall + noise(),
                1.3 + 5 * fall + extra + noise(),
            )
            row |= {
                f"{part}/loss": contrast + mae + mlm,
                f"{part}/cross_modal_contrast/loss": contrast,
                f"{part}/cross_modal_contrast/accuracy_ct+report": 0.8 - 0.7 * fall + noise(),
                f"{part}/cross_modal_contrast/accuracy_xray+report": 0.7 - 0.6 * fall + noise(),
                f"{part}/masked_reconstruction/loss": mae,
                f"{part}/masked_language_modelling/loss": mlm,
                f"{part}/masked_language_modelling/accuracy": 0.7 - 0.6 * fall,
            }
        if step % 50 == 0:
            row |= {"val/rankme": 40 - 25 * fall, "val/feature_spread": 0.9 - 0.4 * fall}
            row |= {f"val/probe_auroc/{task}": 0.9 - 0.35 * fall + float(rng.normal(0, 0.01)) for task in TASKS}
        rows.append(row)
    return rows


def embedding_map(rng, n=300):
    rows = []
    for i in range(n):
        nodule, fit = rng.integers(0, 2), rng.integers(0, 2)
        x, y = rng.normal(0, 1, 2) + (3.2 * nodule, 2.6 * fit)
        rows.append(
            {
                "study_id": f"{SECRET}-{i}",
                "x": x,
                "y": y,
                "pattern": str(rng.choice(["ct+report", "xray+report", "ct+xray+report", "eeg", "ct+xray+eeg+report"])),
                "label_nodule": nodule if rng.random() < 0.8 else "",
                "label_epileptiform": fit,
            }
        )
    return rows


def presence(rng):
    names = ["ct+report", "xray+report", "ct+xray+report", "ct+xray+eeg+report", "eeg", "report", "ct+xray", "xray"]
    counts = sorted((int(c) for c in rng.integers(20, 400, len(names))), reverse=True)
    patterns = [{"pattern": p, "train": c, "val": c // 7, "test": c // 5} for p, c in zip(names, counts, strict=True)]
    return {"modalities": list(MODALITIES), "patterns": patterns}


def retrieval_examples():
    case = lambda i: {  # noqa: E731
        "query": f"{SECRET}-{i}",
        "rank": float(1 + i % 4),
        "top": [{"study_id": f"{SECRET}-{j}", "similarity": 0.9 - 0.1 * j, "hit": j == i % 3} for j in range(3)],
    }
    pairs = {"ct->report": [case(i) for i in range(8)], "xray->report": [case(i + 3) for i in range(8)]}
    return {"space": "heads of the contrast", "pairs": pairs}


def problems():
    columns = ["row", "study_id", "column", "file", "code", "problem", "action", "fix"]
    ct, dicom, again = f"ct/{SECRET}.nii.gz", f"/mnt/pacs/{SECRET}/1.dcm", "copy the file again"
    rows = [
        [12, f"{SECRET}-a", "ct", ct, "truncated", f"{ct} ends after 1,204 of 4,100 kB", "quarantined", again],
        [40, f"{SECRET}-b", "eeg", f"eeg/{SECRET}.edf", "truncated", "holds 212 of 600 s", "quarantined", again],
        [41, f"{SECRET}-c", "xray", dicom, "monochrome1", f"inverted values in {dicom}", "fixed", "none needed"],
        [77, f"{SECRET}-d", "report", "", "short", "the report has 4 characters", "flagged", "look at it"],
    ]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def write_csv(path, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def transferred(better):
    """transfer_gain.json of three seeds; a student that is taught answers so much better."""
    rng = np.random.default_rng(0)
    y = (rng.random(200) < 0.4).astype(float)
    common, noise = rng.normal(size=200), rng.normal(size=(2, 3, 200))
    without = y + common + 0.3 * noise[0]
    transfer = (1 + better) * y + common + 0.3 * noise[1]
    answers = {"effusion": Answers("binary", y, np.arange(200), without, transfer)}
    nothing = Answers("binary", np.ones(200), np.arange(200), without, transfer)
    tasks = gains({**answers, "rare": nothing}, n=100)
    tasks["effusion"]["bayes"] = 0.93
    return {
        "student": "xray", "source": ["ct"], "method": "logits", "weight": 1.0, "tasks": tasks,
        "gate": gate(answers, n=100).to_dict(), "kept": {"student": "taught", "seed": 1},
        "protocol": {"seeds": [0, 1, 2], "studies": {"labelled": 100}, "steps": 200},
    }  # fmt: skip


def write_run(folder):
    """A run folder with everything in it, as `demo` leaves it."""
    rng = np.random.default_rng(0)
    for name in ("pretrain", "evaluation", *(f"impact/{task}" for task in TASKS)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "presence.json").write_text(json.dumps(presence(rng)))
    write_csv(folder / "problems.csv", problems())
    write_csv(folder / "pretrain/history.csv", history(rng))
    (folder / "pretrain/config.yaml").write_text(
        "seed: 0\nmanifest: /mnt/hospital/mueller/manifest.csv\noptim: {lr: 0.001, betas: [0.9, 0.95]}\n"
        "objectives:\n- class_path: CrossModalContrast\n  init_args: {dim: 64}\n"
    )
    (folder / "evaluation/metrics.json").write_text(json.dumps(metrics(rng)))
    (folder / "transfer").mkdir()
    (folder / "transfer/transfer_gain.json").write_text(json.dumps(transferred(1.0)))
    (folder / "evaluation/retrieval.json").write_text(json.dumps(retrieval_examples()))
    write_csv(folder / "evaluation/embedding_map.csv", embedding_map(rng))
    truth = {
        task: {
            "bayes_auroc": {"": 0.5} | {name: best_auroc(task, name) for name in subsets()},
            "shapley_auroc": {m: 0.72 * v for m, v in worth.items()},
        }
        for task, worth in TASKS.items()
    }
    (folder / "truth.json").write_text(json.dumps({"tasks": truth, "latents": [], "mechanism": {}}))
    for task in TASKS:
        result, rows = impact(task, rng)
        (folder / f"impact/{task}/impact.json").write_text(json.dumps(result))
        write_csv(folder / f"impact/{task}/impact.csv", rows)
    return folder


def study_results(seed=0):
    """results.json of a study: two tasks, three methods, every subset of three modalities."""
    rng = np.random.default_rng(seed)
    methods = {"classical": 0.0, "probe": 0.05, "finetune": 0.09}
    found = {}
    for task in TASKS:
        found[task] = {}
        for method, more in methods.items():
            rows = {}
            for name in ["", *subsets(MODALITIES[:3])]:
                value = 0.55 + 0.08 * len([m for m in name.split("+") if m]) + more + float(rng.normal(0, 0.01))
                entry = {"auroc": interval(value, 0.05), "positives": 40, "seeds": [value - 0.01, value, value + 0.01]}
                if method != "classical":
                    entry["gain"] = interval(more, 0.03)
                rows[name] = entry
            found[task][method] = rows
    return found


def write_cohort(root):
    """A few studies of two sites with files, one of them odd."""
    import nibabel as nib
    from PIL import Image

    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.array([[-4, 0, 0, 62], [0, -4, 0, 61], [0, 0, 5, -300], [0, 0, 0, 1.0]])
    rows = ["subject_id,study_id,split,site,ct,xray,report_text,label_ill,label_stage,label_age"]
    for number in range(18):
        low, high = (0, 256) if number == 3 else (-1000, 400)
        nib.save(
            nib.Nifti1Image(rng.integers(low, high, (32, 32, 13)).astype(np.int16), affine), root / f"{number}.nii.gz"
        )
        size = (40, 40) if number == 4 else (128, 96)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(root / f"{number}.png")
        split, site = ("train", "north") if number < 9 else ("test", "south")
        labels = f"{number % 2},{('early', 'middle', 'late')[number % 3]},{40 + number / 7:.2f}"
        rows.append(
            f"p{number},s{number},{split},{site},{number}.nii.gz,{number}.png,No acute findings {number}.,{labels}"
        )
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def compared_runs():
    """What the page of a comparison is made of: three runs, two tasks."""
    from medssml.reports.compare_page import ComparedRun

    rng = np.random.default_rng(0)
    names = ("scratch", "finetuned on few labels", "finetuned/again")
    runs = []
    for place, name in enumerate(names):
        rows = [{key: str(value) for key, value in row.items()} for row in history(rng)]
        config = {"seed": place, "optim": {"lr": 10.0 ** -(place + 2)}, "trainer": {"max_steps": 100}}
        made = {"date": "2026-01-02T03:04:05+00:00", "version": "0.1.0", "command": "medssml finetune", "seed": place}
        runs.append(ComparedRun(name, rows, config, {"finetune": made}))
    tasks = {}
    for task in TASKS:
        values = {name: interval(0.7 + 0.08 * place, 0.06) for place, name in enumerate(names)}
        gains = {name: interval(0.08 * place, 0.05) for place, name in enumerate(names) if place}
        head = {"kind": "binary", "metric": "auroc", "n": 120, "subjects": 110, "positives": 40}
        tasks[task] = {**head, "runs": values, "gains": gains}
    return runs, tasks, {"resamples": 1000, "seed": 0, "unit": "subjects"}
