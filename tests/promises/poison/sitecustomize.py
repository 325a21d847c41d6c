import builtins

builtins.poisoned = "sitecustomize"
