# CIFAR-100: like CIFAR-10, with its own classes, mean and standard deviation.
_base_ = ["./cifar_32.py", "./cifar100.py"]

model = {{_base_.cifar100}}
