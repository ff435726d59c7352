"""Real models for the tests and the races: seeded, with measured batch_norm statistics, scripted and traced.

    from zoo import archives, models
    path = archives.archive("resnet50", "scripted")      # a TorchScript archive, built once per session
    inputs = models.MODELS["resnet50"].inputs()
"""
