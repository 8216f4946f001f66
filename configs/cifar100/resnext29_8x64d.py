# ResNeXt-29 8x64d on CIFAR-100: 300 epochs, steps at 150 and 225, batch 128, weight decay 5e-4.
# The plain twin of ps_resnext29_8x64d.py. The PSConv paper's Table 6: top-1 error 18.074 +- 0.130. Not measured here.
_base_ = "../_base_/cifar100_32.py"

model = dict(
    backbone=dict(
        type="mmms_plugin.PSResNet",
        depth=29,
        groups=8,
        base_width=64,
        dilation_pattern=(1, 1, 1, 1),
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        small_stem=True,
        out_indices=(2,),
    ),
    head=dict(in_channels=1024),
)
