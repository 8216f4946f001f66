# CIFAR-100's own classes, mean and standard deviation, merged into `model` of a CIFAR-10 config.
cifar100 = dict(
    data_preprocessor=dict(
        num_classes=100, mean=[129.3105, 124.1085, 112.404], std=[68.2125, 65.4075, 70.4055], to_rgb=True
    ),
    head=dict(num_classes=100),
)
