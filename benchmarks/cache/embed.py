"""Texts in, features in the store out: how fast, against other engines in the same run, and how exact.

    python benchmarks/cache/embed.py --device cpu   --clinc CLINC_FOLDER --json embed-cpu.json
    python benchmarks/cache/embed.py --device cuda  --clinc CLINC_FOLDER --checkpoint FOLDER --texts icd10cm.txt.gz
    python benchmarks/cache/embed.py --devices all  --checkpoint FOLDER --texts icd10cm.txt.gz --json embed-devices.json
    python benchmarks/cache/embed.py --devices cpu:2 --texts icd10cm.txt.gz --every 50 --instructions 1

On the CPU the backbone is MiniLM with its real weights; `embed_cpu.py` says against what, and which packages that
takes. On the GPU it is a checkpoint folder of Qwen3-0.6B's shape, such as `scripts/make_qwen3_checkpoint.py --size
full` writes. `--texts` adds a corpus of one text a line. The share of peak counts 2 x non-embedding parameters x nodes,
plus attention over the keys that a node may see, and nothing else; the peak is a matrix product of the same run.

With `--devices` the corpus of `--texts`, once for each of `--instructions` instructions before every text, is embedded
by 1, 2, 4, ... of the devices named (`cuda:0,cuda:0`: by one and by two processes on one GPU). Start-up, until the
first batch is computed by anyone, stands apart; a rate is of what comes after it, the last shard's writing included.
Every row's features are compared with those of one device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.cache.embed_devices import on_devices
from benchmarks.cache.embed_gpu import PARTS, on_gpu
from benchmarks.measured import Results, machine


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--devices", help="scale over these, as `pipeline embed --devices` names them")
    parser.add_argument("--clinc", type=Path, help="folder that holds data_full.json")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder of Qwen3's architecture (GPU)")
    parser.add_argument("--texts", type=Path, help="gzipped file of one text a line (GPU; the corpus of --devices)")
    parser.add_argument("--every", type=int, default=1, help="take every n-th text (CPU, --devices)")
    parser.add_argument("--instructions", type=int, default=48, help="how often the corpus is repeated (--devices)")
    parser.add_argument("--warm", action="store_true", help="compile beforehand (--devices)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (GPU)")
    parser.add_argument("--million", type=int, default=1_000_000, help="texts of the memory part (GPU)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = "texts" if options.devices else "clinc"
    if getattr(options, wanted) is None:
        parser.error(f"--{wanted} is needed")
    device = (options.devices or options.device).partition(":")[0]
    results = Results(machine("cuda" if device == "all" and torch.cuda.is_available() else device), options.json)
    if options.device == "cpu" and not options.devices:
        from benchmarks.cache.embed_cpu import on_cpu  # brings engines that nothing else needs

        on_cpu(options, results)
    else:
        (on_devices if options.devices else on_gpu)(options, results)


if __name__ == "__main__":
    main()
