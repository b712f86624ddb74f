"""The static form of a UVDoc checkpoint, as Paddle releases it; run in the environment that has paddle.

`python tests/layout/static_uvdoc.py FOLDER TARGET`: the weights as PaddleX loads them, one graph from picture to picture.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"


def export(folder: Path, target: Path) -> None:
    import paddle
    from paddle.nn import functional as F
    from paddlex.inference.models.image_unwarping.modeling.uvdoc import UVDocNet

    network = UVDocNet.from_pretrained(str(folder), convert_from_hf=True)
    network.eval()

    class Whole(paddle.nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = network.backbone, network.head

        def forward(self, page: Any) -> Any:
            small = F.interpolate(page, size=network.upsample_size, mode="bilinear", align_corners=True)
            mesh = self.head(paddle.concat(self.backbone(small), axis=1))
            places = F.interpolate(mesh, size=paddle.shape(page)[2:], mode="bilinear", align_corners=True)
            return F.grid_sample(page, places.transpose([0, 2, 3, 1]), align_corners=True)

    spec = paddle.static.InputSpec([None, 3, None, None], "float32", "x")
    paddle.jit.save(paddle.jit.to_static(Whole(), input_spec=[spec], full_graph=True), str(target / "inference"))
    (target / "inference.yml").write_text("Global:\n  model_name: UVDoc\n")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
