"""Training of PaddleOCR-VL: what `pagemill finetune` calls. Needs the extra `train`; nothing that reads documents imports it."""
