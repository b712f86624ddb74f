"""Results in the form that the official PaddleOCR-VL pipeline gives them, beside our own."""
