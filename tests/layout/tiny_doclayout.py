"""Makes a small PP-DocLayoutV2 or V3 with random weights, in the folder form that the hub has.

Run by tests in the environment that has torch: `python tests/layout/tiny_doclayout.py v3 FOLDER`. Fresh weights of
transformers are so small that every box is the same point (for V2 the gains of batch norms too: what a picture holds is gone
after a few layers, hundreds of queries tie to the last bit, and each framework breaks ties in its own way), so all are drawn
again, scaled by their inputs.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

LABELS = (
    "abstract", "algorithm", "aside_text", "chart", "content", "display_formula", "doc_title", "figure_title", "footer",
    "footer_image", "footnote", "formula_number", "header", "header_image", "image", "inline_formula", "number",
    "paragraph_title", "reference", "reference_content", "seal", "table", "text", "vertical_text", "vision_footnote",
)  # fmt: skip


def build(kind: str, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(7)
    name = f"PPDocLayout{kind.upper()}"
    config = getattr(transformers, f"{name}Config")(**_sizes(kind))
    model = getattr(transformers, f"{name}ForObjectDetection")(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in key.rsplit(".", 2)[-2]:
                weight.normal_(0, 1.4 / math.sqrt(weight[0].numel()))
            elif key.endswith("bias"):
                weight.normal_(0, 0.3)
            elif weight.dim() == 1:
                weight.uniform_(0.7, 1.3)
    model.save_pretrained(folder)
    processor: dict[str, Any] = {
        "image_processor_type": f"{name}ImageProcessor", "image_mean": [0, 0, 0], "image_std": [1, 1, 1], "resample": 3,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
        "size": {"height": 800, "width": 800},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "inference.yml").write_text(_inference_yml(f"PP-DocLayout{kind.upper()}"))


def _sizes(kind: str) -> dict[str, Any]:
    first = 0 if kind == "v3" else 1
    stages = [0, 1, 2, 3][first:]
    backbone = {
        "model_type": "hgnet_v2", "arch": "L", "return_idx": stages, "out_features": [f"stage{i + 1}" for i in stages],
        "freeze_stem_only": True, "freeze_at": 0, "freeze_norm": True, "lr_mult_list": [0, 0.05, 0.05, 0.05, 0.05],
        "hidden_sizes": [32, 64, 128, 256], "stem_channels": [3, 8, 12], "embedding_size": 8,
        "stage_in_channels": [12, 32, 64, 128], "stage_mid_channels": [8, 12, 24, 48],
        "stage_out_channels": [32, 64, 128, 256], "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [1, 1, 1, 1],
    }  # fmt: skip
    sizes: dict[str, Any] = {
        "backbone_config": backbone, "num_labels": len(LABELS), "encoder_in_channels": [64, 128, 256], "d_model": 64,
        "encoder_hidden_dim": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_layers": 2,
        "decoder_in_channels": [64, 64, 64], "num_queries": 60, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)},
    }  # fmt: skip
    if kind == "v3":
        return sizes | {"mask_feature_channels": [16, 16], "x4_feat_dim": 32}
    order = {
        "hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
        "coordinate_size": 8, "shape_size": 8, "num_classes": 20,
    }  # fmt: skip
    few = [min(number, 19) for number in range(len(LABELS))]
    return sizes | {"reading_order_config": order, "class_thresholds": [0.5] * len(LABELS), "class_order": few}


def _inference_yml(name: str) -> str:
    labels = "\n".join(f"- {label}" for label in LABELS)
    return f"""Global:
  model_name: {name}
mode: paddle
draw_threshold: 0.5
Preprocess:
- interp: 2
  keep_ratio: false
  target_size: [800, 800]
  type: Resize
- mean: [0.0, 0.0, 0.0]
  std: [1.0, 1.0, 1.0]
  norm_type: none
  type: NormalizeImage
- type: Permute
label_list:
{labels}
"""


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
