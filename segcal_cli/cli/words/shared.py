"""Options that every command that reads, runs or writes shares."""

from __future__ import annotations

from segcal_cli.cli.words.spelling import LABELS, OUTPUT, READING, RUNNING, Words, plain
from segcal_cli.workflows import requests

SHARD = plain(
    "--shard",
    "Read every N-th patient only, from the I-th, and write a part to -o; segcal merge joins the parts of all N shards "
    "to what one run would write.",
    RUNNING,
    "I/N",
)

WORDS: dict[type, dict[str, Words]] = {
    requests.PredictionOptions: {
        "cases": plain(
            "--cases",
            "CSV with the columns case,prediction,label[,group][,roi]; replaces folder pairing. "
            "Paths are relative to the CSV.",
            READING,
            "CSV",
        ),
        "values": plain(
            "--values", "What the volumes hold. Needed unless the format says it (.npz keys); never guessed.", READING
        ),
        "activation": plain(
            "--activation",
            "softmax: classes exclude each other; sigmoid: independent regions. "
            "Taken from dataset.json if there is one.",
            READING,
        ),
        "classes": plain(
            "--classes",
            "Class names and label values: an nnU-Net dataset.json, or "
            '{"background": 0, "tumour": [1, 3]}. Default: the dataset.json of PREDICTIONS.',
            READING,
            "FILE",
        ),
        "channel_axis": plain("--channel-axis", "For arrays whose format does not fix it.", READING),
        "groups": plain(
            "--groups",
            "The patient (or site) of each case: a CSV with the columns case,group, or a regular "
            "expression (its first group) on the case id.",
            READING,
            "CSV|REGEX",
        ),
        "pattern": plain(
            "--pattern",
            "How prediction files are named, e.g. '{case}/{case}_soft.nii.gz'; {class} and {sample} for one file each.",
            READING,
            "PATTERN",
        ),
        "reader": plain(
            "--reader", "nnU-Net reader class that wrote the .npz, where plans.json does not say.", READING, "NAME"
        ),
        "prove": Words(
            (" /--no-prove",),
            "Do not check that each prediction reproduces the segmentation beside it.",
            READING,
            show_default=False,
        ),
        "reduce": plain("--reduce", "How several samples of one case become one prediction.", READING),
        "member": plain(
            "--member",
            "Another folder that holds the same cases: a fold, a seed, a dropout sample. Joined with PREDICTIONS as "
            "--reduce says. Repeatable.",
            READING,
            "FOLDER",
        ),
        "geometry": plain("--geometry", "Images or segmentations that place bare arrays in space.", READING, "FOLDER"),
        "calibrator": plain(
            "--calibrator", "A calibrate artifact, applied on the fly to every prediction read.", READING, "ARTIFACT"
        ),
    },
    requests.CompanionOptions: {
        "features": plain(
            "--features",
            "Method fine-tune: CASE.npz with what the network's last layer was given: features (F, z, y, x); to fit, "
            "(n, F) with index and shape will do.",
            READING,
            "FOLDER",
        ),
        "images": plain(
            "--images",
            "Method local: the scans, named as the cases, which the network then sees too.",
            READING,
            "FOLDER",
        ),
    },
    requests.LabelOptions: {
        "label_pattern": plain(
            "--label-pattern",
            "How label files are named, e.g. '{case}/{class}.nii.gz' for one mask per class.",
            LABELS,
            "PATTERN",
        ),
        "roi": plain(
            "--roi", "Masks of the voxels that count (non-zero = keep), named as the cases.", LABELS, "FOLDER"
        ),
        "ignore_label": plain("--ignore-label", "Label value whose voxels are left out.", LABELS, "N"),
        "mask_value": plain("--mask-value", "Value that means foreground in PNG masks.", LABELS, "N"),
    },
    requests.RunOptions: {
        "jobs": Words(("--jobs", "-j"), "Worker processes; 0 = all usable cores.", RUNNING, "N"),
        "on_failure": plain(
            "--on-failure",
            "What a failing case does. Default: stop for fit and evaluate (nothing is "
            "written), continue for apply and convert.",
            RUNNING,
        ),
        "allow_partial": Words(
            ("--allow-partial",), "Leave with 0, not 8, where cases failed and the rest is done.", RUNNING
        ),
        "engine": plain("--engine", "local: processes on this machine; dask: workers of a Dask cluster.", RUNNING),
        "scheduler": plain(
            "--scheduler",
            "Address of a running Dask scheduler (tcp://HOST:PORT). Without it --engine dask starts --jobs workers on "
            "this machine.",
            RUNNING,
            "ADDRESS",
        ),
    },
    requests.ShardOptions: {"shard": SHARD},
    requests.RoundOptions: {
        "shard": SHARD,
        "resume": plain(
            "--resume",
            "Go on from the state that segcal merge wrote: the next round of a method that reads the cases more than "
            "once.",
            RUNNING,
            "STATE",
        ),
    },
    requests.DeviceOptions: {
        "device": plain(
            "--device", "Where the heavy array work runs. auto: a CUDA GPU where there is one, else the CPU.", RUNNING
        ),
    },
    requests.OutputOptions: {
        "overwrite": Words(("--overwrite",), "Replace outputs that exist.", OUTPUT),
    },
    requests.FolderOptions: {
        "overwrite": Words(("--overwrite",), "Do every case again and replace outputs that exist.", OUTPUT),
        "skip_existing": Words(
            ("--skip-existing",),
            "Do only cases whose inputs, artifact, options or segcal changed since the recorded run, by digest.",
            OUTPUT,
        ),
        "verify": Words(("--verify",), "Hash every input again, whatever size and times say.", OUTPUT),
        "min_age": plain(
            "--min-age",
            "Leave files alone that changed less than so many seconds ago: still arriving.",
            OUTPUT,
            "SECONDS",
        ),
        "if_locked": plain(
            "--if-locked", "If another run works on the output: fail (exit 4), skip (exit 0), or wait.", OUTPUT
        ),
    },
}
