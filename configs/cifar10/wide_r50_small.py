# r50_small.py with channels scaled by 5/4: 8.1 MMAC, about what its twin sa_r50_small.py costs. Not from a paper.
# Measured here after 400 iterations of 32 pictures, 3 seeds: 31.7 ± 2.0 % top-1 accuracy.
_base_ = "./r50_small.py"

model = dict(backbone=dict(base_channels=5), head=dict(in_channels=160))
