# A small MSDNet with four exits for CIFAR-10 on a CPU, 2.7 to 8.6 MMAC: compare with resnext29_small.py, of 9.8. Not
# from a paper (the paper's CIFAR settings are in cifar100/). Measured here after one pass over 25,000 pictures, 3
# seeds: 45.8 ± 1.6 % top-1 accuracy.
_base_ = "../_base_/cifar10_small.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.MSDNet",
        arch=dict(
            blocks=(2, 1, 2, 2), stem=8, growth=4, factors=(1, 2, 4), bottlenecks=(1, 2, 4), large_pictures=False
        ),
        output="exits",
    ),
    neck=None,
    head=dict(
        _delete_=True,
        type="mmms_plugin.MultiExitHead",
        num_classes=10,
        in_channels=[64, 80, 64, 48],
        channels=32,
    ),
)
