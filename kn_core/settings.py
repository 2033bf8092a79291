"""What a profile sets: its groups of settings, checked one by one before anything is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Quantile = Annotated[float, Field(gt=0, lt=1)]
Intervention = Literal["noise", "zero", "mean", "patch", "weights"]
Positions = Literal["image", "text", "all"]
Rival = Literal["stage-1", "stage-2", "schwettmann", "pan-released", "pan-gated", "dai"]
Control = Literal["random", "uniform", "same-activation", "same-norm", "stage-1-layers"]
Editor = Literal["driven", "swap", "ridge", "unembedding", "dai", "fine"]
Between = Literal["none", "mean", "largest"]
FromNull = Literal["decoy", "sign-flips", "bh", "local-fdr", "stability"]
Beside = Literal["quantile", "largest", "total", "elbow", "raw-low", "raw-high"]
Constraint = Literal["unsquashed", "area", "one_region", "one_instance", "named", "captions_whole", "not_named_after"]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: object, field: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError("true and false are neither numbers nor names")
        if isinstance(value, list | tuple) and any(value.count(each) > 1 for each in value):
            raise ValueError("a list holds everything once")
        return value


class Captioner(Settings):
    """What every caption model has."""

    max_new_tokens: Count = 24
    batch_size: Count = 16


class Files(Settings):
    """Weights that the reader brings: paths, absolute or under `KN_MODELS`, or repositories in the hub's cache."""

    tower: str
    projection: str
    decoder: str


class Model(Captioner):
    """The parts of a caption model that is put together here, as MiniGPT-4 is."""

    family: Literal["minigpt4"] = "minigpt4"
    before: str  # the prompt's text before the image tokens
    after: str  # and after them
    tower: Literal["efficientnet-lite0", "dinov2-small", "eva-vit-g"]
    decoder: Literal["smollm2-135m", "llama-2-7b-chat"]
    connector: Literal["linear", "q-former"] = "linear"  # what makes image tokens of the tower's cells
    projection: str  # its weights: a file in kn_core/weights/projections, without its suffix; of released ones a label
    cells_per_token: Count = 1
    files: Files | None = None  # of the parts that no package carries
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda", "auto", "spread"] = "cpu"  # 'auto': an accelerator, if any; 'spread': over all

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if len({self.tower == "eva-vit-g", self.decoder == "llama-2-7b-chat", self.files is not None}) > 1:
            raise ValueError(
                "files: the tower 'eva-vit-g' and the decoder 'llama-2-7b-chat' go together and need files; packaged "
                f"parts have none. Got {self.tower}, {self.decoder} and {'files' if self.files else 'no files'}"
            )
        if self.connector == "q-former" and self.cells_per_token != 1:
            raise ValueError(f"cells_per_token: a Q-Former looks at single cells, 1. Got {self.cells_per_token}")
        return self


class Checkpoint(Captioner):
    """A vision-language model as transformers saves it; which adapter reads it follows from its config's model_type.

    `before` and `after`, the prompt's texts around the image tokens, are the chat template's where they are not given.
    BLIP-2 and InstructBLIP have no template: there they are '' and `prompt`.
    """

    family: Literal["transformers"]
    checkpoint: str  # a local folder, or the name on the hub of one that is in the hub's cache
    before: str | None = None
    after: str | None = None
    prompt: str = "Provide a one-sentence caption for the provided image."  # what the chat template asks
    pixels: Count | None = None  # a side of the square that pictures are made, for families that read several sizes
    views: Literal["base", "all"] = "base"  # of families that read a picture small and whole, and large in tiles
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    bits: Literal["all", "8-bit", "4-bit"] = "all"  # of the decoder's weights, packed when they are loaded
    device: Literal["auto", "cpu", "cuda", "spread"] = "auto"  # 'auto': an accelerator, if any; 'spread': over all


class Data(Settings):
    """Where the pictures come from. Neurons are chosen on `select` pairs of a concept, tried on `held_out` others."""

    source: Literal["scenes", "coco"]
    seed: Annotated[int, Field(ge=2)] = 2  # 0 and 1 are the projection's training and validation scenes
    pool: Count = 40  # pictures of a concept that are looked at until enough pairs pass the filters
    select: Count = 10
    held_out: Annotated[int, Field(ge=0)] = 6


class Diffusion(Settings):
    """A diffusion pipeline that inpaints (`diffusion`), and how it is run; of use where the method is 'diffusion'."""

    pipeline: str = "stabilityai/stable-diffusion-2-inpainting"  # a local folder, or a name that the hub's cache holds
    resolution: Annotated[int, Field(ge=8, multiple_of=8)] = 512  # pixels that the longer side is painted at
    blend: Annotated[int, Field(ge=0)] = 4  # pixels from the hole's edge over which the painting fades in
    prompt: str = ""  # the background, whatever it is
    negative_prompt: str = ""
    steps: Count = 50
    guidance: Annotated[float, Field(ge=1)] = 1.0  # 1: none, at half the cost; of use with a prompt alone
    seed: Annotated[int, Field(ge=0)] = 0  # with a picture's id, that picture's noise
    batch: Count = 4  # pictures at once
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"  # float16 on an accelerator, else float32
    device: str = "auto"  # as torch names it, such as cuda:1; an accelerator where there is one, else the processor


class Inpainting(Settings):
    method: Literal["exact", "telea", "navier-stokes", "diffusion"]
    dilation: Annotated[int, Field(ge=0, le=1024)] = 0  # pixels; no picture is larger
    diffusion: Diffusion = Diffusion()


class Filtering(Settings):
    """The constraints a pair must pass (`filtering.MEANING`); `named` and `not_named_after` are the paper's."""

    constraints: tuple[Constraint, ...]
    area: tuple[Share, Share] = (0.05, 0.6)


class Threshold(Settings):
    """A concept's threshold: set by hand in `by_hand`, else the `quantile` of the score over all neurons."""

    quantile: Share
    by_hand: dict[str, float] = {}


class Identification(Settings):
    """Stage 1, stage 2 and selection; the choices that the paper leaves open."""

    site: Literal["activation", "product"] = "activation"
    over_positions: Literal["any", "same", "mean", "mask"] = "any"
    pooling: Literal["mean", "max", "min"] = "mean"
    threshold_a: Threshold
    threshold_g: Threshold
    thresholds: Literal["set", "auto"] = "set"  # auto: of stage 1, from decoys (`thresholds.automatic`)
    rank_by: Literal["gradcam", "delta"] = "gradcam"
    budget: Count = 80
    inert: bool = False  # whether rankings and draws hold the last layer's neurons, which cannot act at image tokens
    dai_images: Count = 1  # selection pictures a concept for integrated gradients, where that rival is run

    @model_validator(mode="after")
    def _consistent(self) -> Identification:
        if self.thresholds == "auto" and (self.pooling != "mean" or self.threshold_a.by_hand):
            raise ValueError("thresholds: 'auto' is of the mean over pictures, and takes no threshold_a by hand")
        return self


class Perturbation(Settings):
    """What is done to neurons, to rivals' and controls'; what a profile does without, pages say is not run."""

    intervention: Intervention = "noise"
    positions: Positions = "image"
    sigma: Positive = 3.0  # in units of activation
    weight_sigma: Positive = 1.0  # of noise on output weights, over the column's root mean square
    patch_site: Literal["activation", "product"] = "product"  # where 'patch' puts in what is said without the object
    seeds: Count = 3  # draws of the noise; two-stage neurons and the same-layer control
    rival_seeds: Count = 1  # of these, for rivals
    rivals: tuple[Rival, ...] = ("stage-1", "stage-2")
    controls: tuple[Control, ...] = ("random", "uniform", "stage-1-layers")
    draws: Count = 3  # of each control, in the main setting
    choosing: Annotated[int, Field(ge=0)] = 2  # selection pictures a concept on which each method's dose is chosen
    sweep_rivals: bool = False  # whether rivals get all sweeps, and these and random ones other concepts' pictures
    sweep_pictures: Count | None = None  # held-out pictures a concept that sweeps are tried on; None: all
    sweep_n: tuple[Count, ...] = ()
    sweep_sigma: tuple[Positive, ...] = ()
    sweep_sets: tuple[Literal["two-stage"] | Rival, ...] = ()  # whose sigma is swept, beside random ones; (): all
    sweep_interventions: tuple[Intervention, ...] = ()
    sweep_positions: tuple[Positions, ...] = ()
    text_sigma: tuple[Positive, ...] = ()  # at text tokens, for rivals that score there
    directions: bool = True  # whether noise has random directions of the same length as a control
    removal: bool = True  # whether the object's removal itself is tried, as what no set of neurons can surpass
    others_per_concept: Annotated[int, Field(ge=0)] = 1  # pictures of each other concept that are captioned too

    @model_validator(mode="after")
    def _consistent(self) -> Perturbation:
        at_image = {"mean", "patch"}
        if self.positions != "image" and (stray := at_image & {self.intervention, *self.sweep_interventions}):
            raise ValueError(f"positions: {' and '.join(sorted(stray))} are defined at positions 'image' only")
        if self.intervention in at_image and self.sweep_positions:
            raise ValueError(f"sweep_positions: '{self.intervention}' is defined at positions 'image' only")
        if self.intervention != "noise" and (self.sweep_sigma or self.text_sigma):
            raise ValueError("sweep_sigma, text_sigma: only the intervention 'noise' has a sigma")
        if self.intervention == "weights":
            raise ValueError("intervention: 'weights' can be swept, but is no main setting; 'noise' is the paper's")
        if "random" not in self.controls:
            raise ValueError("controls: 'random', the same-layer control, must be among them")
        if not self.rival_seeds <= self.seeds <= self.draws:
            found = f"{self.rival_seeds}, {self.seeds}, {self.draws}"
            raise ValueError(f"rival_seeds, seeds, draws: each at most the next one. Got {found}")
        return self


class Ceiling(Settings):
    """How much passes through neurons at all: what is patched, on how many held-out pictures a concept."""

    pictures: Annotated[int, Field(ge=0)] = 2  # that are captioned with whole layers patched; 0: there is no ceiling
    window: Annotated[int, Field(ge=0)] = 0  # layers patched together; 0: a third of them
    bound_layers: Count = 3  # of the residual stream, among which the bounds without neurons choose
    curve_pictures: Count = 2
    shares: tuple[Quantile, ...] = (0.01, 0.1)  # of the neurons that can act: the sizes on a curve
    rankings: tuple[str, ...] = ("two-stage", "atp", "mask")  # that have a curve, as far as there are scores; (): all
    uniform: Count = 2  # random orders of all neurons
    matched: Count = 16  # random sets of the two-stage neurons' size and layers; below 6 no test of them can tell
    mask_pictures: Count = 1  # selection pictures that the mask is learnt on
    mask_steps: Count = 4
    guarded: Annotated[int, Field(ge=0)] = 5  # of the best neurons, looked at one by one for a collapse of language


class Faithfulness(Settings):
    """Which neurons are switched off one at a time, to hold every method's score against the true effect."""

    per_method: Count = 6  # best neurons of every method
    random: Count = 40  # others, drawn alike from every layer
    pictures: Count = 1  # held-out pictures a concept
    prompts: tuple[str, ...] = ()  # other texts after the image tokens, under which neurons are chosen anew


class Ownership(Settings):
    """Whose a concept's neurons are: its set in parts, and the recipe on another word of its captions."""

    pictures: Count = 2  # held-out pictures a concept under noise on each part
    crossed: Count = 3  # held-out pictures a concept under noise on every concept's set
    words: Count = 3  # selection pictures a concept that are scored for another word


class Sensitivity(Settings):
    """Grids of both thresholds: by quantile of the pooled scores, and in their own units as the paper gives them."""

    pictures: Count = 2  # held-out pictures a concept
    quantiles_a: tuple[Quantile, ...] = (0.8, 0.95, 0.99)
    quantiles_g: tuple[Quantile, ...] = (0.8, 0.95, 0.99)
    raw_a: tuple[Positive, ...] = (0.8, 2.5)
    raw_g: tuple[Positive, ...] = (1e-4, 2e-3)

    @model_validator(mode="after")
    def _rising(self) -> Sensitivity:
        for name, steps in self:
            if name != "pictures" and (len(steps) < 2 or list(steps) != sorted(set(steps))):
                raise ValueError(f"{name}: two steps or more, each above the one before. Got {steps}")
        return self


class Rules(Settings):
    """Rules for stage 1's threshold, those from a null (`method.thresholds`) and those beside them."""

    false_share: Quantile = 0.1  # that the decoy rule, sign flips and Benjamini and Hochberg allow
    flips: Count = 200  # of the pictures' signs
    halves: Count = 50  # random pairs of halves of the pictures
    best: Count = 400  # neurons that a half chooses
    stable: Annotated[float, Field(gt=0.5, le=1)] = 0.75  # share of halves in which a neuron must be chosen
    of_largest: Quantile = 0.2
    of_total: Quantile = 0.5
    raw: tuple[Positive, Positive] = (0.8, 2.5)  # the ends of the paper's thresholds
    tried: tuple[FromNull | Beside, ...] = ("decoy", "sign-flips")  # noise on what they leave
    pictures: Count = 3  # held-out pictures a concept
    kinds: tuple[str, ...] = ()  # concepts of which nothing else is studied, for rules alone


class Choices(Settings):
    """What each choice of a recipe is worth (`recipes`), and the third stage, chosen on selection pictures."""

    pictures: Count = 2  # held-out pictures a concept for each step away from the paper's recipe, and its controls
    held_out: Count | None = None  # for the third stage itself; None: all
    scored: Count | None = None  # selection pictures a concept that neurons are attributed on; None: all
    every_step: bool = False  # under the main intervention too, and beside random neurons; else the first and the last
    choosing: Count = 2  # selection pictures a concept on which contrasts are chosen
    within: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.5, 1.0)  # lambda
    between: tuple[Between, ...] = ("none", "mean", "largest")
    places: tuple[Annotated[float, Field(ge=0)], ...] = (0.0,)  # mu
    interventions: tuple[Literal["zero", "patch"], ...] = ("zero", "patch")
    budgets: tuple[Count, ...] = (20, 40, 160)  # beside the profile's own
    others_per_concept: Annotated[int, Field(ge=0)] = 1  # held-out pictures of each other concept
    paths: Count = 1  # selection pictures a concept for scores that cost several passes, and for exact patches
    patched: Count = 32  # neurons that are patched exactly, one at a time


class Dask(Settings):
    """Who computes concepts side by side (`cluster`). It decides no number, so no fingerprint knows of it."""

    cluster: Annotated[str, Field(min_length=1)] = "local"  # or a scheduler's address, or the file that it wrote it to
    workers: Count = 2  # processes of a local cluster, each with the model in memory
