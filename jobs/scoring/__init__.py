"""How good a reading is: text, tables and the olmOCR-bench tests, held against a corpus's ground truth."""
