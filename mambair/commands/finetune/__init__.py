"""`mambair finetune`: from a folder of clean photos and a network to a better one for photos like these."""
