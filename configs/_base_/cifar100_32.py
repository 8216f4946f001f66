# CIFAR-100: as CIFAR-10, with its own classes, mean and deviation.
_base_ = ["./cifar_32.py", "./cifar100.py"]

model = {{_base_.cifar100}}
