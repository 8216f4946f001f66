# A small ResNeXt-29 for CIFAR-10 on a CPU: the plain twin of ps_resnext29_small.py and elastic_resnext29_small.py. Not
# from a paper. Measured here after one pass over 25,000 pictures, 3 seeds: 41.9 ± 1.7 % top-1 accuracy.
_base_ = "../_base_/cifar10_small.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.PSResNet",
        depth=29,
        groups=2,
        base_width=32,
        base_channels=8,
        stem_channels=16,
        dilation_pattern=(1, 1, 1, 1),
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        small_stem=True,
        out_indices=(2,),
    ),
    head=dict(in_channels=128),
)
