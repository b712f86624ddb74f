"""Makes a small UVDoc with random weights, in the folder form that the hub has.

Run in the environment that has torch: `python tests/layout/tiny_uvdoc.py FOLDER`. The last layer is scaled so that the mesh
covers the page, and what it samples differs from place to place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def build(folder: Path) -> None:
    import torch
    from transformers import UVDocConfig, UVDocModel

    torch.manual_seed(3)
    backbone = {
        "model_type": "uvdoc_backbone", "resnet_head": [[3, 8], [8, 8]], "kernel_size": 5,
        "resnet_configs": [[[8, 8, 1, False], [8, 8, 3, False]], [[8, 16, 1, True], [16, 16, 3, False]]],
        "stage_configs": [[[16, 1]], [[16, 2], [16, 3]]], "out_features": ["stage1", "stage2"],
    }  # fmt: skip
    config = UVDocConfig(backbone_config=backbone, bridge_connector=[16, 16], out_point_positions2D=[[16, 8], [8, 2]])
    model = UVDocModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.2 / weight[0].numel() ** 0.5)
            elif weight.numel() > 1:
                weight.uniform_(0.2, 0.6)
        last = model.head.out_point_positions2D.conv_up
        mesh = model(pixel_values=torch.rand(1, 3, 712, 488)).last_hidden_state
        last.weight.mul_((0.4 / mesh.std(dim=(0, 2, 3))).view(2, 1, 1, 1))
        last.bias.copy_((last.bias - mesh.mean(dim=(0, 2, 3))) * 0.4 / mesh.std(dim=(0, 2, 3)))
    model.save_pretrained(folder)
    processor = {"image_processor_type": "UVDocImageProcessor", "size": {"height": 712, "width": 488}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "inference.yml").write_text("Global:\n  model_name: UVDoc\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
