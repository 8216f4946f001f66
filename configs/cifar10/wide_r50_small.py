# r50_small.py with channels scaled by 5/4: 8.1 MMAC, about what its twin sa_r50_small.py costs.
# No paper has it; not measured here.
_base_ = "./r50_small.py"

model = dict(backbone=dict(base_channels=5), head=dict(in_channels=160))
