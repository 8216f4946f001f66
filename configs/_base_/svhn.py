# SVHN's own classes, mean and standard deviation, merged into `model` of a CIFAR-10 config.
svhn = dict(
    data_preprocessor=dict(num_classes=10, mean=[111.588, 113.1435, 120.564], std=[50.49, 51.255, 50.235], to_rgb=True),
    head=dict(num_classes=10),
)
