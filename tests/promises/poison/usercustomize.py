import builtins

builtins.poisoned = "usercustomize"
