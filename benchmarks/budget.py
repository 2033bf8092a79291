"""What a book of a profile costs in seconds of one core: the rows that its settings ask for, times what a row takes.

    python benchmarks/budget.py [embedded]

Nothing is computed. Two lines of JSON, the short version and EFFORT=full; the units are medians of the artefacts' own
seconds (`Store.describe`) and of `benchmarks/caption.py` on the machine of `results.csv`, times .59 where they are
products of matrices: what `benchmarks/linear.py` found when oneDNN took these over.
"""

import json
import sys

from book.appendix.costs import answers
from kn_core.method import recipes
from kn_core.profile import Profile, load_profile
from kn_core.study.experiments.attribution import HELD, STAGE_2

CAPTION, FORWARD, BACK, ABLATED = 0.23, 0.12, 0.17, 0.05  # a row that is written and read; forced; a slope; one neuron
PAIR, SCENE = 0.45, 0.15  # two captions; a picture and what the tower sees of it
SCORES = len(HELD) - len(STAGE_2)  # attributions whose best are tried
SIBLINGS, PAGES = 230.0, 190.0  # the two other models on four concepts; pages and rendering


def costs(profile: Profile) -> dict[str, float]:
    """Core seconds of each artefact, all concepts together."""
    n, select, own = len(profile.concepts), profile.data.select, profile.data.held_out
    trials, ceiling, choices, edits = profile.perturbation, profile.ceiling, profile.choices, profile.editing
    doses, methods = profile.sensitivity, 2 + len(trials.rivals)
    clean = select + own + trials.others_per_concept * (n - 1)
    perturbed = answers(profile, select, own, n) - own - trials.choosing - (n - 1) * trials.others_per_concept
    directions = trials.directions * len({trials.sigma, *trials.sweep_sigma}) * (trials.sweep_pictures or own)

    others = len(recipes.LADDER) - 1
    steps = 4 * others + 1 if choices.every_step else others + 5
    foreign = (n - 1) * choices.others_per_concept
    ranked = len(ceiling.rankings) or methods + 5
    sizes = len(ceiling.shares) + 1
    sets = sizes * (2 * ranked + ceiling.uniform) + 2 * ceiling.matched + 2 + 30 // (ceiling.window or 10)
    patched = 30 // (ceiling.window or 10) + 6
    swaps = [name for name in edits.editors if name in ("driven", "swap")]
    pairs_of = len(edits.editors) * len(edits.sets) if edits.all_sets else len(edits.sets) + len(edits.editors) - 1
    strengths = sum(len(edits.strengths.get(name, ())) for name in edits.editors) if edits.all_doses else 0
    share = min(1.0, (edits.compared or n) / n)
    further = (n - 2) if edits.all_pairs else 0
    judged = edits.learnt + edits.judged + edits.judged_others + edits.without
    rows = judged + share * (pairs_of + strengths) * 2 * edits.light + further * 2 * edits.light
    made = (1 + share * pairs_of + further) * (8 if swaps else 4)
    fraction = {
        "pairs": (select + own) * 1.15 * PAIR,
        "scores": select * (2 * FORWARD + 2 * BACK) + 6 * ("dai" in trials.rivals),
        "attribution": select * (2 * FORWARD + 2 * BACK + SCENE),
        "decoys and rules": 8 + len(profile.rules.tried) * profile.rules.pictures * CAPTION,
        "clean captions": clean * (FORWARD + SCENE),
        "contrasts": 2
        + len(choices.within) * len(choices.between) * len(choices.interventions) * choices.choosing * FORWARD,
        "perturbations": perturbed * CAPTION + directions * 2 * FORWARD,
        "ladder": 2 + choices.pictures * (steps + SCORES + len(trials.rivals)) * CAPTION,
        "third stage": ((2 + len(choices.budgets)) * own + 2 * foreign) * CAPTION,
        "ceiling": ceiling.pictures * patched * CAPTION
        + ceiling.mask_pictures * (2 * ceiling.bound_layers + 2) * FORWARD,
        "curves": ceiling.curve_pictures * sets * FORWARD
        + ceiling.mask_steps * ceiling.mask_pictures * (FORWARD + BACK)
        + ceiling.guarded * (n - 1) * FORWARD,
        "ownership": 9 * profile.ownership.pictures * CAPTION
        + n * profile.ownership.crossed * CAPTION
        + profile.ownership.words * 1.1,
        "single neurons": (methods * profile.faithfulness.per_method + profile.faithfulness.random + 20)
        * profile.faithfulness.pictures
        * ABLATED,
        "exact patches": choices.paths * (7 * (FORWARD + BACK) + choices.patched * ABLATED),
        "thresholds": 0.8
        * (len(doses.quantiles_a) * len(doses.quantiles_g) + len(doses.raw_a) * len(doses.raw_g))
        * doses.pictures
        * CAPTION,
        "edits": made + rows * (CAPTION + 0.05),
        "transfer": len(edits.phrasings) * edits.zeroed * 1.0 + 12 * edits.zeroed * FORWARD,
        "wordings, inpainters, companions, maps, regions": 2.0 * len(profile.faithfulness.prompts) + 22,
    }
    kinds = len(profile.rules.kinds) * (fraction["pairs"] + fraction["scores"] + 15)
    return {name: float(round(n * each)) for name, each in fraction.items()} | {"other kinds": kinds}


asked = load_profile(*(sys.argv[1:] or ["embedded"]))
for version, profile in {"short": asked, "full": asked.long}.items():
    each = costs(profile) | {"siblings": SIBLINGS, "pages": PAGES}
    total = sum(each.values())
    minutes = round(total / 2 / 0.95 / 60)  # two cores, one in twenty seconds of which waits for the other
    print(json.dumps({"benchmark": "budget", "version": version, **each, "core seconds": total, "minutes": minutes}))
