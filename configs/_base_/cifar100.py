# What CIFAR-100 has of its own: classes, mean and deviation. For `model`, over a config of CIFAR-10.
cifar100 = dict(
    data_preprocessor=dict(
        num_classes=100, mean=[129.3105, 124.1085, 112.404], std=[68.2125, 65.4075, 70.4055], to_rgb=True
    ),
    head=dict(num_classes=100),
)
