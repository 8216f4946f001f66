# Shape Adaptor on CIFAR-100: as on CIFAR-10, with its own mean and deviation.
_base_ = "./cifar_sa.py"

model = dict(
    data_preprocessor=dict(
        num_classes=100, mean=[129.3105, 124.1085, 112.404], std=[68.2125, 65.4075, 70.4055], to_rgb=True
    ),
    head=dict(num_classes=100),
)
