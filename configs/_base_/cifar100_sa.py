# Shape Adaptor on CIFAR-100: like on CIFAR-10, with its own classes, mean and standard deviation.
_base_ = ["./cifar_sa.py", "./cifar100.py"]

model = {{_base_.cifar100}}
